"""From predictions and truth to the numbers that a run reports.

Everything here is NumPy in float64; torch tensors on the CPU are accepted. A set with one class has an
undefined area under the ROC curve: NaN here, null in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.operating_points import format_threshold_table, format_time_bins, threshold_table, time_bins
from infection_mt.paired_comparison import compare_predictions
from infection_mt.prediction_table import Predictions
from infection_mt.probabilities import faithful_probability, faithful_sigmoid, infected_logit, sigmoid
from infection_mt.time_errors import errors_by_class, smooth_l1, time_errors
from infection_mt.uncertainty import bootstrap_intervals, class_strata, naive_baselines
from medshared.metrics.classification import confusion_counts, counts_to_metrics, roc_auc

__all__ = [
    "MULTITASK_METRICS",
    "Predictions",
    "bootstrap_intervals",
    "class_strata",
    "combined_score",
    "compare_predictions",
    "cross_entropy",
    "errors_by_class",
    "evaluate_binary",
    "evaluate_classification",
    "evaluate_multitask",
    "evaluate_predictions",
    "evaluate_regression",
    "format_metrics",
    "format_threshold_table",
    "format_time_bins",
    "naive_baselines",
    "smooth_l1",
    "threshold_table",
    "time_bins",
    "time_errors",
]

Floats = NDArray[np.float64]

MULTITASK_METRICS = (
    "total_loss",
    "cls_loss",
    "reg_loss",
    "cls_accuracy",
    "cls_precision",
    "cls_recall",
    "cls_f1",
    "cls_auc",
    "reg_mae",
    "reg_rmse",
    "reg_mse",
    "combined",
)
F1_SHARE = 0.6  # of `combined`; the rest is the time error


def evaluate_binary(
    logit: ArrayLike, label: ArrayLike, *, threshold: float = 0.5, faithful: bool = False
) -> dict[str, float]:
    """Metrics of one logit per frame, decided by ``sigmoid(logit) >= threshold``.

    Args:
        logit: Log-odds of infected, shape ``[N]``; NaN counts as negative.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        threshold: On the probability.
        faithful: Rank by the probability instead of the logit, so that huge logits become ties.

    Returns:
        ``accuracy``, ``precision``, ``recall``, ``f1`` (0 for 0/0) and ``auc`` (NaN for one class or NaN
        logits).

    Raises:
        ValueError: Without frames.

    Example:
        >>> evaluate_binary([2.0, -1.0, 0.0], [1, 0, 0])["accuracy"]
        0.6666666666666666
    """
    z = np.asarray(logit, dtype=np.float64).reshape(-1)
    truth = _labels(label)
    if z.size == 0:
        raise ValueError("no frames to evaluate: the split is empty")
    probability = faithful_sigmoid(z) if faithful else sigmoid(z)
    metrics = counts_to_metrics(*confusion_counts(probability >= threshold, truth))
    del metrics["specificity"]
    return {**metrics, "auc": roc_auc(probability if faithful else z, truth)}


def evaluate_classification(
    logits: ArrayLike, label: ArrayLike, *, threshold: float = 0.5, faithful: bool = False
) -> dict[str, float]:
    """Metrics and loss of a classifier.

    Args:
        logits: One logit per frame (``[N]``, ``[N, 1]``; binary cross-entropy) or ``[N, C]`` (cross-entropy).
        label: 1 infected, 0 uninfected, shape ``[N]``.
        threshold: On the probability of infected.
        faithful: See `evaluate_binary`.

    Returns:
        The metrics of `evaluate_binary`, then ``loss``.

    Example:
        >>> round(evaluate_classification([0.0, 0.0], [0, 1])["loss"], 4)
        0.6931
    """
    z = np.asarray(logits, dtype=np.float64)
    metrics = evaluate_binary(infected_logit(z), label, threshold=threshold, faithful=faithful)
    return {**metrics, "loss": cross_entropy(z, label)}


def cross_entropy(logits: ArrayLike, label: ArrayLike) -> float:
    """Mean cross-entropy of the labels.

    Args:
        logits: ``[N]`` or ``[N, 1]`` (binary) or ``[N, C]`` (softmax).
        label: Class of every frame, shape ``[N]``.

    Returns:
        ``mean(log Σ exp(z) − z_label)`` in nats.

    Example:
        >>> round(cross_entropy([[0.0, 0.0]], [1]), 6)
        0.693147
    """
    z = np.asarray(logits, dtype=np.float64)
    truth = _labels(label)
    if z.ndim == 1 or z.shape[1] == 1:
        flat = z.reshape(-1)
        return float(np.mean(np.logaddexp(0.0, np.where(truth == 1, -flat, flat))))
    return float(np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(truth.size), truth]))


def evaluate_multitask(
    logits: ArrayLike,
    time: ArrayLike,
    label: ArrayLike,
    time_target: ArrayLike,
    *,
    classification_weight: float = 1.0,
    regression_weight: float = 1.0,
    time_scale_hours: float | None = 48.0,
    faithful_auc: bool = False,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Metrics of a model with both outputs.

    ``combined = 0.6 · F1 + 0.4 · max(0, 1 − MAE / time_scale_hours)``

    Args:
        logits: Shape ``[N, C]``, column 1 is infected.
        time: Predicted hours, shape ``[N]`` or ``[N, 1]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        time_target: True hours, shape ``[N]`` or ``[N, 1]``.
        classification_weight: Of the cross-entropy in ``total_loss``.
        regression_weight: Of the smooth L1 loss in ``total_loss``.
        time_scale_hours: An error at which the time part of ``combined`` is 0; None takes the largest target.
        faithful_auc: As the original: rank by single-precision probabilities clipped at 1e-7 and compute
            the time errors in single precision.
        threshold: Decision on P(infected).

    Returns:
        The twelve numbers of the original in its order (`MULTITASK_METRICS`), then those of
        `errors_by_class`.

    Raises:
        ValueError: Without frames, or when lengths differ.

    Example:
        >>> result = evaluate_multitask([[0.0, 2.0], [1.0, 0.0]], [3.0, 8.0], [1, 0], [2.0, 8.0])
        >>> result["cls_accuracy"], result["reg_mae"], round(result["combined"], 4)
        (1.0, 0.5, 0.9958)
    """
    z, estimate, target, truth = np.asarray(logits), _hours(time), _hours(time_target), _labels(label)
    if not z.shape[0] == estimate.size == target.size == truth.size:
        raise ValueError(
            f"logits {z.shape}, time {estimate.shape}, label {truth.shape} and time_target {target.shape} "
            "must have one row per frame"
        )
    if truth.size == 0:
        raise ValueError("no frames to evaluate: the split is empty")
    if faithful_auc:
        binary = _evaluate_clipped(faithful_probability(z), truth, threshold)
    else:
        binary = evaluate_binary(infected_logit(z), truth, threshold=threshold)
    cls_loss, reg_loss = cross_entropy(z, truth), smooth_l1(estimate, target)
    errors = time_errors(estimate, target, single_precision=faithful_auc)
    scale = float(target.max()) if time_scale_hours is None else float(time_scale_hours)
    return {
        "total_loss": classification_weight * cls_loss + regression_weight * reg_loss,
        "cls_loss": cls_loss,
        "reg_loss": reg_loss,
        **{f"cls_{name}": value for name, value in binary.items()},
        **errors,
        "combined": combined_score(binary["f1"], errors["reg_mae"], scale),
        **errors_by_class(estimate, truth, target),
    }


