"""Every big patch becomes the 4 × 4 small patches it covers, one level finer: the regions of the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advmil.errors import DataError
from medshared.bags import ClamAttributes, read_coordinates, write_coordinates

SCALE = 4


def small_coordinates(
    big: ArrayLike, patch_size: int, downsample: float, *, scale: int = SCALE, legacy_offsets: bool = False
) -> NDArray[np.int64]:
    """Return the corners of the small patches in region order.

    Row ``scale * j + i`` of a region lies ``(i, j)`` steps from its corner. The step is the edge of a small patch
    in level-0 pixels, ``patch_size * round(downsample / scale)``.

    Args:
        big: Corners of big patches in level-0 pixels, [n, 2].
        patch_size: Edge of a patch at its level; the same for both.
        downsample: Of the level of the big patches.
        scale: Ratio of the two levels.
        legacy_offsets: The original's step of ``patch_size`` level-0 pixels: patches overlap and cover a corner.

    Returns:
        [n * scale², 2] int64.
    """
    corners = np.asarray(big).astype(np.int64).reshape(-1, 2)
    step = patch_size if legacy_offsets else patch_size * round(downsample / scale)
    k = np.arange(scale * scale)
    small = np.empty((len(corners), scale * scale, 2), dtype=np.int64)
    # Axis by axis: long inner loops, several times faster than adding pairs.
    np.add(corners[:, :1], k % scale * step, out=small[:, :, 0])
    np.add(corners[:, 1:], k // scale * step, out=small[:, :, 1])
    return small.reshape(-1, 2)


def small_attributes(attributes: ClamAttributes, save_path: Path, scale: int = SCALE) -> ClamAttributes:
    """Return the attributes of the small patches' file.

    Level sizes are those of the big patches' level times ``scale``, which is the true size only to rounding.

    Raises:
        DataError: The big patches already lie at the finest level.
    """
    if attributes.patch_level < 1:
        raise DataError(
            f"patch_level {attributes.patch_level}: big patches must lie at level 1 or coarser, so that a finer "
            "level exists; cut patches with --patch_level 2"
        )
    return dataclasses.replace(
        attributes,
        patch_level=attributes.patch_level - 1,
        downsample=tuple(value / scale for value in attributes.downsample),
        level_dim=tuple(int(value) * scale for value in attributes.level_dim),
        downsampled_level_dim=tuple(int(value) * scale for value in attributes.downsampled_level_dim),
        save_path=str(save_path),
    )


def convert_file(
    source: Path,
    target: Path,
    *,
    scale: int = SCALE,
    legacy_offsets: bool = False,
    slide: Path | None = None,
) -> int:
    """Convert one slide's coordinate file; return the number of small patches.

    Args:
        source: CLAM coordinates of big patches.
        target: CLAM coordinates of small patches, written atomically.
        scale: Ratio of the two levels.
        legacy_offsets: See :func:`small_coordinates`.
        slide: The slide, where it is at hand: ``scale`` is checked against its levels and the level's true size
            is written.

    Raises:
        DataError: Attributes are missing, or the slide's levels have another ratio.
    """
    read = read_coordinates(source)
    attributes = clam_attributes(source, read.attributes)
    small = small_attributes(attributes, target.parent, scale)
    if slide is not None:
        small = _with_true_level(small, slide, attributes.downsample[0], scale)
    coordinates = small_coordinates(
        read.xy,
        attributes.patch_size,
        attributes.downsample[0],
        scale=scale,
        legacy_offsets=legacy_offsets,
    )
    write_coordinates(target, coordinates, small)
    return len(coordinates)


def clam_attributes(path: Path, found: Mapping[str, Any]) -> ClamAttributes:
    """Return the attributes of ``coords``.

    Raises:
        DataError: Some are missing, which the message names.
    """
    fields = [field.name for field in dataclasses.fields(ClamAttributes)]
    missing = [name for name in fields if name not in found]
    if missing:
        raise DataError(
            f"{path}: 'coords' lacks the attributes {', '.join(missing)}; expected a file of CLAM patches"
        )
    pair = ("downsample", "downsampled_level_dim", "level_dim")
    values: dict[str, Any] = {name: tuple(found[name]) if name in pair else found[name] for name in fields}
    return ClamAttributes(**values)


def _with_true_level(small: ClamAttributes, path: Path, downsample: float, scale: int) -> ClamAttributes:
    from medshared.slides import open_slide

    with open_slide(path, fast=False) as slide:
        if small.patch_level >= len(slide.level_dimensions):
            raise DataError(
                f"{path}: has {len(slide.level_dimensions)} levels, but the patches were cut at level "
                f"{small.patch_level + 1}"
            )
        true = slide.level_downsamples[small.patch_level]
        size = tuple(slide.level_dimensions[small.patch_level])
    if abs(downsample / true - scale) > 0.01 * scale:
        raise DataError(
            f"{path}: its levels {small.patch_level + 1} and {small.patch_level} have a ratio of "
            f"{downsample / true:.3f}, expected {scale} (--scale of tools/big_to_small_patching.py)"
        )
    return dataclasses.replace(
        small, downsample=(float(true), float(true)), level_dim=size, downsampled_level_dim=size
    )
