"""Regions of 4 x 4 patches: counting, hiding and making them.

A region is 16 consecutive rows of a bag, in the order ``k = 4 * column + row`` of its patches.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from advmil.data.splits import Permuting
from advmil.errors import DataError

REGION = 16
SIDE = 4


def n_regions(n_patches: int) -> int:
    """Return the number of regions of a bag.

    Raises:
        DataError: When the number of patches is no multiple of 16.
    """
    if n_patches % REGION:
        raise DataError(
            f"{n_patches} patches are no whole number of regions of {REGION}: make features of the patches of "
            "big_to_small_patching, or set regions: coordinates (or plain) for ordinary patches"
        )
    return n_patches // REGION


def n_keep(regions: int, ratio: float, legacy: bool = False) -> int:
    """Return how many regions stay when a share is hidden; at least one.

    Args:
        regions: Regions of the bag.
        ratio: Share in [0, 1] to hide.
        legacy: Cut ``regions * (1 - ratio)`` as it comes out of the floating point, as the original did: of 10
            regions 1 stays at 0.8 instead of 2.

    Example:
        >>> n_keep(10, 0.8), n_keep(10, 0.8, legacy=True)
        (2, 1)
    """
    exact = regions * (1 - ratio)
    return max(1, int(exact) if legacy else math.floor(exact + 1e-9))


def mask_regions(x: Tensor, ratio: float, rng: Permuting, legacy: bool = False) -> tuple[Tensor, np.ndarray]:
    """Set whole regions of a bag to zero; they still take part in attention and pooling.

    Args:
        x: Features ``[N, c]``, N a multiple of 16.
        ratio: Share of regions to hide, in [0, 1]; at least one region stays.
        rng: Source of one permutation of the regions.
        legacy: See `n_keep`.

    Returns:
        A new tensor and the indices of the regions that stay, increasing.

    Raises:
        DataError: When N is no multiple of 16.
    """
    regions = n_regions(x.shape[0])
    kept = np.sort(rng.permutation(regions)[: n_keep(regions, ratio, legacy)])
    hidden = np.ones(regions, dtype=bool)
    hidden[kept] = False
    masked = x.clone()
    masked.view(regions, REGION, -1)[hidden] = 0
    return masked, kept


def regroup_by_coordinates(coordinates: np.ndarray, patch_size: float) -> np.ndarray:
    """Return an order of rows that puts the patches of each 4 x 4 square of the slide side by side.

    The grid starts at the smallest x and y of the slide. Squares come by column, then row; patches within a
    square likewise. Where a square holds fewer than 16 patches (the border of the tissue), its own patches are
    repeated in turn until there are 16, so that every patch is used and no square is diluted with emptiness.

    Args:
        coordinates: Top left corners in level-0 pixels, ``[n, 2]`` as (x, y).
        patch_size: Side (or step) of a patch in level-0 pixels.

    Returns:
        Row numbers, int64 ``[16 * regions]``; a row may come more than once.

    Raises:
        DataError: Without patches, or when two patches lie in the same place of the grid.

    Example:
        >>> regroup_by_coordinates(np.array([[0, 0], [0, 512], [256, 0]]), 256).tolist()
        [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    """
    xy = np.asarray(coordinates, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy):
        raise DataError(f"coordinates must have shape [n, 2] with n above 0, found {list(xy.shape)}")
    cell = np.rint((xy - xy.min(axis=0)) / patch_size).astype(np.int64)
    if len(np.unique(cell, axis=0)) < len(cell):
        raise DataError(
            f"several patches lie in the same place of a grid of {patch_size:g} pixels: patches overlap, "
            "or the patch size is not that of these coordinates"
        )
    square = cell // SIDE
    order = np.lexsort((cell[:, 1], cell[:, 0], square[:, 1], square[:, 0]))
    _, start, count = np.unique(square[order], axis=0, return_index=True, return_counts=True)
    slot = np.arange(REGION)
    return order[start[:, None] + slot % count[:, None]].ravel()


def regroup_plainly(n_patches: int) -> np.ndarray:
    """Return all rows in order, the last ones repeated until they fill a region.

    Args:
        n_patches: Rows of the bag, at least 1.

    Returns:
        Row numbers, int64 ``[16 * regions]``.

    Example:
        >>> regroup_plainly(18).tolist()[14:20]
        [14, 15, 16, 17, 16, 17]
    """
    if n_patches < 1:
        raise DataError("a bag without patches cannot be grouped into regions")
    full, rest = divmod(n_patches, REGION)
    rows = np.arange(full * REGION)
    if rest:
        rows = np.concatenate([rows, full * REGION + np.arange(REGION) % rest])
    return rows


def typical_step(coordinates: np.ndarray) -> float:
    """Return the median distance of patches to their nearest neighbour; 1 for a single patch.

    It holds where pieces of tissue have grids of their own.

    Args:
        coordinates: Corners of patches, ``[n, 2]``.
    """
    from scipy.spatial import KDTree

    places = np.unique(coordinates, axis=0)
    if len(places) < 2:
        return 1.0
    return float(np.median(KDTree(places).query(places, k=2)[0][:, 1]))
