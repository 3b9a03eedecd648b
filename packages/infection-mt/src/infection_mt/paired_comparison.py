"""Two models on the same frames: paired by sample key, uncertain by stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infection_mt.prediction_table import Predictions
from infection_mt.uncertainty import class_strata
from medshared.metrics.classification import binary_metrics
from medshared.metrics.statistics import (
    DifferenceTest,
    Interval,
    cluster_bootstrap,
    cluster_swap_test,
    delong_test,
)

Rows = NDArray[np.int64]
Statistic = Callable[[NDArray[np.float64], NDArray[np.int64]], float]


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two models on their common frames.

    Attributes:
        metric: ``cls_auc``, ``cls_f1``, ``cls_accuracy`` or ``reg_mae``.
        a: Value of the first model.
        b: Value of the second model.
        difference: ``a − b`` with its interval over groups.
        p_value: Exchanging the models group by group; NaN where the metric is undefined.
        n: Common frames.
        delong: For ``cls_auc``: DeLong's test, which takes frames as independent and is therefore too sure.
    """

    metric: str
    a: float
    b: float
    difference: Interval
    p_value: float
    n: int
    delong: DifferenceTest | None = None


def compare_predictions(
    a: Predictions,
    b: Predictions,
    *,
    group: Literal["stack", "position", "well"] = "stack",
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    threshold: float = 0.5,
) -> list[MetricComparison]:
    """Compare two models on the frames that both have predicted.

    Args:
        a: First model.
        b: Second model.
        group: What is resampled and exchanged as a whole.
        n_resamples: Bootstrap resamples and exchanges.
        confidence: Coverage of the intervals.
        seed: Of both.
        threshold: Decision on P(infected).

    Returns:
        AUC, F1 and accuracy when both classify, the mean absolute time error when both estimate a time.

    Raises:
        ValueError: Without common frames.
    """
    first, second = a.join(b)
    groups = first.groups(group)
    strata = class_strata(groups, first.label)
    results = []
    for metric, values_a, values_b, statistic in _metrics(first, second, threshold):
        label = first.label

        def on_rows(
            rows: Rows,
            va: NDArray = values_a,
            vb: NDArray = values_b,
            f: Statistic = statistic,
            y: NDArray = label,
        ) -> float:
            return f(va[rows], y[rows]) - f(vb[rows], y[rows])

        def swapped(
            mask: NDArray[np.bool_],
            va: NDArray = values_a,
            vb: NDArray = values_b,
            f: Statistic = statistic,
            y: NDArray = label,
        ) -> float:
            return f(np.where(mask, vb, va), y) - f(np.where(mask, va, vb), y)

        results.append(
            MetricComparison(
                metric=metric,
                a=statistic(values_a, label),
                b=statistic(values_b, label),
                difference=cluster_bootstrap(on_rows, groups, n_resamples, confidence, seed, strata=strata),
                p_value=cluster_swap_test(swapped, groups, n_resamples, seed),
                n=len(first),
                delong=_delong(values_a, values_b, label) if metric == "cls_auc" else None,
            )
        )
    return results


def _metrics(
    a: Predictions, b: Predictions, threshold: float
) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64], Statistic]]:
    """Return name, values of both models and the statistic of these values."""
    found: list[tuple[str, NDArray[np.float64], NDArray[np.float64], Statistic]] = []
    if a.has_classes and b.has_classes:
        # Logits are compared at the logit of the threshold, so that saturated probabilities keep their order.
        cut = float(np.log(threshold) - np.log1p(-threshold))
        for name in ("auc", "f1", "accuracy"):
            found.append((f"cls_{name}", a.logit, b.logit, lambda v, y, n=name: binary_metrics(v, y, cut)[n]))
    if a.has_time and b.has_time:
        errors = np.abs(a.time - a.time_target), np.abs(b.time - b.time_target)
        found.append(("reg_mae", *errors, lambda v, y: float(np.mean(v))))
    return found


def _delong(a: NDArray, b: NDArray, label: NDArray[np.int64]) -> DifferenceTest | None:
    positives = int(label.sum())
    if min(positives, label.size - positives) < 2 or np.isnan(a).any() or np.isnan(b).any():
        return None
    return delong_test(a, b, label)
