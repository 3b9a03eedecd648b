"""Which tiles of a slide the network sees, and which part of each is kept.

Tiles overlap by twice the margin, because what the network says near a tile's border lacks surroundings. Of each tile
the centre is kept; at the slide's borders everything up to the border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medshared.slides.reading import scaled_size
from til_mtl.errors import DataError

if TYPE_CHECKING:
    from medshared.slides import Slide, TissueMask


class Axis(NamedTuple):
    """Tiles along one side of the slide.

    Attributes:
        starts: int64 ``[n]``, first pixel of every tile.
        edges: int64 ``[n + 1]``; of tile i the pixels from ``edges[i]`` to ``edges[i + 1]`` are kept.
    """

    starts: NDArray[np.int64]
    edges: NDArray[np.int64]


def plan_axis(length: int, tile: int, margin: int) -> Axis:
    """Lay tiles over a length; the last one ends with it.

    Args:
        length: In pixels; shorter than a tile, it gets one tile that reaches beyond it.
        tile: Edge of a tile.
        margin: Pixels left out on either side; less than half a tile.

    Returns:
        Tiles whose kept parts cover every pixel once.
    """
    if tile < 1 or not 0 <= 2 * margin < tile:
        raise DataError(
            f"--patch {tile} and --margin {margin} leave nothing of a tile; need patch > 2 * margin"
        )
    stride = tile - 2 * margin
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(min(starts[-1] + stride, length - tile))
    edges = [0, *(start + tile - margin for start in starts[:-1]), length]
    return Axis(np.asarray(starts, np.int64), np.asarray(edges, np.int64))


Window = tuple[slice, slice]


def kept_part(rows: Axis, columns: Axis, row: int, column: int) -> tuple[Window, Window]:
    """Return which rows and columns of the map come from a tile, and where they lie in the tile."""
    axes = ((rows, row), (columns, column))
    edges = [(int(axis.edges[n]), int(axis.edges[n + 1]), int(axis.starts[n])) for axis, n in axes]
    (top, bottom, y), (left, right, x) = edges
    window = (slice(top, bottom), slice(left, right))
    return window, (slice(top - y, bottom - y), slice(left - x, right - x))


@dataclass(frozen=True)
class TilePlan:
    """The tiles of one slide in pixels of the map, the grid that the network's output lives on.

    Attributes:
        size: (width, height) of the map.
        tile: Edge of a tile.
        asked_mpp: µm per pixel that were asked for.
        mpp: µm per pixel that the map has: those of the level, where it is read as it is.
        level0_px: Level-0 pixels of one pixel of the map.
        columns: Along x.
        rows: Along y.
    """

    size: tuple[int, int]
    tile: int
    asked_mpp: float
    mpp: float
    level0_px: float
    columns: Axis
    rows: Axis

    def locations(self, row: int, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (x, y) of tiles of one row in level-0 pixels, int64 [n, 2]."""
        x = self.columns.starts[columns] * self.level0_px
        y = np.full(len(columns), self.rows.starts[row] * self.level0_px)
        return np.rint(np.stack([x, y], axis=1)).astype(np.int64)


def plan_tiles(slide: Slide, mpp: float, tile: int, margin: int) -> TilePlan:
    """Plan the tiles of a slide.

    The pyramid level nearest to ``mpp`` is read as it is when it is off by at most 10 %; otherwise tiles of the next
    finer level are reduced. Tiles are read at whole pixels of the level.

    Args:
        slide: The slide.
        mpp: µm per pixel wanted.
        tile: Edge of a tile in pixels of the map.
        margin: Left out on either side.

    Returns:
        The plan, with the µm per pixel that the map really has.
    """
    choice = slide.choose_level(mpp)
    scale = scaled_size((tile, tile), choice.scale)[0] / tile  # as tiles are read
    width, height = (max(1, round(n / scale)) for n in slide.level_dimensions[choice.level])
    level0_px = choice.downsample * scale
    return TilePlan(
        (width, height),
        tile,
        mpp,
        slide.require_spacing() * level0_px,
        level0_px,
        plan_axis(width, tile, margin),
        plan_axis(height, tile, margin),
    )


class TissueRows:
    """A tissue mask in pixels of the map, looked up a few rows at a time."""

    def __init__(self, tissue: TissueMask, plan: TilePlan) -> None:
        """Prepare the look-up; mask and slide cover the same area."""
        self._mask = tissue.mask
        self._plan = plan
        height, width = tissue.mask.shape
        centres = (np.arange(plan.size[0]) + 0.5) * plan.level0_px / tissue.scale[0]
        self._columns = np.minimum(centres.astype(np.int64), width - 1)
        centres = (np.arange(plan.size[1]) + 0.5) * plan.level0_px / tissue.scale[1]
        self._rows = np.minimum(centres.astype(np.int64), height - 1)

    def between(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
        """Return the mask of a window of the map, bool [bottom - top, right - left]."""
        return self._mask[self._rows[top:bottom]][:, self._columns[left:right]]

    def tiles_of(self, row: int) -> NDArray[np.int64]:
        """Return the tiles of a row whose kept part has tissue."""
        axis, edges = self._plan.rows, self._plan.columns.edges
        first, last = self._rows[axis.edges[row]], self._rows[axis.edges[row + 1] - 1]
        present = self._mask[first : last + 1].any(axis=0)
        total = np.concatenate([[0], np.cumsum(present)])
        counts = total[self._columns[edges[1:] - 1] + 1] - total[self._columns[edges[:-1]]]
        return np.flatnonzero(counts)
