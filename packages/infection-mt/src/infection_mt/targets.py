"""Time targets in hours: one function for every script and both classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.config import ClampRange, SingleTaskRegression


def clamp_hours(hours: NDArray[np.float64], clamp_range: ClampRange) -> NDArray[np.float64]:
    """Limit hours to ``clamp_range``; an end that is None stays open."""
    low, high = clamp_range
    if low is not None:
        hours = np.maximum(hours, low)
    if high is not None:
        hours = np.minimum(hours, high)
    return hours


def time_targets(
    hours: ArrayLike, infected: ArrayLike, onset_hour: ArrayLike, clamp_range: ClampRange
) -> NDArray[np.float32]:
    """Multi-task targets: infected → ``max(h − onset, 0)``, uninfected → ``h``, then clamped.

    Args:
        hours: [N] hours since the first frame; NaN (missing) counts as 0.
        infected: [N] whether the stack received virus. The original tested for the literal label 1 instead.
        onset_hour: Hour of infection, one for all or [N].
        clamp_range: Lower and upper limit in hours; None leaves an end open.

    Returns:
        [N] float32 hours.
    """
    h = np.nan_to_num(np.asarray(hours, dtype=np.float64), nan=0.0)
    since_onset = np.maximum(h - np.asarray(onset_hour, dtype=np.float64), 0.0)
    target = np.where(np.asarray(infected, dtype=bool), since_onset, h)
    return clamp_hours(target, clamp_range).astype(np.float32)


def single_task_targets(
    hours: ArrayLike, infected: ArrayLike, settings: SingleTaskRegression
) -> NDArray[np.float32]:
    """Targets of the original's single-task regression (``train.py``).

    Infected frames get the time since the onset, or until it (``time_to_onset``); uninfected frames get the
    constant ``uninfected_target``. Then all are clamped.

    Args:
        hours: [N] hours since the first frame; NaN counts as 0.
        infected: [N] whether the stack received virus.
        settings: ``task.regression``.

    Returns:
        [N] float32 hours.
    """
    h = np.nan_to_num(np.asarray(hours, dtype=np.float64), nan=0.0)
    difference = h - settings.infection_onset_hour
    if settings.target == "time_to_onset":
        difference = -difference
    target = np.where(
        np.asarray(infected, dtype=bool), np.maximum(difference, 0.0), settings.uninfected_target
    )
    return clamp_hours(target, settings.clamp_range).astype(np.float32)
