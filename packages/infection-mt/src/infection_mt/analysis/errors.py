"""Where a model errs: by time, class, field of view and stack; the worst frames; calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.prediction_table import Predictions
from infection_mt.sample_keys import file_name, well_and_position
from medshared.metrics.classification import CalibrationTable, calibration_table
from medshared.metrics.regression import pearson, r_squared
from medshared.metrics.statistics import DifferenceTest, two_sample_t_test

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
CLASSES = (("All", None), ("Uninfected", 0), ("Infected", 1))
CALIBRATION_CLIP = 1e-6


def absolute_errors(predictions: Predictions) -> Floats:
    """Return the absolute time errors in hours, shape ``[N]``."""
    return np.abs(predictions.time - predictions.time_target)


def decision_confidence(predictions: Predictions, threshold: float = 0.5) -> Floats:
    """Return the probability of the class that was decided for, shape ``[N]``."""
    p = predictions.probability
    return np.where(p >= threshold, p, 1.0 - p)


def error_summary(error: ArrayLike) -> dict[str, float]:
    """Summarise signed time errors.

    Args:
        error: Predicted − true hours, shape ``[N]``.

    Returns:
        ``n``, ``mae``, ``rmse``, ``mse``, ``median_ae``, ``std`` (population, of the absolute error),
        ``bias``.

    Example:
        >>> error_summary([1.0, -3.0])["mae"]
        2.0
    """
    e = np.asarray(error, dtype=np.float64)
    if e.size == 0:
        return {"n": 0, **dict.fromkeys(("mae", "rmse", "mse", "median_ae", "std", "bias"), float("nan"))}
    a, mse = np.abs(e), float(np.mean(e**2))
    return {
        "n": int(e.size),
        "mae": float(a.mean()),
        "rmse": float(np.sqrt(mse)),
        "mse": mse,
        "median_ae": float(np.median(a)),
        "std": float(a.std()),
        "bias": float(e.mean()),
    }


def errors_of_classes(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Summarise the time errors of all frames and of each class.

    Args:
        predictions: Outputs and truth.

    Returns:
        ``All``, ``Uninfected``, ``Infected`` → `error_summary`; classes without frames are left out.
    """
    error = predictions.time - predictions.time_target
    chosen = {name: error if value is None else error[predictions.label == value] for name, value in CLASSES}
    return {name: error_summary(errors) for name, errors in chosen.items() if errors.size}


def time_bin_table(
    predictions: Predictions,
    *,
    size_hours: float = 6.0,
    start_hour: float = 0.0,
    end_hour: float = 48.0,
    by: Literal["hours", "time_target"] = "hours",
) -> list[dict[str, Any]]:
    """Summarise the time errors in half-open bins, for all frames and each class.

    Args:
        predictions: Outputs and truth.
        size_hours: Length of a bin.
        start_hour: Start of the first bin.
        end_hour: End of the last bin.
        by: Bin by the hours since the first frame or by the true time.

    Returns:
        Rows with ``start``, ``end``, ``center``, ``class`` and the names of `error_summary`; empty ones are
        left out.
    """
    error, position = predictions.time - predictions.time_target, getattr(predictions, by)
    rows = []
    for start in np.arange(start_hour, end_hour - 1e-9, size_hours).tolist():
        inside = (position >= start) & (position < start + size_hours)
        for name, value in CLASSES:
            chosen = inside if value is None else inside & (predictions.label == value)
            if chosen.any():
                place = {"start": start, "end": start + size_hours, "center": start + size_hours / 2}
                rows.append({**place, "class": name, **error_summary(error[chosen])})
    return rows


def period_table(
    predictions: Predictions,
    *,
    early: float = 6.0,
    valley: tuple[float, float] = (13.0, 19.0),
    mid: tuple[float, float] | None = None,
) -> dict[str, dict[str, float]]:
    """Summarise the absolute time errors in periods of the true time.

    Args:
        predictions: Outputs and truth.
        early: End of the early period of infected frames.
        valley: First and last hour of the suspected dip, both included.
        mid: Half-open period before the dip; None takes [early, valley).

    Returns:
        ``inf_early`` (< early), ``inf_mid`` [early, valley), ``inf_valley``, ``inf_late`` (> valley),
        ``uninf_early`` (< valley), ``uninf_valley``, ``uninf_late`` → ``n``, ``mean``, ``median``, ``p95``
        (NaN without frames).
    """
    error = absolute_errors(predictions)
    result = {}
    for name, chosen in period_masks(predictions, early, valley, mid).items():
        e = error[chosen]
        result[name] = {
            "n": int(e.size),
            "mean": float(e.mean()) if e.size else float("nan"),
            "median": float(np.median(e)) if e.size else float("nan"),
            "p95": float(np.quantile(e, 0.95)) if e.size else float("nan"),
        }
    return result


