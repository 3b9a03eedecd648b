"""Predicted distributions of time in days, from what a model gives: draws, hazards of bins, or a log-risk."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advmil.predictions import Predictions
from medshared.metrics.survival_data import survival_labels
from medshared.metrics.survival_samples import survival_from_samples

Floats = NDArray[np.float64]
N_QUANTILES = 99  # of a curve, where a sample is needed


def breslow_survival(
    train_log_risk: ArrayLike,
    train_event: ArrayLike,
    train_days: ArrayLike,
    log_risk: ArrayLike,
    grid: ArrayLike,
) -> Floats:
    """Survival curves of a Cox model, ``exp(-H0(t) exp(θ))`` with Breslow's baseline from the training patients.

    ``H0(t) = Σ_{t_k <= t} d_k / Σ_{t_j >= t_k} exp(θ_j)``.

    Args:
        train_log_risk: θ of the training patients, shape ``[m]``.
        train_event: 1 = event observed, 0 = censored, shape ``[m]``.
        train_days: Days, shape ``[m]``.
        log_risk: θ of the patients, shape ``[n]``.
        grid: Days, shape ``[T]``.

    Returns:
        Shape ``[n, T]``.

    Example:
        >>> breslow_survival([0.0, 0.0], [1, 1], [1.0, 2.0], [0.0], [0.5, 1.0, 2.0]).round(4).tolist()
        [[1.0, 0.6065, 0.2231]]
    """
    e, t = survival_labels(train_event, train_days)
    theta = np.asarray(train_log_risk, dtype=np.float64)
    shift = theta.max()  # cancels: only differences of log-risks count
    distinct, inverse = np.unique(t, return_inverse=True)
    deaths = np.bincount(inverse, weights=e, minlength=distinct.size)
    risks = np.bincount(inverse, weights=np.exp(theta - shift), minlength=distinct.size)
    at_risk = risks[::-1].cumsum()[::-1]
    hazard = np.concatenate([[0.0], np.cumsum(deaths / np.maximum(at_risk, np.finfo(float).tiny))])
    cumulative = hazard[np.searchsorted(distinct, np.asarray(grid, dtype=np.float64), side="right")]
    relative = np.exp(np.minimum(np.asarray(log_risk, dtype=np.float64) - shift, 700.0))
    with np.errstate(over="ignore"):  # an infinite hazard is a survival of 0
        return np.exp(-cumulative * relative[:, None])


def predicted_survival(
    predictions: Predictions, grid: ArrayLike, train: Predictions | None = None
) -> Floats | None:
    """Return survival curves on a grid of days.

    Draws give the share of draws beyond each time; a single predicted time, the step from 1 to 0 there; bins,
    the product of their survivals with straight lines between the edges; a log-risk, Breslow's estimate.

    Args:
        predictions: Of n patients.
        grid: Days, shape ``[T]``.
        train: Predictions of the same model for the training patients; needed for a log-risk.

    Returns:
        Shape ``[n, T]``; null for a log-risk without ``train``.
    """
    g = np.asarray(grid, dtype=np.float64)
    if predictions.kind == "continuous":
        samples = predictions.samples_days
        if samples is None:
            samples = _point(predictions)[:, None]
        return survival_from_samples(samples, g)
    if predictions.kind == "discrete":
        if predictions.edges is None:
            return None
        curve = predictions.survival.astype(np.float64)
        curve = np.concatenate([np.ones((len(curve), 1)), curve], axis=1)
        return np.stack([np.interp(g, predictions.edges, row) for row in curve]).reshape(len(curve), g.size)
    if train is None:
        return None
    return breslow_survival(train.risk, train.e, train.days, predictions.risk, g)


def predicted_samples(predictions: Predictions, train: Predictions | None = None) -> Floats | None:
    """Return draws of the time in days; of a curve, its quantiles at evenly spaced probabilities.

    What a curve leaves above zero at its last time is put there: longer times were never observed.

    Args:
        predictions: Of n patients.
        train: See `predicted_survival`.

    Returns:
        Shape ``[n, k]``; k is 1 for a model that predicts a single time. Null for a log-risk without
        ``train``.
    """
    if predictions.kind == "continuous":
        samples = predictions.samples_days
        return _point(predictions)[:, None] if samples is None else samples
    if predictions.kind == "discrete":
        grid = (
            None
            if predictions.edges is None
            else np.linspace(predictions.edges[0], predictions.edges[-1], 513)
        )
    else:
        grid = None if train is None else np.unique(train.days)
    survival = None if grid is None else predicted_survival(predictions, grid, train)
    if grid is None or survival is None:
        return None
    levels = 1.0 - (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
    # The first time at which at most `level` survive; the curves do not rise.
    first = np.stack([np.searchsorted(-row, -levels, side="left") for row in survival])
    return grid[np.minimum(first.reshape(len(survival), -1), grid.size - 1)]


def _point(predictions: Predictions) -> Floats:
    point = predictions.point_days
    if point is None:
        raise ValueError(f"a {predictions.kind} model predicts no time")
    return point
