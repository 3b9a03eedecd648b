"""What the original's page computed and drew: validity, neutral mask, best rater, suggested click, overlay.

The page of this package suggests clicks by `aespa.clicks.suggest` and starts from a prediction, not from the neutral
mask, which is the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
EPS = 1e-7
ALPHA = 0.45
MASK_COLOUR = (0, 255, 0)
INSIDE_COLOUR, OUTSIDE_COLOUR, SUGGESTION_COLOUR = (0, 255, 0), (255, 0, 0), (0, 128, 255)


def validity(raters: ArrayLike) -> Bools:
    """Return which raters ``[R, H, W]`` marked anything, bool ``[R]``."""
    return np.any(np.asarray(raters) > 0, axis=(1, 2))


def neutral_mask(raters: ArrayLike, valid: ArrayLike) -> Bytes:
    """Return what more than half of the valid raters marked.

    Args:
        raters: ``[R, H, W]``, 0 and 1.
        valid: bool ``[R]``.

    Returns:
        uint8 ``[H, W]`` of 0 and 1; empty without a valid rater.
    """
    masks = np.asarray(raters)[np.asarray(valid, bool)] > 0
    return (2 * masks.sum(axis=0) > len(masks)).astype(np.uint8)


def dice_iou(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """Return Dice and IoU of two masks ``[H, W]``, both 1 for two empty ones."""
    left, right = np.asarray(a) > 0, np.asarray(b) > 0
    both, sizes = np.count_nonzero(left & right), np.count_nonzero(left) + np.count_nonzero(right)
    return (2 * both + EPS) / (sizes + EPS), (both + EPS) / (sizes - both + EPS)


def best_rater(pred: ArrayLike, raters: ArrayLike, valid: ArrayLike) -> tuple[int, float]:
    """Return the valid rater with the highest Dice, the first of equals, and that Dice; (-1, -1) without any."""
    best = (-1, -1.0)
    for index in np.flatnonzero(np.asarray(valid, bool)):
        dice = dice_iou(pred, np.asarray(raters)[index])[0]
        if dice > best[1]:
            best = (int(index), dice)
    return best


def suggest_original(pred: ArrayLike, rater: ArrayLike) -> tuple[int, int] | None:
    """Return row and column of the click that the original suggested.

    It subtracted bytes, so that a missed pixel (255) came before every false one (1); among equals the first row by
    row.

    Args:
        pred: ``[H, W]``, 0 and 1.
        rater: Same shape.

    Returns:
        (row, column); None where the masks are equal.
    """
    difference = (np.asarray(pred) > 0).astype(np.uint8) - (np.asarray(rater) > 0).astype(np.uint8)
    return _first(difference == difference.max()) if difference.any() else None


def suggest_raster_first(pred: ArrayLike, rater: ArrayLike) -> tuple[int, int] | None:
    """Return row and column of the first pixel, row by row, where the masks differ; None where they are equal."""
    return _first((np.asarray(pred) > 0) != (np.asarray(rater) > 0))


def draw_overlay(
    image: Bytes,
    mask: ArrayLike,
    clicks: Sequence[tuple[int, int, int]] = (),
    suggestion: tuple[int, int] | None = None,
) -> Bytes:
    """Draw a mask and clicks over an image.

    Args:
        image: uint8 ``[H, W, 3]``.
        mask: ``[H, W]``, drawn in green at an opacity of 0.45.
        clicks: (row, column, label), drawn as green (1) and red (0) dots.
        suggestion: (row, column), drawn as a blue dot.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    from PIL import Image, ImageDraw

    drawn = image.copy()
    inside = np.asarray(mask) > 0
    drawn[inside] = ((1 - ALPHA) * image[inside] + ALPHA * np.asarray(MASK_COLOUR)).astype(np.uint8)
    picture = Image.fromarray(drawn)
    pen = ImageDraw.Draw(picture)
    dots = [(y, x, INSIDE_COLOUR if label else OUTSIDE_COLOUR) for y, x, label in clicks]
    if suggestion is not None:
        dots.append((*suggestion, SUGGESTION_COLOUR))
    for y, x, colour in dots:
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colour)
    return np.array(picture)


def _first(where: Bools) -> tuple[int, int] | None:
    """Return row and column of the first True."""
    if not where.any():
        return None
    y, x = np.unravel_index(int(where.argmax()), where.shape)
    return int(y), int(x)
