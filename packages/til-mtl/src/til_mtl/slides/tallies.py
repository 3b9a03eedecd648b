"""What is kept of a slide's maps while they pass: areas, a coarse map, the cells, and the hull of the tumour."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from til_mtl.peaks import Candidates
from til_mtl.til_score import OTHER, STROMA, TUMOR

if TYPE_CHECKING:
    from til_mtl.slides.strips import Strip

TISSUES = {TUMOR: "tumour", STROMA: "stroma", OTHER: "other"}
_LONGEST_PX = 3072  # longest side of the coarse map
_HULL_UM = 32.0  # µm per pixel at which the hull is drawn: level 6 of the challenge's slides
_HULL_RADIUS_PX = 1 / 0.07  # alpha of the organisers' concave hull
_HULL_MM2 = 1.5  # smallest tumour bulk

Bools = NDArray[np.bool_]


class Bulk(NamedTuple):
    """The tumour bulk.

    Attributes:
        mask: bool, on the blocks of the coarse map.
        stroma_px: Pixels of stroma within, of the full map.
        area_mm2: Of the bulk.
    """

    mask: Bools
    stroma_px: int
    area_mm2: float


class Tallies:
    """Counts of a map's pixels, in all and by block.

    Attributes:
        block: Edge of a block in pixels of the map, a power of two.
        counts: uint32 ``[4, h, w]``, pixels of every value in every block (background is not counted).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Start with nothing.

        Args:
            size: (width, height) of the map.
        """
        self.size = size
        self.block = 1
        while max(size) > self.block * _LONGEST_PX:
            self.block *= 2
        self._columns = np.arange(0, size[0], self.block)
        height = -(-size[1] // self.block)
        self.counts = np.zeros((4, height, len(self._columns)), np.uint32)
        self._coarse: NDArray[np.uint8] | None = None

    def add(self, strip: Strip) -> None:
        """Count a strip."""
        if strip.segmentation is None:
            return
        rows = np.arange(strip.top, strip.top + strip.height)
        first = np.flatnonzero(np.diff(rows // self.block, prepend=-1))
        start = strip.top // self.block
        for value in TISSUES:
            # Whole rows first, in bytes (blocks are far below 255 px): many times faster than adding neighbours.
            found = (strip.segmentation == value).view(np.uint8)
            by_row = np.stack(
                [found[a:b].sum(axis=0, dtype=np.uint8) for a, b in itertools.pairwise([*first, len(found)])]
            )
            by_block = np.add.reduceat(by_row, self._columns, axis=1, dtype=np.uint32)
            self.counts[value, start : start + len(first)] += by_block
        self._coarse = None

    def pixels(self, value: int) -> int:
        """Return the pixels of a value."""
        return int(self.counts[value].sum(dtype=np.int64))

    def coarse_map(self) -> NDArray[np.uint8]:
        """Return the most frequent value of every block, uint8 [h, w]; background where most of it is."""
        if self._coarse is None:
            covered = np.outer(*(np.diff([*range(0, n, self.block), n]) for n in self.size[::-1]))
            most = covered.astype(np.uint32) - self.counts[1:].sum(axis=0, dtype=np.uint32)
            coarse = np.zeros(most.shape, np.uint8)
            for value in TISSUES:
                coarse[self.counts[value] > most] = value
                np.maximum(most, self.counts[value], out=most)
            self._coarse = coarse
        return self._coarse

    def bulk(self, mpp: float) -> Bulk | None:
        """Return the tumour bulk, the alpha hull of the tumour.

        The tumour is closed with a disc of 1/0.07 pixels of 32 µm, 0.46 mm: what no such disc reaches without
        touching tumour lies within the hull. Holes are filled, and parts below 1.5 mm² dropped.

        Args:
            mpp: µm per pixel of the map.

        Returns:
            The bulk; ``None`` when no part is large enough, as in biopsies.
        """
        factor = max(1, round(_HULL_UM / (mpp * self.block)))
        pixel_um = mpp * self.block * factor
        tumour = _reduced(self.counts[TUMOR], factor) * 2 >= (self.block * factor) ** 2
        hull = _alpha_hull(tumour, _HULL_RADIUS_PX * _HULL_UM / pixel_um, _HULL_MM2 * 1e6 / pixel_um**2)
        if not hull.any():
            return None
        height, width = self.counts.shape[1:]
        mask = hull.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
        stroma = int(self.counts[STROMA][mask].sum(dtype=np.int64))
        return Bulk(mask, stroma, float(mask.sum()) * (mpp * self.block) ** 2 / 1e6)

    def within(self, cells: Candidates, mask: Bools) -> Bools:
        """Return which cells lie in blocks of a mask."""
        return mask[cells.y // self.block, cells.x // self.block]


def _reduced(counts: NDArray[np.uint32], factor: int) -> NDArray[np.int64]:
    """Return sums over squares of blocks."""
    height, width = counts.shape
    padded = np.pad(counts, ((0, -height % factor), (0, -width % factor)))
    shape = (padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    return padded.reshape(shape).sum(axis=(1, 3), dtype=np.int64)


def _alpha_hull(mask: Bools, radius: float, smallest: float) -> Bools:
    """Close a mask with a disc, fill its holes and drop small parts."""
    import cv2
    from scipy import ndimage

    if not mask.any():
        return np.zeros_like(mask)
    margin = int(np.ceil(radius)) + 1  # the disc may lie beyond the slide
    padded = np.pad(mask, margin)
    reached = np.asarray(ndimage.distance_transform_edt(~padded)) <= radius
    closed = np.asarray(ndimage.distance_transform_edt(reached)) > radius
    filled = np.asarray(ndimage.binary_fill_holes(closed | padded), np.uint8)
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(filled[margin:-margin, margin:-margin].copy())
    keep = np.asarray(statistics)[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return keep[np.asarray(parts, np.int64)]
