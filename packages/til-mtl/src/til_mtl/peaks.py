"""Cells as peaks of a probability map: the most probable pixel is kept, all within a distance of it are not.

That greedy rule looks at the whole map. `find_peaks` follows it exactly on a map in memory, `StripPeaks` on a map that
comes strip by strip and never exists as a whole, `suppress` on a list of points.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
_FIRST_BLOCK = 256  # candidates looked at between two sweeps of those that were suppressed meanwhile
_SEED_PX = 3  # doubtful pixels this near to each other share one mark
_MOST_WAITING = 4_000_000


class Candidates(NamedTuple):
    """Pixels that may be peaks.

    Attributes:
        x, y: int64 ``[n]``, column and row in the whole map.
        p: float64 ``[n]``, probability.
        value: uint8 ``[n]``, whatever else belongs to the pixel, such as its tissue.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    p: Floats
    value: NDArray[np.uint8]

    def pick(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Candidates:
        """Return some of them."""
        return Candidates(self.x[chosen], self.y[chosen], self.p[chosen], self.value[chosen])

    def join(self, other: Candidates) -> Candidates:
        """Return both together."""
        return Candidates(
            np.concatenate([self.x, other.x]),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.p, other.p]),
            np.concatenate([self.value, other.value]),
        )


def no_candidates() -> Candidates:
    """Return an empty list."""
    whole = np.empty(0, np.int64)
    return Candidates(whole, whole, np.empty(0), np.empty(0, np.uint8))


def find_peaks(probability: NDArray[np.floating], threshold: float, distance: float) -> Floats:
    """Find the peaks of a map by greedy suppression.

    Pixels of at least the threshold are gone through from the most probable to the least, equal ones in reading order
    (the original leaves their order open). A pixel is kept unless it lies within the distance of one kept before.

    Args:
        probability: ``[H, W]``; NaN is never a peak.
        threshold: Least probability, inclusive.
        distance: Suppression distance in pixels, inclusive; 0 keeps every pixel.

    Returns:
        float64 ``[n, 3]``: column, row and probability, the most probable first.

    Example:
        >>> find_peaks(np.array([[0.9, 0.8, 0.1, 0.7]]), threshold=0.5, distance=1).tolist()
        [[0.0, 0.0, 0.9], [3.0, 0.0, 0.7]]
    """
    if probability.ndim != 2:
        raise ValueError(f"a map of probabilities must have shape [H, W], found {list(probability.shape)}")
    kept = StripPeaks(probability.shape[1], threshold, distance).add(probability, is_last=True)
    return np.stack([kept.x, kept.y, kept.p], axis=1).astype(np.float64)


def suppress(points: NDArray[np.floating], distance: float) -> Floats:
    """Suppress points near more probable ones; equal ones count in reading order.

    Args:
        points: ``[n, 3]``: x, y, probability.
        distance: Suppression distance, inclusive.

    Returns:
        float64 ``[k, 3]``, the most probable first.
    """
    listed = np.asarray(points, np.float64).reshape(-1, 3)
    ranked = listed[np.lexsort((listed[:, 0], listed[:, 1], -listed[:, 2]))]
    return ranked[keep_in_order(ranked[:, :2], distance)]


def keep_in_order(points: Floats, distance: float) -> NDArray[np.int64]:
    """Go through points in the order given and keep those that are not within the distance of one kept before.

    Args:
        points: ``[n, 2]``, (x, y).
        distance: Inclusive.

    Returns:
        int64 ``[k]``, numbers of the points kept, rising.
    """
    from scipy.spatial import KDTree

    if len(points) == 0:
        return np.empty(0, np.int64)
    tree = KDTree(points)
    reach = distance * (1 + 1e-9) + 1e-9
    # Most cells of a slide have no other one near: those are settled without a loop.
    crowded = np.isfinite(tree.query(points, k=2, distance_upper_bound=reach)[0])[:, 1]
    alive = np.ones(len(points), np.bool_)
    for number in np.flatnonzero(crowded).tolist():
        if alive[number]:
            near = np.asarray(tree.query_ball_point(points[number], reach), np.int64)
            near = near[near > number]
            offsets = points[near] - points[number]
            alive[near[np.sqrt((offsets**2).sum(axis=1)) <= distance]] = False
    return np.flatnonzero(alive)


