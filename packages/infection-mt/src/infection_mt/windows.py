"""Metrics in sliding windows of the hours since the first frame: how early can infection be seen?

One function covers the six definitions of the original as `WindowRule` values. The standard: half-open
windows whose last one includes its end, every window kept with its numbers of frames, aggregation over
folds by centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.aggregation import aggregate_folds, aggregate_windows, cv_temporal_metrics
from infection_mt.config import WindowsConfig
from infection_mt.prediction_table import Predictions
from infection_mt.uncertainty import class_strata
from infection_mt.window_files import (
    fold_temporal_metrics,
    temporal_metrics,
    window_lists,
    write_temporal_metrics,
)
from infection_mt.window_rules import (
    COMPARISON,
    COMPREHENSIVE,
    CROSS_VALIDATION,
    FAIR,
    METRICS,
    SINGLE_RUN,
    SLIDING,
    STANDARD,
    WindowMetrics,
    WindowRule,
)
from medshared.metrics.classification import binary_metrics, roc_auc
from medshared.metrics.statistics import Interval, cluster_bootstrap_many

__all__ = [
    "COMPARISON",
    "COMPREHENSIVE",
    "CROSS_VALIDATION",
    "FAIR",
    "SINGLE_RUN",
    "SLIDING",
    "STANDARD",
    "WindowMetrics",
    "WindowRule",
    "aggregate_folds",
    "aggregate_windows",
    "cv_temporal_metrics",
    "earliest_reliable_hour",
    "fold_temporal_metrics",
    "rule_of",
    "temporal_metrics",
    "window_lists",
    "window_predictions",
    "window_starts",
    "windowed_metrics",
    "write_temporal_metrics",
]

Floats = NDArray[np.float64]


def window_starts(
    size_hours: float, stride_hours: float, start_hour: float, end_hour: float, tolerance: float = 1e-9
) -> list[float]:
    """Return start, start + stride, … while the window ends within the limit.

    Args:
        size_hours: Length of a window.
        stride_hours: Distance of neighbouring windows.
        start_hour: First start.
        end_hour: Limit of the ends.
        tolerance: Added to the limit.

    Returns:
        The starts in hours.

    Raises:
        ValueError: When size or stride is not positive.

    Example:
        >>> window_starts(6, 3, 0, 12)
        [0.0, 3.0, 6.0]
    """
    if not (size_hours > 0 and stride_hours > 0):
        raise ValueError(
            f"size and stride of windows must be positive, found {size_hours} and {stride_hours} hours"
        )
    starts = []
    start = float(start_hour)
    # Added up, not multiplied: the centres of the original carry its rounding.
    while start + size_hours <= end_hour + tolerance:
        starts.append(start)
        start += stride_hours
    return starts


def windowed_metrics(
    probability: ArrayLike,
    label: ArrayLike,
    hours: ArrayLike,
    *,
    size_hours: float = 6.0,
    stride_hours: float = 3.0,
    start_hour: float = 0.0,
    end_hour: float = 48.0,
    starts: Sequence[float] | None = None,
    rule: WindowRule = STANDARD,
    threshold: float = 0.5,
    logit: ArrayLike | None = None,
    time: ArrayLike | None = None,
    time_target: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    n_resamples: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[WindowMetrics]:
    """Metrics of the frames of every window.

    Args:
        probability: P(infected), shape ``[N]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        hours: Hours since the first frame for both classes, shape ``[N]``.
        size_hours: Length of a window.
        stride_hours: Distance of neighbouring windows.
        start_hour: Start of the first window.
        end_hour: Latest end of a window.
        starts: Starts in hours in place of start, stride and end.
        rule: Borders, minimum, decision and handling of one class.
        threshold: Decision on P(infected).
        logit: Scores of the AUC, shape ``[N]``; None takes the probability, in which confident frames may
            tie.
        time: Predicted hours, shape ``[N]``, for the time errors.
        time_target: True hours, shape ``[N]``.
        groups: Stack or well of every frame, shape ``[N]``, for the intervals.
        n_resamples: Resamples of the intervals; 0 for none.
        confidence: Coverage of the intervals.
        seed: Of the resampling.

    Returns:
        The windows in order of time.

    Example:
        >>> first = windowed_metrics([0.9, 0.2, 0.8], [1, 0, 0], [1.0, 2.0, 5.0], end_hour=6)[0]
        >>> first.n, first.accuracy, first.auc
        (3, 0.6666666666666666, 1.0)
    """
    frames = _Frames.of(probability, label, hours, logit, time, time_target, groups)
    if rule.from_first_hour and frames.hours.size:
        start_hour, end_hour = float(frames.hours.min()), float(frames.hours.max())
    laid_out = (
        window_starts(size_hours, stride_hours, start_hour, end_hour, rule.tolerance)
        if starts is None
        else starts
    )
    windows = []
    for number, start in enumerate(laid_out):
        closed = rule.interval == "closed" or (rule.interval == "last-closed" and number == len(laid_out) - 1)
        end = start + size_hours
        inside = (frames.hours >= start) & ((frames.hours <= end) if closed else (frames.hours < end))
        window = _measure(frames.take(inside), float(start), float(end), rule, threshold)
        if np.isnan(window.accuracy) and np.isnan(window.mae) and rule.omit:
            continue
        if n_resamples and groups is not None and window.n:
            intervals = _intervals(frames.take(inside), rule, threshold, n_resamples, confidence, seed)
            window = replace(window, intervals=intervals)
        windows.append(window)
    return windows


@dataclass(frozen=True)
class _Frames:
    """The arrays that windows are cut from."""

    probability: Floats
    label: NDArray[np.int64]
    hours: Floats
    score: Floats
    error: Floats
    groups: NDArray[Any]

    @classmethod
    def of(
        cls,
        probability: ArrayLike,
        label: ArrayLike,
        hours: ArrayLike,
        logit: ArrayLike | None,
        time: ArrayLike | None,
        time_target: ArrayLike | None,
        groups: ArrayLike | None,
    ) -> _Frames:
        p, h = np.asarray(probability, dtype=np.float64), np.asarray(hours, dtype=np.float64)
        missing = np.full(p.shape, np.nan)
        error = missing
        if time is not None and time_target is not None:
            error = np.asarray(time, dtype=np.float64) - np.asarray(time_target, dtype=np.float64)
        frames = cls(
            p,
            np.asarray(label).astype(np.int64),
            h,
            p if logit is None else np.asarray(logit, dtype=np.float64),
            error,
            np.arange(p.size) if groups is None else np.asarray(groups),
        )
        shapes = {name: getattr(frames, name).shape for name in cls.__dataclass_fields__}
        if len(set(shapes.values())) != 1 or p.ndim != 1:
            raise ValueError(f"all arrays need one entry per frame, found shapes {shapes}")
        return frames

    def take(self, rows: NDArray[Any]) -> _Frames:
        return _Frames(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def _measure(frames: _Frames, start: float, end: float, rule: WindowRule, threshold: float) -> WindowMetrics:
    n, infected = int(frames.label.size), int(frames.label.sum())
    window = WindowMetrics(start, end, start + (end - start) / 2.0, n, infected, n - infected)
    if n < max(1, rule.min_samples) or (rule.both_classes and infected in (0, n)):
        return window
    return replace(window, **_values(frames, rule, threshold))


def _values(frames: _Frames, rule: WindowRule, threshold: float) -> dict[str, float]:
    """Return the metrics of frames by name; undefined ones are left out."""
    values: dict[str, float] = {}
    if not np.isnan(frames.probability).all():
        metrics = binary_metrics(frames.probability, frames.label, threshold, strict=rule.strict)
        metrics["auc"] = roc_auc(frames.score, frames.label)
        one_class = frames.label.min() == frames.label.max()
        names = ("accuracy",) if one_class and rule.one_class == "accuracy" else METRICS
        values.update({name: metrics[name] for name in names})
    if not np.isnan(frames.error).all():
        values["mae"] = float(np.mean(np.abs(frames.error)))
        values["rmse"] = float(np.sqrt(np.mean(frames.error**2)))
        values["bias"] = float(np.mean(frames.error))
    return values


def _intervals(
    frames: _Frames, rule: WindowRule, threshold: float, n_resamples: int, confidence: float, seed: int
) -> dict[str, Interval]:
    kept = ("auc", "accuracy", "f1", "mae")

    def statistic(rows: NDArray[np.int64]) -> dict[str, float]:
        values = _values(frames.take(rows), rule, threshold)
        return {name: values[name] for name in kept if name in values}

    strata = class_strata(frames.groups, frames.label)
    return cluster_bootstrap_many(statistic, frames.groups, n_resamples, confidence, seed, strata=strata)


def rule_of(config: WindowsConfig) -> WindowRule:
    """Return the rule that the configuration asks for.

    Args:
        config: ``closed: true`` is the single-run rule of the original.

    Returns:
        The rule with the configured minimum.
    """
    return replace(SINGLE_RUN if config.closed else STANDARD, min_samples=config.min_samples)


def window_predictions(
    predictions: Predictions,
    config: WindowsConfig | None = None,
    *,
    rule: WindowRule | None = None,
    threshold: float = 0.5,
    groups: ArrayLike | None = None,
    n_resamples: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[WindowMetrics]:
    """Metrics of saved predictions in the configured windows.

    Args:
        predictions: Outputs and truth.
        config: Size, stride, limits, minimum; None takes the defaults (6 h, 3 h, 0–48 h).
        rule: In place of the configuration's.
        threshold: Decision on P(infected).
        groups: For the intervals; None takes the stacks.
        n_resamples: Resamples of the intervals; 0 for none.
        confidence: Coverage of the intervals.
        seed: Of the resampling.

    Returns:
        The windows, see `windowed_metrics`.
    """
    settings = WindowsConfig() if config is None else config
    p = predictions
    return windowed_metrics(
        p.probability,
        p.label,
        p.hours,
        size_hours=settings.size_hours,
        stride_hours=settings.stride_hours,
        start_hour=settings.start_hour,
        end_hour=settings.end_hour,
        rule=rule_of(settings) if rule is None else rule,
        threshold=threshold,
        logit=p.logit,
        time=p.time,
        time_target=p.time_target,
        groups=p.stack_index if groups is None else groups,
        n_resamples=n_resamples,
        confidence=confidence,
        seed=seed,
    )


def earliest_reliable_hour(
    windows: Sequence[WindowMetrics], *, metric: str = "auc", level: float = 0.99, consecutive: int = 2
) -> float | None:
    """Return the first centre from which the metric holds for some windows in a row.

    Args:
        windows: In order of time.
        metric: A field of `WindowMetrics`.
        level: Smallest value that counts.
        consecutive: Windows in a row.

    Returns:
        Hours since the first frame, or None when it never holds.

    Example:
        >>> auc = {3: 0.98, 6: 0.99, 9: 1.0}
        >>> w = [WindowMetrics(c - 3, c + 3, c, 20, 10, 10, auc=a) for c, a in auc.items()]
        >>> earliest_reliable_hour(w)
        6
    """
    held = [getattr(window, metric) >= level for window in windows]
    for i in range(len(held) - consecutive + 1):
        if all(held[i : i + consecutive]):
            return windows[i].center
    return None
