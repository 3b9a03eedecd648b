"""Where a slide has tissue: from a given mask file, else by colour."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from til_mtl.errors import DataError

if TYPE_CHECKING:
    from medshared.slides import FaultList, Slide, TissueMask

logger = logging.getLogger(__name__)

_MOST_PX = 3e7  # pixels of a mask in memory; larger ones are held at a half, a quarter, … of their size
_SUFFIXES = ("_tissue.tif", "_tissue.tiff", ".tif", ".tiff")


def find_mask(folder: Path | None, slide: str) -> Path | None:
    """Return the mask file of a slide.

    Args:
        folder: Of the masks; ``None`` when there are none.
        slide: The slide's name.

    Raises:
        DataError: The folder has no mask of this slide.
    """
    if folder is None:
        return None
    for suffix in _SUFFIXES:
        if (folder / f"{slide}{suffix}").is_file():
            return folder / f"{slide}{suffix}"
    raise DataError(
        f"{folder}: no {slide}_tissue.tif; add the mask, or leave --masks out to find tissue by colour"
    )


def read_tissue_mask(path: Path, slide: Slide) -> TissueMask:
    """Read a single-channel mask of the size of the slide, or reduced in proportion; non-zero is tissue.

    Args:
        path: Multi-resolution TIFF, as TIGER has them.
        slide: The slide.

    Raises:
        DataError: The mask is of another shape than the slide.
        medshared.slides.SlideError: It cannot be read.
    """
    from medshared.slides import TissueMask, open_slide, read_overview

    with open_slide(path, 1.0, fast=False) as mask:
        (w, h), (width, height) = mask.dimensions, slide.dimensions
        if abs(w * height / (h * width) - 1) > 0.02:
            raise DataError(
                f"{path}: the mask has {w} x {h} px, but {slide.path.name} has {width} x {height}: another slide's?"
            )
        downsample = 1
        while w * h > _MOST_PX * downsample**2:
            downsample *= 2
        raster, _ = read_overview(mask, downsample)
    tissue = raster.max(axis=2) > 0
    return TissueMask(tissue, (width / tissue.shape[1], height / tissue.shape[0]))


def tissue_of(slide: Slide, mask_file: Path | None, faults: FaultList) -> TissueMask:
    """Return the tissue of a slide: from its mask file, else found by its colour.

    Args:
        slide: The slide.
        mask_file: The mask, if there is one.
        faults: Takes parts of the overview that cannot be decoded, which then hold no tissue.
    """
    from medshared.slides import find_tissue

    if mask_file is not None:
        return read_tissue_mask(mask_file, slide)
    found = find_tissue(slide, faults=faults)
    logger.info("%s: %.1f %% of the slide is tissue by its colour", slide.name, 100 * found.tissue_share)
    return found


def has_tissue(mask: TissueMask) -> bool:
    """Return whether there is any."""
    return bool(np.any(mask.mask))
