"""The original's two ways to stretch a crop to the network's input: trilinear in training, nearest in the game."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError

if TYPE_CHECKING:
    import torch

Size = tuple[int, int, int]

FULL_SHAPE: Size = (256, 256, 180)


def resize_image(
    image: NDArray[Any] | torch.Tensor, size: Sequence[int] = FULL_SHAPE, *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Stretch a volume trilinearly: ``resize_image`` of ``net_global.py``.

    Output voxel d of an axis lies at (d + 0.5)·n/N − 0.5 in the source, clamped to its first and last voxel
    (``align_corners=False``).

    Args:
        image: ``[X, Y, Z]`` in any unit; a label volume is stretched as numbers, which leaves fractions.
        size: Voxels of the result.
        dtype: Of the computation and the result; None is the original's float32.

    Returns:
        ``[1, 1, *size]``.

    Raises:
        DataError: The volume is not 3-D or is empty.
    """
    import torch
    from torch.nn import functional

    values = torch.as_tensor(image)
    _check(tuple(values.shape))
    values = values.to(dtype or torch.float32)[None, None]
    return functional.interpolate(values, size=tuple(size), mode="trilinear", align_corners=False)


def stretch_nearest(
    image: NDArray[Any], size: Sequence[int] = FULL_SHAPE, *, dtype: type[np.floating[Any]] = np.float32
) -> NDArray[Any]:
    """Stretch a volume by repeating voxels: ``CursorImageEnv.resize_image`` of the game's scripts.

    Args:
        image: ``[X, Y, Z]``, or ``[..., X, Y, Z]`` for several at once.
        size: Voxels of the result along the last three axes.
        dtype: Of the result; the original's is float32.

    Returns:
        ``[..., *size]``, C-contiguous.

    Raises:
        DataError: The volume has fewer than three axes or is empty, as when a window has left a volume with fewer
            slices than the grid.
    """
    image = np.asarray(image)
    _check(image.shape[-3:])
    result = image.astype(dtype, copy=False)
    for axis, target in zip((-1, -2, -3), reversed(tuple(size)), strict=True):
        result = np.take(result, nearest_sources(image.shape[axis], target), axis=axis)
    return np.ascontiguousarray(result)


def nearest_sources(n: int, target: int) -> NDArray[np.int64]:
    """Return the source index floor(i·n/N) of each of the N ``target`` voxels of an axis with ``n`` voxels."""
    return np.arange(target, dtype=np.int64) * n // target


def _check(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise DataError(f"expected a volume with three axes, found the shape {shape}")
    if min(shape) < 1:
        raise DataError(
            f"a crop of shape {shape} cannot be stretched: input and output sizes should be greater than 0; the window "
            "lies outside the volume: resample the volume to the grid, or limit the window's position"
        )
