"""Predictions against outcomes with the metrics of the field, intervals by patient, and comparisons of models.

All times are days. Censoring is corrected with the training patients. The bootstrap draws patients; every metric is
a ratio of sums over patients or pairs of patients, so that all resamples come out of a few matrix products.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from advmil.predictions import Predictions
from advmil.resampled_metrics import Floats, Setting, Training, draw_patients, interval, set_up
from medshared.metrics.resampling import Interval
from medshared.metrics.statistics import fold_summary, holm, nadeau_bengio
from medshared.metrics.survival_calibration import d_calibration, km_calibration
from medshared.metrics.survival_curves import brier_contributions, log_rank
from medshared.metrics.survival_data import UndefinedMetricWarning, survival_labels
from medshared.metrics.survival_samples import survival_at_own_time

# Metrics with a better side; coverage and width have none.
LOWER_IS_BETTER = ("ibs", "mae_days", "event_mae_days", "censored_mae_days", "crps_days")
HIGHER_IS_BETTER = ("c_index", "uno_c_index", "auc")


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one set of patients.

    Attributes:
        metrics: Estimate and bootstrap interval by name (`METRICS` says what each is). Metrics that a kind of
            model does not have are left out; undefined ones are NaN.
        tests: ``d_calibration_statistic``, ``d_calibration_p``, ``km_calibration`` (mean squared difference),
            ``log_rank_statistic`` and ``log_rank_p`` (halves of higher and lower risk).
        patients: Patients scored.
        events: Observed events among them.
        grid: Times of the curves in days, shape ``[T]``.
        brier: Brier score at each time; empty without curves.
        km_brier: That of the training patients' Kaplan–Meier curve, the same for everyone.
        histogram: Of D-calibration; empty without a distribution.
    """

    metrics: dict[str, Interval]
    tests: dict[str, float]
    patients: int
    events: int
    grid: Floats
    brier: Floats
    km_brier: Floats
    histogram: Floats

    def table(self) -> pd.DataFrame:
        """Return one row a metric or test: name, value, low, high, meaning."""
        rows: list[dict[str, Any]] = [
            {"metric": k, "value": v.estimate, "low": v.low, "high": v.high, "meaning": METRICS[k]}
            for k, v in self.metrics.items()
        ]
        blank = float("nan")
        rows += [
            {"metric": k, "value": v, "low": blank, "high": blank, "meaning": METRICS[k]}
            for k, v in self.tests.items()
        ]
        return pd.DataFrame(rows)

    def flat(self) -> dict[str, float]:
        """Return numbers by name, for ``results.json``: each metric with ``_low`` and ``_high``, and the tests."""
        found: dict[str, float] = {"patients": self.patients, "events": self.events}
        for name, value in self.metrics.items():
            found |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        return found | self.tests


METRICS = {
    "c_index": "Harrell's concordance index; 0.5 is chance",
    "uno_c_index": "Uno's concordance index, free of the censoring",
    "auc": "time-dependent AUC, averaged over the follow-up",
    "ibs": "integrated Brier score",
    "km_ibs": "integrated Brier score of the training patients' Kaplan-Meier curve",
    "mae_days": "mean |predicted - true| of events, and shortfall of the censored",
    "event_mae_days": "mean |predicted - true| of events",
    "censored_mae_days": "mean shortfall of predictions before the censoring",
    "constant_mae_days": "mae_days of the training patients' median time",
    "crps_days": "continuous ranked probability score, censored form",
    "coverage": "share of events inside the interval",
    "coverage_at_least": "share of all patients known to be inside the interval",
    "coverage_at_most": "share of all patients possibly inside the interval",
    "interval_width_days": "mean width of the interval",
    "d_calibration_statistic": "chi-squared of D-calibration, 10 bins",
    "d_calibration_p": "p of D-calibration; small speaks against calibration",
    "km_calibration": "mean squared difference of the mean curve from Kaplan-Meier",
    "log_rank_statistic": "chi-squared of the log-rank test of the halves by risk",
    "log_rank_p": "p of that test",
}


