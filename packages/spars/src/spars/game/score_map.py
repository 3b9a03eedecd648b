"""Voxel maps from window scores: sums, counts and means over the windows that cover a voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.lattice import Lattice


def render_sum(lattice: Lattice, weights: NDArray[Any]) -> NDArray[Any]:
    """Return for every voxel the sum of the weights of the windows that cover it.

    The windows over a voxel are a block of the lattice, so the sum is a difference of prefix sums, axis by axis:
    O(windows + voxels) instead of O(windows · window voxels). A voxel that no weight but zero covers is exactly 0.

    Args:
        lattice: the window positions.
        weights: one number a position, ``lattice.shape``; whole numbers are summed exactly.

    Returns:
        float64 ``[grid]``, int64 for whole numbers or booleans.

    Raises:
        DataError: when the shape is another one, or a weight is no number.
    """
    if weights.shape != lattice.shape:
        raise DataError(
            f"weights must have the lattice's shape {list(lattice.shape)}, found {list(weights.shape)}"
        )
    whole = np.issubdtype(weights.dtype, np.integer) or weights.dtype == np.bool_
    summed = weights.astype(np.int64 if whole else np.float64)
    if not np.isfinite(summed).all():
        raise DataError("weights hold NaN or infinity; give 0 to windows without a score")
    for axis, (size, window) in enumerate(zip(lattice.grid, lattice.window, strict=True)):
        starts = lattice.axes[axis]
        voxels = np.arange(size)
        first = np.searchsorted(starts, voxels - window, side="right")  # windows that end before the voxel
        last = np.searchsorted(starts, voxels, side="right")  # windows that start at or before it
        padding = [(0, 0)] * 3
        padding[axis] = (1, 0)
        prefix = np.pad(summed.cumsum(axis=axis), padding)
        summed = prefix.take(last, axis=axis) - prefix.take(first, axis=axis)
    return summed


def count_map(lattice: Lattice, visits: NDArray[Any] | None = None) -> NDArray[np.int32]:
    """Return how many windows, or visits to windows, cover each voxel, int32 ``[grid]``.

    Args:
        lattice: the window positions.
        visits: whole numbers ``lattice.shape``; ``None`` counts every window once.
    """
    counted = np.ones(lattice.shape, np.int64) if visits is None else np.asarray(visits).astype(np.int64)
    return render_sum(lattice, counted).astype(np.int32)


def mean_map(
    lattice: Lattice, scores: NDArray[Any], visits: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Return the mean score of the windows that cover each voxel.

    Args:
        lattice: the window positions.
        scores: ``lattice.shape``; NaN where a window has no score.
        visits: how often each window counts, whole numbers ``lattice.shape``; ``None`` = once where it has a
            score.

    Returns:
        float32 ``[grid]``; 0 where no window covers the voxel.

    Raises:
        DataError: when a visited window has no score, or a shape is wrong.
    """
    known = ~np.isnan(scores)
    weights = known.astype(np.int64) if visits is None else np.asarray(visits).astype(np.int64)
    if weights.shape != scores.shape:
        raise DataError(f"visits have shape {list(weights.shape)}, scores {list(scores.shape)}")
    lacking = int(np.count_nonzero((weights > 0) & ~known))
    if lacking:
        raise DataError(f"{lacking} visited windows have no score; look their scores up first")
    total = render_sum(lattice, np.where(known, scores, 0.0).astype(np.float64) * weights)
    count = render_sum(lattice, weights)
    return np.divide(total, count, out=np.zeros(lattice.grid), where=count > 0).astype(np.float32)
