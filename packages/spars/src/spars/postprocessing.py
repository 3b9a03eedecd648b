"""What is done to a segmentation after the threshold: keep the largest lesion, drop what is too small to be one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError

# Voxels hang together over faces, edges and corners.
_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
_ROUNDING = 1e-9  # a lesion of exactly the smallest volume stays


class Lesions(NamedTuple):
    """The connected components of a segmentation.

    Attributes:
        labels: int32 ``[X, Y, Z]``, 0 background, 1 … n.
        voxels: int64 ``[n]``, size of each.
    """

    labels: NDArray[np.int32]
    voxels: NDArray[np.int64]


def voxel_volume_ml(affine: NDArray[np.float64]) -> float:
    """Return the volume of one voxel in millilitres, from an affine ``[4, 4]`` in millimetres."""
    return float(abs(np.linalg.det(np.asarray(affine, np.float64)[:3, :3]))) / 1000


def find_lesions(mask: NDArray[np.bool_]) -> Lesions:
    """Return the 26-connected components of a mask.

    Args:
        mask: bool ``[X, Y, Z]``.
    """
    from scipy.ndimage import label

    labels = np.zeros(mask.shape, np.int32)
    label(mask, _NEIGHBOURS, output=labels)
    return Lesions(labels, np.bincount(labels.ravel())[1:])


def postprocess(
    mask: NDArray[np.bool_], voxel_ml: float, *, largest_component: bool = False, min_volume_ml: float = 0.0
) -> NDArray[np.bool_]:
    """Drop lesions that are too small, and all but the largest where that is asked for.

    Args:
        mask: bool ``[X, Y, Z]``.
        voxel_ml: Volume of a voxel in millilitres, above 0.
        largest_component: Keep one lesion only; of equal ones the first in C order.
        min_volume_ml: Lesions below it are dropped, at least 0.

    Returns:
        bool, a subset of the mask.

    Raises:
        DataError: The smallest volume is negative or no number.
    """
    if not min_volume_ml >= 0:
        raise DataError(f"min_volume_ml must be at least 0, found {min_volume_ml}")
    if not (largest_component or min_volume_ml) or not mask.any():
        return mask
    lesions = find_lesions(mask)
    kept = lesions.voxels * voxel_ml >= min_volume_ml * (1 - _ROUNDING)
    if largest_component:
        kept &= np.arange(len(kept)) == lesions.voxels.argmax()
    return np.concatenate([[False], kept])[lesions.labels]
