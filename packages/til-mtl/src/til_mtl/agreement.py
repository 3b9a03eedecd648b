"""How well predicted TIL scores agree with those that pathologists gave by eye.

Argument order: estimate, truth; both [n] in percent. A statistic that is not defined (too few slides, no variation) is
NaN, never a number that looks like one.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.regression import pearson, r_squared

Floats = NDArray[np.float64]
Calibration = Literal["none", "linear", "isotonic"]


class BlandAltman(NamedTuple):
    """Bias and limits of agreement, in points of the score.

    Attributes:
        bias: Mean of estimate − truth.
        low: bias − 1.96 sample standard deviations of the differences.
        high: bias + 1.96 sample standard deviations.
    """

    bias: float
    low: float
    high: float


def _pair(estimate: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    e, t = np.asarray(estimate, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if e.ndim != 1 or e.shape != t.shape:
        raise ValueError(
            f"estimate and truth must be one-dimensional and of one length, found {e.shape} and {t.shape}"
        )
    if not (np.isfinite(e).all() and np.isfinite(t).all()):
        raise ValueError("estimate and truth must be finite; leave out the slides without a score first")
    return e, t


def concordance_correlation(estimate: ArrayLike, truth: ArrayLike) -> float:
    """Lin's concordance correlation coefficient, with population variances.

    2·cov / (var_e + var_t + (mean_e − mean_t)²).

    Example:
        >>> concordance_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
        1.0
    """
    e, t = _pair(estimate, truth)
    if not e.size:
        return math.nan
    scale = e.var() + t.var() + (e.mean() - t.mean()) ** 2
    return float(2 * np.mean((e - e.mean()) * (t - t.mean())) / scale) if scale > 0 else math.nan


def pairwise_concordance(estimate: ArrayLike, truth: ArrayLike) -> float:
    """Probability that two slides whose truths differ are ordered alike; equal estimates count one half.

    Example:
        >>> pairwise_concordance([1.0, 2.0, 2.0], [5.0, 7.0, 9.0])
        0.8333333333333334
    """
    e, t = _pair(estimate, truth)
    rows, columns = np.triu_indices(e.size, 1)
    order = np.sign(t[rows] - t[columns])
    differ = order != 0
    if not differ.any():
        return math.nan
    alike = order[differ] * np.sign(e[rows] - e[columns])[differ]
    return float(np.mean((alike + 1) / 2))


def bland_altman(estimate: ArrayLike, truth: ArrayLike) -> BlandAltman:
    """Bias and 95 % limits of agreement.

    Example:
        >>> bland_altman([1.0, 3.0], [0.0, 2.0])
        BlandAltman(bias=1.0, low=1.0, high=1.0)
    """
    e, t = _pair(estimate, truth)
    if e.size < 2:
        return BlandAltman(float((e - t).mean()) if e.size else math.nan, math.nan, math.nan)
    difference = e - t
    spread = 1.96 * float(difference.std(ddof=1))
    bias = float(difference.mean())
    return BlandAltman(bias, bias - spread, bias + spread)


def agreement(estimate: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Return all agreement statistics.

    Args:
        estimate: Predicted scores [n].
        truth: Visual scores [n].

    Returns:
        ``n``, ``pearson_r``, ``spearman_rho`` (average ranks), ``kendall_tau_b``, ``r2_pearson`` (squared Pearson),
        ``r2_determination`` (1 − SS_res/SS_tot, negative when worse than the mean), ``mae``, ``rmse``, ``ccc`` (Lin),
        ``concordance`` (pairwise), ``bias``, ``limit_low``, ``limit_high`` (Bland–Altman).

    Example:
        >>> round(agreement([10.0, 20.0, 40.0], [5.0, 30.0, 35.0])["mae"], 3)
        6.667
    """
    from scipy import stats

    e, t = _pair(estimate, truth)
    varies = e.size > 1 and np.ptp(e) > 0 and np.ptp(t) > 0
    r = pearson(e, t) if e.size else math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant input; NaN says it
        rho = pearson(stats.rankdata(e), stats.rankdata(t)) if varies else math.nan
        tau = float(np.asarray(stats.kendalltau(e, t, variant="b"))[0]) if varies else math.nan
    limits = bland_altman(e, t)
    return {
        "n": float(e.size),
        "pearson_r": r,
        "spearman_rho": rho,
        "kendall_tau_b": tau,
        "r2_pearson": r * r,
        "r2_determination": r_squared(e, t),
        "mae": float(np.abs(e - t).mean()) if e.size else math.nan,
        "rmse": float(np.sqrt(np.mean((e - t) ** 2))) if e.size else math.nan,
        "ccc": concordance_correlation(e, t),
        "concordance": pairwise_concordance(e, t),
        "bias": limits.bias,
        "limit_low": limits.low,
        "limit_high": limits.high,
    }


def calibrate(estimate: ArrayLike, truth: ArrayLike, kind: Calibration, folds: int, seed: int) -> Floats:
    """Map scores onto the scale of the visual ones; each slide by a map that was fitted without it.

    Args:
        estimate: Predicted scores [n].
        truth: Visual scores [n].
        kind: ``linear`` (least squares), ``isotonic`` (monotone steps), or ``none``.
        folds: Parts of the cross-validation, 2 … n.
        seed: Of the parts.

    Returns:
        Calibrated scores [n], within 0–100.

    Raises:
        ValueError: There are fewer slides than folds, or fewer than two folds.
    """
    e, t = _pair(estimate, truth)
    if kind == "none":
        return e
    if not 2 <= folds <= e.size:
        raise ValueError(
            f"calibration in {folds} folds needs at least 2 folds and as many slides, found {e.size} slides"
        )
    order = np.random.default_rng(seed).permutation(e.size)
    result = np.empty_like(e)
    for held_out in np.array_split(order, folds):
        fitted = np.setdiff1d(order, held_out)
        result[held_out] = _fit_and_map(e[fitted], t[fitted], e[held_out], kind)
    return np.clip(result, 0.0, 100.0)


def _fit_and_map(estimate: Floats, truth: Floats, new: Floats, kind: Calibration) -> Floats:
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        return IsotonicRegression(out_of_bounds="clip").fit(estimate, truth).predict(new)
    if np.ptp(estimate) == 0:
        return np.full(new.shape, truth.mean())
    slope, intercept = np.polyfit(estimate, truth, 1)
    return slope * new + intercept
