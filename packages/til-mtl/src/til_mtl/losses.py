"""Losses of the two tasks: pure functions of logits and integer labels.

Per sample i and class c, with p the softmax of the logits over the classes and y the one-hot labels:
I_ic = Σ p·y, U_ic = Σ p + Σ y + 1e-8 (sums over pixels). BCE is that of the *sigmoid* of the logits against y: the
channels are trained as independent detectors and read as a softmax, which is the method's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from til_mtl.errors import TrainingError
from til_mtl.one_hot import class_channels, one_hot_label

if TYPE_CHECKING:
    from medshared.shared_layers import SharedRows

BCE_WEIGHT = 0.01  # of the tissue term's cross-entropy
EPS = 1e-8
LOSS_WEIGHTS = (0.13, 0.87)  # tissue, cells


class TissueTerms(NamedTuple):
    """Values of the tissue patches of a batch."""

    loss: Tensor  # 0.01 · bce + dice_loss
    bce: Tensor
    dice_loss: Tensor
    dice_total: Tensor
    dice: Tensor  # [C]; NaN for a class that neither occurs nor is predicted
    sums: Tensor  # [2, C]: intersection and union, to be added over the batches of an epoch
    n: int  # patches
    confusion: Tensor  # [C, C] int64 pixels: truth, argmax; without ignored pixels


class CellTerms(NamedTuple):
    """Values of the cell patches of a batch."""

    loss: Tensor  # bce + dice_weight · (1 − dice over both classes)
    bce: Tensor
    dice: Tensor  # [2]; NaN for a class that neither occurs nor is predicted
    sums: Tensor  # [2, 2]: intersection and union
    n: int  # patches


class _PixelSums(NamedTuple):
    """Sums over the pixels of each sample."""

    intersection: Tensor  # [B, C]
    union: Tensor  # [B, C], without 1e-8
    bce: Tensor  # [B], mean over pixels and classes
    counts: Tensor  # [B] 1 for samples with an annotated pixel, else 0


def tissue_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    exact: bool = True,
    per_sample_dice: bool = True,
    shared: SharedRows | None = None,
) -> TissueTerms | None:
    """Soft Dice loss + 0.01 · binary cross-entropy.

    Args:
        logits: ``[B, C, H, W]``, raw.
        labels: ``[B, H, W]`` classes 0 … C−1; other values (250) are pixels that nobody annotated.
        exact: Labels 0 and 1, and pixels without annotation left out of Dice and cross-entropy. False: the
            original's labels 1e-6 and 1.000001, with such pixels counted as "no class".
        per_sample_dice: True for the multi-task formula, in which dice_total is the mean over samples of
            2·Σ_c I_ic / Σ_c U_ic; False for that of ``Seg_main``, which pools the batch.
        shared: Says which of the batch's samples these are, where several processes compute it: the terms are those of
            the whole batch.

    Returns:
        The terms; None without a sample. With ``exact``, a sample without annotation counts in no mean.

    Example:
        >>> logits = torch.zeros(1, 3, 2, 2)
        >>> terms = tissue_loss(logits, torch.tensor([[[0, 1], [2, 250]]]))
        >>> round(float(terms.dice_total), 4), round(float(terms.bce), 4)
        (0.3333, 0.6931)
    """
    samples = len(logits) if shared is None else shared.n
    if samples == 0:
        return None
    sums = _pixel_sums(logits, labels, exact, shared)
    n = sums.counts.sum().clamp(min=1)
    bce = (sums.bce * sums.counts).sum() / n
    if per_sample_dice:
        union = sums.union + EPS
        each = 2 * sums.intersection.sum(1) / union.sum(1)
        dice_total = (each * sums.counts).sum() / n
        dice_loss = ((1 - each) * sums.counts).sum() / n
        pooled = torch.stack([sums.intersection.sum(0), union.sum(0)])
    else:
        pooled = torch.stack([sums.intersection.sum(0), sums.union.sum(0) + EPS])
        dice_total = 2 * pooled[0].sum() / pooled[1].sum()
        dice_loss = 1 - dice_total
    confusion = confusion_counts(logits, labels, shared)
    dice = class_dice(pooled, confusion if exact else None)
    loss = BCE_WEIGHT * bce + dice_loss
    return TissueTerms(loss, bce, dice_loss, dice_total, dice, pooled.detach(), samples, confusion)


def cell_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    exact: bool = True,
    dice_weight: float = 0.0,
    shared: SharedRows | None = None,
) -> CellTerms | None:
    """Binary cross-entropy; the Dice loss, which the original computes and drops, on request.

    Args:
        logits: ``[B, 2, H, W]``, raw: background, cell.
        labels: ``[B, H, W]``, 0 or 1; 250 for pixels that nobody annotated.
        exact: See `tissue_loss`.
        dice_weight: Weight ≥ 0 of 1 − 2·ΣI/ΣU over the batch and both classes.
        shared: See `tissue_loss`.

    Returns:
        The terms; None without a sample.
    """
    samples = len(logits) if shared is None else shared.n
    if samples == 0:
        return None
    sums = _pixel_sums(logits, labels, exact, shared)
    bce = (sums.bce * sums.counts).sum() / sums.counts.sum().clamp(min=1)
    pooled = torch.stack([sums.intersection.sum(0), sums.union.sum(0) + EPS])
    loss = bce
    if dice_weight:
        loss = bce + dice_weight * (1 - 2 * pooled[0].sum() / pooled[1].sum())
    dice = class_dice(pooled, confusion_counts(logits, labels, shared) if exact else None)
    return CellTerms(loss, bce, dice, pooled.detach(), samples)


def total_loss(
    tissue: TissueTerms | None, cells: CellTerms | None, weights: tuple[float, float] = LOSS_WEIGHTS
) -> Tensor:
    """Weighted sum of the tasks that a batch has.

    Args:
        tissue: Of `tissue_loss`.
        cells: Of `cell_loss`.
        weights: Of tissue and cells.

    Raises:
        TrainingError: The batch has neither.
    """
    losses = [w * terms.loss for w, terms in zip(weights, (tissue, cells), strict=True) if terms is not None]
    if not losses:
        raise TrainingError(
            "a batch without tissue and without cell patches has no loss; check the data's tasks"
        )
    return torch.stack(losses).sum()


class UncertaintyWeighting(nn.Module):
    """Learned task weights: Σ_k exp(−s_k) · w_k · L_k + s_k / 2 with one log-variance s_k a task.

    Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018, eq. 7. Not in the
    original, which sets the weights by hand. A task that a batch lacks leaves its s_k alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))  # tissue, cells

    def forward(
        self, tissue: TissueTerms | None, cells: CellTerms | None, weights: tuple[float, float] = LOSS_WEIGHTS
    ) -> Tensor:
        """Return the total loss; the arguments are those of `total_loss`."""
        scales = torch.exp(-self.log_variance)
        present = [terms is not None for terms in (tissue, cells)]
        scaled = [
            None if terms is None else terms._replace(loss=scale * terms.loss)
            for scale, terms in zip(scales, (tissue, cells), strict=True)
        ]
        penalty = 0.5 * self.log_variance[present].sum()
        return total_loss(scaled[0], scaled[1], weights) + penalty  # type: ignore[arg-type]


