"""Samples of predicted times taken as a distribution: curves, CRPS, coverage of intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medshared.metrics.survival_data import Booleans, Floats, survival_labels, warn_undefined


class Coverage(NamedTuple):
    """How often intervals of samples hold the true time.

    Attributes:
        observed: Share among the patients with an event; NaN without one. Those with an event tend to have
            had it early, so this alone is biased where many are censored.
        at_least: Share of all patients whose time is known to lie inside.
        at_most: Share of all patients whose time may lie inside: also the censored before the upper end.
        mean_width: Mean length of the intervals, in the unit of the samples.
    """

    observed: float
    at_least: float
    at_most: float
    mean_width: float


def _samples(samples: ArrayLike, n: int | None = None) -> Floats:
    s = np.asarray(samples, dtype=np.float64)
    if s.ndim != 2 or s.shape[1] == 0 or (n is not None and len(s) != n):
        raise ValueError(
            f"samples must have shape [n, k] with one row for each of {n} patients, found {s.shape}"
        )
    if not np.isfinite(s).all():
        raise ValueError("samples must be finite numbers")
    return s


def survival_from_samples(samples: ArrayLike, grid: ArrayLike) -> Floats:
    """Survival curves of samples: the share of samples beyond each time.

    Args:
        samples: Predicted times, shape ``[n, k]``.
        grid: Times in the same unit, shape ``[T]``.

    Returns:
        Shape ``[n, T]``, in [0, 1].

    Example:
        >>> survival_from_samples([[1.0, 2.0, 3.0, 4.0]], [0.5, 2.0, 9.0]).tolist()
        [[1.0, 0.5, 0.0]]
    """
    s = np.sort(_samples(samples), axis=1)
    g = np.asarray(grid, dtype=np.float64)
    passed = (
        np.stack([np.searchsorted(row, g, side="right") for row in s]) if len(s) else np.zeros((0, g.size))
    )
    return 1.0 - passed / s.shape[1]


def survival_at_own_time(samples: ArrayLike, time: ArrayLike, seed: int = 0) -> Floats:
    """Survival of each patient at the patient's own time, for D-calibration.

    With few samples the share beyond ``t`` takes few values, which alone fills bins unequally. The rank of
    ``t`` among the samples is therefore placed at random within its step: ``(above + U) / (k + 1)``, uniform
    for a calibrated prediction whatever k is. Samples equal to ``t`` are drawn to either side.

    Args:
        samples: Predicted times, shape ``[n, k]``.
        time: Time of each patient in the same unit, shape ``[n]``.
        seed: Of the placing.

    Returns:
        Shape ``[n]``, in (0, 1).

    Example:
        >>> survival_at_own_time([[1.0, 2.0, 3.0]], [2.5]).round(2).tolist()
        [0.41]
    """
    t = np.asarray(time, dtype=np.float64)
    s = _samples(samples, t.size)
    rng = np.random.default_rng(seed)
    above = (s > t[:, None]).sum(axis=1)
    equal = (s == t[:, None]).sum(axis=1)
    return (above + rng.uniform(0.0, 1.0, t.size) * (equal + 1)) / (s.shape[1] + 1)


def crps_samples(samples: ArrayLike, event: ArrayLike, time: ArrayLike) -> Floats:
    """Continuous ranked probability score of samples, for censored times its part before the censoring.

    ``CRPS_i = ∫_{x < t_i} F_i(x)² dx + e_i ∫_{x >= t_i} (1 - F_i(x))² dx``, F the step distribution of the
    samples, integrated exactly. For an observed event this is ``E|X - t| - E|X - X'| / 2``; what a censored
    patient's distribution does after the censoring is not judged (Avati et al. 2019).

    Args:
        samples: Predicted times, shape ``[n, k]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: In the unit of the samples, shape ``[n]``.

    Returns:
        Score of each patient in that unit, shape ``[n]``; lower is better, one sample gives the absolute error.

    Example:
        >>> crps_samples([[1.0, 3.0], [1.0, 3.0], [5.0, 5.0]], [1, 0, 1], [2.0, 2.0, 4.0]).tolist()
        [0.5, 0.25, 1.0]
    """
    e, t = survival_labels(event, time)
    s = np.sort(_samples(samples, t.size), axis=1)
    k = s.shape[1]
    share = np.arange(1, k + 1) / k
    # F is j/k between the j-th and the next sample, and 1 from the last on.
    ends = np.concatenate([s[:, 1:], np.maximum(s[:, -1:], t[:, None])], axis=1)
    before = np.clip(np.minimum(ends, t[:, None]) - s, 0.0, None)
    left = before @ share**2
    # 1 - F is 1 before the first sample and (k - j)/k after the j-th.
    starts = np.concatenate([np.minimum(s[:, :1], t[:, None]), s], axis=1)
    stops = np.concatenate([s, s[:, -1:]], axis=1)
    after = np.clip(stops - np.maximum(starts, t[:, None]), 0.0, None)
    right = after @ (1.0 - np.concatenate([[0.0], share])) ** 2
    return left + np.where(e, right, 0.0)


def intervals_from_samples(samples: ArrayLike, level: float = 0.9) -> tuple[Floats, Floats]:
    """Equal-tailed intervals of samples, by linear interpolation between them.

    Args:
        samples: Shape ``[n, k]``.
        level: Probability inside, in (0, 1).

    Returns:
        Lower and upper ends, each of shape ``[n]``.

    Example:
        >>> low, high = intervals_from_samples([[0.0, 1.0, 2.0, 3.0, 4.0]], 0.5)
        >>> float(low[0]), float(high[0])
        (1.0, 3.0)
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(_samples(samples), [tail, 1.0 - tail], axis=1)
    return low, high


