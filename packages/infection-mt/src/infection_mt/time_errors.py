"""Errors of estimated hours: the loss, the original's three numbers, and what each class adds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.regression import regression_metrics


def smooth_l1(estimate: ArrayLike, target: ArrayLike) -> float:
    """Mean of ``0.5 d²`` for ``|d| < 1`` and ``|d| − 0.5`` elsewhere, d in hours.

    Args:
        estimate: Hours, shape ``[N]``.
        target: Hours, shape ``[N]``.

    Returns:
        The loss.

    Example:
        >>> smooth_l1([0.5, 3.0], [0.0, 0.0])
        1.3125
    """
    d = np.abs(np.asarray(estimate, dtype=np.float64) - np.asarray(target, dtype=np.float64))
    return float(np.mean(np.where(d < 1.0, 0.5 * d * d, d - 0.5)))


def time_errors(
    estimate: ArrayLike, target: ArrayLike, *, single_precision: bool = False
) -> dict[str, float]:
    """Errors of the time estimates over all frames.

    Args:
        estimate: Hours, shape ``[N]``.
        target: Hours, shape ``[N]``.
        single_precision: Add up in float32, as the original does.

    Returns:
        ``reg_mae`` and ``reg_rmse`` in hours, ``reg_mse`` in hours²; NaN without frames.

    Example:
        >>> time_errors([1.0, 4.0], [2.0, 1.0])["reg_mae"]
        2.0
    """
    precision = np.float32 if single_precision else np.float64
    error = np.asarray(estimate, dtype=precision).reshape(-1) - np.asarray(target, dtype=precision).reshape(
        -1
    )
    if error.size == 0:
        return dict.fromkeys(("reg_mae", "reg_rmse", "reg_mse"), float("nan"))
    mse = np.mean(error**2)
    return {"reg_mae": float(np.mean(np.abs(error))), "reg_rmse": float(np.sqrt(mse)), "reg_mse": float(mse)}


def errors_by_class(time: ArrayLike, label: ArrayLike, time_target: ArrayLike) -> dict[str, float]:
    """Errors of the time estimates, overall and for each class, in float64.

    Args:
        time: Predicted hours, shape ``[N]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        time_target: True hours, shape ``[N]``.

    Returns:
        ``reg_bias``, ``reg_median_ae``, ``reg_r2`` and, for each class, ``n_infected``, ``reg_mae_infected``,
        ``reg_rmse_infected``, ``reg_bias_infected``, ``reg_median_ae_infected``, ``reg_r2_infected``, …;
        NaN for a class without frames.
    """
    estimate, target, truth = _hours(time), _hours(time_target), np.asarray(label).reshape(-1)
    overall = regression_metrics(estimate, target)
    result: dict[str, float] = {f"reg_{name}": overall[name] for name in ("bias", "median_ae", "r2")}
    for name, value in (("infected", 1), ("uninfected", 0)):
        chosen = truth == value
        of_class = regression_metrics(estimate[chosen], target[chosen])
        result[f"n_{name}"] = of_class["n"]
        for metric in ("mae", "rmse", "bias", "median_ae", "r2"):
            result[f"reg_{metric}_{name}"] = of_class[metric]
    return result


def _hours(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)