def period_masks(
    predictions: Predictions,
    early: float = 6.0,
    valley: tuple[float, float] = (13.0, 19.0),
    mid: tuple[float, float] | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Return which frames lie in each period of the true time; see `period_table`.

    Args:
        predictions: Outputs and truth.
        early: End of the early period of infected frames.
        valley: First and last hour of the suspected dip, both included.
        mid: Half-open period before the dip; None takes [early, valley).

    Returns:
        Name → mask, shape ``[N]``.
    """
    t, infected, (low, high) = predictions.time_target, predictions.label == 1, valley
    first, last = (early, low) if mid is None else mid
    in_valley = (t >= low) & (t <= high)
    return {
        "inf_early": infected & (t < early),
        "inf_mid": infected & (t >= first) & (t < last),
        "inf_valley": infected & in_valley,
        "inf_late": infected & (t > high),
        "uninf_early": ~infected & (t < low),
        "uninf_valley": ~infected & in_valley,
        "uninf_late": ~infected & (t > high),
    }


def faithful_valley_test(
    predictions: Predictions, *, early: float = 6.0, valley: tuple[float, float] = (13.0, 19.0)
) -> DifferenceTest:
    """Student's t test of the errors of infected frames, valley against the period before it.

    Frames of a stack are taken as independent, as in the original, so the p-value is too small.

    Args:
        predictions: Outputs and truth.
        early: Start of the earlier period.
        valley: First and last hour of the suspected dip.

    Returns:
        Difference of the means, t and p.
    """
    error, periods = absolute_errors(predictions), period_masks(predictions, early, valley)
    return two_sample_t_test(error[periods["inf_valley"]], error[periods["inf_mid"]])


def _summarise_group(predictions: Predictions, rows: Rows) -> dict[str, float]:
    """Summarise the frames of one field of view or stack."""
    if rows.size == 0:
        names = ("cls_error_rate", "median_abs_time_error", "mean_abs_time_error")
        names += ("p90_abs_time_error", "p95_abs_time_error", "mean_confidence")
        return {"n": 0, **dict.fromkeys(names, float("nan"))}
    error = absolute_errors(predictions)[rows]
    wrong = (predictions.probability[rows] >= 0.5) != (predictions.label[rows] == 1)
    return {
        "n": int(rows.size),
        "cls_error_rate": float(wrong.mean()),
        "median_abs_time_error": float(np.median(error)),
        "mean_abs_time_error": float(error.mean()),
        "p90_abs_time_error": float(np.quantile(error, 0.90)),
        "p95_abs_time_error": float(np.quantile(error, 0.95)),
        "mean_confidence": float(decision_confidence(predictions)[rows].mean()),
    }


def error_table(
    predictions: Predictions | Sequence[Predictions],
    by: Literal["position", "tiff"] = "position",
    *,
    by_class: bool = False,
    faithful: bool = False,
) -> list[dict[str, Any]]:
    """Summarise the errors of each field of view or stack, worst first.

    Args:
        predictions: Outputs and truth, or those of several folds, whose frames are put together.
        by: ``position`` (a field of view) or ``tiff`` (a stack's file name).
        by_class: Give all, infected and uninfected frames in columns of their own.
        faithful: Merge equal position numbers of different wells, as the original does.

    Returns:
        Rows with ``plate``, ``well``, ``position`` (faithful: ``position`` only) or ``tiff_name``, then
        ``n``, ``cls_error_rate``, ``median_abs_time_error``, ``mean_…``, ``p90_…``, ``p95_…``,
        ``mean_confidence`` and ``score`` = mean error + 2 · error rate, by which they are sorted, then by
        mean error.
    """
    folds = [predictions] if isinstance(predictions, Predictions) else list(predictions)
    groups: dict[tuple[tuple[str, str], ...], list[tuple[int, int]]] = {}
    for number, fold in enumerate(folds):
        for row, metadata in enumerate(fold.metadata):
            groups.setdefault(_group_of(metadata, by, faithful), []).append((number, row))
    table = []
    joined = pool_folds(folds)
    offsets = np.cumsum([0, *(len(fold) for fold in folds)])
    for key, members in groups.items():
        rows = np.array([offsets[number] + row for number, row in members], dtype=np.int64)
        summary = _summarise_group(joined, rows)
        score = summary["mean_abs_time_error"] + 2.0 * summary["cls_error_rate"]
        columns: dict[str, Any] = summary
        if by_class:
            label = joined.label[rows]
            parts = {"all": rows, "infected": rows[label == 1], "uninfected": rows[label == 0]}
            columns = {
                f"{part}_{name}": value
                for part, chosen in parts.items()
                for name, value in _summarise_group(joined, chosen).items()
            }
        table.append((score, summary["mean_abs_time_error"], {**dict(key), **columns, "score": score}))
    table.sort(key=lambda entry: (-entry[0], -entry[1]))
    return [row for _, _, row in table]


def _group_of(metadata: dict[str, Any], by: str, faithful: bool) -> tuple[tuple[str, str], ...]:
    path = str(metadata.get("path", ""))
    if by == "tiff":
        return (("tiff_name", file_name(path)),)
    well, position = well_and_position(path)
    position = str(metadata.get("position") or position or "unknown")
    if faithful:
        return (("position", position),)
    well = str(metadata.get("well") or well or metadata.get("condition") or "unknown")
    return (("plate", str(metadata.get("plate") or "")), ("well", well), ("position", position))


def pool_folds(folds: Sequence[Predictions]) -> Predictions:
    """Put the frames of several folds one after the other; keys get the fold's number to stay unique."""
    if len(folds) == 1:
        return folds[0]

    def together(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(fold, name) for fold in folds])

    return Predictions(
        probability=together("probability"),
        logit=together("logit"),
        time=together("time"),
        time_target=together("time_target"),
        label=together("label"),
        hours=together("hours"),
        stack_index=together("stack_index"),
        keys=[f"{number}:{key}" for number, fold in enumerate(folds) for key in fold.keys],
        metadata=[row for fold in folds for row in fold.metadata],
    )


def largest_time_errors(predictions: Predictions, k: int, *, label: int | None = None) -> Rows:
    """Return the rows with the largest absolute time errors, largest first.

    Args:
        predictions: Outputs and truth.
        k: How many.
        label: Only frames of this class.

    Returns:
        Row numbers, at most k.
    """
    rows = np.arange(len(predictions)) if label is None else np.nonzero(predictions.label == label)[0]
    rows = rows[np.isfinite(absolute_errors(predictions)[rows])]
    return rows[np.argsort(-absolute_errors(predictions)[rows], kind="stable")][:k]


def wrong_decisions(predictions: Predictions, k: int | None = None, *, strict: bool = True) -> Rows:
    """Return the rows that were decided wrongly, most confident first.

    Args:
        predictions: Outputs and truth.
        k: At most so many; None for all.
        strict: Decide by p > 0.5, as the original's montage does, instead of p ≥ 0.5.

    Returns:
        Row numbers.
    """
    p = predictions.probability
    decision = p > 0.5 if strict else p >= 0.5
    rows = np.nonzero((decision != (predictions.label == 1)) & ~np.isnan(p))[0]
    confidence = np.where(decision, p, 1.0 - p)[rows]
    return rows[np.argsort(-confidence, kind="stable")][:k]


def sample_table(predictions: Predictions, rows: Iterable[int]) -> list[dict[str, Any]]:
    """Describe chosen frames with the columns of the original's montage tables.

    Args:
        predictions: Outputs and truth.
        rows: Row numbers, in the order wanted.

    Returns:
        ``index``, ``path``, ``frame_index``, ``hours_since_start``, ``label``, ``cls_prob``, ``cls_pred``,
        ``time_target``, ``time_pred``, and new: ``confidence`` of the decision, ``abs_error``,
        ``sample_key``.
    """
    p = predictions
    confidence, error = decision_confidence(p), absolute_errors(p)
    return [
        {
            "index": int(i),
            "path": p.metadata[i].get("path"),
            "frame_index": p.metadata[i].get("frame_index"),
            "hours_since_start": float(p.hours[i]),
            "label": int(p.label[i]),
            "cls_prob": float(p.probability[i]),
            "cls_pred": int(p.probability[i] > 0.5),
            "time_target": float(p.time_target[i]),
            "time_pred": float(p.time[i]),
            "confidence": float(confidence[i]),
            "abs_error": float(error[i]),
            "sample_key": p.keys[i],
        }
        for i in rows
    ]


def calibration(predictions: Predictions, n_bins: int = 10) -> CalibrationTable:
    """Compare P(infected) with the observed rate in equal bins; probabilities are clipped at 1e-6.

    Args:
        predictions: Outputs and truth.
        n_bins: Number of bins.

    Returns:
        One row per bin that holds frames.
    """
    return calibration_table(predictions.probability, predictions.label, n_bins, clip=CALIBRATION_CLIP)


def linear_fit(estimate: ArrayLike, target: ArrayLike) -> dict[str, float]:
    """Fit a line through predicted against true hours.

    Args:
        estimate: Predicted hours, shape ``[N]``.
        target: True hours, shape ``[N]``.

    Returns:
        ``slope``, ``intercept``, ``r`` (Pearson) and ``r2_score`` (of the estimates themselves); NaN where
        undefined.

    Example:
        >>> linear_fit([1.0, 3.0, 5.0], [0.0, 1.0, 2.0])["slope"]
        2.0
    """
    e, t = np.asarray(estimate, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if t.size < 2 or np.ptp(t) == 0:
        return {
            "slope": float("nan"),
            "intercept": float("nan"),
            "r": float("nan"),
            "r2_score": r_squared(e, t),
        }
    centred = t - t.mean()
    slope = float(np.sum(centred * (e - e.mean())) / np.sum(centred**2))
    return {
        "slope": slope,
        "intercept": float(e.mean() - slope * t.mean()),
        "r": pearson(e, t),
        "r2_score": r_squared(e, t),
    }
