"""Whether predicted survival probabilities mean what they say: D-calibration, KM-calibration, calibration at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medshared.metrics.survival_data import (
    Floats,
    Integers,
    kaplan_meier,
    survival_labels,
    warn_undefined,
)


class DCalibration(NamedTuple):
    """Test of distribution calibration.

    Attributes:
        statistic: χ² against equally filled bins.
        p_value: Small values speak against calibration; NaN without patients.
        histogram: Patients (in parts) in each bin of survival probability, from [0, 1/K) up, shape ``[K]``.
    """

    statistic: float
    p_value: float
    histogram: Floats


class KmCalibration(NamedTuple):
    """The mean predicted curve against Kaplan–Meier.

    Attributes:
        observed: Kaplan–Meier at each time, shape ``[T]``.
        predicted: Mean of the predicted curves, shape ``[T]``.
        mean_squared_difference: Average over the grid; 0 is perfect.
        largest_difference: Largest absolute difference on the grid.
    """

    observed: Floats
    predicted: Floats
    mean_squared_difference: float
    largest_difference: float


class CalibrationAtTime(NamedTuple):
    """Predicted against observed risk of an event up to one time, in groups of rising risk.

    Attributes:
        predicted: Mean predicted risk of each group, shape ``[G]``.
        observed: One minus Kaplan–Meier of the group, shape ``[G]``.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Patients of the group.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    n: Integers


def d_calibration(survival_at_time: ArrayLike, event: ArrayLike, n_bins: int = 10) -> DCalibration:
    """Test whether survival probabilities at the patients' own times are uniform (Haider et al. 2020).

    A patient with an event counts in the bin that holds ``S_i(t_i)``. A patient censored with probability
    ``c = S_i(t_i)`` has the event later, at a probability uniform in [0, c]: the bin [a, b) of c gets
    ``(c - a) / c`` and every lower bin, of width w, gets ``w / c``.

    Args:
        survival_at_time: Predicted survival of each patient at the patient's own time, in [0, 1], shape
            ``[n]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        n_bins: Number K of equal bins.

    Returns:
        Statistic, p and histogram, whose sum is n.

    Raises:
        ValueError: Shapes differ or a probability lies outside [0, 1].

    Example:
        >>> d_calibration([0.1, 0.3, 0.6, 0.9, 0.5], [1, 1, 1, 1, 0], n_bins=2).histogram.tolist()
        [3.0, 2.0]
    """
    s = np.asarray(survival_at_time, dtype=np.float64)
    e, _ = survival_labels(event, np.zeros(s.shape))
    if np.isnan(s).any() or (s < 0).any() or (s > 1).any():
        raise ValueError("survival_at_time must be probabilities in [0, 1]")
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    # A probability written as 0.6 belongs to the bin that starts there, however 3/5 is rounded.
    home = np.minimum(np.floor(s * n_bins + 1e-9).astype(np.int64), n_bins - 1)
    parts = np.zeros((s.size, n_bins))
    parts[np.arange(s.size), home] = 1.0
    later = ~e & (s > 0)
    c = s[later, None]
    parts[later] = np.clip(c - edges[:-1], 0.0, 1.0 / n_bins) / c
    histogram = parts.sum(axis=0)
    if s.size == 0:
        undefined = warn_undefined("D-calibration", "there are no patients")
        return DCalibration(undefined, undefined, histogram)
    from scipy.special import chdtrc

    expected = s.size / n_bins
    statistic = float(np.sum((histogram - expected) ** 2) / expected)
    return DCalibration(statistic, float(chdtrc(n_bins - 1, statistic)), histogram)


def km_calibration(survival: ArrayLike, event: ArrayLike, time: ArrayLike, grid: ArrayLike) -> KmCalibration:
    """Compare the mean of the predicted curves with Kaplan–Meier of the same patients.

    Args:
        survival: Predicted survival beyond each time, shape ``[n, T]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``.
        grid: Increasing times, shape ``[T]``, inside the follow-up.

    Returns:
        Both curves, the squared difference averaged over the grid by the trapezoidal rule and the largest
        difference.

    Example:
        >>> found = km_calibration([[0.5], [0.7]], [1, 1], [1.0, 3.0], [2.0])
        >>> round(found.mean_squared_difference, 4)
        0.01
    """
    from medshared.metrics.survival_curves import integrate

    e, t = survival_labels(event, time)
    s, g = np.asarray(survival, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if s.shape != (e.size, g.size):
        raise ValueError(f"survival must have shape [{e.size}, {g.size}], found {list(s.shape)}")
    if not e.size or not g.size:
        undefined = warn_undefined("KM-calibration", "there are no patients or no times")
        return KmCalibration(np.zeros(0), np.zeros(0), undefined, undefined)
    observed, predicted = kaplan_meier(e, t).at(g), s.mean(axis=0)
    difference = observed - predicted
    squared = float(integrate(difference**2, g))
    return KmCalibration(observed, predicted, squared, float(np.abs(difference).max()))


def calibration_at(
    survival_at: ArrayLike, event: ArrayLike, time: ArrayLike, at: float, n_groups: int = 5
) -> CalibrationAtTime:
    """Compare predicted and observed risk up to one time in groups of patients of similar risk.

    Args:
        survival_at: Predicted survival beyond ``at``, in [0, 1], shape ``[n]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``.
        at: The time, inside the follow-up.
        n_groups: Groups of equal size; fewer when there are fewer patients.

    Returns:
        One entry for each group, from low to high risk.

    Example:
        >>> found = calibration_at([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], [9.0, 9.0, 1.0, 2.0], at=5.0, n_groups=2)
        >>> found.predicted.round(2).tolist(), found.observed.tolist()
        ([0.15, 0.85], [0.0, 1.0])
    """
    e, t = survival_labels(event, time)
    risk = 1.0 - np.asarray(survival_at, dtype=np.float64)
    if risk.shape != e.shape:
        raise ValueError(f"survival_at must have the shape of time {t.shape}, found {risk.shape}")
    order = np.argsort(risk, kind="stable")
    groups = np.array_split(order, min(n_groups, order.size)) if order.size else []
    rows = np.empty((len(groups), 4))
    for k, members in enumerate(groups):
        curve = kaplan_meier(e[members], t[members])
        step = int(np.searchsorted(curve.time, at, side="right")) - 1
        low, high = (curve.low[step], curve.high[step]) if step >= 0 else (1.0, 1.0)
        rows[k] = risk[members].mean(), 1.0 - float(curve.at(at)), 1.0 - high, 1.0 - low
    n = np.array([members.size for members in groups], dtype=np.int64)
    return CalibrationAtTime(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], n)
