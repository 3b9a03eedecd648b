"""``training_summary.txt``: settings, progress, test results and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from infection_mt.analysis.training_log import TrainingLog
from infection_mt.evaluation import MULTITASK_METRICS

Verdict = Literal["overfit_warning", "degraded_warning", "converged", "unknown"]
OVERFIT_FACTOR = 1.5  # final validation loss above this many times the final training loss
DEGRADED_SHARE = 0.95  # last validation AUC below this share of the best
WIDTH = 80

_CLASS_RATINGS = ((0.95, "EXCELLENT"), (0.90, "GOOD"), (0.80, "MODERATE"))
_TIME_RATINGS = ((1.0, "EXCELLENT"), (2.0, "GOOD"), (5.0, "MODERATE"))
_VERDICTS: dict[Verdict, str] = {
    "overfit_warning": "WARNING: the validation loss is far above the training loss: overfitting.",
    "degraded_warning": "WARNING: the validation AUC has fallen from its best: use the best epoch's weights.",
    "converged": "Training converged.",
    "unknown": "No losses of the epochs were found: progress cannot be judged.",
}
# Section and key of the configuration, with the text that stands before the value.
_SETTINGS = (
    ("Model", ("model", "name")),
    ("Pretrained", ("model", "pretrained")),
    ("Hidden dim", ("model", "hidden_dim")),
    ("Dropout", ("model", "dropout")),
    ("Epochs", ("training", "epochs")),
    ("Learning rate", ("optimizer", "lr")),
    ("Batch size", ("data", "batch_size")),
    ("AMP", ("training", "amp")),
    ("Infection onset (h)", ("multitask", "infection_onset_hour")),
    ("Classification weight", ("multitask", "classification_weight")),
    ("Regression weight", ("multitask", "regression_weight")),
)


def rate_classification(auc: float | None) -> str | None:
    """Rate a test AUC.

    Args:
        auc: In [0, 1]; None or NaN when undefined.

    Returns:
        ``EXCELLENT`` from 0.95, ``GOOD`` from 0.90, ``MODERATE`` from 0.80, else ``POOR``; None when
        undefined.

    Example:
        >>> rate_classification(0.95), rate_classification(0.7999)
        ('EXCELLENT', 'POOR')
    """
    if auc is None or np.isnan(auc):
        return None
    return next((word for limit, word in _CLASS_RATINGS if auc >= limit), "POOR")


def rate_time(mae: float | None) -> str | None:
    """Rate a test MAE.

    Args:
        mae: Hours; None or NaN when undefined.

    Returns:
        ``EXCELLENT`` below 1 h, ``GOOD`` below 2 h, ``MODERATE`` below 5 h, else ``POOR``; None when
        undefined.

    Example:
        >>> rate_time(0.999), rate_time(1.0)
        ('EXCELLENT', 'GOOD')
    """
    if mae is None or np.isnan(mae):
        return None
    return next((word for limit, word in _TIME_RATINGS if mae < limit), "POOR")


def judge_training(log: TrainingLog | None) -> Verdict:
    """Judge the last epoch.

    Args:
        log: The epochs; None when there is no log.

    Returns:
        ``overfit_warning`` when the last validation loss is above 1.5 times the last training loss, else
        ``degraded_warning`` when the last validation AUC is below 0.95 times the best, else ``converged``;
        ``unknown`` without losses.
    """
    if log is None:
        return "unknown"
    train, validation = _last(log, "train", "total_loss"), _last(log, "val", "total_loss")
    if train is None or validation is None:
        return "unknown"
    if validation > OVERFIT_FACTOR * train:
        return "overfit_warning"
    best, last = log.best("val_cls_auc"), _last(log, "val", "cls_auc")
    if best is not None and last is not None and last < DEGRADED_SHARE * best[1]:
        return "degraded_warning"
    return "converged"


def _last(log: TrainingLog, split: str, metric: str) -> float | None:
    """Return the last finite value; runs with one task log ``loss`` in place of ``total_loss``."""
    for name in (metric, "loss") if metric == "total_loss" else (metric,):
        values = log.series(f"{split}_{name}")
        values = values[np.isfinite(values)]
        if values.size:
            return float(values[-1])
    return None


def training_summary(results: Mapping[str, Any], log: TrainingLog | None) -> str:
    """Write the summary of a run; settings and metrics that are missing are named so, never an error.

    Args:
        results: Content of ``results.json``.
        log: The epochs, or None.

    Returns:
        The text of ``training_summary.txt``.
    """
    config = results.get("config")
    metrics = results.get("test_metrics")
    lines = ["=" * WIDTH, "MULTI-TASK TRAINING SUMMARY", "=" * WIDTH]
    lines += [
        f"Experiment: {_text(results.get('experiment_name'))}",
        f"Run ID: {_text(results.get('run_id'))}",
    ]
    lines += _section("CONFIGURATION", _settings(config if isinstance(config, Mapping) else {}))
    lines += _section("TRAINING PROGRESS", _progress(log, results))
    numbers = metrics if isinstance(metrics, Mapping) else {}
    lines += _section("TEST RESULTS", _test_results(numbers))
    lines += _section("INTERPRETATION", _interpretation(numbers, results))
    return "\n".join(lines) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, "-" * WIDTH, *lines]


def _text(value: Any) -> str:
    return "not recorded" if value is None else str(value)


def _settings(config: Mapping[str, Any]) -> list[str]:
    lines = []
    for label, (section, key) in _SETTINGS:
        values = config.get(section)
        value = values.get(key) if isinstance(values, Mapping) else None
        if label == "Batch size":
            training = config.get("training")
            override = training.get("batch_size") if isinstance(training, Mapping) else None
            value = value if override is None else override
        lines.append(f"{label}: {_text(value)}")
    return lines


def _progress(log: TrainingLog | None, results: Mapping[str, Any]) -> list[str]:
    lines = []
    if log is not None and log.epochs:
        lines.append(f"Epochs found: {len(log.epochs)} (last: {log.epochs[-1]})")
        if (best := log.best("val_cls_auc")) is not None:
            lines.append(f"Best validation AUC: {best[1]:.4f} (epoch {best[0]})")
        if (chosen := log.best("val_combined")) is not None:
            lines.append(f"Best validation combined score: {chosen[1]:.4f} (epoch {chosen[0]})")
        for label, split in (("training", "train"), ("validation", "val")):
            if (loss := _last(log, split, "total_loss")) is not None:
                lines.append(f"Final {label} loss: {loss:.4f}")
    selected = results.get("best_val_metric")
    if isinstance(selected, (int, float)):
        lines.append(f"Validation metric of the kept weights: {selected:.4f}")
    return [*lines, _VERDICTS[judge_training(log)]]


def _test_results(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["No test metrics were recorded."]
    names = [name for name in MULTITASK_METRICS if name in metrics]
    names += [name for name in metrics if name not in MULTITASK_METRICS]
    return [f"{name}: {_number(metrics[name])}" for name in names]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "undefined" if value is None else str(value)
    if isinstance(value, int):
        return str(value)
    return "undefined" if np.isnan(value) else f"{value:.4f}"


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _interpretation(metrics: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    auc = _float(metrics.get("cls_auc", metrics.get("auc")))
    mae = _float(metrics.get("reg_mae"))
    lines = []
    rating = rate_classification(auc)
    lines.append(
        f"Classification: {rating} (AUC {auc:.4f})"
        if rating
        else "Classification: undefined (no AUC in the results)"
    )
    rating = rate_time(mae)
    lines.append(f"Time: {rating} (MAE {mae:.4f} h)" if rating else "Time: no time error in the results")
    baselines = results.get("baselines")
    if isinstance(baselines, Mapping):
        constant = _float(baselines.get("constant_mae"))
        if constant is not None and mae is not None:
            lines.append(f"The best constant time has MAE {constant:.3f} h; the model {mae:.3f} h.")
        majority = _float(baselines.get("majority_accuracy"))
        accuracy = _float(metrics.get("cls_accuracy"))
        if majority is not None and accuracy is not None:
            lines.append(f"The commonest class has accuracy {majority:.4f}; the model {accuracy:.4f}.")
    return lines
