"""Metrics of continuous estimates; errors are ``estimate − target`` in the unit of the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _pair(estimate: ArrayLike, target: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    e = np.asarray(estimate, dtype=np.float64)
    t = np.asarray(target, dtype=np.float64)
    if e.ndim != 1 or t.ndim != 1 or e.shape != t.shape:
        raise ValueError(
            f"estimate and target must have one dimension and equal length, found {e.shape} and {t.shape}"
        )
    return e, t


def r_squared(estimate: ArrayLike, target: ArrayLike) -> float:
    """Coefficient of determination ``1 − Σ(e − t)² / Σ(t − t̄)²``.

    Args:
        estimate: Shape ``[N]``.
        target: Shape ``[N]``.

    Returns:
        At most 1, negative when worse than the mean of the targets; NaN when the targets do not vary.

    Example:
        >>> r_squared([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
        0.5
    """
    e, t = _pair(estimate, target)
    if t.size == 0 or np.all(t == t[0]):
        return float("nan")
    return float(1.0 - np.sum((e - t) ** 2) / np.sum((t - t.mean()) ** 2))


def pearson(estimate: ArrayLike, target: ArrayLike) -> float:
    """Pearson's correlation; NaN when one side does not vary.

    Args:
        estimate: Shape ``[N]``.
        target: Shape ``[N]``.

    Returns:
        The correlation in [−1, 1].

    Example:
        >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 9)
        1.0
    """
    e, t = _pair(estimate, target)
    if e.size == 0 or np.all(e == e[0]) or np.all(t == t[0]):
        return float("nan")
    de, dt = e - e.mean(), t - t.mean()
    scale = np.sqrt(np.sum(de**2)) * np.sqrt(np.sum(dt**2))
    return float(np.clip(np.sum(de * dt) / scale, -1.0, 1.0)) if scale > 0 else float("nan")


def regression_metrics(estimate: ArrayLike, target: ArrayLike) -> dict[str, float]:
    """Error measures of continuous estimates.

    Args:
        estimate: Shape ``[N]``.
        target: Shape ``[N]``, same unit.

    Returns:
        ``n``, ``mae``, ``rmse``, ``mse``, ``bias`` (mean of estimate − target), ``median_ae``, ``r2`` (NaN
        when the targets do not vary) and ``pearson``. Without samples ``n`` is 0 and the rest NaN.

    Example:
        >>> metrics = regression_metrics([1.0, 3.0], [0.0, 4.0])
        >>> metrics["mae"], metrics["bias"]
        (1.0, 0.0)
    """
    e, t = _pair(estimate, target)
    if e.size == 0:
        return {
            "n": 0,
            **dict.fromkeys(("mae", "rmse", "mse", "bias", "median_ae", "r2", "pearson"), float("nan")),
        }
    error = e - t
    mse = float(np.mean(error**2))
    return {
        "n": int(e.size),
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(mse)),
        "mse": mse,
        "bias": float(np.mean(error)),
        "median_ae": float(np.median(np.abs(error))),
        "r2": r_squared(e, t),
        "pearson": pearson(e, t),
    }


def best_constant(target: ArrayLike) -> dict[str, float]:
    """Error of the best constant estimates: the naive baseline of a regression.

    The median minimises the mean absolute error, the mean the mean squared error.

    Args:
        target: Shape ``[N]``.

    Returns:
        ``median``, ``mae`` (of the median), ``mean``, ``rmse`` (of the mean).

    Raises:
        ValueError: Without targets.

    Example:
        >>> best_constant([0.0, 1.0, 5.0])["mae"]
        1.6666666666666667
    """
    t = np.asarray(target, dtype=np.float64)
    if t.ndim != 1 or t.size == 0:
        raise ValueError(f"target must have one dimension and at least one entry, found shape {t.shape}")
    median, mean = float(np.median(t)), float(t.mean())
    return {
        "median": median,
        "mae": float(np.mean(np.abs(t - median))),
        "mean": mean,
        "rmse": float(np.sqrt(np.mean((t - mean) ** 2))),
    }
