"""A whole level at once, or the whole slide reduced, with damaged parts left out and recorded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from medshared.slides.faults import FaultList, TileError
from medshared.slides.reading import rescale

if TYPE_CHECKING:
    import numpy.typing as npt

    from medshared.slides.reading import Slide

logger = logging.getLogger(__name__)

_BLOCK_PX = 256  # blocks a damaged level is read in, in its pixels
_WHOLE_PX = 5 * 10**7  # levels up to this size are read in one go
_STRIPE_PX = 2 * 10**7


def read_whole_level(slide: Slide, level: int, faults: FaultList | None = None) -> npt.NDArray[np.uint8]:
    """Read a whole level.

    Args:
        slide: the slide.
        level: pyramid level.
        faults: takes the blocks that cannot be decoded; they show the slide's background, for finding tissue and
            for pictures only, never for analysis. Without a list the first of them is an error.

    Returns:
        uint8 [height, width, 3].

    Raises:
        TileError: when a part cannot be decoded and ``faults`` is ``None``.
    """
    return _read_rows(slide, level, 0, slide.level_dimensions[level][1], faults)


def _read_rows(
    slide: Slide, level: int, first: int, last: int, faults: FaultList | None
) -> npt.NDArray[np.uint8]:
    """Read rows of a level in one go; where something is damaged, block by block."""
    width, downsample = slide.level_dimensions[level][0], slide.level_downsamples[level]
    try:
        return slide.read_level((0, round(first * downsample)), level, (width, last - first))
    except TileError:
        if faults is None:
            raise
    image = np.empty((last - first, width, 3), np.uint8)
    image[:] = slide.background
    before = len(faults)
    for top in range(first, last, _BLOCK_PX):
        for left in range(0, width, _BLOCK_PX):
            block = (min(_BLOCK_PX, width - left), min(_BLOCK_PX, last - top))
            location = (round(left * downsample), round(top * downsample))
            try:
                pixels = slide.read_level(location, level, block)
            except TileError as error:
                faults.add(error.location, f"level {level}: {error.reason}")
            else:
                image[top - first : top - first + block[1], left : left + block[0]] = pixels
    logger.warning("%s: %d blocks of level %d cannot be decoded", slide.path, len(faults) - before, level)
    return image


def read_overview(
    slide: Slide, downsample: float, faults: FaultList | None = None
) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
    """Read the whole slide, reduced by area averaging.

    A level too large for memory is read in stripes.

    Args:
        slide: the slide.
        downsample: wanted, at least 1; the result's own may differ a little, so that its pixels cover the slide.
        faults: as for `read_whole_level`.

    Returns:
        uint8 [height, width, 3], and the level-0 pixels of one of its pixels along x and y.

    Raises:
        TileError: when a part cannot be decoded and ``faults`` is ``None``.
    """
    level = slide.best_level_for_downsample(max(1.0, downsample) * 1.001)
    width, height = slide.level_dimensions[level]
    factor = max(1.0, downsample / slide.level_downsamples[level])
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    if width * height <= _WHOLE_PX:
        image = rescale(read_whole_level(slide, level, faults), size)
    else:
        image = _in_stripes(slide, level, factor, size, faults)
    return image, (slide.dimensions[0] / image.shape[1], slide.dimensions[1] / image.shape[0])


def _in_stripes(
    slide: Slide, level: int, factor: float, size: tuple[int, int], faults: FaultList | None
) -> npt.NDArray[np.uint8]:
    """Reduce a level stripe by stripe; each gives whole rows of the result."""
    width, height = slide.level_dimensions[level]
    rows = max(1, int(_STRIPE_PX / width / factor))
    image = np.empty((size[1], size[0], 3), np.uint8)
    for first in range(0, size[1], rows):
        last = min(size[1], first + rows)
        top, bottom = round(first * height / size[1]), round(last * height / size[1])
        stripe = _read_rows(slide, level, top, bottom, faults)
        image[first:last] = rescale(stripe, (size[0], last - first))
    return image
