"""Regions of a slide as polygons with holes, and which points lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

INSIDE, ON_EDGE, OUTSIDE = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Contour:
    """One connected region.

    Attributes:
        outer: int32 [n, 2], (x, y) of the border in level-0 pixels; the last point is joined to the first.
        holes: int32 [m, 2] each, the borders of the holes.
    """

    outer: npt.NDArray[np.int32]
    holes: tuple[npt.NDArray[np.int32], ...] = field(default=())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) of the smallest upright rectangle; both borders count, as in OpenCV."""
        low, high = self.outer.min(axis=0), self.outer.max(axis=0)
        return int(low[0]), int(low[1]), int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)

    @property
    def outer_area_px(self) -> float:
        """Area within the outer border in level-0 pixels, holes included."""
        return polygon_area(self.outer)

    @property
    def area_px(self) -> float:
        """Area in level-0 pixels without the holes."""
        return self.outer_area_px - sum(polygon_area(hole) for hole in self.holes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Contour):
            return NotImplemented
        return (
            np.array_equal(self.outer, other.outer)
            and len(self.holes) == len(other.holes)
            and all(np.array_equal(a, b) for a, b in zip(self.holes, other.holes, strict=True))
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def contains(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return for points [n, 2] whether they lie in the region; its borders belong to it."""
        found = locate_points(points, self.outer) >= ON_EDGE
        for hole in self.holes:
            found &= locate_points(points, hole) <= ON_EDGE
        return found


def polygon_area(polygon: npt.NDArray[np.integer]) -> float:
    """Return the area of a polygon [n, 2] by the shoelace formula, without the sign of its direction."""
    x, y = polygon[:, 0].astype(np.int64), polygon[:, 1].astype(np.int64)
    return abs(int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


def locate_points(points: npt.ArrayLike, polygon: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Tell for many points at once whether they lie in a polygon, by the even-odd rule.

    All points and all crossings of the polygon with the points' rows are sorted together, so the cost is
    O((n + m) log (n + m)) when edges are short against the distance of the rows. The answer is exact for whole and
    half coordinates up to 2²⁴, and equals OpenCV's ``pointPolygonTest``.

    Args:
        points: [n, 2] of (x, y).
        polygon: [m, 2] of (x, y); the last point is joined to the first.

    Returns:
        int8 [n]: 1 inside, 0 on the border, −1 outside.
    """
    p = np.asarray(points, np.float64).reshape(-1, 2)
    start = np.asarray(polygon, np.float64).reshape(-1, 2)
    found = np.full(len(p), OUTSIDE, np.int8)
    if len(p) == 0 or len(start) == 0:
        return found
    end = np.roll(start, -1, axis=0)
    rows, point_row = np.unique(p[:, 1], return_inverse=True)
    crossings = _crossings(start, end, rows)
    flat = _flat_edges(start, end, rows)

    # Events along each row. At the same place they keep this order, because sorting is stable: flat edges begin (0)
    # and the border is crossed (1) before a point is looked at (2), flat edges end (3) after it.
    row = np.concatenate([flat[0], crossings[0], point_row, flat[0]])
    place = np.concatenate([flat[1], crossings[1], p[:, 0], flat[2]])
    sizes = [len(flat[0]), len(crossings[0]), len(p), len(flat[0])]
    kind = np.repeat(np.arange(4), sizes)
    order = np.lexsort((place, row))
    kind, row, place = kind[order], row[order], place[order]

    crossed = np.zeros(len(order), np.int64)
    crossed[kind == 1] = crossings[2][order[kind == 1] - sizes[0]]
    odd = np.cumsum(crossed) % 2 == 1  # every row holds an even number of crossings in all
    within_flat = np.cumsum((kind == 0).astype(np.int64) - (kind == 3)) > 0
    last = np.maximum.accumulate(np.where(kind == 1, np.arange(len(order)), -1))
    touched = (last >= 0) & (row[last] == row) & (place[last] == place)

    is_point = kind == 2
    state = np.where(odd, INSIDE, OUTSIDE)
    state[touched | within_flat] = ON_EDGE
    found[order[is_point] - sizes[0] - sizes[1]] = state[is_point]
    return found


def _crossings(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return row, x and weight of all meetings of sloping edges with rows.

    The weight is 0 at an edge's upper end, which counts for touching only: the next edge crosses there.
    """
    sloping = start[:, 1] != end[:, 1]
    a, b = start[sloping], end[sloping]
    low = np.where((a[:, 1] < b[:, 1])[:, None], a, b)
    high = np.where((a[:, 1] < b[:, 1])[:, None], b, a)
    first = np.searchsorted(rows, low[:, 1], "left")
    stop = np.searchsorted(rows, high[:, 1], "right")
    counts = stop - first
    edge = np.repeat(np.arange(len(low)), counts)
    offset = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = first[edge] + offset
    y, low, high = rows[row], low[edge], high[edge]
    # Exact where the result is a point's coordinate: products stay below 2⁵³ and a whole quotient has no rounding.
    x = low[:, 0] + (y - low[:, 1]) * (high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1])
    return row, x, (y < high[:, 1]).astype(np.int64)


def _flat_edges(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return row, lower and upper x of the horizontal edges (and single points) that lie on a row."""
    row = np.searchsorted(rows, start[:, 1], "left")
    on_row = (start[:, 1] == end[:, 1]) & (row < len(rows))
    on_row[on_row] = rows[row[on_row]] == start[on_row, 1]
    x = np.stack([start[on_row, 0], end[on_row, 0]])
    return row[on_row], x.min(axis=0), x.max(axis=0)


def find_contours(
    mask: npt.NDArray[np.uint8],
) -> list[tuple[npt.NDArray[np.int32], list[npt.NDArray[np.int32]]]]:
    """Trace the regions of a mask with OpenCV, every border pixel kept.

    Args:
        mask: uint8 [height, width], non-zero inside.

    Returns:
        For each region, in OpenCV's order, its border and the borders of its holes, int32 [n, 2] in mask pixels.
    """
    import cv2

    traced, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return []
    borders = [np.asarray(each, np.int32).reshape(-1, 2) for each in traced]
    parents = np.asarray(hierarchy).reshape(-1, 4)[:, 3].tolist()
    holes: dict[int, list[npt.NDArray[np.int32]]] = {}
    for border, parent in zip(borders, parents, strict=True):
        if parent >= 0:
            holes.setdefault(parent, []).append(border)
    return [(borders[i], holes.get(i, [])) for i, parent in enumerate(parents) if parent < 0]


def scale_border(border: npt.NDArray[np.int32], scale: Sequence[float]) -> npt.NDArray[np.int32]:
    """Return a border in level-0 pixels, truncated to whole ones; ``scale`` is (x, y)."""
    return (border * np.asarray(scale, np.float64)).astype(np.int32)
