"""Fundus images are cut to a square around the optic disc: squeezed as a whole, the cup is a few pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aespa.data.reading import check_shape, image_shape, read_mask
from aespa.data.records import Record

# Side of the square in extents of what was outlined. A cup is about half as wide as its disc.
MARGIN = {"disc": 1.3, "cup": 2.4}


class Box(NamedTuple):
    """A square in pixels; parts outside the image are black.

    Attributes:
        top: First row, may be negative.
        left: First column, may be negative.
        side: Number of rows and columns.
    """

    top: int
    left: int
    side: int


def crop_box(record: Record) -> Box:
    """Return the square around everything that the files named in the record outline.

    Args:
        record: An image with `Record.crop_around`.

    Returns:
        The square, moved into the image where it fits in; the whole image where nothing is outlined.

    Raises:
        DataError: A file is missing, damaged, or of another size than the image.
    """
    shape = image_shape(record.image)
    outlined = np.zeros(shape, bool)
    for path in record.crop_around:
        mask = read_mask(path)
        check_shape(path, mask.shape, record.image, shape)
        outlined |= mask >= 128
    cups = any("_seg_cup_" in path.name for path in record.crop_around)
    return square_around(outlined, MARGIN["cup" if cups else "disc"])


def square_around(outlined: NDArray[np.bool_], margin: float) -> Box:
    """Return the square around the true pixels.

    Args:
        outlined: bool ``[H, W]``.
        margin: Side of the square in extents of the true pixels, at least 1.

    Returns:
        The square: inside the image if it fits, else centred along the axis that is too short. Without a true pixel,
        the square of the longer side.
    """
    height, width = outlined.shape
    rows, columns = np.flatnonzero(outlined.any(axis=1)), np.flatnonzero(outlined.any(axis=0))
    if not rows.size:
        rows, columns, margin = np.arange(height), np.arange(width), 1.0
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = int(np.ceil(extent * margin))

    def start(first: int, last: int, length: int) -> int:
        if side >= length:
            return (length - side) // 2
        return min(max((first + last + 1 - side) // 2, 0), length - side)

    return Box(
        start(int(rows[0]), int(rows[-1]), height), start(int(columns[0]), int(columns[-1]), width), side
    )


def crop(array: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Cut the square out of ``[H, W, ...]``; what lies outside the image is 0."""
    height, width = array.shape[:2]
    top, left, side = box
    cut = array[max(top, 0) : min(top + side, height), max(left, 0) : min(left + side, width)]
    if cut.shape[:2] == (side, side):
        return np.ascontiguousarray(cut)
    out = np.zeros((side, side, *array.shape[2:]), array.dtype)
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return out
