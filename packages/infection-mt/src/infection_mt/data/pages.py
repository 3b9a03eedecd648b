"""From a raw page to a prepared 8-bit frame: scaling, channels, border crop, resizing (NumPy and Pillow only).

One channel is kept for gray pages. Scaling, resizing and cropping of three equal channels give three equal
results, so one channel holds the same information bit for bit.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from infection_mt.config import TransformsConfig

Intensity = Literal["minmax", "percentile", "stack"]
StackRange = tuple[float, float]
PERCENTILES = (1.0, 99.0)


class PageError(ValueError):
    """A page that cannot become a frame; the caller adds the file and the page number."""


def page_to_image(
    page: NDArray[np.generic], intensity: Intensity = "minmax", stack_range: StackRange | None = None
) -> NDArray[np.uint8]:
    """Scale a page to 8 bit with three channels, as the original does.

    ``minmax`` (the original): subtract the minimum, divide by the new maximum, times 255, truncate; one hot pixel
    then flattens the page. ``percentile``: the 1st and 99th percentile of the page become 0 and 255. ``stack``: the
    ends of ``stack_range`` do, so that brightness stays comparable between the pages of a stack.

    Args:
        page: [H, W], [H, W, 1] or [H, W, 3] of any integer or float type.
        intensity: The rule.
        stack_range: Lowest and highest gray value for ``stack``, see :func:`stack_range_of`.

    Returns:
        [H, W, 3] uint8; a constant page becomes zeros.

    Raises:
        PageError: Other shapes, or pixels that are not finite.
    """
    image = scale_page(page, intensity, stack_range)
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def scale_page(
    page: NDArray[np.generic], intensity: Intensity = "minmax", stack_range: StackRange | None = None
) -> NDArray[np.uint8]:
    """As :func:`page_to_image`, but a gray page stays [H, W]."""
    x = _checked(page)
    if intensity == "minmax":
        x -= x.min()
        top = x.max()
    else:
        if intensity == "stack":
            if stack_range is None:
                raise ValueError("intensity 'stack' needs the stack's range of gray values")
            low, high = stack_range
        else:
            low, high = (float(v) for v in np.percentile(x, PERCENTILES))
        x -= np.float32(low)
        top = np.float32(high - low)
    if top <= 0:
        return np.zeros(x.shape, np.uint8)
    x /= top
    np.clip(x, 0.0, 1.0, out=x)
    x *= np.float32(255.0)
    return x.astype(np.uint8)


def check_kind(shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Refuse pages that cannot become frames whatever their pixels are.

    Raises:
        PageError: Saying what is expected and found.
    """
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)) or 0 in shape:
        raise PageError(f"expected a gray [H, W] or RGB [H, W, 3] page, found shape {shape}{_advice(shape)}")
    if np.dtype(dtype).kind not in "biuf":
        raise PageError(
            f"expected integer or float pixels, found {np.dtype(dtype)}: save the stack as 8 or 16 bit gray"
        )


def has_colours(shape: tuple[int, ...]) -> bool:
    """Whether a page of this shape has three colours."""
    return len(shape) == 3 and shape[2] == 3


def page_percentiles(page: NDArray[np.generic]) -> StackRange:
    """1st and 99th percentile of a page, the part of one page in :func:`stack_range_of`."""
    low, high = np.percentile(_checked(page), PERCENTILES)
    return float(low), float(high)


def stack_range_of(ranges: list[StackRange]) -> StackRange:
    """Gray values that ``intensity: stack`` maps to 0 and 255: the widest of the pages' percentile ranges."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def prepare_image(image: NDArray[np.uint8], transforms: TransformsConfig) -> NDArray[np.uint8]:
    """Crop the border and resize.

    Resizing is Pillow's antialiased bilinear filter on 8-bit values; the aspect ratio is not kept.

    Args:
        image: [H, W] or [H, W, 3] uint8.
        transforms: ``image_size`` S, ``crop_border_pixels`` (wins) and ``crop_border_fraction``.

    Returns:
        [S, S] or [S, S, 3] uint8.
    """
    size = transforms.image_size
    cropped = crop_border(image, transforms)
    return np.array(Image.fromarray(cropped).resize((size, size), Image.Resampling.BILINEAR))


def crop_border(image: NDArray[np.uint8], transforms: TransformsConfig) -> NDArray[np.uint8]:
    """Centre crop of an 8-bit image.

    The new side is ``side − 2·pixels``, or ``max(1, round(side·(1 − 2·fraction)))``.

    Raises:
        PageError: The border leaves no pixel.
    """
    pixels, fraction = transforms.crop_border_pixels, transforms.crop_border_fraction
    if not pixels and not fraction:
        return image
    height, width = image.shape[:2]
    if pixels is not None:
        sides = [side - 2 * pixels for side in (height, width)]
        if min(sides) < 1:
            raise PageError(f"a border of {pixels} pixels leaves nothing of {height} x {width} pixels")
    else:
        sides = [max(1, round(side * (1 - 2 * fraction))) for side in (height, width)]
    top, left = (round((side - kept) / 2) for side, kept in zip((height, width), sides, strict=True))
    return np.ascontiguousarray(image[top : top + sides[0], left : left + sides[1]])


def _checked(page: NDArray[np.generic]) -> NDArray[np.float32]:
    """A float32 copy of a page of allowed shape, gray as [H, W]."""
    check_kind(page.shape, page.dtype)
    if page.ndim == 3 and page.shape[2] == 1:
        page = page[:, :, 0]
    x = page.astype(np.float32)
    if not np.isfinite(x).all():
        n = int(x.size - np.isfinite(x).sum())
        raise PageError(
            f"{n} of {x.size} pixels are not finite (NaN or infinite): repair or leave out the page"
        )
    return x


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[2] == 4:
        return ": RGBA; drop the alpha channel"
    if len(shape) == 3 and shape[2] == 2:
        return ": two channels; keep one of them"
    if len(shape) == 3 and shape[0] in (1, 2, 3, 4):
        return ": the channels come first; move them to the end"
    return ""