class StripPeaks:
    """The peaks of a map that comes in strips of whole rows, from top to bottom.

    The result is that of `find_peaks` on the whole map. A pixel is settled when no pixel of a later strip can change
    its fate: neither lies its surrounding beyond the last row, nor does it depend on a pixel that is in doubt itself.
    The others, a few rows' worth, wait for the next strip.
    """

    def __init__(self, width: int, threshold: float, distance: float) -> None:
        """Start above the first row.

        Args:
            width: Of the map in pixels.
            threshold: Least probability, inclusive.
            distance: Suppression distance in pixels, inclusive.
        """
        if not distance >= 0:
            raise ValueError(f"the suppression distance must not be negative, found {distance}")
        self.width, self.threshold, self.distance = width, threshold, distance
        self.rows = 0
        self._waiting = no_candidates()
        self._disc = _disc(distance)
        self._blot = _disc(distance + _SEED_PX)
        self._seed = _disc(_SEED_PX)

    def add(
        self,
        strip: NDArray[np.floating],
        values: NDArray[np.uint8] | None = None,
        *,
        is_last: bool = False,
    ) -> Candidates:
        """Take the next rows.

        Args:
            strip: ``[h, W]``, probabilities.
            values: uint8 ``[h, W]``, what is to be known of the pixels; zeros by default.
            is_last: Whether the map ends here.

        Returns:
            Peaks that are settled now, the most probable first.
        """
        if strip.ndim != 2 or strip.shape[1] != self.width:
            raise ValueError(f"expected rows of {self.width} pixels, found shape {list(strip.shape)}")
        rows, columns = np.nonzero(strip >= self.threshold)
        found = Candidates(
            columns.astype(np.int64),
            rows.astype(np.int64) + self.rows,
            strip[rows, columns].astype(np.float64),
            values[rows, columns] if values is not None else np.zeros(len(rows), np.uint8),
        )
        return self._advance(found, strip.shape[0], is_last=is_last)

    def skip(self, height: int) -> Candidates:
        """Take rows without any candidate, such as glass; returns as `add`."""
        return self._advance(no_candidates(), height, is_last=False)

    def finish(self) -> Candidates:
        """Settle what waits, after the last row."""
        return self._advance(no_candidates(), 0, is_last=True)

    def _advance(self, found: Candidates, height: int, *, is_last: bool) -> Candidates:
        self.rows += height
        pool = self._waiting.join(found)
        pool = pool.pick(np.lexsort((pool.x, pool.y, -pool.p)))
        kept, waiting = self._settle(pool, is_last=is_last)
        if len(waiting) > _MOST_WAITING:
            logger.warning("%d pixels in doubt are settled early: the map rises without end", len(waiting))
            kept, _ = self._settle(pool, is_last=True)
            # Those near the edge stay, so that no cell is found twice.
            at_edge = pool.y[kept] >= self.rows - self.distance
            kept, waiting = kept[~at_edge], kept[at_edge]
        self._waiting = pool.pick(waiting)
        return pool.pick(kept)

    def _settle(self, pool: Candidates, *, is_last: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Go through ranked candidates; return the numbers of those that are kept and of those in doubt."""
        n = len(pool.x)
        if n == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        margin = self._blot.shape[0] // 2
        top = int(pool.y.min())
        area = (int(pool.y.max()) - top + 1 + 2 * margin, self.width + 2 * margin)
        gone, doubtful, seeded = (np.zeros(area, np.bool_) for _ in range(3))
        x, y = pool.x + margin, pool.y - top + margin
        place = y * area[1] + x
        # Below this row the surrounding reaches rows that are still to come.
        open_row = np.iinfo(np.int64).max if is_last else self.rows - int(self.distance) - top + margin
        flat_gone, flat_doubtful, flat_seeded = gone.reshape(-1), doubtful.reshape(-1), seeded.reshape(-1)
        kept: list[int] = []
        waiting: list[int] = []
        start, length = 0, _FIRST_BLOCK
        while start < n:
            block = np.arange(start, min(start + length, n))
            block = block[~flat_gone[place[block]]]
            for number, column, row, here in zip(
                block.tolist(), *(each[block].tolist() for each in (x, y, place)), strict=True
            ):
                if flat_gone[here]:
                    continue
                if row < open_row and not flat_doubtful[here]:
                    kept.append(number)
                    _mark(gone, self._disc, column, row)
                    continue
                waiting.append(number)
                if not flat_seeded[here]:
                    _mark(seeded, self._seed, column, row)
                    _mark(doubtful, self._blot, column, row)
            start, length = start + length, length * 2
        return np.asarray(kept, np.int64), np.asarray(waiting, np.int64)


def _disc(radius: float) -> NDArray[np.bool_]:
    reach = int(radius)
    offsets = np.arange(-reach, reach + 1)
    return np.sqrt(offsets[:, None] ** 2 + offsets[None, :] ** 2) <= radius


def _mark(area: NDArray[np.bool_], disc: NDArray[np.bool_], column: int, row: int) -> None:
    reach = disc.shape[0] // 2
    area[row - reach : row + reach + 1, column - reach : column + reach + 1] |= disc
