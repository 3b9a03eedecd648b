"""Arrays on grids: stretched to another number of voxels, and HU windows."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["linear", "nearest", "nearest-exact"]
Shape = tuple[int, int, int]


def resize_volume(array: NDArray[Any], shape: Shape, order: Order = "linear") -> NDArray[Any]:
    """Stretch an array to another number of voxels over the same space.

    With n voxels in and N out, output voxel d takes its value

    * ``linear``: at source coordinate ``(d + 0.5)·n/N − 0.5`` by trilinear interpolation, clamped at the borders;
    * ``nearest-exact``: from the voxel that holds the middle of d, ``⌊(d + 0.5)·n/N⌋``;
    * ``nearest``: from voxel ``⌊d·n/N⌋``, as torch's and most others' "nearest", half a voxel off when shrinking.

    Args:
        array: ``(X, Y, Z)``.
        shape: Wanted number of voxels.
        order: How values between voxels are found; use a nearest one for labels.

    Returns:
        ``shape``; float32 for ``linear`` (float64 for float64), else the type of ``array``; C order.
    """
    if array.ndim != 3 or len(shape) != 3 or min(*array.shape, *shape) < 1:
        raise ValueError(
            f"cannot resize shape {list(array.shape)} to {list(shape)}: both need three axes and voxels"
        )
    if order != "linear":
        indices = [_source_voxels(n, size, order) for n, size in zip(array.shape, shape, strict=True)]
        return np.ascontiguousarray(array[np.ix_(*indices)])
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    if array.shape == tuple(shape):
        return np.ascontiguousarray(array, dtype=dtype)
    import torch
    from torch.nn.functional import interpolate

    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))[None, None]
    return interpolate(tensor, size=tuple(shape), mode="trilinear", align_corners=False)[0, 0].numpy()


def _source_voxels(n: int, size: int, order: Order) -> NDArray[np.int64]:
    d = np.arange(size, dtype=np.int64)
    if order == "nearest":
        return d * n // size
    if order == "nearest-exact":
        return (2 * d + 1) * n // (2 * size)
    raise ValueError(f"order must be 'linear', 'nearest' or 'nearest-exact', found {order!r}")


def resized_affine(affine: NDArray[np.float64], shape: Shape, new_shape: Shape) -> NDArray[np.float64]:
    """Return the affine of a volume after `resize_volume`: the outer faces stay where they are.

    Args:
        affine: ``[4, 4]`` before.
        shape: Number of voxels before.
        new_shape: Number of voxels after.
    """
    scale = np.asarray(shape, np.float64) / np.asarray(new_shape, np.float64)
    step = np.eye(4)
    step[:3, :3] = np.diag(scale)
    step[:3, 3] = 0.5 * scale - 0.5
    return affine @ step


def window_hu(array: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Clip HU to a window and scale it to [0, 1].

    Args:
        array: HU, any shape.
        low: HU that becomes 0.
        high: HU that becomes 1.

    Returns:
        float32, same shape.
    """
    if not low < high:
        raise ValueError(f"a HU window needs two rising numbers, found {low} and {high}")
    scaled = (np.asarray(array, np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)
