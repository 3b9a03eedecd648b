"""How all pairs of a set of masks overlap, by one product of bit matrices.

Masks are packed to bits, 64 pixels a word; the product of the bit matrix with its transpose (AND, then count) gives
every intersection at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEVEL = 0.5  # probabilities above it are the mask


class PairwiseOverlap(NamedTuple):
    """Sizes of masks and of their intersections.

    Attributes:
        intersections: int64 ``[B, n, n]``, pixels that two masks share; the diagonal holds the sizes.
        sizes: int64 ``[B, n]``, pixels of a mask.
    """

    intersections: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def dice(self) -> Floats:
        """Return ``[B, n, n]``, ``2·|A∩B| / (|A| + |B|)``; 1 for two empty masks."""
        return ratio(2 * self.intersections, self.sizes[:, :, None] + self.sizes[:, None, :])

    def iou(self) -> Floats:
        """Return ``[B, n, n]``, ``|A∩B| / |A∪B|``; 1 for two empty masks."""
        union = self.sizes[:, :, None] + self.sizes[:, None, :] - self.intersections
        return ratio(self.intersections, union)


def pairwise_overlap(masks: ArrayLike) -> PairwiseOverlap:
    """Count the pixels that every pair of masks of an image shares.

    Args:
        masks: Booleans, or 0 and 1, ``[B, n, ...]``.

    Returns:
        Intersections ``[B, n, n]`` and sizes ``[B, n]``.

    Raises:
        ValueError: For other values and fewer than three axes.

    Example:
        >>> pairwise_overlap([[[1, 1, 0], [0, 1, 1]]]).intersections.tolist()
        [[[2, 1], [1, 2]]]
    """
    return overlaps_of_bits(packed_bits(boolean_masks("masks", masks)))


def with_pixels(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return ``[B, n, P]``, booleans or probabilities."""
    array = np.asarray(values)
    if array.ndim < 3:
        raise ValueError(f"{name} must be [B, n, ...] with pixels, found shape {list(array.shape)}")
    array = array.reshape(*array.shape[:2], math.prod(array.shape[2:]))
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold booleans or probabilities, found {array.dtype}")
    return array


def boolean_masks(name: str, values: ArrayLike) -> Bools:
    """Return ``[B, n, P]``, checked to hold only 0 and 1."""
    array = with_pixels(name, values)
    if array.dtype == bool:
        return array
    as_bool = array.astype(bool)
    if not np.array_equal(as_bool, array):
        raise ValueError(f"{name} must hold only 0 and 1; compare with a threshold first")
    return as_bool


def packed_bits(values: NDArray[Any], name: str = "masks") -> NDArray[np.uint64]:
    """Pack masks ``[B, n, P]`` to words of 64 pixels; probabilities count above 0.5."""
    b, n, pixels = values.shape
    packed = np.zeros((b, n, -(-pixels // 64) * 8), np.uint8)
    used = packed[:, :, : -(-pixels // 8)]
    if values.dtype == bool:
        used[:] = np.packbits(values, axis=-1)
        return packed.view(np.uint64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails, too
        raise ValueError(
            f"{name} must lie in [0, 1], found {values.min()} to {values.max()}; apply the sigmoid first"
        )
    used[:] = np.packbits(values > LEVEL, axis=-1)
    return packed.view(np.uint64)


def overlaps_of_bits(bits: NDArray[np.uint64]) -> PairwiseOverlap:
    """Multiply each bit matrix ``[n, words]`` by its transpose."""
    b, n, _ = bits.shape
    intersections = np.empty((b, n, n), np.int64)
    for i in range(n):  # the product is symmetric
        counts = np.bitwise_count(bits[:, i, None] & bits[:, i:])
        intersections[:, i, i:] = counts.sum(axis=-1, dtype=np.uint32)
        intersections[:, i:, i] = intersections[:, i, i:]
    return PairwiseOverlap(intersections, np.einsum("bii->bi", intersections).copy())


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """Divide; 1 where both are 0."""
    return np.divide(above, below, out=np.ones(below.shape), where=below > 0)
