"""Where a slide has tissue: a mask that needs no tuning, and the share of tissue in each of many tiles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medshared.slides.contours import Contour, find_contours, polygon_area, scale_border
from medshared.slides.overview import read_overview

if TYPE_CHECKING:
    import numpy.typing as npt

    from medshared.slides.faults import FaultList
    from medshared.slides.reading import Slide

logger = logging.getLogger(__name__)

_ASSUMED_UM = 0.25  # where a slide does not say; only the resolution of the mask depends on it
_LARGEST_PX = 8192  # longest side of a mask
# Otsu always finds two classes. Between these saturations (0–255) its answer is believed: glass and JPEG noise stay
# below the first on sound slides, stained tissue reaches the second, so a slide full of tissue is not cut in two.
_THRESHOLDS = (12, 40)
_DARKEST = 25  # value (0–255) below which the saturation is noise: scanner borders, pen, folds of foil


@dataclass(frozen=True, eq=False)
class TissueMask:
    """A raster of tissue over a whole slide.

    Attributes:
        mask: bool [height, width].
        scale: level-0 pixels of one mask pixel along x and y.
        threshold: saturation that separated tissue from glass; ``None`` when the mask comes from contours.
    """

    mask: npt.NDArray[np.bool_]
    scale: tuple[float, float]
    threshold: float | None = None

    @property
    def tissue_share(self) -> float:
        """Share of the slide that is tissue, 0–1."""
        return float(self.mask.mean()) if self.mask.size else 0.0

    def tile_shares(
        self, coordinates: npt.ArrayLike, footprint_px: float | tuple[float, float]
    ) -> npt.NDArray[np.float64]:
        """Return the share of tissue in each of many tiles, exact for the raster.

        Args:
            coordinates: [n, 2], (x, y) of the top-left corners in level-0 pixels.
            footprint_px: edge, or (width, height), of a tile in level-0 pixels.

        Returns:
            float64 [n], 0–1; what lies beyond the slide counts as no tissue.
        """
        corners = np.asarray(coordinates, np.float64).reshape(-1, 2)
        size = np.broadcast_to(np.asarray(footprint_px, np.float64), 2)
        height, width = self.mask.shape
        total = np.zeros((height + 1, width + 1))
        np.cumsum(np.cumsum(self.mask, axis=0), axis=1, out=total[1:, 1:])
        low, high = corners / self.scale, (corners + size) / self.scale
        area = (size / self.scale).prod()
        sums = (
            _interpolated(total, high[:, 0], high[:, 1])
            - _interpolated(total, low[:, 0], high[:, 1])
            - _interpolated(total, high[:, 0], low[:, 1])
            + _interpolated(total, low[:, 0], low[:, 1])
        )
        return np.clip(sums / area, 0.0, 1.0)

    def contours(self, min_area_px: float = 0.0, min_hole_area_px: float = 0.0) -> list[Contour]:
        """Trace the regions.

        Args:
            min_area_px: smallest region without its holes, in level-0 pixels.
            min_hole_area_px: smallest hole, in level-0 pixels; smaller ones are filled.

        Returns:
            Contours in level-0 pixels.
        """
        unit = self.scale[0] * self.scale[1]
        found = []
        for outer, holes in find_contours(self.mask.astype(np.uint8)):
            area = polygon_area(outer) - sum(map(polygon_area, holes))
            if len(outer) < 3 or area * unit < min_area_px:
                continue
            shown = [hole for hole in holes if polygon_area(hole) * unit >= min_hole_area_px]
            found.append(
                Contour(
                    scale_border(outer, self.scale), tuple(scale_border(hole, self.scale) for hole in shown)
                )
            )
        return found


def _interpolated(
    total: npt.NDArray[np.float64], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the summed mask up to (x, y); linear within a mask pixel, so exact."""
    x = np.clip(x, 0, total.shape[1] - 1)
    y = np.clip(y, 0, total.shape[0] - 1)
    left = np.minimum(x.astype(np.int64), total.shape[1] - 2)
    top = np.minimum(y.astype(np.int64), total.shape[0] - 2)
    dx, dy = x - left, y - top
    upper = total[top, left] * (1 - dx) + total[top, left + 1] * dx
    lower = total[top + 1, left] * (1 - dx) + total[top + 1, left + 1] * dx
    return upper * (1 - dy) + lower * dy


