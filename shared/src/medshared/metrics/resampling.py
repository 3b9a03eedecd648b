"""Bootstrap and permutation over groups of samples that belong together, such as the frames of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
MAX_EXACT_GROUPS = 16  # 2**16 sign patterns are still enumerated


@dataclass(frozen=True)
class Interval:
    """An estimate with a percentile bootstrap interval.

    Attributes:
        estimate: The statistic on the data itself.
        low: Lower end; NaN when it cannot be given (fewer than two groups to draw from).
        high: Upper end; NaN like ``low``.
        n_groups: Independent units that were resampled.
        n_valid: Resamples in which the statistic was a number.
    """

    estimate: float
    low: float
    high: float
    n_groups: int
    n_valid: int


class GroupResampler:
    """Draws groups with replacement and returns the sample indices of the drawn groups.

    The positions of every group's samples are computed once, so one draw costs a few array operations.

    Args:
        groups: Group of every sample (numbers or strings), shape ``[N]``.
        strata: Optional stratum of every sample, shape ``[N]``, constant within a group; each resample then
            holds as many groups of every stratum as the data.
    """

    def __init__(self, groups: ArrayLike, strata: ArrayLike | None = None) -> None:
        labels = np.asarray(groups)
        if labels.ndim != 1 or labels.size == 0:
            raise ValueError(
                f"groups must have one dimension and at least one entry, found shape {labels.shape}"
            )
        _, code = np.unique(labels, return_inverse=True)
        self.code: Indices = code.astype(np.int64)
        self.sizes: Indices = np.bincount(self.code).astype(np.int64)
        self.n_groups = int(self.sizes.size)
        self._order = np.argsort(self.code, kind="stable")
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._pools = self._make_pools(strata)

    def _make_pools(self, strata: ArrayLike | None) -> list[Indices]:
        if strata is None:
            return [np.arange(self.n_groups)]
        s = np.asarray(strata)
        if s.shape != self.code.shape:
            raise ValueError(
                f"strata has shape {s.shape}, groups has {self.code.shape}: give one entry per sample"
            )
        stratum_of_group = s[self._order[self._starts]]
        if not np.array_equal(stratum_of_group[self.code], s):
            raise ValueError("a group has samples of several strata: strata must be constant within a group")
        return [np.nonzero(stratum_of_group == value)[0] for value in np.unique(stratum_of_group)]

    @property
    def varies(self) -> bool:
        """Whether every stratum has at least two groups; without them resampling shows no variation."""
        return min(pool.size for pool in self._pools) >= 2

    def draw(self, rng: np.random.Generator) -> Indices:
        """Return the sample indices of one resample."""
        drawn = np.concatenate([pool[rng.integers(0, pool.size, pool.size)] for pool in self._pools])
        sizes = self.sizes[drawn]
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self._order[np.repeat(self._starts[drawn], sizes) + within]

    def draws(self, n_resamples: int, rng: np.random.Generator) -> Iterator[Indices]:
        """Yield the sample indices of ``n_resamples`` resamples."""
        return (self.draw(rng) for _ in range(n_resamples))


def _interval(
    estimate: float, values: NDArray[np.float64], confidence: float, resampler: GroupResampler
) -> Interval:
    valid = values[np.isfinite(values)]
    low = high = float("nan")
    if valid.size and resampler.varies:
        tail = (1.0 - confidence) / 2.0
        low, high = (float(q) for q in np.quantile(valid, [tail, 1.0 - tail]))
    return Interval(float(estimate), low, high, resampler.n_groups, int(valid.size))


def _check(n_resamples: int, confidence: float) -> None:
    if n_resamples < 0:
        raise ValueError(f"n_resamples must not be negative, found {n_resamples}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")


def cluster_bootstrap_many(
    statistic: Callable[[Indices], Mapping[str, float]],
    groups: ArrayLike,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator | int | None = 0,
    *,
    strata: ArrayLike | None = None,
) -> dict[str, Interval]:
    """Percentile bootstrap over groups for several statistics at once.

    Args:
        statistic: Maps sample indices (repeats allowed) to named numbers; NaN where one is undefined.
        groups: Group of every sample, shape ``[N]``.
        n_resamples: Number of resamples.
        confidence: Coverage in (0, 1).
        rng: Generator or seed.
        strata: See `GroupResampler`.

    Returns:
        One interval per name.

    Example:
        >>> x = np.arange(8.0)
        >>> result = cluster_bootstrap_many(lambda i: {"mean": x[i].mean()}, np.repeat([0, 1, 2, 3], 2), 200)
        >>> result["mean"].estimate, result["mean"].n_groups
        (3.5, 4)
    """
    _check(n_resamples, confidence)
    resampler = GroupResampler(groups, strata)
    generator = np.random.default_rng(rng)
    estimates = statistic(np.arange(resampler.code.size))
    values = {name: np.full(n_resamples, np.nan) for name in estimates}
    if resampler.varies:
        for row, indices in enumerate(resampler.draws(n_resamples, generator)):
            for name, value in statistic(indices).items():
                values[name][row] = value
    return {name: _interval(estimates[name], values[name], confidence, resampler) for name in estimates}


def cluster_bootstrap(
    statistic: Callable[[Indices], float],
    groups: ArrayLike,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator | int | None = 0,
    *,
    strata: ArrayLike | None = None,
) -> Interval:
    """Percentile bootstrap over groups: whole groups are drawn with replacement.

    With one group per sample this is the ordinary bootstrap.

    Args:
        statistic: Maps sample indices, shape ``[M]`` (repeats allowed), to a number; NaN where it is
            undefined.
        groups: Group of every sample, shape ``[N]``.
        n_resamples: Number of resamples.
        confidence: Coverage in (0, 1).
        rng: Generator or seed.
        strata: Stratum of every sample, constant within a group; resamples then keep the number of groups
            of each.

    Returns:
        The interval; its ends are NaN when a stratum has a single group.

    Example:
        >>> x = np.array([1.0, 2.0, 3.0, 4.0])
        >>> interval = cluster_bootstrap(lambda i: x[i].mean(), [0, 0, 1, 1], n_resamples=200, rng=0)
        >>> interval.estimate, interval.low, interval.high, interval.n_valid
        (2.5, 1.5, 3.5, 200)
    """
    many = cluster_bootstrap_many(
        lambda indices: {"value": statistic(indices)}, groups, n_resamples, confidence, rng, strata=strata
    )
    return many["value"]


def paired_cluster_bootstrap(
    statistic_a: Callable[[Indices], float],
    statistic_b: Callable[[Indices], float],
    groups: ArrayLike,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator | int | None = 0,
    *,
    strata: ArrayLike | None = None,
) -> Interval:
    """Bootstrap interval of ``statistic_a − statistic_b`` on the same resamples of the same samples.

    Args:
        statistic_a: Statistic of the first model, see `cluster_bootstrap`.
        statistic_b: Statistic of the second model on the same sample indices.
        groups: Group of every sample, shape ``[N]``.
        n_resamples: Number of resamples.
        confidence: Coverage in (0, 1).
        rng: Generator or seed.
        strata: See `cluster_bootstrap`.

    Returns:
        The interval of the difference.

    Example:
        >>> a, b = np.array([2.0, 3.0, 5.0]), np.array([1.0, 2.0, 4.0])
        >>> paired_cluster_bootstrap(lambda i: a[i].mean(), lambda i: b[i].mean(), [0, 1, 2], 100).estimate
        1.0
    """
    return cluster_bootstrap(
        lambda indices: statistic_a(indices) - statistic_b(indices),
        groups,
        n_resamples,
        confidence,
        rng,
        strata=strata,
    )


def cluster_swap_test(
    difference: Callable[[NDArray[np.bool_]], float],
    groups: ArrayLike,
    n_resamples: int = 1000,
    rng: np.random.Generator | int | None = 0,
) -> float:
    """Permutation p-value of a difference between two models that are swapped group by group.

    Suits statistics that are no means, such as the difference of two AUCs.

    Args:
        difference: Maps a mask, shape ``[N]``, of samples on which the two models are exchanged to the
            difference of the two statistics.
        groups: Group of every sample, shape ``[N]``.
        n_resamples: Random exchanges; with few groups all ``2**G`` are used instead.
        rng: Generator or seed.

    Returns:
        Two-sided p-value in (0, 1]; NaN when the observed difference is undefined.

    Example:
        >>> a, b = np.array([5.0, 6.0, 7.0, 8.0]), np.array([1.0, 2.0, 3.0, 4.0])
        >>> swap = lambda m: np.where(m, b, a).mean() - np.where(m, a, b).mean()
        >>> cluster_swap_test(swap, [0, 1, 2, 3])
        0.125
    """
    resampler = GroupResampler(groups)
    observed = difference(np.zeros(resampler.code.size, dtype=bool))
    if not np.isfinite(observed):
        return float("nan")
    exact = 2**resampler.n_groups <= max(n_resamples, 1)
    if exact:
        patterns: Iterator[NDArray[np.bool_]] = (
            np.array(signs, dtype=bool) for signs in product((False, True), repeat=resampler.n_groups)
        )
    else:
        generator = np.random.default_rng(rng)
        patterns = (generator.random(resampler.n_groups) < 0.5 for _ in range(n_resamples))
    values = np.array([difference(pattern[resampler.code]) for pattern in patterns])
    values = values[np.isfinite(values)]
    reached = int(np.count_nonzero(np.abs(values) >= abs(observed) * (1.0 - 1e-9)))
    return reached / values.size if exact else (reached + 1) / (values.size + 1)


def paired_permutation_test(
    differences: ArrayLike,
    rng: np.random.Generator | int | None = 0,
    *,
    n_resamples: int = 9999,
    exact: bool | None = None,
) -> float:
    """Two-sided sign-flip test that the differences of independent pairs are centred at 0.

    Args:
        differences: One per independent unit (for frames: first average within a stack), shape ``[K]``.
        rng: Generator or seed.
        n_resamples: Random sign patterns when not exact.
        exact: Enumerate all ``2**K`` patterns; null does so for at most 16 units.

    Returns:
        The p-value in (0, 1].

    Raises:
        ValueError: Without differences, or when they are not finite.

    Example:
        >>> paired_permutation_test([1.0, 2.0, 3.0, 4.0])
        0.125
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size == 0 or not np.isfinite(d).all():
        raise ValueError("differences must be a non-empty list of finite numbers, one per independent unit")
    enumerate_all = d.size <= MAX_EXACT_GROUPS if exact is None else exact
    observed = abs(d.sum()) * (1.0 - 1e-12)
    if enumerate_all:
        sums = np.zeros(1)
        for value in d:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed - 1e-12 * np.abs(d).sum()))
    signs = np.random.default_rng(rng).integers(0, 2, (n_resamples, d.size)) * 2 - 1
    reached = int(np.count_nonzero(np.abs(signs @ d) >= observed - 1e-12 * np.abs(d).sum()))
    return (reached + 1) / (n_resamples + 1)
