"""Predictions of new patients by one or several models: pooled draws, survival curves with intervals, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from advmil.curves import predicted_survival
from advmil.ensemble import BagOutput, Ensemble, as_predictions
from advmil.errors import DataError
from advmil.predictions import Predictions
from medshared.gpu import derive_seed

Floats = NDArray[np.float64]
RESAMPLES = 400
GRID_POINTS = 101


@dataclass(frozen=True)
class Curves:
    """Survival curves of patients.

    Attributes:
        grid: Days, ``[T]``.
        survival: Share expected to live beyond each time, ``[n, T]``.
        low: Lower end of its interval, ``[n, T]``; NaN where nothing was drawn and there is one model.
        high: Upper end, ``[n, T]``.
    """

    grid: Floats
    survival: Floats
    low: Floats
    high: Floats

    def quantile_days(self, share: float) -> Floats:
        """Return the first day of the grid when at most this share survives, ``[n]``; NaN when never."""
        reached = self.survival <= share
        return np.where(reached.any(axis=1), self.grid[reached.argmax(axis=1)], np.nan)

    def table(self, patients: Sequence[str]) -> pd.DataFrame:
        """Return one row a patient and day: patient_id, days, survival, low, high."""
        n, points = self.survival.shape
        return pd.DataFrame(
            {
                "patient_id": np.repeat(np.asarray(patients, dtype=object), points),
                "days": np.tile(self.grid, n),
                "survival": self.survival.ravel(),
                "low": self.low.ravel(),
                "high": self.high.ravel(),
            }
        )


@dataclass(frozen=True)
class PooledPredictions:
    """What an ensemble says of new patients.

    Attributes:
        ensemble: The models.
        patients: Ids, n.
        outputs: Of each model and patient.
        runs: The same in the form of a run's predictions, one a model.
    """

    ensemble: Ensemble
    patients: tuple[str, ...]
    outputs: list[list[BagOutput]]
    runs: list[Predictions]

    @property
    def samples_days(self) -> Floats | None:
        """Draws of all models side by side in days, ``[n, models * k]``; null without noise."""
        found = [run.samples_days for run in self.runs]
        known = [each for each in found if each is not None]
        return np.concatenate(known, axis=1) if known and len(known) == len(found) else None

    @property
    def point_days(self) -> Floats | None:
        """Predicted days, ``[n]``: of one model its own; of several the median of the pooled draws.

        Without draws, the mean over models. Null for models that predict no time.
        """
        points = [run.point_days for run in self.runs]
        known = [each for each in points if each is not None]
        if not known:
            return None
        samples = self.samples_days
        if len(known) == 1 or samples is None:
            return np.mean(known, axis=0)
        return np.median(samples, axis=1)

    @property
    def risk(self) -> Floats:
        """Risk, ``[n]``, higher = earlier: minus the predicted time of the first model.s unit, or a mean."""
        days = self.point_days
        if days is not None:
            return self.runs[0].risk if len(self.runs) == 1 else -days / self.runs[0].unit_days
        return np.mean([run.risk for run in self.runs], axis=0)


def pool(
    ensemble: Ensemble, patients: Sequence[str], outputs: Sequence[Sequence[BagOutput]]
) -> PooledPredictions:
    """Put the outputs of all models together.

    Args:
        ensemble: The models.
        patients: Ids, n.
        outputs: For each patient, one of each model.

    Raises:
        ValueError: No patient.
    """
    if not patients:
        raise ValueError("no patient to pool predictions of")
    by_run = [list(each) for each in zip(*outputs, strict=True)]
    runs = [
        as_predictions(model, ensemble.kind, patients, found)
        for model, found in zip(ensemble.models, by_run, strict=True)
    ]
    return PooledPredictions(ensemble, tuple(patients), by_run, runs)


def pooled_curves(
    pooled: PooledPredictions, *, level: float = 0.9, seed: int = 0, resamples: int = RESAMPLES
) -> Curves:
    """Return survival curves with intervals.

    The curve is the share of all models' draws beyond each time (AdvMIL), the product of the bins' survivals with
    straight lines between the edges (discrete), or Breslow's estimate with the training predictions (Cox); of several
    models, the mean of theirs.

    The interval says how much the curve would change with other draws and other training folds: it is a bootstrap
    that resamples the models and, within each, its draws. It is no interval for the patient's time (that is in the
    table of predictions, from the same draws), and it knows nothing of errors that all models share. With one model
    it holds the noise of the draws only and shrinks as more are taken; without draws and with one model there is
    nothing to resample and it is NaN. With few models a bootstrap over them is rough.

    Args:
        pooled: Predictions.
        level: Of the interval, in (0, 1).
        seed: Of the bootstrap; each patient has a stream of its own.
        resamples: Of the bootstrap.

    Raises:
        DataError: The models give no curve.
    """
    grid = np.linspace(0.0, pooled.ensemble.end_days, GRID_POINTS)
    curves = []
    for run, train in zip(pooled.runs, pooled.ensemble.training, strict=True):
        curve = predicted_survival(run, grid, train)
        if curve is None:
            raise DataError("these models give no survival curve: the edges of their time bins are unknown")
        curves.append(curve)
    stacked = np.stack(curves)  # [models, n, T]
    low, high = (np.full(stacked.shape[1:], np.nan) for _ in range(2))
    drawn = pooled.outputs[0][0].draws is not None
    if drawn or len(curves) > 1:
        tail = [(1 - level) / 2, (1 + level) / 2]
        for row, patient in enumerate(pooled.patients):
            rng = np.random.default_rng(derive_seed(seed, "curve", patient))
            resampled = _resample(pooled, row, stacked[:, row], grid, rng, resamples)
            low[row], high[row] = np.quantile(resampled, tail, axis=0)
    return Curves(grid, stacked.mean(axis=0), low, high)


def _resample(
    pooled: PooledPredictions,
    row: int,
    curves: Floats,
    grid: Floats,
    rng: np.random.Generator,
    resamples: int,
) -> Floats:
    """Return bootstrap copies of one patient's curve, ``[resamples, T]``."""
    n_models = len(curves)
    members = rng.integers(0, n_models, size=(resamples, n_models))
    total = np.zeros((resamples, grid.size))
    for place in range(n_models):
        for model in range(n_models):
            chosen = np.flatnonzero(members[:, place] == model)
            if chosen.size:
                total[chosen] += _redraw(pooled, model, row, curves[model], grid, rng, chosen.size)
    return total / n_models