def coverage_flags(
    samples: ArrayLike, event: ArrayLike, time: ArrayLike, level: float = 0.9
) -> tuple[Booleans, Booleans]:
    """Return which patients' intervals hold the true time for certain, and which may hold it.

    Args:
        samples: Predicted times, shape ``[n, k]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: In the unit of the samples, shape ``[n]``.
        level: Probability inside, in (0, 1).

    Returns:
        Two arrays of shape ``[n]``; a censored patient is never certain, and possible when censored before
        the upper end.
    """
    e, t = survival_labels(event, time)
    low, high = intervals_from_samples(_samples(samples, t.size), level)
    certain = e & (low <= t) & (t <= high)
    return certain, certain | (~e & (t < high))


def interval_coverage(samples: ArrayLike, event: ArrayLike, time: ArrayLike, level: float = 0.9) -> Coverage:
    """Coverage of equal-tailed intervals of samples.

    Args:
        samples: Predicted times, shape ``[n, k]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: In the unit of the samples, shape ``[n]``.
        level: Probability inside, in (0, 1).

    Returns:
        Coverage among events, and bounds over all patients. With k samples an interval can hold at most
        ``(k - 1) / (k + 1)`` of the future: 30 samples suffice for 90 %.

    Example:
        >>> samples = [[0.0, 10.0]] * 4
        >>> found = interval_coverage(samples, [1, 1, 0, 0], [5.0, 20.0, 5.0, 20.0], level=0.9)
        >>> found.observed, found.at_least, found.at_most, found.mean_width
        (0.5, 0.25, 0.5, 9.0)
    """
    e, t = survival_labels(event, time)
    if not t.size:
        undefined = warn_undefined("the coverage", "there are no patients")
        return Coverage(undefined, undefined, undefined, undefined)
    certain, possible = coverage_flags(samples, e, t, level)
    low, high = intervals_from_samples(samples, level)
    observed = float(certain[e].mean()) if e.any() else warn_undefined("the coverage", "there are no events")
    return Coverage(observed, float(certain.mean()), float(possible.mean()), float(np.mean(high - low)))
