"""How sure the numbers are: intervals over stacks or wells, and what a guess without an image reaches."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.prediction_table import Predictions
from medshared.metrics.classification import confusion_counts, counts_to_metrics, roc_auc
from medshared.metrics.regression import best_constant
from medshared.metrics.statistics import Interval, cluster_bootstrap_many

logger = logging.getLogger(__name__)


def naive_baselines(
    label: ArrayLike,
    time_target: ArrayLike,
    *,
    train_label: ArrayLike | None = None,
    train_time_target: ArrayLike | None = None,
) -> dict[str, float]:
    """What needs no image: always the commonest class, always the same time.

    Args:
        label: Of the evaluated frames, shape ``[N]``.
        time_target: Of the evaluated frames in hours, shape ``[N]``.
        train_label: With it the class is chosen on the training frames instead of the evaluated ones.
        train_time_target: With it the constant times are chosen on the training frames.

    Returns:
        ``majority_accuracy``, ``majority_class``, ``constant_mae`` with its ``constant_median_hours``,
        ``constant_rmse`` with its ``constant_mean_hours``.

    Example:
        >>> naive_baselines([1, 1, 0], [0.0, 3.0, 9.0])["constant_mae"]
        3.0
    """
    truth, target = np.asarray(label).reshape(-1), np.asarray(time_target, dtype=np.float64).reshape(-1)
    source = truth if train_label is None else np.asarray(train_label)
    majority = int(np.mean(source) >= 0.5)
    constants = best_constant(target if train_time_target is None else train_time_target)
    return {
        "majority_accuracy": float(np.mean(truth == majority)),
        "majority_class": majority,
        "constant_mae": float(np.mean(np.abs(target - constants["median"]))),
        "constant_median_hours": constants["median"],
        "constant_rmse": float(np.sqrt(np.mean((target - constants["mean"]) ** 2))),
        "constant_mean_hours": constants["mean"],
    }


def bootstrap_intervals(
    predictions: Predictions,
    groups: ArrayLike | None = None,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    threshold: float = 0.5,
) -> dict[str, Interval]:
    """Intervals of the main metrics by resampling groups of frames.

    Frames of a stack are alike, so stacks (or wells) are drawn, and the same number of each class when
    every group has one class. With a single group in a class the ends are NaN: nothing can be said about
    new groups.

    Args:
        predictions: Outputs and truth.
        groups: Group of every frame, shape ``[N]``; None takes the stacks.
        n_resamples: Number of resamples; 0 gives the estimates only.
        confidence: Coverage in (0, 1).
        seed: Of the resampling.
        threshold: Decision on P(infected).

    Returns:
        ``cls_auc``, ``cls_f1``, ``cls_accuracy``, ``reg_mae``, ``reg_rmse``, as far as the model has them.
    """
    p = predictions
    group = p.stack_index if groups is None else np.asarray(groups)
    error = p.time - p.time_target
    decision = p.probability >= threshold

    def statistic(rows: NDArray[np.int64]) -> Mapping[str, float]:
        values: dict[str, float] = {}
        if p.has_classes:
            metrics = counts_to_metrics(*confusion_counts(decision[rows], p.label[rows]))
            values["cls_auc"] = roc_auc(p.logit[rows], p.label[rows])
            values["cls_f1"], values["cls_accuracy"] = metrics["f1"], metrics["accuracy"]
        if p.has_time:
            values["reg_mae"] = float(np.mean(np.abs(error[rows])))
            values["reg_rmse"] = float(np.sqrt(np.mean(error[rows] ** 2)))
        return values

    strata = class_strata(group, p.label)
    intervals = cluster_bootstrap_many(statistic, group, n_resamples, confidence, seed, strata=strata)
    if any(np.isnan(interval.low) for interval in intervals.values()) and n_resamples:
        logger.warning(
            "some intervals are undefined: a class has a single group (stack or well) or no frame at all"
        )
    return intervals


def class_strata(groups: ArrayLike, label: ArrayLike) -> NDArray[np.int64] | None:
    """Return the labels as strata of the groups, or None when a group has frames of both classes.

    Args:
        groups: Group of every frame, shape ``[N]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.

    Returns:
        The labels, or None.

    Example:
        >>> class_strata([0, 0, 1], [1, 0, 0]) is None
        True
    """
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    truth = np.asarray(label).reshape(-1).astype(np.int64)
    size, positive = np.bincount(code), np.bincount(code, weights=truth)
    return truth if bool(np.all((positive == 0) | (positive == size))) else None
