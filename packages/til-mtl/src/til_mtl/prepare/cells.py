"""Cell masks from the boxes of ``tiger-coco.json``."""

from __future__ import annotations

from typing import Literal

import numpy as np

CellShape = Literal["disk", "square"]


def rasterise_cells(
    boxes: np.ndarray, shape: tuple[int, int], cell_shape: CellShape = "disk", diameter: float | None = None
) -> np.ndarray:
    """Draw cells into a mask, clipped at its borders.

    Args:
        boxes: [n, 4], x, y, width, height in pixels.
        shape: (height, width) of the mask.
        cell_shape: ``disk``: pixels whose centre is at most half a diameter from the centre of the box;
            ``square``: rows y … y + height − 1 and columns x … x + width − 1.
        diameter: Of the disks in pixels; ``None`` takes the shorter side of each box.

    Returns:
        uint8 [height, width], 0 and 1.
    """
    mask = np.zeros(shape, np.uint8)
    for x, y, width, height in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        if cell_shape == "square":
            left, top = round(x), round(y)
            mask[max(0, top) : max(0, top + round(height)), max(0, left) : max(0, left + round(width))] = 1
            continue
        centre_x, centre_y = x + width / 2, y + height / 2
        radius = (diameter if diameter else min(width, height)) / 2
        top, bottom = max(0, int(centre_y - radius - 1)), min(shape[0], int(centre_y + radius + 2))
        left, right = max(0, int(centre_x - radius - 1)), min(shape[1], int(centre_x + radius + 2))
        if bottom <= top or right <= left:
            continue
        dy = np.arange(top, bottom)[:, None] + 0.5 - centre_y
        dx = np.arange(left, right)[None] + 0.5 - centre_x
        mask[top:bottom, left:right][dx * dx + dy * dy <= radius * radius] = 1
    return mask


def box_centres(boxes: np.ndarray) -> np.ndarray:
    """Return float64 [n, 2], the (x, y) centres of boxes [n, 4]."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return boxes[:, :2] + boxes[:, 2:] / 2


def clip_status(boxes: np.ndarray, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
    """Return how many boxes stick out of a region, and which lie wholly outside.

    Args:
        boxes: [n, 4].
        shape: (height, width) of the region.

    Returns:
        Number of boxes that are clipped, and the positions of those with nothing inside.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    size = np.array([shape[1], shape[0]])
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    outside = ((high <= 0) | (low >= size)).any(axis=1)
    clipped = ((low < 0) | (high > size)).any(axis=1) & ~outside
    return int(clipped.sum()), np.flatnonzero(outside)
