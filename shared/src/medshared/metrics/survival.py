"""How well risks order survival times: Harrell's and Uno's concordance index, exact with ties, in O(n log n)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medshared.metrics.survival_data import (
    Booleans,
    Floats,
    Integers,
    UndefinedMetricWarning,
    censoring_curve,
    survival_labels,
    warn_undefined,
)

__all__ = [
    "ConcordanceCounts",
    "UndefinedMetricWarning",
    "concordance_counts",
    "concordance_index",
    "concordance_matrices",
    "uno_c_index",
]


class ConcordanceCounts(NamedTuple):
    """Pairs of patients of which one is known to have had the earlier event.

    Attributes:
        concordant: Comparable pairs whose earlier event has the higher risk.
        discordant: Comparable pairs whose earlier event has the lower risk.
        tied_risk: Comparable pairs of equal risk.
        tied_time: Comparable pairs of equal time: an event and a censoring. They are also in one of the
            three numbers above.
    """

    concordant: int
    discordant: int
    tied_risk: int
    tied_time: int

    @property
    def comparable(self) -> int:
        """All comparable pairs."""
        return self.concordant + self.discordant + self.tied_risk


def _checked(risk: ArrayLike, event: ArrayLike, time: ArrayLike) -> tuple[Floats, Booleans, Floats]:
    e, t = survival_labels(event, time)
    r = np.asarray(risk, dtype=np.float64)
    if r.shape != t.shape:
        raise ValueError(f"risk must have the shape of time {t.shape}, found {r.shape}")
    wrong = np.flatnonzero(~np.isfinite(r))
    if wrong.size:
        raise ValueError(f"risk must be a finite number, found {r[wrong[0]]} at position {wrong[0]}")
    return r, e, t


def _count_below(ranks: Integers, prefix: Integers, value: Integers) -> Integers:
    """Count, for every query q, the entries of ``ranks[:prefix[q]]`` that are less than ``value[q]``.

    A wavelet tree over a permutation whose length is padded to a power of two: every node of a level then
    holds the same number of entries and starts at a position known without searching. One level costs a few
    passes over the array and one look-up a query, hence O((n + queries) log n) without a Python loop over n.
    """
    n = ranks.size
    bits = max(int(n).bit_length(), 1)
    level = np.concatenate([ranks, np.arange(n, 1 << bits)]).astype(np.int32)
    found = np.zeros(prefix.size, dtype=np.int32)
    start = np.zeros(prefix.size, dtype=np.int32)
    within = prefix.astype(np.int32)  # entries of the query's prefix in its node
    target = value.astype(np.int32)
    zeros = np.zeros(level.size + 1, dtype=np.int32)
    for bit in range(bits - 1, -1, -1):
        half = 1 << bit
        upper = (level & half) != 0
        np.cumsum(~upper, out=zeros[1:])
        below = zeros[start + within] - (start >> 1)
        goes_up = (target & half) != 0
        found += np.where(goes_up, below, 0)
        within = np.where(goes_up, within - below, below)
        start += np.where(goes_up, half, 0).astype(np.int32)
        # Positions first: a selection by mask costs five times as much on patternless data.
        low, high = (level.take(np.flatnonzero(part)) for part in (~upper, upper))
        level = np.concatenate([low.reshape(-1, half), high.reshape(-1, half)], axis=1).ravel()
    return found.astype(np.int64)


def _tie_bounds(ordered: Floats, tolerance: float) -> tuple[Integers, Integers]:
    """Return, for every entry of the sorted risks, the first position that ties with it and that past the last.

    A tie is ``abs(a - b) <= tolerance`` as computed in float64 for that very pair. The rounded difference does
    not decrease with ``a``, so the ties of one risk are neighbours in the sorted order; the ends found from
    ``b ± tolerance`` may be one value off by rounding and are moved until the pair itself says otherwise.
    """
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.concatenate([np.flatnonzero(new), [ordered.size]])
    distinct = ordered[starts[:-1]]
    low, last = np.arange(distinct.size), distinct.size - 1
    high = low + 1
    if (np.diff(distinct) <= tolerance).any():
        low = np.searchsorted(distinct, distinct - tolerance, side="left")
        high = np.searchsorted(distinct, distinct + tolerance, side="right")
        while (moved := (low > 0) & (distinct - distinct[np.maximum(low - 1, 0)] <= tolerance)).any():
            low = low - moved
        while (moved := distinct - distinct[low] > tolerance).any():
            low = low + moved
        while (moved := (high <= last) & (distinct[np.minimum(high, last)] - distinct <= tolerance)).any():
            high = high + moved
        while (moved := distinct[high - 1] - distinct > tolerance).any():
            high = high - moved
    group = np.cumsum(new) - 1
    return starts[low][group], starts[high][group]


class _EventPairs(NamedTuple):
    """For every observed event: pairs with patients known to live longer."""

    events: Integers  # positions of the events among the patients
    concordant: Integers
    tied_risk: Integers
    comparable: Integers
    tied_time: Integers


def _event_pairs(risk: Floats, event: Booleans, time: Floats, tolerance: float) -> _EventPairs:
    """Count the comparable pairs of each event with the patients censored then or known to live longer."""
    # Longest times first, and at one time the censored before the events: all patients whose event is
    # certainly later than patient i's lie before the first event of i's time.
    n = risk.size
    order = np.argsort(-time)
    new = np.concatenate([[True], time[order[1:]] != time[order[:-1]]])
    group = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    censored = ~event[order]
    before = np.cumsum(censored) - censored  # censored patients at earlier places
    n_censored = np.add.reduceat(censored, first, dtype=np.int64)
    place_censored = (first - before[first])[group] + before
    place_event = np.arange(n) - before + (before[first] + n_censored)[group]
    place = np.where(censored, place_censored, place_event)
    by_risk = np.argsort(risk)
    rank = np.empty(n, dtype=np.int64)
    rank[by_risk] = np.arange(n)
    ranks = np.empty(n, dtype=np.int64)
    ranks[place] = rank[order]
    at = np.flatnonzero(~censored)
    events = order[at]
    tied_time = n_censored[group[at]]
    comparable = first[group[at]] + tied_time
    low, high = (bound[rank[events]] for bound in _tie_bounds(risk[by_risk], tolerance))
    may_tie = np.flatnonzero(high - low > 1)  # an event alone in its range ties with nobody
    found = _count_below(
        ranks,
        np.concatenate([comparable, comparable[may_tie]]),
        np.concatenate([low, high[may_tie]]),
    )
    concordant = found[: low.size]
    tied = np.zeros_like(concordant)
    tied[may_tie] = found[low.size :] - concordant[may_tie]
    return _EventPairs(events, concordant, tied, comparable, tied_time)


def concordance_counts(
    risk: ArrayLike, event: ArrayLike, time: ArrayLike, tied_tol: float = 1e-8
) -> ConcordanceCounts:
    """Count comparable pairs by whether their risks are in the right order, exactly, in O(n log n).

    A pair (i, j) is comparable when i had the event and either ``t_j > t_i``, or ``t_j == t_i`` and j was
    censored. Two events at one time are not comparable. Risks tie when they differ by at most ``tied_tol``.

    Args:
        risk: Higher means an earlier event, shape ``[n]``, finite.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``, any unit.
        tied_tol: Largest difference of tied risks, at least 0; the comparison is that of each pair in
            float64.

    Returns:
        The counts; ``concordant + discordant + tied_risk`` are all comparable pairs.

    Raises:
        ValueError: Shapes differ, an event is neither 0 nor 1, a number is not finite.

    Example:
        >>> concordance_counts([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0])
        ConcordanceCounts(concordant=4, discordant=0, tied_risk=1, tied_time=0)
    """
    r, e, t = _checked(risk, event, time)
    if tied_tol < 0:
        raise ValueError(f"tied_tol must not be negative, found {tied_tol}")
    if not e.any():
        return ConcordanceCounts(0, 0, 0, 0)
    pairs = _event_pairs(r, e, t, tied_tol)
    concordant, tied, comparable = (
        int(part.sum()) for part in (pairs.concordant, pairs.tied_risk, pairs.comparable)
    )
    return ConcordanceCounts(concordant, comparable - concordant - tied, tied, int(pairs.tied_time.sum()))


def concordance_index(risk: ArrayLike, event: ArrayLike, time: ArrayLike, tied_tol: float = 1e-8) -> float:
    """Harrell's concordance index: the share of comparable pairs whose risks are in the right order.

    ``C = (concordant + tied_risk / 2) / comparable``, with the pairs of `concordance_counts`. 0.5 is chance.
    Depends on the censoring of the data; `uno_c_index` corrects for it.

    Args:
        risk: Higher means an earlier event (minus the predicted time, a log-hazard), shape ``[n]``, finite.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``, any unit.
        tied_tol: Risks that differ by at most this count as half a pair in the right order.

    Returns:
        A number in [0, 1]; NaN with an `UndefinedMetricWarning` when no pair is comparable (nobody, one
        patient, all censored, all events at one time, only the longest time an event).

    Raises:
        ValueError: As for `concordance_counts`.

    Example:
        >>> concordance_index([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0])
        0.9
    """
    counts = concordance_counts(risk, event, time, tied_tol)
    if counts.comparable == 0:
        e, _ = survival_labels(event, time)
        return warn_undefined(
            "the concordance index", f"no pair is comparable ({int(e.sum())} events, {e.size} patients)"
        )
    return (counts.concordant + 0.5 * counts.tied_risk) / counts.comparable


def uno_c_index(
    risk: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    train_event: ArrayLike,
    train_time: ArrayLike,
    *,
    tau: float | None = None,
    tied_tol: float = 1e-8,
) -> float:
    """Uno's concordance index: pairs weighted so that the result does not depend on the censoring.

    ``C = Σ_i w_i (concordant_i + tied_i / 2) / Σ_i w_i comparable_i`` over events i before ``tau``, with
    ``w_i = 1 / G(t_i-)²`` and G the probability of not being censored, estimated on the training patients
    (Uno et al. 2011).

    Args:
        risk: Higher means an earlier event, shape ``[n]``, finite.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``, any unit.
        train_event: Events of the training patients, shape ``[m]``.
        train_time: Times of the training patients, in the same unit.
        tau: Only events before this time count; null takes the longest training time, beyond which the
            censoring is not known.
        tied_tol: See `concordance_index`.

    Returns:
        A number in [0, 1]; NaN with an `UndefinedMetricWarning` when no pair is comparable.

    Example:
        >>> event, time = [1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0]
        >>> uno_c_index([3.0, 2.0, 2.0, 1.0], event, time, event, time)
        0.9
    """
    r, e, t = _checked(risk, event, time)
    known_event, known_time = survival_labels(train_event, train_time)
    if not known_time.size:
        raise ValueError("the censoring of the training patients is needed, found no patient")
    limit = float(known_time.max()) if tau is None else tau
    if e.any():
        pairs = _event_pairs(r, e, t, tied_tol)
        g = censoring_curve(known_event, known_time).before(t[pairs.events])
        weight = np.where((t[pairs.events] < limit) & (g > 0), 1.0 / np.maximum(g, 1e-300) ** 2, 0.0)
        total = float(np.sum(weight * pairs.comparable))
        if total > 0:
            return float(np.sum(weight * (pairs.concordant + 0.5 * pairs.tied_risk)) / total)
    return warn_undefined("Uno's concordance index", f"no pair is comparable before time {limit:g}")


def concordance_matrices(
    risk: ArrayLike, event: ArrayLike, time: ArrayLike, tied_tol: float = 1e-8
) -> tuple[Floats, Floats]:
    """Return all pairs of patients as matrices, for resampling: O(n²) memory.

    With ``m`` the number of times each patient is drawn, the concordance index of the resample is
    ``(m @ score @ m) / (m @ comparable @ m)``.

    Args:
        risk: Higher means an earlier event, shape ``[n]``, finite.
        event: 1 = event observed, 0 = censored, shape ``[n]``.
        time: Shape ``[n]``.
        tied_tol: See `concordance_index`.

    Returns:
        ``score`` (1, 0.5 or 0) and ``comparable`` (1 or 0), float64 ``[n, n]``; row i is the earlier event.

    Example:
        >>> score, comparable = concordance_matrices([3.0, 2.0, 2.0], [1, 1, 0], [1.0, 2.0, 3.0])
        >>> float(score.sum() / comparable.sum())
        0.8333333333333334
    """
    r, e, t = _checked(risk, event, time)
    later = (t[None] > t[:, None]) | ((t[None] == t[:, None]) & ~e[None])
    comparable = later & e[:, None]
    difference = r[:, None] - r[None]
    score = np.where(np.abs(difference) <= tied_tol, 0.5, (difference > 0).astype(np.float64))
    return score * comparable, comparable.astype(np.float64)
