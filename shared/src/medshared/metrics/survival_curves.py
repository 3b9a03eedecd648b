"""Survival curves against outcomes: Brier score, time-dependent AUC, log-rank test, and times where they are safe.

Censoring is corrected by weights ``1 / G``, G being the probability of not being censored, estimated on the training
patients. A time grid is safe when it lies inside the follow-up of both training and test patients and G is above
zero there (`safe_time_grid`). One row of `brier_contributions` belongs to one patient, so that resampling patients
only averages rows.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medshared.metrics.survival_data import (
    Booleans,
    Floats,
    KaplanMeier,
    censoring_curve,
    kaplan_meier,
    survival_labels,
    warn_undefined,
)

__all__ = [
    "KaplanMeier",
    "LogRank",
    "TimeDependentAuc",
    "brier_contributions",
    "brier_score",
    "integrate",
    "integrated_brier_score",
    "kaplan_meier",
    "log_rank",
    "safe_time_grid",
    "time_dependent_auc",
]


class TimeDependentAuc(NamedTuple):
    """Discrimination at several times.

    Attributes:
        auc: At each time, shape ``[T]``; NaN where no patient has had the event or none is left.
        mean: Average over the grid, weighted by the share of patients that have their event between the
            times.
    """

    auc: Floats
    mean: float


class LogRank(NamedTuple):
    """Test that groups have the same survival.

    Attributes:
        statistic: χ².
        p_value: Two-sided.
        freedom: Degrees of freedom, groups less one.
    """

    statistic: float
    p_value: float
    freedom: int


def safe_time_grid(
    event: ArrayLike,
    time: ArrayLike,
    train_event: ArrayLike,
    train_time: ArrayLike,
    n_times: int = 50,
    *,
    least_g: float = 0.05,
) -> Floats:
    """Return times at which censoring-weighted metrics can be computed.

    The grid lies strictly between the first event of the test patients and the earliest of: their longest
    time, the longest training time, and the time at which at most ``least_g`` of the training patients are
    not yet censored.

    Args:
        event: Events of the test patients, shape ``[n]``.
        time: Times of the test patients.
        train_event: Events of the training patients, shape ``[m]``.
        train_time: Times of the training patients.
        n_times: Number of times.
        least_g: Smallest probability of not being censored; its inverse is the largest weight.

    Returns:
        Increasing times, evenly spaced, shape ``[n_times]``; empty (with an `UndefinedMetricWarning`) when
        there is no such time.

    Example:
        >>> event, time = [1, 1, 0, 1], [1.0, 2.0, 3.0, 5.0]
        >>> safe_time_grid(event, time, event, time, 3).tolist()
        [2.0, 3.0, 4.0]
    """
    e, t = survival_labels(event, time)
    known_event, known_time = survival_labels(train_event, train_time)
    if e.any() and known_time.size:
        curve = censoring_curve(known_event, known_time)
        ends = [t.max(), known_time.max(), *curve.time[curve.survival <= least_g][:1]]
        low, high = float(t[e].min()), float(min(ends))
        if low < high:
            return np.linspace(low, high, n_times + 2)[1:-1]
    warn_undefined("the time grid", "no event of the test patients lies within the follow-up of all")
    return np.zeros(0)


def _curves(survival: ArrayLike, n: int, grid: ArrayLike) -> tuple[Floats, Floats]:
    """Check survival curves [n, T] and their grid [T]."""
    s, g = np.asarray(survival, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if g.ndim != 1 or (np.diff(g) <= 0).any():
        raise ValueError("grid must be a list of increasing times")
    if s.shape != (n, g.size):
        raise ValueError(f"survival must have shape [{n}, {g.size}] (patients, times), found {list(s.shape)}")
    if np.isnan(s).any() or (s < -1e-9).any() or (s > 1 + 1e-9).any():
        raise ValueError("survival must be probabilities in [0, 1]")
    return s, g


def brier_contributions(
    survival: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    grid: ArrayLike,
    train_event: ArrayLike,
    train_time: ArrayLike,
) -> Floats:
    """Return every patient's part of the Brier score (Graf et al. 1999); the score is the mean over patients.

    ``S(t|i)² [t_i <= t, e_i = 1] / G(t_i-) + (1 - S(t|i))² [t_i > t] / G(t)``

    Args:
        survival: Predicted probability of surviving beyond each time of the grid, shape ``[n, T]``.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``.
        grid: Increasing times, shape ``[T]``; see `safe_time_grid`.
        train_event: Events of the training patients, shape ``[m]``.
        train_time: Times of the training patients.

    Returns:
        Shape ``[n, T]``; NaN at times where nobody among the training patients is left uncensored.

    Example:
        >>> s = [[0.2], [0.9]]
        >>> brier_contributions(s, [1, 1], [1.0, 3.0], [2.0], [1, 1], [1.0, 3.0]).round(3).tolist()
        [[0.04], [0.01]]
    """
    e, t = survival_labels(event, time)
    s, g = _curves(survival, e.size, grid)
    curve = censoring_curve(train_event, train_time)
    with np.errstate(divide="ignore"):
        at_event, at_grid = 1.0 / curve.before(t), 1.0 / curve.at(g)
    had = (t[:, None] <= g) & e[:, None]
    alive = t[:, None] > g
    weight = np.where(had, at_event[:, None], 0.0) + np.where(alive, at_grid, 0.0)
    weight = np.where(np.isfinite(weight), weight, np.nan)
    return weight * np.where(had, s, 1.0 - s) ** 2


def brier_score(
    survival: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    grid: ArrayLike,
    train_event: ArrayLike,
    train_time: ArrayLike,
) -> Floats:
    """Brier score at each time of the grid, corrected for censoring; see `brier_contributions`.

    Returns:
        Shape ``[T]``; 0 is perfect, 0.25 is what a constant 0.5 gives.

    Example:
        >>> brier_score([[0.2], [0.9]], [1, 1], [1.0, 3.0], [2.0], [1, 1], [1.0, 3.0]).round(3).tolist()
        [0.025]
    """
    return brier_contributions(survival, event, time, grid, train_event, train_time).mean(axis=0)


def integrate(values: ArrayLike, grid: ArrayLike) -> Floats:
    """Average over a time grid by the trapezoidal rule, along the last axis; one time gives its own value.

    Example:
        >>> float(integrate([0.0, 1.0, 1.0], [0.0, 1.0, 3.0]))
        0.8333333333333334
    """
    v, g = np.asarray(values, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if g.size == 1:
        return v[..., 0]
    return np.trapezoid(v, g, axis=-1) / (g[-1] - g[0])


def integrated_brier_score(
    survival: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    grid: ArrayLike,
    train_event: ArrayLike,
    train_time: ArrayLike,
) -> float:
    """Brier score averaged over the grid: ``∫ BS(t) dt / (t_max - t_min)``; see `brier_contributions`.

    Returns:
        A number of at least 0, lower is better; NaN with an `UndefinedMetricWarning` without patients or times,
        or where the censoring is not known.

    Example:
        >>> s = [[0.9, 0.2], [1.0, 0.9]]
        >>> round(integrated_brier_score(s, [1, 1], [1.5, 3.0], [1.0, 2.0], [1, 1], [1.5, 3.0]), 4)
        0.015
    """
    g = np.asarray(grid, dtype=np.float64)
    if not g.size or not np.size(time):
        return warn_undefined("the integrated Brier score", "there are no patients or no times")
    score = float(integrate(brier_score(survival, event, time, g, train_event, train_time), g))
    if np.isnan(score):
        return warn_undefined(
            "the integrated Brier score", "the grid goes beyond the training patients: use safe_time_grid"
        )
    return score


def time_dependent_auc(
    risk: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    grid: ArrayLike,
    train_event: ArrayLike,
    train_time: ArrayLike,
) -> TimeDependentAuc:
    """Cumulative/dynamic AUC: patients with an event up to t against those who live beyond t.

    ``AUC(t) = Σ_ij w_i [t_i <= t < t_j] (r_i > r_j) / Σ_ij w_i [t_i <= t < t_j]`` with ``w_i = e_i / G(t_i-)``;
    equal risks count half (Uno et al. 2007, Hung and Chiang 2010).

    Args:
        risk: Higher means an earlier event, shape ``[n]``, or ``[n, T]`` when it depends on time.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``.
        grid: Increasing times, shape ``[T]``; see `safe_time_grid`.
        train_event: Events of the training patients, shape ``[m]``.
        train_time: Times of the training patients.

    Returns:
        AUC at each time and its weighted mean; NaN with an `UndefinedMetricWarning` when no time has one.

    Example:
        >>> event, time = [1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0]
        >>> time_dependent_auc([4.0, 1.0, 2.0, 0.0], event, time, [1.5, 2.5], event, time).auc.tolist()
        [1.0, 0.75]
    """
    e, t = survival_labels(event, time)
    r, g = np.asarray(risk, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if r.ndim == 1:
        r = np.repeat(r[:, None], g.size, axis=1)
    if r.shape != (e.size, g.size):
        raise ValueError(
            f"risk must have shape [{e.size}] or [{e.size}, {g.size}], found {list(np.shape(risk))}"
        )
    before = censoring_curve(train_event, train_time).before(t)
    weight = np.where(e & (before > 0), 1.0 / np.maximum(before, 1e-300), 0.0)
    auc = np.array([_auc_at(r[:, k], weight, e & (t <= at), t > at) for k, at in enumerate(g)])
    known = ~np.isnan(auc)
    if not known.any():
        return TimeDependentAuc(
            auc, warn_undefined("the time-dependent AUC", "no time has both events and survivors")
        )
    falls = -np.diff(np.concatenate([[1.0], kaplan_meier(e, t).at(g)]))
    share = np.where(known, falls, 0.0)
    share = share if share.sum() > 0 else known.astype(np.float64)
    return TimeDependentAuc(auc, float(np.sum(np.where(known, auc, 0.0) * share) / share.sum()))


def _auc_at(risk: Floats, weight: Floats, had: Booleans, alive: Booleans) -> float:
    """Weighted share of (event, survivor) pairs in the right order, through ranks."""
    cases, controls = risk[had], np.sort(risk[alive])
    total = weight[had].sum() * controls.size
    if total == 0:
        return float("nan")
    below = np.searchsorted(controls, cases, side="left")
    up_to = np.searchsorted(controls, cases, side="right")
    return float(np.sum(weight[had] * (below + up_to) / 2.0) / total)


def log_rank(event: ArrayLike, time: ArrayLike, group: ArrayLike) -> LogRank:
    """Log-rank test of two or more groups, by lifelines.

    Args:
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``.
        group: Group of every patient (numbers or text), shape ``[n]``.

    Returns:
        χ², p and degrees of freedom; NaN with an `UndefinedMetricWarning` with fewer than two groups or no
        event.

    Example:
        >>> result = log_rank([1, 1, 1, 1], [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
        >>> round(result.statistic, 4), result.freedom
        (2.8824, 1)
    """
    e, t = survival_labels(event, time)
    labels = np.asarray(group)
    if labels.shape != e.shape:
        raise ValueError(f"group must have the shape of time {t.shape}, found {labels.shape}")
    freedom = int(np.unique(labels).size) - 1
    if freedom < 1 or not e.any():
        undefined = warn_undefined("the log-rank test", "it needs two groups and an event")
        return LogRank(undefined, undefined, max(freedom, 0))
    from lifelines.statistics import multivariate_logrank_test

    with warnings.catch_warnings():  # of pandas, about how lifelines calls it
        warnings.simplefilter("ignore")
        result = multivariate_logrank_test(t, labels, e)
    return LogRank(float(result.test_statistic), float(result.p_value), freedom)
