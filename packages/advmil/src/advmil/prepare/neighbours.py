"""Exact nearest neighbours with ties broken by the smaller index."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
BLOCK_ROWS = 1024
EXTRA_CANDIDATES = 6


def _choose(squared: NDArray[np.float64], candidates: Ints, k: int) -> Ints:
    """Return the k candidates of each row by distance, then by index."""
    order = np.lexsort((candidates, squared), axis=-1)[:, :k]
    return np.take_along_axis(candidates, order, axis=1)


def spatial_neighbours(coordinates: ArrayLike, k: int) -> Ints:
    """Return the k nearest other points in the plane, nearest first, ties by the smaller index.

    Args:
        coordinates: [n, 2]; distances are computed in float64, exact for pixel coordinates.
        k: At most n - 1.

    Returns:
        [n, k] int64.
    """
    from scipy.spatial import KDTree

    points = np.asarray(coordinates, dtype=np.float64)
    n = len(points)
    found = np.empty((n, k), dtype=np.int64)
    tree = KDTree(points)
    rows, size = np.arange(n), min(n, k + 1 + EXTRA_CANDIDATES)
    while len(rows):
        _, candidates = tree.query(points[rows], k=size)
        candidates = np.asarray(candidates, dtype=np.int64).reshape(len(rows), size)
        squared = np.square(points[candidates] - points[rows, None]).sum(axis=2)
        squared[candidates == rows[:, None]] = -1.0  # the point itself comes first and is dropped
        chosen = _choose(squared, candidates, k + 1)
        found[rows] = chosen[:, 1:]
        if size == n:
            break
        # Points as far as the last neighbour may have been left out: look again at those rows, wider.
        limit = np.square(points[chosen[:, -1]] - points[rows]).sum(axis=1)
        rows, size = rows[squared.max(axis=1) <= limit], min(n, 2 * size)
    return found


def feature_neighbours(features: ArrayLike, k: int) -> Ints:
    """Return the k nearest other rows in feature space, nearest first, ties by the smaller index.

    Candidates come from one blocked matrix product in float32; their distances are computed again in float64, and
    rows whose candidates might be incomplete within the product's rounding error are searched in full.

    Args:
        features: [n, d].
        k: At most n - 1.

    Returns:
        [n, k] int64.
    """
    x = np.ascontiguousarray(features, dtype=np.float32)
    n, width = x.shape
    exact = x.astype(np.float64)
    norms = np.square(exact).sum(axis=1)
    # Rounding of a dot product of float32 numbers and of its use in |a|² + |b|² - 2ab.
    tolerance = 8 * np.finfo(np.float32).eps * np.sqrt(width) * (norms + norms.max())
    size = min(n, k + 1 + EXTRA_CANDIDATES)
    found = np.empty((n, k), dtype=np.int64)
    short = norms.astype(np.float32)
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        approximate = short[None, :] + short[rows, None] - 2 * (x[rows] @ x.T)
        approximate[rows - start, rows] = -np.inf  # equal rows must not push the row itself out
        candidates = np.argpartition(approximate, size - 1, axis=1)[:, :size]
        farthest = np.take_along_axis(approximate, candidates, axis=1).max(axis=1)
        found[rows] = _refine(exact, rows, candidates, k)
        limit = np.square(exact[found[rows, -1]] - exact[rows]).sum(axis=1)
        if size < n:
            for row in rows[farthest - tolerance[rows] <= limit]:
                found[row] = _refine(exact, np.array([row]), np.arange(n)[None], k)[0]
    return found


def _refine(exact: NDArray[np.float64], rows: Ints, candidates: Ints, k: int) -> Ints:
    """Return the k nearest of each row's candidates, which hold the row itself."""
    squared = np.empty(candidates.shape)
    for number, row in enumerate(rows):
        difference = exact[candidates[number]] - exact[row]
        squared[number] = np.einsum("ij,ij->i", difference, difference)
    squared[candidates == rows[:, None]] = -1.0  # the row itself comes first and is dropped
    return _choose(squared, candidates, k + 1)[:, 1:]
