"""Pictures for inspection: contours on a thumbnail, and the patches put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medshared.slides.overview import read_overview

if TYPE_CHECKING:
    import numpy.typing as npt

    from medshared.slides.contours import Contour
    from medshared.slides.faults import FaultList
    from medshared.slides.reading import Slide

TISSUE_COLOUR = (0, 255, 0)
HOLE_COLOUR = (0, 0, 255)


def draw_contours(
    thumbnail: npt.NDArray[np.uint8],
    contours: Sequence[Contour],
    scale: float | tuple[float, float],
    *,
    line_thickness: float = 250,
) -> npt.NDArray[np.uint8]:
    """Draw tissue in green and holes in blue.

    Args:
        thumbnail: uint8 [height, width, 3]; it is not changed.
        contours: in level-0 pixels.
        scale: level-0 pixels of one thumbnail pixel, for both axes or (x, y).
        line_thickness: in level-0 pixels; lines are at least one thumbnail pixel wide.

    Returns:
        uint8 [height, width, 3].
    """
    import cv2

    image = np.array(thumbnail)
    factors = np.broadcast_to(np.asarray(scale, np.float64), 2)
    width = max(1, int(line_thickness / np.sqrt(factors.prod())))
    for borders, colour in (
        ([contour.outer for contour in contours], TISSUE_COLOUR),
        ([hole for contour in contours for hole in contour.holes], HOLE_COLOUR),
    ):
        lines = [np.rint(border / factors).astype(np.int32) for border in borders]
        cv2.polylines(image, lines, isClosed=True, color=colour, thickness=width)
    return image


def stitch(
    slide: Slide,
    coordinates: npt.ArrayLike,
    patch_size_level0: float | tuple[float, float],
    max_px: int = 1024,
    *,
    background: tuple[int, int, int] = (0, 0, 0),
    faults: FaultList | None = None,
) -> npt.NDArray[np.uint8]:
    """Show the patches where they lie on the slide, and nothing else of it.

    Args:
        slide: the slide.
        coordinates: [n, 2], (x, y) of the top-left corners in level-0 pixels.
        patch_size_level0: edge, or (width, height), of a patch in level-0 pixels.
        max_px: longest side of the picture.
        background: RGB between the patches.
        faults: takes parts that cannot be decoded, shown as the slide's background; without a list they are errors.

    Returns:
        uint8 [height, width, 3].
    """
    image, scale = read_overview(slide, max(slide.dimensions) / max_px, faults)
    covered = covered_area(coordinates, patch_size_level0, (image.shape[0], image.shape[1]), scale)
    return np.where(covered[..., None], image, np.asarray(background, np.uint8))


def covered_area(
    coordinates: npt.ArrayLike,
    footprint_px: float | tuple[float, float],
    shape: tuple[int, int],
    scale: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Return which pixels of a picture are covered by any of many tiles.

    Args:
        coordinates: [n, 2], (x, y) of the top-left corners in level-0 pixels.
        footprint_px: edge, or (width, height), of a tile in level-0 pixels.
        shape: (height, width) of the picture.
        scale: level-0 pixels of one pixel of the picture, (x, y).

    Returns:
        bool [height, width]; every tile covers at least one pixel.
    """
    corners = np.asarray(coordinates, np.float64).reshape(-1, 2)
    size = np.broadcast_to(np.asarray(footprint_px, np.float64), 2)
    limits = np.asarray([shape[1], shape[0]])
    low = np.rint(corners / scale).astype(np.int64)
    high = np.maximum(np.rint((corners + size) / scale).astype(np.int64), low + 1)
    low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    # Each tile adds one at its corners, with signs; summing along both axes fills it.
    change = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    np.add.at(change, (low[:, 1], low[:, 0]), 1)
    np.add.at(change, (high[:, 1], high[:, 0]), 1)
    np.add.at(change, (low[:, 1], high[:, 0]), -1)
    np.add.at(change, (high[:, 1], low[:, 0]), -1)
    return change.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