def combined_score(f1: float, mae: float, time_scale_hours: float) -> float:
    """Return ``0.6 · F1 + 0.4 · max(0, 1 − MAE / scale)``; NaN when a part is NaN or the scale not positive.

    Args:
        f1: F1 of the infected class.
        mae: Mean absolute time error in hours.
        time_scale_hours: Error in hours at which the time part is 0.

    Returns:
        The score in [0, 1].

    Example:
        >>> combined_score(1.0, 12.0, 48.0)
        0.9
    """
    if not time_scale_hours > 0:
        return float("nan")
    return float(F1_SHARE * f1 + (1.0 - F1_SHARE) * np.maximum(0.0, 1.0 - mae / time_scale_hours))


def evaluate_regression(
    time: ArrayLike,
    label: ArrayLike,
    time_target: ArrayLike,
    *,
    target_class: int | None = None,
    faithful: bool = False,
) -> dict[str, float]:
    """Metrics of a model with a time output only.

    Args:
        time: Predicted hours, shape ``[N]`` or ``[N, 1]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        time_target: True hours, shape ``[N]`` or ``[N, 1]``.
        target_class: Only frames of this class count; None takes both.
        faithful: Compute the errors in single precision.

    Returns:
        ``loss`` (smooth L1), ``reg_mae``, ``reg_rmse``, ``reg_mse``, then those of `errors_by_class`.

    Raises:
        ValueError: When no frame of the class is there.

    Example:
        >>> evaluate_regression([1.0, 5.0], [1, 0], [2.0, 2.0], target_class=1)["reg_mae"]
        1.0
    """
    estimate, target, truth = _hours(time), _hours(time_target), _labels(label)
    if target_class is not None:
        kept = truth == target_class
        estimate, target, truth = estimate[kept], target[kept], truth[kept]
    if truth.size == 0:
        of_class = "" if target_class is None else f" of class {target_class}"
        raise ValueError(f"no frames{of_class} to evaluate: the split is empty")
    errors = time_errors(estimate, target, single_precision=faithful)
    return {"loss": smooth_l1(estimate, target), **errors, **errors_by_class(estimate, truth, target)}


