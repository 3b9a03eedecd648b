"""Censored times: checking them, and the Kaplan–Meier curves of survival and of censoring."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]


class UndefinedMetricWarning(UserWarning):
    """A metric has no value on these data and was returned as NaN."""


def warn_undefined(metric: str, reason: str) -> float:
    """Warn that a metric is undefined and return NaN."""
    warnings.warn(
        f"{metric} is undefined and returned as NaN: {reason}", UndefinedMetricWarning, stacklevel=3
    )
    return float("nan")


def survival_labels(event: ArrayLike, time: ArrayLike) -> tuple[Booleans, Floats]:
    """Check events and times and return them as arrays.

    Args:
        event: 1 where the event was observed, 0 where the patient was censored, shape ``[n]``.
        time: Time of the event or of censoring, shape ``[n]``, any unit.

    Returns:
        Events as booleans and times as float64, each of shape ``[n]``.

    Raises:
        ValueError: Other shapes, an event that is neither 0 nor 1, a time that is no finite number.
    """
    given, t = np.asarray(event), np.asarray(time, dtype=np.float64)
    if given.ndim != 1 or given.shape != t.shape:
        raise ValueError(
            f"event and time must have one dimension and equal length, found {given.shape} and {t.shape}"
        )
    e = given.astype(np.float64)
    wrong = np.flatnonzero(~np.isin(e, (0.0, 1.0)))
    if wrong.size:
        raise ValueError(f"event must be 0 or 1, found {given[wrong[0]]} at position {wrong[0]}")
    wrong = np.flatnonzero(~np.isfinite(t))
    if wrong.size:
        raise ValueError(f"time must be a finite number, found {t[wrong[0]]} at position {wrong[0]}")
    return e == 1.0, t


class KaplanMeier(NamedTuple):
    """A step curve that falls at event times.

    Attributes:
        time: Distinct times of the data, increasing, shape ``[K]``.
        survival: Probability of an event after ``time``, shape ``[K]``.
        low: Lower end of the interval at each time, shape ``[K]``; NaN where it is undefined.
        high: Upper end.
        at_risk: Patients under observation just before ``time``, shape ``[K]``.
        events: Events at ``time``, shape ``[K]``.
    """

    time: Floats
    survival: Floats
    low: Floats
    high: Floats
    at_risk: Integers
    events: Integers

    def at(self, t: ArrayLike) -> Floats:
        """Return the survival after each time in ``t``; 1 before the first, the last value after the last."""
        steps = np.searchsorted(self.time, np.asarray(t, dtype=np.float64), side="right")
        return np.concatenate([[1.0], self.survival])[steps]

    def before(self, t: ArrayLike) -> Floats:
        """Return the survival just before each time in ``t``."""
        steps = np.searchsorted(self.time, np.asarray(t, dtype=np.float64), side="left")
        return np.concatenate([[1.0], self.survival])[steps]

    @property
    def median(self) -> float:
        """First time at which at most half survive; infinite when more than half do at the end."""
        reached = np.flatnonzero(self.survival <= 0.5)
        return float(self.time[reached[0]]) if reached.size else float("inf")


def _counts(event: Booleans, time: Floats) -> tuple[Floats, Integers, Integers, Integers]:
    """Return distinct times with the patients at risk, the events and the censorings at each."""
    distinct, inverse = np.unique(time, return_inverse=True)
    events = np.bincount(inverse, weights=event, minlength=distinct.size).astype(np.int64)
    total = np.bincount(inverse, minlength=distinct.size).astype(np.int64)
    at_risk = total[::-1].cumsum()[::-1]
    return distinct, at_risk, events, total - events


def kaplan_meier(event: ArrayLike, time: ArrayLike, confidence: float = 0.95) -> KaplanMeier:
    """Estimate the survival curve: ``S(t) = Π_{t_k <= t} (1 - d_k / n_k)``.

    The interval is that of ``log(-log S)`` with Greenwood's variance.

    Args:
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``, any unit.
        confidence: Coverage of the interval at each time, in (0, 1).

    Returns:
        The curve.

    Example:
        >>> curve = kaplan_meier([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0])
        >>> curve.survival.tolist(), curve.at([0.5, 3.0]).tolist(), curve.median
        ([0.75, 0.75, 0.375, 0.375], [1.0, 0.375], 3.0)
    """
    from scipy.special import ndtri

    e, t = survival_labels(event, time)
    distinct, at_risk, events, _ = _counts(e, t)
    survival: Floats = np.cumprod(1.0 - events / np.maximum(at_risk, 1), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(events / (at_risk * (at_risk - events)))
        log_survival = np.log(survival)
        width = float(ndtri(0.5 + confidence / 2.0)) * np.sqrt(greenwood) / np.abs(log_survival)
        low: Floats = np.power(survival, np.exp(width), dtype=np.float64)
        high: Floats = np.power(survival, np.exp(-width), dtype=np.float64)
    certain = survival == 1.0
    low[certain] = high[certain] = 1.0
    return KaplanMeier(distinct, survival, low, high, at_risk, events)


def censoring_curve(event: ArrayLike, time: ArrayLike) -> KaplanMeier:
    """Estimate the probability of not being censored: Kaplan–Meier with the roles exchanged.

    Where an event and a censoring share a time, the event comes first, as in `kaplan_meier`.

    Args:
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``, any unit.

    Returns:
        The curve G; ``G.before(t)`` is the probability of being under observation at ``t``. Its interval is
        not computed (NaN).

    Example:
        >>> censoring_curve([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0]).survival.round(3).tolist()
        [1.0, 0.667, 0.667, 0.0]
    """
    e, t = survival_labels(event, time)
    distinct, at_risk, events, censored = _counts(e, t)
    left = at_risk - events
    survival: Floats = np.cumprod(1.0 - censored / np.maximum(left, 1), dtype=np.float64)
    unknown = np.full(distinct.size, np.nan)
    return KaplanMeier(distinct, survival, unknown, unknown, left, censored)
