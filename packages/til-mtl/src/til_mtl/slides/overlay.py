"""The picture of a slide: tissues in colour, cells as rings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from til_mtl.data.images import write_png
from til_mtl.peaks import Candidates
from til_mtl.slides.tallies import Tallies
from til_mtl.til_score import OTHER, STROMA, TUMOR

if TYPE_CHECKING:
    from medshared.slides import Slide

COLOURS = {TUMOR: (200, 0, 0), STROMA: (60, 160, 60), OTHER: (70, 110, 200)}
RING = (255, 235, 0)
_EDGE = (20, 20, 20)  # a dark line within and without keeps rings apart from light tissue
_OPACITY = 0.35
_LEAST_PX, _MOST_PX = 1000, 1600  # longer side of the picture
_RING_UM, _RING_PX = 4.0, 4.0  # radius of a ring: that of a lymphocyte, and the least that can be seen
_CROWDED = 0.2  # share of the tissue that rings may cover; beyond it they would hide what they lie on
_FRACTION = 4  # bits of a pixel's fraction


def write_overlay(path: Path, slide: Slide, tallies: Tallies, cells: Candidates, level0_px: float) -> Path:
    """Write a picture of the slide with tissues in colour and cells as rings.

    Small slides are enlarged. Where rings would cover more than a fifth of the tissue, as on a large slide with many
    cells, each cell is a dot of one pixel.

    Args:
        path: ``overlay.png``.
        slide: The slide; parts that cannot be decoded show its background.
        tallies: Of the slide.
        cells: In pixels of the map.
        level0_px: Level-0 pixels of one pixel of the map.
    """
    image, scale = _overview(slide)
    height, width = image.shape[:2]
    coarse = tallies.coarse_map()
    step = tallies.block * level0_px
    rows = np.minimum(((np.arange(height) + 0.5) * scale[1] / step).astype(int), coarse.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) * scale[0] / step).astype(int), coarse.shape[1] - 1)
    labels = coarse[rows][:, columns]
    centres = (np.stack([cells.x, cells.y], axis=1) + 0.5) * level0_px / np.asarray(scale)
    radius = max(_RING_PX, _RING_UM / (slide.require_spacing() * scale[0]))
    picture = draw_cells(_blended(image, labels), centres, radius, int((labels > 0).sum()))
    return write_png(path, picture, compress_level=6)


def _overview(slide: Slide) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return the slide, reduced or enlarged, and the level-0 pixels of one pixel of the picture."""
    import cv2

    from medshared.slides import FaultList, read_overview

    downsample = max(1.0, max(slide.dimensions) / _MOST_PX)
    image, scale = read_overview(slide, downsample, FaultList(slide.path))
    factor = _LEAST_PX / max(image.shape[:2])
    if factor <= 1:
        return image, scale
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    enlarged = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4), np.uint8)
    return enlarged, (slide.dimensions[0] / size[0], slide.dimensions[1] / size[1])


def _blended(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.zeros((4, 3))
    for value, colour in COLOURS.items():
        table[value] = colour
    mixed = (1 - _OPACITY) * image + _OPACITY * table[labels]
    return np.where((labels > 0)[..., None], np.rint(mixed), image).astype(np.uint8)


def draw_cells(
    picture: NDArray[np.uint8], centres: NDArray[np.float64], radius: float, tissue_px: int
) -> NDArray[np.uint8]:
    """Return a picture with a ring round every cell, or a dot on it where they are crowded.

    Args:
        picture: uint8 ``[H, W, 3]``.
        centres: float64 ``[n, 2]``, (x, y) in its pixels; pixel (0, 0) covers 0 to 1.
        radius: Of a ring in pixels.
        tissue_px: Pixels of tissue.
    """
    import cv2

    drawn = np.array(picture)
    if len(centres) * np.pi * radius**2 > _CROWDED * tissue_px:
        x, y = np.clip(centres.astype(int), 0, (picture.shape[1] - 1, picture.shape[0] - 1)).T
        drawn[y, x] = RING
        return drawn
    thickness = max(1, round(radius / 5))
    unit = 1 << _FRACTION
    # OpenCV's pixels lie on whole numbers.
    places = np.rint((centres - 0.5) * unit).astype(int).tolist()
    for colour, width in ((_EDGE, thickness + 2), (RING, thickness)):
        for x, y in places:
            cv2.circle(drawn, (x, y), round(radius * unit), colour, width, cv2.LINE_AA, _FRACTION)
    return drawn