def evaluate_predictions(
    predictions: Predictions,
    train_event: ArrayLike,
    train_days: ArrayLike,
    *,
    train_predictions: Predictions | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    level: float = 0.9,
    n_times: int = 50,
    seed: int = 0,
) -> Evaluation:
    """Score predictions with bootstrap intervals by patient.

    Args:
        predictions: Of the patients to be scored.
        train_event: Events of the training patients, shape ``[m]``: they give the weights for the censoring,
            the Kaplan–Meier baseline and the constant time.
        train_days: Their times in days.
        train_predictions: Predictions of the same model for training patients; a Cox model needs them to have
            curves.
        n_resamples: Resamples of the patients; 0 leaves the intervals NaN.
        confidence: Coverage of the bootstrap intervals.
        level: Probability inside the predicted intervals.
        n_times: Times of the curves.
        seed: Of the bootstrap and of D-calibration.

    Returns:
        The metrics that this kind of model has.

    Raises:
        ValueError: Nobody to score, no training patient, or predictions that are not finite.
    """
    n = len(predictions)
    if n == 0:
        raise ValueError("there are no patients to score")
    train = Training.of(train_event, train_days)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # shown as NaN in the table
        setting = set_up(predictions, train, train_predictions, level, n_times)
        tests, histogram = _tests(predictions, setting, seed)
    estimates = setting.parts.values(np.ones((1, n)))
    resampled = setting.parts.values(draw_patients(n, n_resamples, seed)) if n_resamples else {}
    nothing = np.zeros(0)
    metrics = {
        name: interval(float(value[0]), resampled.get(name, nothing), confidence, n)
        for name, value in estimates.items()
    }
    e, t = survival_labels(predictions.e, predictions.days)
    briers = [
        nothing
        if curves is None or not setting.grid.size
        else brier_contributions(curves, e, t, setting.grid, train.event, train.days).mean(axis=0)
        for curves in (setting.survival, setting.km_survival)
    ]
    ordered = {name: metrics[name] for name in METRICS if name in metrics}
    return Evaluation(ordered, tests, n, int(e.sum()), setting.grid, briers[0], briers[1], histogram)


def risk_groups(risk: ArrayLike, n_groups: int = 2) -> NDArray[np.int64]:
    """Return groups of equal size by risk: 0 for the lowest; equal risks are never parted.

    Args:
        risk: Higher means an earlier event, shape ``[n]``.
        n_groups: Number of groups.

    Example:
        >>> risk_groups([0.3, 0.1, 0.9, 0.7]).tolist()
        [0, 0, 1, 1]
    """
    r = np.asarray(risk, dtype=np.float64)
    limits = np.quantile(r, np.arange(1, n_groups) / n_groups) if r.size else np.zeros(n_groups - 1)
    return np.searchsorted(limits, r, side="left")


def _tests(predictions: Predictions, setting: Setting, seed: int) -> tuple[dict[str, float], Floats]:
    e, t = survival_labels(predictions.e, predictions.days)
    found: dict[str, float] = {}
    histogram = np.zeros(0)
    if setting.samples is not None and setting.samples.shape[1] > 1:
        calibration = d_calibration(survival_at_own_time(setting.samples, t, seed), e)
        found |= {
            "d_calibration_statistic": calibration.statistic,
            "d_calibration_p": calibration.p_value,
        }
        histogram = calibration.histogram
    if setting.survival is not None:
        found["km_calibration"] = km_calibration(setting.survival, e, t, setting.grid).mean_squared_difference
    test = log_rank(e, t, risk_groups(predictions.risk))
    return found | {"log_rank_statistic": test.statistic, "log_rank_p": test.p_value}, histogram


