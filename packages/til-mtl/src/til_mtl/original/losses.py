# ruff: noqa: N802 - the original's names
"""The original's loss functions under their names, on one-hot labels, with the tuples that they return.

``faithful=True`` gives the original's numbers (with one-hot labels of `one_hot_label(..., faithful=True)`). By default
a task that a batch lacks is None instead of 0, a class that neither occurs nor is predicted has Dice NaN instead of
about 0, and the FROC of a multi-task batch is taken over its cell patches once, instead of averaging that of its first
k patches over k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from til_mtl.losses import BCE_WEIGHT, EPS
from til_mtl.one_hot import one_hot_label, one_hot_label_det, one_hot_label_seg

__all__ = [
    "Class_Wise_TIL_Detection_FROC",
    "Class_Wise_TIL_Detection_FROC_multi_task_learning",
    "Class_wise_Dice_score",
    "Class_wise_Dice_score_multi_task_learning",
    "one_hot_label",
    "one_hot_label_det",
    "one_hot_label_seg",
]


def Class_wise_Dice_score(input: Tensor, labels: Tensor, *, faithful: bool = False) -> tuple[Tensor, ...]:
    """Tissue loss of ``Seg_main``, pooled over the batch.

    Args:
        input: Logits ``[B, 3, H, W]``.
        labels: One-hot ``[B, 3, H, W]``.
        faithful: Leave the Dice of absent classes as it comes out.

    Returns:
        dice of each class, dice_total, bce, dice_loss, loss = 0.01 · bce + dice_loss.
    """
    sums = _sums(input, labels)
    union = sums.union.sum(0) + EPS
    dice_total = 2 * sums.intersection.sum() / union.sum()
    dice_loss = 1 - dice_total
    bce = sums.bce.mean()
    dice = _class_dice(sums.intersection.sum(0), union, sums.seen, faithful)
    return (*dice.unbind(), dice_total, bce, dice_loss, BCE_WEIGHT * bce + dice_loss)


def Class_wise_Dice_score_multi_task_learning(
    input: Tensor,
    labels: Tensor,
    mask_name: Sequence[str],
    batch_size: int | None = None,
    *,
    faithful: bool = False,
) -> tuple[Any, ...]:
    """Tissue loss of ``main``, over the samples that are named "s".

    Args:
        input: Logits ``[B, 3, H, W]``.
        labels: One-hot ``[B, 3, H, W]``.
        mask_name: One letter a sample.
        batch_size: Samples to look at; all by default.
        faithful: See the module's text.

    Returns:
        dice of each class (pooled), dice_total (mean over samples), bce, dice_loss, loss; all None without a sample
        (zeros if ``faithful``).
    """
    chosen = _routed("s", mask_name, batch_size)
    if not chosen:
        return (0.0 if faithful else None,) * (labels.shape[1] + 4)
    sums = _sums(input[chosen], labels[chosen])
    union = sums.union + EPS
    each = 2 * sums.intersection.sum(1) / union.sum(1)
    dice_total, dice_loss, bce = each.mean(), (1 - each).mean(), sums.bce.mean()
    dice = _class_dice(sums.intersection.sum(0), union.sum(0), sums.seen, faithful)
    return (*dice.unbind(), dice_total, bce, dice_loss, BCE_WEIGHT * bce + dice_loss)


def Class_Wise_TIL_Detection_FROC(
    input: Tensor, labels: Tensor, *, faithful: bool = False
) -> tuple[Tensor | float, ...]:
    """Cell loss of ``det_main`` and the FROC of the batch.

    Args:
        input: Logits ``[B, 2, H, W]``.
        labels: One-hot ``[B, 2, H, W]``.
        faithful: Leave the Dice of absent classes as it comes out.

    Returns:
        dice of each class, dice_total, bce, 1 − dice_total, loss = bce, FROC score.
    """
    sums = _sums(input, labels)
    union = sums.union.sum(0) + EPS
    dice_total = 2 * sums.intersection.sum() / union.sum()
    bce = sums.bce.mean()
    dice = _class_dice(sums.intersection.sum(0), union, sums.seen, faithful)
    froc = _batch_froc(input, labels, running=False)
    return (*dice.unbind(), dice_total, bce, 1 - dice_total, bce, froc)


def Class_Wise_TIL_Detection_FROC_multi_task_learning(
    input: Tensor,
    labels: Tensor,
    mask_name: Sequence[str],
    batch_size: int | None = None,
    *,
    faithful: bool = False,
) -> tuple[Any, Any]:
    """Cell loss of ``main`` and a FROC score, over the samples that are named "d".

    Args:
        input: Logits ``[B, 2, H, W]``.
        labels: One-hot ``[B, 2, H, W]``.
        mask_name: One letter a sample.
        batch_size: Samples to look at; all by default.
        faithful: See the module's text.

    Returns:
        loss = mean over samples of the cross-entropy, FROC score; both None without a sample (zeros if ``faithful``).
    """
    chosen = _routed("d", mask_name, batch_size)
    if not chosen:
        return (0.0, 0.0) if faithful else (None, None)
    loss = _sums(input[chosen], labels[chosen]).bce.mean()
    return loss, _batch_froc(input[chosen], labels[chosen], running=faithful)


class _Sums(NamedTuple):
    intersection: Tensor  # [B, C]
    union: Tensor  # [B, C], without 1e-8
    bce: Tensor  # [B]
    seen: Tensor  # [C] whether the class occurs or is predicted


def _sums(input: Tensor, labels: Tensor) -> _Sums:
    probability = input.softmax(dim=1)
    y = labels.to(input.dtype)
    bce = functional.binary_cross_entropy_with_logits(input, y, reduction="none").mean((1, 2, 3))
    classes = torch.arange(input.shape[1], device=input.device)
    predicted = (input.detach().argmax(1).unsqueeze(-1) == classes).flatten(0, 2).any(0)
    seen = predicted | (labels > 0.5).transpose(0, 1).flatten(1).any(1)
    union = probability.sum((2, 3)) + y.sum((2, 3))
    return _Sums((probability * y).sum((2, 3)), union, bce, seen)


def _class_dice(intersection: Tensor, union: Tensor, seen: Tensor, faithful: bool) -> Tensor:
    dice = 2 * intersection / union
    return dice if faithful else torch.where(seen, dice, torch.nan)


def _routed(letter: str, mask_name: Sequence[str], batch_size: int | None) -> list[int]:
    names = mask_name[: len(mask_name) if batch_size is None else batch_size]
    return [index for index, name in enumerate(names) if name == letter]


def _batch_froc(input: Tensor, labels: Tensor, *, running: bool) -> float:
    from til_mtl.original.detection import batch_froc

    probability = input.detach().softmax(dim=1)[:, 1]
    return batch_froc(probability.cpu().numpy(), labels[:, 1].detach().cpu().numpy(), running=running)
