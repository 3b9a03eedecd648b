"""Intervals and tests for comparing models; the resampling methods are re-exported from `resampling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.classification import midranks
from medshared.metrics.resampling import (
    GroupResampler,
    Interval,
    cluster_bootstrap,
    cluster_bootstrap_many,
    cluster_swap_test,
    paired_cluster_bootstrap,
    paired_permutation_test,
)

__all__ = [
    "DifferenceTest",
    "GroupResampler",
    "Interval",
    "cluster_bootstrap",
    "cluster_bootstrap_many",
    "cluster_swap_test",
    "delong_interval",
    "delong_test",
    "delong_variance",
    "fold_summary",
    "holm",
    "nadeau_bengio",
    "paired_cluster_bootstrap",
    "paired_permutation_test",
    "paired_t_test",
    "two_sample_t_test",
]


class DifferenceTest(NamedTuple):
    """Result of a test of a difference.

    Attributes:
        difference: Estimated mean difference (first − second).
        statistic: t or z.
        p_value: Two-sided.
        low: Lower end of the 95 % interval of the difference, NaN where the test gives none.
        high: Upper end.
    """

    difference: float
    statistic: float
    p_value: float
    low: float = float("nan")
    high: float = float("nan")


def _placements(score: ArrayLike, target: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of negatives below each positive, and that of positives above each negative."""
    s = np.asarray(score, dtype=np.float64)
    positive = np.asarray(target).astype(bool)
    if s.ndim != 1 or s.shape != positive.shape:
        raise ValueError(
            f"score and target must have one dimension and equal length, found {s.shape}, {positive.shape}"
        )
    n_positive = int(positive.sum())
    n_negative = s.size - n_positive
    if n_positive < 2 or n_negative < 2 or np.isnan(s).any():
        raise ValueError("DeLong's method needs at least two samples of each class and no NaN score")
    overall = midranks(s)
    of_positives = (overall[positive] - midranks(s[positive])) / n_negative
    of_negatives = 1.0 - (overall[~positive] - midranks(s[~positive])) / n_positive
    return of_positives, of_negatives


def delong_variance(score: ArrayLike, target: ArrayLike) -> tuple[float, float]:
    """AUC and its variance by DeLong, in O(n log n) through midranks (Sun and Xu 2014).

    Samples are taken as independent: for frames of the same stack prefer `cluster_bootstrap`.

    Args:
        score: Higher means more positive, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``, at least two of each.

    Returns:
        The area and the variance of its estimate.

    Raises:
        ValueError: With fewer than two samples of a class or NaN scores.

    Example:
        >>> auc, variance = delong_variance([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> auc, variance
        (0.75, 0.125)
    """
    of_positives, of_negatives = _placements(score, target)
    variance = of_positives.var(ddof=1) / of_positives.size + of_negatives.var(ddof=1) / of_negatives.size
    return float(of_positives.mean()), float(variance)


def delong_interval(score: ArrayLike, target: ArrayLike, confidence: float = 0.95) -> Interval:
    """Normal interval of the AUC with DeLong's variance, cut to [0, 1].

    Args:
        score: Higher means more positive, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.
        confidence: Coverage in (0, 1).

    Returns:
        The interval; ``n_groups`` is the number of samples, ``n_valid`` is 0 since nothing is resampled.

    Example:
        >>> delong_interval([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).estimate
        0.75
    """
    from scipy.special import ndtri

    auc, variance = delong_variance(score, target)
    half = float(ndtri(0.5 + confidence / 2.0)) * variance**0.5
    return Interval(auc, max(0.0, auc - half), min(1.0, auc + half), int(np.size(score)), 0)


def delong_test(score_a: ArrayLike, score_b: ArrayLike, target: ArrayLike) -> DifferenceTest:
    """DeLong's test that two correlated AUCs are equal.

    Args:
        score_a: Scores of the first model, shape ``[N]``.
        score_b: Scores of the second model on the same samples, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.

    Returns:
        Difference of the areas, z, p and the 95 % interval of the difference; p is 1 when both rank alike.

    Example:
        >>> delong_test([0.1, 0.4, 0.35, 0.8], [0.1, 0.2, 0.35, 0.8], [0, 0, 1, 1]).difference
        -0.25
    """
    from scipy.special import ndtr, ndtri

    positives_a, negatives_a = _placements(score_a, target)
    positives_b, negatives_b = _placements(score_b, target)
    on_positives, on_negatives = positives_a - positives_b, negatives_a - negatives_b
    difference = float(on_positives.mean())
    variance = on_positives.var(ddof=1) / on_positives.size + on_negatives.var(ddof=1) / on_negatives.size
    if variance <= 1e-18:
        return DifferenceTest(difference, 0.0, 1.0, difference, difference)
    deviation = float(np.sqrt(variance))
    z = difference / deviation
    half = float(ndtri(0.975)) * deviation
    return DifferenceTest(difference, z, float(2.0 * ndtr(-abs(z))), difference - half, difference + half)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values of several tests by Holm's step-down method.

    Args:
        p_values: In [0, 1] or NaN for a test that could not be made (it stays NaN and is not counted),
            shape ``[K]``.

    Returns:
        Adjusted p-values in the same order, never below the given ones.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError("p_values must be a list of numbers in [0, 1]")
    adjusted = np.full(p.shape, np.nan)
    known = np.nonzero(np.isfinite(p))[0]
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def _t_result(difference: float, error: float, freedom: int, confidence: float) -> DifferenceTest:
    """Assemble a t test; without any spread t is infinite (or 0 for no difference at all)."""
    from scipy.special import stdtr, stdtrit

    without_spread = 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    t = difference / error if error > 0 else without_spread
    half = float(stdtrit(freedom, 0.5 + confidence / 2.0)) * error
    return DifferenceTest(
        difference, t, float(2.0 * stdtr(freedom, -abs(t))), difference - half, difference + half
    )


