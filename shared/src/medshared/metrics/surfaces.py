"""Distances between the surfaces of two masks, in millimetres.

The surface of a mask is what its erosion by the 6 neighbours takes away; outside the array there is nothing, so that
voxels at its border are surface. Distances are between voxel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.segmentation import two_masks

Floats = NDArray[np.float64]


class SurfaceDistances(NamedTuple):
    """From every surface voxel of one mask to the nearest of the other.

    Attributes:
        prediction_to_truth: Millimetres, ``[n]``; infinite when the truth is empty.
        truth_to_prediction: Millimetres, ``[m]``; infinite when the prediction is empty.
    """

    prediction_to_truth: Floats
    truth_to_prediction: Floats


def surface_voxels(mask: ArrayLike) -> NDArray[np.int64]:
    """Return the voxels of a mask that have a neighbour outside it, one of six, or lie at the array's border.

    Args:
        mask: Booleans ``[X, Y, Z]``.

    Returns:
        int64 ``[n, 3]``.
    """
    m = np.asarray(mask, bool)
    if m.ndim != 3:
        raise ValueError(f"a surface needs three axes, found shape {list(m.shape)}")
    filled = [np.flatnonzero(m.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    if not filled[0].size:
        return np.empty((0, 3), np.int64)
    first = np.array([found[0] for found in filled])
    box = np.pad(m[tuple(slice(found[0], found[-1] + 1) for found in filled)], 1)
    inner = box[1:-1, 1:-1, 1:-1].copy()
    for axis, n in enumerate(inner.shape):
        for start in (0, 2):
            inner &= np.moveaxis(np.moveaxis(box, axis, 0)[start : start + n, 1:-1, 1:-1], 0, axis)
    return np.argwhere(box[1:-1, 1:-1, 1:-1] & ~inner) + first


def surface_distances(prediction: ArrayLike, truth: ArrayLike, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure from surface to surface.

    Args:
        prediction: Booleans, or 0 and 1, ``[X, Y, Z]``.
        truth: Same shape.
        spacing: Voxel size along the axes in millimetres.

    Returns:
        Distances both ways, unordered.

    Raises:
        ValueError: For shapes that differ or have not three axes, and sizes not above 0.
    """
    from scipy.spatial import KDTree

    p, t = two_masks(prediction, truth)
    size = np.asarray(spacing, np.float64)
    if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
        raise ValueError(f"spacing must be three numbers above 0 in millimetres, found {list(spacing)}")
    of_p, of_t = surface_voxels(p) * size, surface_voxels(t) * size
    if not len(of_p) or not len(of_t):
        return SurfaceDistances(np.full(len(of_p), np.inf), np.full(len(of_t), np.inf))
    return SurfaceDistances(
        np.asarray(KDTree(of_t).query(of_p)[0], np.float64),
        np.asarray(KDTree(of_p).query(of_t)[0], np.float64),
    )


def hausdorff(
    prediction: ArrayLike, truth: ArrayLike, spacing: Sequence[float], percentile: float = 95.0
) -> float:
    """Hausdorff distance: a percentile of the surface distances each way, then the larger of the two.

    Args:
        prediction: Booleans, or 0 and 1, ``[X, Y, Z]``.
        truth: Same shape.
        spacing: Voxel size along the axes in millimetres.
        percentile: In [0, 100], between two distances by linear interpolation; 100 = the classical distance.

    Returns:
        Millimetres; 0 when both masks are empty, NaN when one is.

    Example:
        >>> a, b = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
        >>> a[2:4, 2:4, 2:4] = b[5:7, 2:4, 2:4] = True
        >>> hausdorff(a, b, (1.0, 1.0, 2.5), 100)
        3.0
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must lie in [0, 100], found {percentile}")
    found = surface_distances(prediction, truth, spacing)
    n, m = len(found.prediction_to_truth), len(found.truth_to_prediction)
    if not n or not m:
        return 0.0 if n == m else float("nan")
    return max(float(np.percentile(each, percentile)) for each in found)


def surface_dice(
    prediction: ArrayLike, truth: ArrayLike, spacing: Sequence[float], tolerance_mm: float
) -> float:
    """Share of both surfaces that lies within a tolerance of the other.

    ``(|{d_pt ≤ τ}| + |{d_tp ≤ τ}|) / (n + m)`` over surface voxels; other implementations weigh surface elements by
    their area instead.

    Args:
        prediction: Booleans, or 0 and 1, ``[X, Y, Z]``.
        truth: Same shape.
        spacing: Voxel size along the axes in millimetres.
        tolerance_mm: τ, at least 0.

    Returns:
        In [0, 1]; 1 when both masks are empty, 0 when one is.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm must be at least 0, found {tolerance_mm}")
    found = surface_distances(prediction, truth, spacing)
    distances = np.concatenate(found)
    return float((distances <= tolerance_mm).mean()) if distances.size else 1.0
