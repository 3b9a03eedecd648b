"""Model families side by side: single-task, multi-task, conditioned, on the same frames."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from infection_mt.config import WindowsConfig
from infection_mt.evaluation import evaluate_predictions
from infection_mt.paired_comparison import compare_predictions
from infection_mt.prediction_table import Predictions
from infection_mt.probabilities import logit_of
from infection_mt.window_rules import WindowMetrics, WindowRule
from infection_mt.windows import window_predictions
from medshared.metrics.statistics import fold_summary, holm, paired_t_test

logger = logging.getLogger(__name__)
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def average_predictions(folds: Sequence[Predictions]) -> Predictions:
    """Average several models on the frames that all of them have predicted.

    Args:
        folds: One table per model, for example the folds of a run with a fixed test set.

    Returns:
        Mean probability (its log-odds as logit) and mean time, in the order of the first table.

    Raises:
        ValueError: Without tables or without common frames.
    """
    if not folds:
        raise ValueError("no predictions to average")
    common = set(folds[0].keys).intersection(*(fold.keys for fold in folds[1:]))
    first = folds[0].subset([row for row, key in enumerate(folds[0].keys) if key in common])
    if not len(first):
        raise ValueError("the predictions share no frame: they cannot be averaged")
    aligned = [first.join(fold)[1] for fold in folds]
    probability = np.mean([fold.probability for fold in aligned], axis=0)
    return replace(
        first,
        probability=probability,
        logit=logit_of(probability) if len(folds) > 1 else first.logit,
        time=np.mean([fold.time for fold in aligned], axis=0),
    )


def common_frames(models: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Cut every model's predictions to the frames that all have, in the same order.

    Args:
        models: Name → predictions.

    Returns:
        Name → predictions of equal length whose rows belong together.

    Raises:
        ValueError: Without common frames.
    """
    names = list(models)
    if not names:
        raise ValueError("no models to compare")
    first = models[names[0]]
    for name in names[1:]:
        first = first.join(models[name])[0]
    return {name: first.join(models[name])[1] for name in names}


def model_table(models: Mapping[str, Sequence[Predictions]]) -> list[dict[str, Any]]:
    """Summarise model families over their folds.

    Args:
        models: Name → predictions of every fold.

    Returns:
        Per model the columns of the original's ``comparison_summary_table.csv`` as ``mean±std``
        (population) over folds: ``Model``, ``Cls_Accuracy``, ``Cls_F1``, ``Cls_AUC``, ``Reg_MAE``,
        ``Reg_RMSE``, ``Reg_MAE_Infected``, ``Reg_MAE_Uninfected``, and new ``Folds``; ``n/a`` for what a
        model does not do.
    """
    columns = {
        "Cls_Accuracy": ("cls_accuracy", 4),
        "Cls_F1": ("cls_f1", 4),
        "Cls_AUC": ("cls_auc", 5),
        "Reg_MAE": ("reg_mae", 3),
        "Reg_RMSE": ("reg_rmse", 3),
        "Reg_MAE_Infected": ("reg_mae_infected", 3),
        "Reg_MAE_Uninfected": ("reg_mae_uninfected", 3),
    }
    rows = []
    for model, folds in models.items():
        metrics = [evaluate_predictions(fold) for fold in folds]
        row: dict[str, Any] = {"Model": model}
        for column, (name, decimals) in columns.items():
            values = [fold.get(name, float("nan")) for fold in metrics]
            summary = fold_summary(values)
            defined = np.isfinite(values).any()
            row[column] = (
                f"{summary['mean']:.{decimals}f}±{summary['std']:.{decimals}f}" if defined else "n/a"
            )
        rows.append({**row, "Folds": len(folds)})
    return rows


