"""What an image must be like to be segmented: eight bits, grey or colour, and of a size that can be handled."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aespa.data.reading import MAX_PIXELS
from aespa.errors import DataError


def as_input_image(image: ArrayLike) -> NDArray[np.uint8]:
    """Return an image in colours.

    Args:
        image: uint8 ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]``, or ``[H, W, 4]`` without any transparency.

    Returns:
        uint8 ``[H, W, 3]``; the channels of a grey image are equal.

    Raises:
        DataError: For other shapes, empty images, more than 40 megapixels, values that are not bytes, and
            transparency, saying what to do.

    Example:
        >>> as_input_image(np.zeros((4, 5), np.uint8)).shape
        (4, 5, 3)
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise DataError(
            f"an image is [height, width] or [height, width, 3], found {list(np.shape(image))}; "
            "of a volume, give one slice"
        )
    height, width, channels = pixels.shape
    if height * width == 0:
        raise DataError(f"the image is empty: {width} x {height} pixels")
    if height * width > MAX_PIXELS:
        raise DataError(
            f"the image has {width} x {height} pixels ({height * width / 1e6:.0f} megapixels); at most "
            f"{MAX_PIXELS // 10**6} megapixels can be handled: crop it to the region of interest or make it smaller"
        )
    if pixels.dtype != np.uint8:
        raise DataError(
            f"an image holds bytes (uint8, 0 to 255), found {pixels.dtype}; map its values to bytes first, "
            "for 16-bit and CT images through a window of levels"
        )
    if channels == 4:
        if (pixels[..., 3] != 255).any():
            raise DataError("the image is partly transparent; put it on a background first")
        pixels = pixels[..., :3]
    return np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))
