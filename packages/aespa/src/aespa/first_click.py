"""SPA: which raters an image is learnt from this time, and the click that the user starts with.

Raters who agree at one pixel form a group, and their majority is the wanted mask. Pixels on which raters differ are
drawn most of the time. Chance comes from a NumPy generator, image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

FirstClick = Literal["decisive", "unanimous"]
DIVERGENT = 0.8  # chance that a pixel is drawn on which raters differ
MAJORITY = 0.8  # chance that the label there is the majority's


class Group(NamedTuple):
    """Raters who agree at a pixel, and what they want.

    Attributes:
        x: Column of the pixel.
        y: Its row.
        label: What the group's masks say there: 1 inside, 0 outside.
        selected: bool ``[R]``, the raters of the group.
        mask: bool ``[S, S]``, marked by at least half of the group.
    """

    x: int
    y: int
    label: int
    selected: NDArray[np.bool_]
    mask: NDArray[np.bool_]


class Groups(NamedTuple):
    """One group for every image of a batch, and its first click.

    Attributes:
        coords: float32 ``[B, 2]``, (x, y) of the first click.
        labels: int64 ``[B]``, its label.
        selected: bool ``[B, R]``, the raters of the group.
        mask: float32 ``[B, S, S]``, 0 and 1, what the group wants.
    """

    coords: Tensor
    labels: Tensor
    selected: Tensor
    mask: Tensor


def draw_group(raters: ArrayLike, valid: ArrayLike | None, rng: np.random.Generator) -> Group:
    """Draw the group of raters that a user belongs to.

    The share of raters who marked a pixel takes few values. One of those between 0 and 1 is drawn with chance 0.8 if
    there is any, else one of all; then one of its pixels. Where raters differ, the label is the majority's (a tie:
    0) with chance 0.8, else the other. The original's ``random_click``, less its click.

    Args:
        raters: bool or 0/1 ``[R, S, S]``.
        valid: bool ``[R]``, raters that count; None, or nobody valid = all.
        rng: Where chance comes from.

    Returns:
        The group; its pixel is the one that tells it from other groups.
    """
    masks, counted = _masks(raters, valid)
    n = int(counted.sum())
    counts = masks[counted].sum(axis=0)
    values = np.unique(counts)
    divergent = values[(values > 0) & (values < n)]
    pool = divergent if divergent.size and rng.random() < DIVERGENT else values
    count = int(rng.choice(pool))
    y, x = draw_pixel(counts == count, rng)
    label = int(count == n)
    if 0 < count < n:
        majority = round(count / n)  # half to even: a tie is 0
        label = majority if rng.random() < MAJORITY else 1 - majority
    selected = counted & (masks[:, y, x] == bool(label))
    return Group(x, y, label, selected, 2 * masks[selected].sum(axis=0) >= selected.sum())


def first_click(
    raters: ArrayLike,
    valid: ArrayLike | None,
    group: Group,
    rng: np.random.Generator,
    kind: FirstClick = "decisive",
) -> tuple[int, int, int]:
    """Return the click that a user of the group starts with.

    Args:
        raters: bool or 0/1 ``[R, S, S]``.
        valid: bool ``[R]``; None, or nobody valid = all.
        group: What `draw_group` drew.
        rng: Where chance comes from.
        kind: ``"decisive"`` = the group's own pixel; ``"unanimous"`` = a pixel that everybody marked, or else one that
            nobody did, which says nothing about the group, as the original.

    Returns:
        (x, y, label).

    Raises:
        ValueError: If raters agree nowhere, for ``"unanimous"``.
    """
    if kind == "decisive":
        return group.x, group.y, group.label
    masks, counted = _masks(raters, valid)
    counts = masks[counted].sum(axis=0)
    for label, where in ((1, counts == counted.sum()), (0, counts == 0)):
        if where.any():
            y, x = draw_pixel(where, rng)
            return x, y, label
    raise ValueError("the raters agree on no pixel: a unanimous first click is not possible; use decisive")


def draw_groups(
    raters: Tensor,
    valid: Tensor,
    rngs: np.random.Generator | Sequence[np.random.Generator],
    *,
    kind: FirstClick = "decisive",
) -> Groups:
    """Draw a group and a first click for every image of a batch.

    Args:
        raters: ``[B, R, S, S]``, 0 and 1, on any device.
        valid: bool ``[B, R]``.
        rngs: One generator, or one for each image so that its draws do not depend on the others.
        kind: Of the first click, as in `first_click`.

    Returns:
        Tensors on the device of ``raters``.
    """
    masks, counted = (raters > 0.5).cpu().numpy(), valid.cpu().numpy()
    each = [rngs] * len(masks) if isinstance(rngs, np.random.Generator) else rngs
    groups, clicks = [], []
    for image, known, rng in zip(masks, counted, each, strict=True):
        groups.append(draw_group(image, known, rng))
        clicks.append(first_click(image, known, groups[-1], rng, kind))
    found = np.asarray(clicks, np.int64).reshape(-1, 3)
    selected = np.asarray([group.selected for group in groups], bool).reshape(valid.shape)
    wanted = np.asarray([group.mask for group in groups], np.float32).reshape(len(masks), *masks.shape[2:])
    return Groups(
        torch.from_numpy(found[:, :2].astype(np.float32)).to(raters.device),
        torch.from_numpy(found[:, 2].copy()).to(raters.device),
        torch.from_numpy(selected).to(raters.device),
        torch.from_numpy(wanted).to(raters.device),
    )


def draw_pixel(where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """Return row and column of one True of ``[H, W]``, all with the same chance."""
    y, x = np.unravel_index(int(rng.choice(np.flatnonzero(where))), where.shape)
    return int(y), int(x)


def _masks(raters: ArrayLike, valid: ArrayLike | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return masks and who counts."""
    masks = np.asarray(raters) > 0.5
    counted = np.ones(len(masks), bool) if valid is None else np.asarray(valid, bool)
    if masks.ndim != 3 or counted.shape != masks.shape[:1]:
        raise ValueError(
            f"raters must be [R, S, S] and valid [R], found {list(masks.shape)} and {list(counted.shape)}"
        )
    return masks, counted if counted.any() else np.ones(len(masks), bool)