def _redraw(
    pooled: PooledPredictions,
    model: int,
    row: int,
    curve: Floats,
    grid: Floats,
    rng: np.random.Generator,
    n: int,
) -> Floats:
    """Return n copies of one model's curve from resampled draws, ``[n, T]``; the curve itself without draws."""
    run, draws = pooled.runs[model], pooled.outputs[model][row].draws
    if draws is None:
        return np.broadcast_to(curve, (n, grid.size))
    k = len(draws)
    if run.kind == "continuous":
        # Resampling k draws is drawing the counts between the times of the grid.
        days = np.sort(draws[:, 0].astype(np.float64) * run.unit_days)
        passed = np.searchsorted(days, grid, side="right")
        counts = np.diff(passed, prepend=0, append=k)
        redrawn = rng.multinomial(k, counts / k, size=n)
        return 1.0 - redrawn[:, :-1].cumsum(axis=1) / k
    hazards = np.median(draws[rng.integers(0, k, size=(n, k))], axis=1)
    survival = np.concatenate([np.ones((n, 1)), np.cumprod(1 - hazards, axis=1)], axis=1)
    edges = np.asarray(run.edges, dtype=np.float64)
    return np.stack([np.interp(grid, edges, each) for each in survival])


def prediction_table(
    pooled: PooledPredictions,
    curves: Curves,
    slides: Sequence[Sequence[str]],
    n_patches: Sequence[int],
    level: float = 0.9,
) -> pd.DataFrame:
    """Return one row a patient.

    Columns: patient_id, slides (joined by ``;``), n_patches, risk (higher = earlier), predicted_days, its interval
    predicted_days_low and predicted_days_high at ``level``, sample_sd_days; of several models also the mean and
    standard deviation of each model's own prediction. Of models that predict no time, the days come from the curve:
    its median and the two quantiles of the interval, empty where the curve does not fall that far.

    Args:
        pooled: Predictions of n patients.
        curves: Theirs.
        slides: Slides of each patient.
        n_patches: Patches of each patient.
        level: Of the intervals.
    """
    tail = (1 - level) / 2
    days, samples = pooled.point_days, pooled.samples_days
    columns: dict[str, Any] = {
        "patient_id": list(pooled.patients),
        "slides": [";".join(each) for each in slides],
        "n_patches": list(n_patches),
        "risk": pooled.risk,
    }
    empty = np.full(len(pooled.patients), np.nan)
    low, high, sd = empty, empty, empty
    if days is None:
        days = curves.quantile_days(0.5)
        low, high = curves.quantile_days(1 - tail), curves.quantile_days(tail)
    elif samples is not None:
        low, high = np.quantile(samples, [tail, 1 - tail], axis=1)
        sd = samples.std(axis=1)
    columns |= {
        "predicted_days": days,
        "predicted_days_low": low,
        "predicted_days_high": high,
        "sample_sd_days": sd,
    }
    if len(pooled.runs) > 1:
        own: ArrayLike = [run.risk if run.point_days is None else run.point_days for run in pooled.runs]
        name = "risk" if pooled.point_days is None else "predicted_days"
        columns |= {f"{name}_runs_mean": np.mean(own, axis=0), f"{name}_runs_sd": np.std(own, axis=0, ddof=1)}
    return pd.DataFrame(columns)


def sample_arrays(pooled: PooledPredictions) -> dict[str, np.ndarray]:
    """Return all draws for ``samples.npz``: patients, run of each draw, and days, hazards or log-risks.

    ``samples_days`` is ``[n, draws]``; ``hazards`` is ``[n, draws, bins]`` where all models have as many bins;
    ``point`` holds the outputs that stand for the draws, ``[n, models, K]``.
    """
    names = [model.run.folder.name for model in pooled.ensemble.models]
    draws = [[each.draws for each in found] for found in pooled.outputs]
    per_run = [0 if found[0] is None else len(found[0]) for found in draws]
    arrays: dict[str, np.ndarray] = {
        "patients": np.asarray(pooled.patients, dtype=np.str_),
        "runs": np.asarray(names, dtype=np.str_),
        "run_of_draw": np.repeat(np.arange(len(names)), per_run),
    }
    points = [np.stack([each.point for each in found]) for found in pooled.outputs]
    if len({part.shape for part in points}) == 1:
        arrays["point"] = np.stack(points, axis=1)
    if pooled.samples_days is not None:
        arrays["samples_days"] = pooled.samples_days
    elif all(per_run) and len({part.shape[-1] for part in points}) == 1:
        arrays["hazards"] = np.concatenate(
            [np.stack([d for d in found if d is not None]) for found in draws], axis=1
        )
    return arrays