def find_tissue(
    slide: Slide,
    *,
    spacing_um: float = 8.0,
    min_area_mm2: float = 0.02,
    min_hole_mm2: float = 0.005,
    faults: FaultList | None = None,
) -> TissueMask:
    """Find tissue by its colour, without parameters to tune.

    The saturation of the slide at about 8 µm per pixel is smoothed by a median and split by Otsu's threshold, which is
    believed only between saturations that glass and stain do not leave: blank slides have no tissue, and slides full
    of tissue are tissue all over. Specks are dropped and small holes are filled.

    Args:
        slide: the slide; one that does not tell its spacing is taken as 0.25 µm per pixel.
        spacing_um: µm per pixel of the mask; coarser for very large slides.
        min_area_mm2: smallest region.
        min_hole_mm2: smallest hole.
        faults: takes parts of the slide that cannot be decoded, which then hold no tissue.

    Returns:
        The mask; it may be empty.

    Raises:
        TileError: when a part of the slide cannot be decoded and no fault list was given.
    """
    import cv2

    own = slide.spacing_um or _ASSUMED_UM
    # Small slides keep at least some pixels, and masks of the largest stay below a gigabyte in all.
    downsample = max(1.0, min(spacing_um / own, min(slide.dimensions) / 16))
    downsample = max(downsample, max(slide.dimensions) / _LARGEST_PX)
    image, scale = read_overview(slide, downsample, faults)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    saturation = hsv[:, :, 1].copy()
    saturation[hsv[:, :, 2] < _DARKEST] = 0
    blurred = cv2.medianBlur(saturation, 5)
    otsu, _ = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = float(np.clip(otsu, *_THRESHOLDS))
    mask = (blurred > threshold).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
    pixel_mm2 = own**2 * scale[0] * scale[1] / 1e6
    mask = _without_small(np.asarray(mask, np.uint8), min_area_mm2 / pixel_mm2)
    mask = 1 - _without_small(1 - mask, min_hole_mm2 / pixel_mm2)
    return TissueMask(mask.astype(bool), scale, threshold)


def _without_small(mask: npt.NDArray[np.uint8], smallest: float) -> npt.NDArray[np.uint8]:
    """Drop connected regions of fewer pixels."""
    import cv2

    # 4-neighbours for what is cleared, so that a hole does not leak out through a corner.
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = np.asarray(statistics)[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return keep[np.asarray(labels, np.int32)].astype(np.uint8)


def rasterise(
    contours: Sequence[Contour], dimensions: tuple[int, int], downsample: float = 32.0
) -> TissueMask:
    """Draw contours as a mask.

    Args:
        contours: in level-0 pixels.
        dimensions: (width, height) of the slide in level-0 pixels.
        downsample: level-0 pixels of one mask pixel; a little less along an axis, so that whole pixels fit.

    Returns:
        The mask: a pixel is tissue when its centre lies in a contour and in none of its holes.
    """
    import cv2

    width, height = (max(1, int(np.ceil(length / downsample))) for length in dimensions)
    scale = (dimensions[0] / width, dimensions[1] / height)
    mask = np.zeros((height, width), np.uint8)
    for contour in contours:
        x, y, w, h = contour.box
        left, top = max(0, int(x / scale[0]) - 1), max(0, int(y / scale[1]) - 1)
        right = min(width, int((x + w) / scale[0]) + 2)
        bottom = min(height, int((y + h) / scale[1]) + 2)
        if right <= left or bottom <= top:
            continue
        window = np.zeros((bottom - top, right - left), np.uint8)
        # OpenCV's drawing places pixel centres at whole numbers, in 1/256 of a pixel.
        for border, value in [(contour.outer, 1), *((hole, 0) for hole in contour.holes)]:
            points = (border / np.asarray(scale) - 0.5 - (left, top)) * 256
            cv2.fillPoly(window, [np.rint(points).astype(np.int32)], [value], shift=8)
        mask[top:bottom, left:right] |= window
    return TissueMask(mask.astype(bool), scale)