def confusion_counts(logits: Tensor, labels: Tensor, shared: SharedRows | None = None) -> Tensor:
    """Count pixels by truth and prediction.

    Args:
        logits: ``[B, C, H, W]``; the prediction is the argmax.
        labels: ``[B, H, W]``; values outside 0 … C−1 are left out.
        shared: Counts are added over all processes.

    Returns:
        ``[C, C]`` int64, rows truth. Neither a copy from the GPU nor an operation with varying results is needed.
    """
    classes = logits.shape[1]
    labels = labels.long()
    pairs = torch.where(labels < classes, labels * classes + logits.detach().argmax(1), -1).flatten()
    cells = torch.arange(classes * classes, device=logits.device)
    counts = torch.stack([(pairs == cell).sum() for cell in cells]).view(classes, classes)
    return counts if shared is None else shared.total(counts)


def class_dice(sums: Tensor, confusion: Tensor | None) -> Tensor:
    """Return 2·I/U for each class.

    Args:
        sums: ``[2, C]``, intersection and union.
        confusion: ``[C, C]`` pixels; classes without any, in truth and prediction, become NaN. None: no class does.
    """
    dice = (2 * sums[0] / sums[1]).detach()
    if confusion is None:
        return dice
    seen = confusion.sum(0) + confusion.sum(1)
    return torch.where(seen > 0, dice, torch.nan)


def _pixel_sums(logits: Tensor, labels: Tensor, exact: bool, shared: SharedRows | None) -> _PixelSums:
    sums = _own_pixel_sums(logits, labels, exact)
    return sums if shared is None else _PixelSums(*map(shared.gather, sums))


def _own_pixel_sums(logits: Tensor, labels: Tensor, exact: bool) -> _PixelSums:
    if logits.dtype in (torch.float16, torch.bfloat16):  # sums over 65,536 pixels need more digits
        logits = logits.float()
    classes = logits.shape[1]
    probability = logits.softmax(dim=1)
    if not exact:
        y = one_hot_label(labels, classes, dtype=logits.dtype, faithful=True)
        bce = functional.binary_cross_entropy_with_logits(logits, y, reduction="none").mean((1, 2, 3))
        union = probability.sum((2, 3)) + y.sum((2, 3))
        return _PixelSums((probability * y).sum((2, 3)), union, bce, torch.ones_like(bce))
    y = class_channels(labels, classes).to(logits.dtype)
    valid = (labels < classes).unsqueeze(1).to(logits.dtype)
    pixels = valid.sum((1, 2, 3))
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, y, weight=valid, reduction="none")
    bce = cross_entropy.sum((1, 2, 3)) / (classes * pixels).clamp(min=1)
    union = (probability * valid).sum((2, 3)) + y.sum((2, 3))
    return _PixelSums((probability * y).sum((2, 3)), union, bce, (pixels > 0).to(logits.dtype))