def compare_predictions(
    a: Predictions,
    b: Predictions,
    train_event: ArrayLike,
    train_days: ArrayLike,
    *,
    train_predictions_a: Predictions | None = None,
    train_predictions_b: Predictions | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    level: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two models on the same patients: difference of each metric on the same resamples.

    Args:
        a: Predictions of the first model.
        b: Predictions of the second model for the same patients, in any order.
        train_event: Events of the training patients, shape ``[m]``.
        train_days: Their times in days.
        train_predictions_a: See `evaluate_predictions`.
        train_predictions_b: Likewise.
        n_resamples: Resamples of the patients.
        confidence: Coverage of the intervals.
        level: Probability inside the predicted intervals.
        seed: Of the bootstrap.

    Returns:
        One row for each metric that both models have: ``metric``, ``a``, ``b``, ``difference`` (a − b),
        ``low``, ``high``, ``p_value`` (two-sided, by the bootstrap), ``better`` (``a``, ``b`` or empty) and
        ``p_holm`` over all rows.

    Raises:
        ValueError: The patients or their outcomes differ.
    """
    b = _aligned(b, a)
    train = Training.of(train_event, train_days)
    counts = draw_patients(len(a), n_resamples, seed)
    everyone = np.ones((1, len(a)))
    estimates, resampled = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for model, known in ((a, train_predictions_a), (b, train_predictions_b)):
            parts = set_up(model, train, known, level, 50).parts
            estimates.append(parts.values(everyone))
            resampled.append(parts.values(counts))
    rows = []
    for name in METRICS:
        if name not in estimates[0] or name not in estimates[1] or name in ("km_ibs", "constant_mae_days"):
            continue
        first, second = float(estimates[0][name][0]), float(estimates[1][name][0])
        differences = resampled[0][name] - resampled[1][name]
        found = interval(first - second, differences, confidence, len(a))
        rows.append(
            {
                "metric": name,
                "a": first,
                "b": second,
                "difference": first - second,
                "low": found.low,
                "high": found.high,
                "p_value": _bootstrap_p(differences),
                "better": _better(name, first - second),
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"].to_numpy(dtype=np.float64))
    return table


def _bootstrap_p(differences: Floats) -> float:
    """Two-sided p: twice the share of resamples on the rarer side of zero, never 0."""
    valid = differences[np.isfinite(differences)]
    if not valid.size:
        return float("nan")
    rarer = min(np.count_nonzero(valid <= 0), np.count_nonzero(valid >= 0))
    return min(1.0, 2.0 * (rarer + 1) / (valid.size + 1))


def _better(name: str, difference: float) -> str:
    """Return which model the estimates favour: a, b, or neither."""
    if difference == 0 or np.isnan(difference) or name not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        return ""
    return "a" if (difference < 0) == (name in LOWER_IS_BETTER) else "b"


def _aligned(b: Predictions, a: Predictions) -> Predictions:
    """Return b in the order of a's patients."""
    place = {patient: k for k, patient in enumerate(b.patients)}
    missing = [patient for patient in a.patients if patient not in place]
    if missing or len(a) != len(b):
        raise ValueError(
            f"the models were run on different patients ({len(a)} and {len(b)}; {len(missing)} of the first are "
            "missing in the second): compare them on the same split"
        )
    order = np.array([place[patient] for patient in a.patients], dtype=np.int64)
    if not np.array_equal(b.e[order], a.e) or not np.allclose(b.days[order], a.days):
        raise ValueError("the models were run on different outcomes of the same patients: use one table")
    per_patient = ("t", "e", "days", "point", "samples", "hazards", "fake_scores")
    values = {name: getattr(b, name) for name in per_patient}
    changed = {name: value[order] for name, value in values.items() if value is not None}
    return Predictions(
        kind=b.kind,
        patients=a.patients,
        unit_days=b.unit_days,
        end_time=b.end_time,
        edges=b.edges,
        **changed,
    )


def fold_table(folds: Mapping[str, Evaluation] | Mapping[int, Evaluation]) -> pd.DataFrame:
    """Return one row a metric: the value of every fold, mean and standard deviation (population) over the folds.

    Args:
        folds: Evaluation of each fold.
    """
    rows = []
    for name in METRICS:
        values = [fold.flat().get(name, float("nan")) for fold in folds.values()]
        if np.isnan(values).all():
            continue
        summary = fold_summary(values)
        by_fold = {f"fold_{key}": value for key, value in zip(folds, values, strict=True)}
        rows.append({"metric": name, **by_fold, "mean": summary["mean"], "sd": summary["std"]})
    return pd.DataFrame(rows)


def compare_folds(
    a: Sequence[Evaluation],
    b: Sequence[Evaluation],
    n_train: int,
    n_test: int,
    metrics: Sequence[str] = ("c_index", "uno_c_index", "auc", "ibs", "mae_days", "crps_days"),
) -> pd.DataFrame:
    """Compare two models over folds by the corrected resampled t test (Nadeau and Bengio), Holm over metrics.

    Args:
        a: Evaluations of the first model, one a fold.
        b: Those of the second model on the same folds.
        n_train: Training patients of a fold.
        n_test: Test patients of a fold.
        metrics: Metrics to compare; those that a model lacks, or that are undefined in a fold, are left out.

    Returns:
        One row a metric: ``metric``, ``difference`` (a − b), ``low``, ``high``, ``p_value``, ``p_holm``.

    Raises:
        ValueError: Different numbers of folds, or fewer than two.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"two models need the same folds, at least two; found {len(a)} and {len(b)}")
    rows = []
    for name in metrics:
        pairs = [
            (x.metrics[name].estimate, y.metrics[name].estimate)
            for x, y in zip(a, b, strict=True)
            if name in x.metrics and name in y.metrics
        ]
        differences = np.array([x - y for x, y in pairs])
        if len(pairs) < len(a) or not np.isfinite(differences).all():
            continue
        test = nadeau_bengio(differences, n_train, n_test)
        rows.append(
            {
                "metric": name,
                "difference": test.difference,
                "low": test.low,
                "high": test.high,
                "p_value": test.p_value,
            }
        )
    table = pd.DataFrame(rows, columns=["metric", "difference", "low", "high", "p_value"])
    table["p_holm"] = holm(table["p_value"].to_numpy(dtype=np.float64)) if rows else []
    return table