def evaluate_predictions(
    predictions: Predictions, *, threshold: float = 0.5, time_scale_hours: float | None = 48.0
) -> dict[str, float]:
    """Metrics of saved predictions; what the model does not have is left out.

    Args:
        predictions: Outputs and truth.
        threshold: Decision on P(infected).
        time_scale_hours: See `evaluate_multitask`.

    Returns:
        The names of `evaluate_multitask`, with losses that follow from the stored logit.
    """
    p = predictions
    if p.has_classes and p.has_time:
        two = np.stack([np.zeros(len(p)), p.logit], axis=1)
        return evaluate_multitask(
            two, p.time, p.label, p.time_target, time_scale_hours=time_scale_hours, threshold=threshold
        )
    if p.has_time:
        return evaluate_regression(p.time, p.label, p.time_target)
    of_classes = evaluate_classification(p.logit, p.label, threshold=threshold)
    return {f"cls_{name}": value for name, value in of_classes.items()}


def format_metrics(split: str, metrics: Mapping[str, Any]) -> str:
    """Return the log line of the original: ``val: total_loss:1.1314 | cls_loss:0.4554 | …``.

    Args:
        split: ``val`` or ``test``.
        metrics: Numbers by name; of multi-task metrics only the twelve of the original are named.

    Returns:
        One line, four decimals.

    Example:
        >>> format_metrics("val", {"loss": 0.5, "reg_mae": 1.25})
        'val: loss:0.5000 | reg_mae:1.2500'
    """
    names = MULTITASK_METRICS if "total_loss" in metrics else tuple(metrics)
    return f"{split}: " + " | ".join(
        f"{name}:{float(metrics[name]):.4f}" for name in names if name in metrics
    )


def _evaluate_clipped(
    probability: NDArray[np.float32], label: NDArray[np.int64], threshold: float
) -> dict[str, float]:
    """Evaluate clipped probabilities as the original does: turned back into single-precision logits."""
    logit = np.log(probability / (np.float32(1) - probability))
    return evaluate_binary(logit, label, threshold=threshold, faithful=True)


def _hours(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _labels(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values).reshape(-1).astype(np.int64)