def _differences(values: ArrayLike) -> NDArray[np.float64]:
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 1 or d.size < 2 or not np.isfinite(d).all():
        raise ValueError(f"at least two finite differences are needed, found {d.tolist()[:5]}")
    return d


def paired_t_test(estimate_a: ArrayLike, estimate_b: ArrayLike, confidence: float = 0.95) -> DifferenceTest:
    """Student's t test of paired measurements of independent units.

    Args:
        estimate_a: First measurement per unit, shape ``[K]``.
        estimate_b: Second measurement of the same units, shape ``[K]``.
        confidence: Coverage of the interval.

    Returns:
        Mean difference, t, p and interval.

    Example:
        >>> result = paired_t_test([2.0, 3.0, 4.0], [1.0, 1.0, 4.0])
        >>> round(result.statistic, 6), round(result.p_value, 6)
        (1.732051, 0.225403)
    """
    a, b = np.asarray(estimate_a, dtype=np.float64), np.asarray(estimate_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"paired lists must have equal length, found {a.shape} and {b.shape}: join them by key first"
        )
    d = _differences(a - b)
    return _t_result(float(d.mean()), float(d.std(ddof=1) / np.sqrt(d.size)), d.size - 1, confidence)


def two_sample_t_test(values_a: ArrayLike, values_b: ArrayLike, confidence: float = 0.95) -> DifferenceTest:
    """Student's t test of two independent samples with equal variances.

    Args:
        values_a: Shape ``[A]``.
        values_b: Shape ``[B]``.
        confidence: Coverage of the interval.

    Returns:
        Difference of the means, t, p and interval.

    Example:
        >>> round(two_sample_t_test([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]).statistic, 6)
        -1.224745
    """
    a, b = _differences(values_a), _differences(values_b)
    freedom = a.size + b.size - 2
    pooled = (a.var(ddof=1) * (a.size - 1) + b.var(ddof=1) * (b.size - 1)) / freedom
    error = float(np.sqrt(pooled * (1.0 / a.size + 1.0 / b.size)))
    return _t_result(float(a.mean() - b.mean()), error, freedom, confidence)


def nadeau_bengio(
    differences: ArrayLike, n_train: int, n_test: int, confidence: float = 0.95
) -> DifferenceTest:
    """Corrected resampled t test over cross-validation folds (Nadeau and Bengio 2003).

    The variance ``(1/k + n_test/n_train) · s²`` allows for training sets that overlap between folds.

    Args:
        differences: Difference of the two models in each of k folds, shape ``[k]``.
        n_train: Training units of a fold.
        n_test: Test units of a fold.
        confidence: Coverage of the interval.

    Returns:
        Mean difference, t, p and interval.

    Example:
        >>> round(nadeau_bengio([0.1, 0.3, 0.2], n_train=4, n_test=2).statistic, 6)
        2.19089
    """
    d = _differences(differences)
    if n_train < 1 or n_test < 1:
        raise ValueError(f"n_train and n_test must be at least 1, found {n_train} and {n_test}")
    error = float(np.sqrt((1.0 / d.size + n_test / n_train) * d.var(ddof=1)))
    return _t_result(float(d.mean()), error, d.size - 1, confidence)


def fold_summary(values: Sequence[float] | ArrayLike, *, single_precision: bool = False) -> dict[str, object]:
    """Summarise one metric over folds.

    Args:
        values: One number per fold; NaN where the metric is undefined, shape ``[k]``.
        single_precision: Average in float32.

    Returns:
        ``mean``, ``std`` (population), ``min``, ``max`` over the defined values, and ``values`` (all of
        them).

    Example:
        >>> fold_summary([1.0, 3.0])
        {'mean': 2.0, 'std': 1.0, 'min': 1.0, 'max': 3.0, 'values': [1.0, 3.0]}
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        raise ValueError(f"values must have one dimension, found shape {given.shape}")
    known = given[~np.isnan(given)]
    if single_precision:
        known = known.astype(np.float32)
    if known.size == 0:
        return {**dict.fromkeys(("mean", "std", "min", "max"), float("nan")), "values": given.tolist()}
    return {
        "mean": float(known.mean()),
        "std": float(known.std()),
        "min": float(known.min()),
        "max": float(known.max()),
        "values": given.tolist(),
    }
