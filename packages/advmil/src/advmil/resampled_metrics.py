"""Metrics as sums over patients and pairs of patients, so that all bootstrap resamples are a few matrix products.

With m the number of times each patient is drawn, a mean is ``(m @ a) / (m @ b)`` and a share of pairs
``(m @ A @ m) / (m @ B @ m)``. The weights for the censoring come from the training patients and stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advmil.curves import predicted_samples, predicted_survival
from advmil.predictions import Predictions
from medshared.metrics.resampling import Interval
from medshared.metrics.survival import concordance_matrices
from medshared.metrics.survival_curves import brier_contributions, integrate, kaplan_meier, safe_time_grid
from medshared.metrics.survival_data import KaplanMeier, censoring_curve, survival_labels
from medshared.metrics.survival_samples import coverage_flags, crps_samples, intervals_from_samples

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
N_AUC_TIMES = 10


@dataclass(frozen=True)
class Training:
    """The training patients and their curves.

    Attributes:
        event: Observed events, shape ``[m]``.
        days: Times, shape ``[m]``.
        censoring: Probability of not being censored.
        survival: Kaplan–Meier curve.
    """

    event: Booleans
    days: Floats
    censoring: KaplanMeier
    survival: KaplanMeier

    @classmethod
    def of(cls, event: Any, days: Any) -> Training:
        """Check labels and estimate the curves.

        Raises:
            ValueError: Without patients.
        """
        e, t = survival_labels(event, days)
        if not t.size:
            raise ValueError("labels of the training patients are needed to correct for the censoring")
        return cls(e, t, censoring_curve(e, t), kaplan_meier(e, t))


@dataclass
class Sums:
    """Every metric as sums over patients or over pairs of patients."""

    # name -> (numerator, denominator) of each patient
    means: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    # name -> (score, weight) of each pair
    pairs: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    # AUC: order of each pair [n, n]; cases (weighted), survivors [T, n] and the weight of each time [T]
    order: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    cases: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    alive: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    falls: Floats = field(default_factory=lambda: np.zeros(0))

    def values(self, counts: Floats) -> dict[str, Floats]:
        """Return the metrics of resamples.

        Args:
            counts: How often each patient was drawn, shape ``[B, n]``.

        Returns:
            Name → shape ``[B]``, NaN where undefined.
        """
        found: dict[str, Floats] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, (score, weight) in self.pairs.items():
                above = np.einsum("bn,bn->b", counts @ score, counts)
                found[name] = above / np.einsum("bn,bn->b", counts @ weight, counts)
            if self.falls.size:
                found["auc"] = self._auc(counts)
            for name, (above, below) in self.means.items():
                found[name] = (counts @ above) / (counts @ below)
        return found

    def _auc(self, counts: Floats) -> Floats:
        total, known = np.zeros(len(counts)), np.zeros(len(counts))
        for cases, alive, fall in zip(self.cases, self.alive, self.falls, strict=True):
            had, left = counts * cases, counts * alive
            auc = np.einsum("bn,bn->b", had @ self.order, left) / (had.sum(axis=1) * left.sum(axis=1))
            defined = np.isfinite(auc)
            total += np.where(defined, auc, 0.0) * fall
            known += defined * fall
        return total / known


def _pair_parts(parts: Sums, risk: Floats, e: Booleans, t: Floats, train: Training) -> None:
    score, comparable = concordance_matrices(risk, e, t)
    parts.pairs["c_index"] = (score, comparable)
    g = train.censoring.before(t)
    weight = np.where((g > 0) & (t < train.days.max()), 1.0 / np.maximum(g, 1e-300) ** 2, 0.0)[:, None]
    parts.pairs["uno_c_index"] = (score * weight, comparable * weight)


def _auc_parts(parts: Sums, risk: Floats, e: Booleans, t: Floats, train: Training, grid: Floats) -> None:
    times = grid[np.unique(np.linspace(0, grid.size - 1, N_AUC_TIMES).astype(int))] if grid.size else grid
    if not times.size:
        return
    g = train.censoring.before(t)
    weight = np.where(e & (g > 0), 1.0 / np.maximum(g, 1e-300), 0.0)
    difference = risk[:, None] - risk[None]
    parts.order = np.where(difference == 0, 0.5, (difference > 0).astype(np.float64))
    parts.cases = weight * (t <= times[:, None])
    parts.alive = (t > times[:, None]).astype(np.float64)
    falls = -np.diff(np.concatenate([[1.0], kaplan_meier(e, t).at(times)]))
    parts.falls = falls if falls.sum() > 0 else np.ones(times.size)


def _distribution_parts(parts: Sums, samples: Floats, e: Booleans, t: Floats, level: float) -> None:
    """Add what judges the predicted distribution: CRPS, and coverage unless it is a single time."""
    everyone = np.ones(t.size)
    parts.means["crps_days"] = (crps_samples(samples, e, t), everyone)
    if samples.shape[1] == 1:
        return
    certain, possible = coverage_flags(samples, e, t, level)
    low, high = intervals_from_samples(samples, level)
    parts.means["coverage"] = (certain.astype(np.float64), e.astype(np.float64))
    parts.means["coverage_at_least"] = (certain.astype(np.float64), everyone)
    parts.means["coverage_at_most"] = (possible.astype(np.float64), everyone)
    parts.means["interval_width_days"] = (high - low, everyone)


def _mae_parts(parts: Sums, point: Floats, e: Booleans, t: Floats, train: Training) -> None:
    def error(predicted: Floats | float) -> Floats:
        return np.where(e, np.abs(predicted - t), np.maximum(t - predicted, 0.0))

    everyone = np.ones(t.size)
    parts.means["mae_days"] = (error(point), everyone)
    parts.means["event_mae_days"] = (error(point) * e, e.astype(np.float64))
    parts.means["censored_mae_days"] = (error(point) * ~e, (~e).astype(np.float64))
    parts.means["constant_mae_days"] = (error(float(np.median(train.days))), everyone)


@dataclass(frozen=True)
class Setting:
    """What of an evaluation does not depend on resampling."""

    parts: Sums
    grid: Floats
    survival: Floats | None
    km_survival: Floats
    samples: Floats | None


def set_up(
    predictions: Predictions,
    train: Training,
    train_predictions: Predictions | None,
    level: float,
    n_times: int,
) -> Setting:
    """Prepare all metrics of a set of predictions; see `advmil.evaluation.evaluate_predictions`."""
    e, t = survival_labels(predictions.e, predictions.days)
    grid = safe_time_grid(e, t, train.event, train.days, n_times)
    survival = predicted_survival(predictions, grid, train_predictions) if grid.size else None
    km_survival = np.repeat(train.survival.at(grid)[None], t.size, axis=0)
    parts = Sums()
    _pair_parts(parts, predictions.risk, e, t, train)
    _auc_parts(parts, predictions.risk, e, t, train, grid)
    for name, curves in (("ibs", survival), ("km_ibs", km_survival if grid.size else None)):
        if curves is not None:
            contributions = brier_contributions(curves, e, t, grid, train.event, train.days)
            parts.means[name] = (integrate(contributions, grid), np.ones(t.size))
    point = predictions.point_days
    if point is not None:
        _mae_parts(parts, point, e, t, train)
    samples = predicted_samples(predictions, train_predictions)
    if samples is not None:
        _distribution_parts(parts, samples, e, t, level)
    return Setting(parts, grid, survival, km_survival, samples)


def draw_patients(n: int, n_resamples: int, seed: int) -> Floats:
    """Return how often each of n patients is drawn in each resample, shape ``[B, n]``."""
    drawn = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    flat = (drawn + n * np.arange(n_resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=n * n_resamples).reshape(n_resamples, n).astype(np.float64)


def interval(estimate: float, values: Floats, confidence: float, n: int) -> Interval:
    """Return the percentile interval of the resamples in which the metric is defined."""
    valid = values[np.isfinite(values)]
    low = high = float("nan")
    if valid.size and n > 1 and np.isfinite(estimate):
        tail = (1.0 - confidence) / 2.0
        low, high = (float(q) for q in np.quantile(valid, [tail, 1.0 - tail]))
    return Interval(estimate, low, high, n, int(valid.size))