def compare_models(
    models: Mapping[str, Predictions],
    *,
    group: Literal["stack", "position", "well"] = "stack",
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare every pair of models on their common frames, corrected for the number of tests.

    Pairs without common frames are left out with a warning.

    Args:
        models: Name → predictions (one table each; average folds with a fixed test set first).
        group: What is resampled and exchanged as a whole.
        n_resamples: Resamples of intervals and exchanges.
        confidence: Coverage of the intervals.
        seed: Of the resampling.

    Returns:
        Rows with ``Model_1``, ``Model_2``, ``metric``, ``n``, ``n_groups``, ``value_1``, ``value_2``,
        ``difference``, ``low``, ``high``, ``p_value`` (exchange of groups), ``p_holm`` (Holm over all
        rows), ``delong_p`` (AUC only) and ``Significant`` (stars of ``p_holm``).
    """
    rows: list[dict[str, Any]] = []
    for a, b in combinations(models, 2):
        if not set(models[a].keys) & set(models[b].keys):
            # Regressors of one class each have no frame in common.
            logger.warning("%s and %s share no test frame: they are not tested against each other", a, b)
            continue
        for found in compare_predictions(
            models[a], models[b], group=group, n_resamples=n_resamples, confidence=confidence, seed=seed
        ):
            rows.append(
                {
                    "Model_1": a,
                    "Model_2": b,
                    "metric": found.metric,
                    "n": found.n,
                    "n_groups": found.difference.n_groups,
                    "value_1": found.a,
                    "value_2": found.b,
                    "difference": found.difference.estimate,
                    "low": found.difference.low,
                    "high": found.difference.high,
                    "p_value": found.p_value,
                    "delong_p": None if found.delong is None else found.delong.p_value,
                }
            )
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = float(adjusted)
        row["Significant"] = stars(float(adjusted))
    return rows


def stars(p_value: float) -> str:
    """Return ``***`` below 0.001, ``**`` below 0.01, ``*`` below 0.05, else ``ns``.

    Args:
        p_value: In [0, 1]; NaN gives ``ns``.

    Returns:
        The mark.

    Example:
        >>> stars(0.012), stars(0.05)
        ('*', 'ns')
    """
    return next((mark for limit, mark in STARS if p_value < limit), "ns")


def fair_windows(
    models: Mapping[str, Predictions], config: WindowsConfig | None = None, *, rule: WindowRule | None = None
) -> dict[str, list[WindowMetrics]]:
    """Windowed metrics of several models on the same frames.

    Args:
        models: Name → predictions.
        config: Size, stride and limits of the windows.
        rule: Definition of a window; None takes the configuration's.

    Returns:
        Name → windows, with the same frames behind each.
    """
    return {name: window_predictions(p, config, rule=rule) for name, p in common_frames(models).items()}


def cut_to_shorter(*arrays: ArrayLike) -> tuple[np.ndarray, ...]:
    """Cut arrays to the shortest of them and so pair them by position: the original's mistake.

    For runs on one class the predictions of that class meet the metadata of both, so classes and hours are
    wrong; `Predictions.load` pairs them correctly.

    Args:
        *arrays: Any lengths.

    Returns:
        The arrays' beginnings, of equal length.
    """
    given = [np.asarray(array) for array in arrays]
    n = min(len(array) for array in given)
    return tuple(array[:n] for array in given)


def faithful_frame_test(name_a: str, error_a: ArrayLike, name_b: str, error_b: ArrayLike) -> dict[str, Any]:
    """Student's t test over frames paired by position, with the original's columns.

    Frames of a stack are alike and folds repeat them, so these p-values mean nothing; use `compare_models`.

    Args:
        name_a: First model.
        error_a: Its absolute errors in hours.
        name_b: Second model.
        error_b: Its absolute errors in hours.

    Returns:
        ``Model_1``, ``Model_2``, ``Mean_MAE_1``, ``Mean_MAE_2``, ``Difference``, ``t_statistic``,
        ``p_value``, ``Significant``.
    """
    a, b = cut_to_shorter(error_a, error_b)
    test = paired_t_test(a, b)
    return {
        "Model_1": name_a,
        "Model_2": name_b,
        "Mean_MAE_1": float(np.mean(a, dtype=np.float64)),
        "Mean_MAE_2": float(np.mean(b, dtype=np.float64)),
        "Difference": test.difference,
        "t_statistic": test.statistic,
        "p_value": test.p_value,
        "Significant": stars(test.p_value),
    }


def faithful_window_test(values_a: ArrayLike, values_b: ArrayLike) -> dict[str, float]:
    """Student's t test over overlapping windows, as the original does; the windows share frames.

    Args:
        values_a: Metric of the first model per window.
        values_b: Metric of the second model in the same windows.

    Returns:
        ``p_value``, ``t_stat``, ``mean_diff``.
    """
    test = paired_t_test(values_a, values_b)
    return {"p_value": test.p_value, "t_stat": test.statistic, "mean_diff": test.difference}
