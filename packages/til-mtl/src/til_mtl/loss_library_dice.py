"""Variants of the Dice loss, and what turns labels into channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from til_mtl.loss_library_counts import Nonlinearity, one_hot_target, sum_tensor

_SMOOTH = 1e-5  # of diceloss


def flatten(tensor: Tensor) -> Tensor:
    """Turn ``[B, C, …]`` into ``[C, B·…]``."""
    return tensor.transpose(0, 1).flatten(1)


def make_one_hot(input: Tensor, num_classes: int) -> Tensor:
    """Turn integer classes ``[B, 1, …]`` into float ``[B, num_classes, …]`` on the same device.

    Args:
        input: Classes.
        num_classes: Channels of the result.
    """
    shape = (input.shape[0], num_classes, *input.shape[2:])
    return torch.zeros(shape, device=input.device).scatter_(1, input.long(), 1)


def to_one_hot(seg: NDArray, all_seg_labels: Sequence[int] | None = None) -> NDArray:
    """Turn a label array into one array a label: ``[n, …]``, in the labels' dtype.

    Args:
        seg: Labels, any shape.
        all_seg_labels: Which ones; by default those that occur, rising.
    """
    labels = np.unique(seg) if all_seg_labels is None else np.asarray(all_seg_labels)
    return (seg[None] == labels.reshape(-1, *([1] * seg.ndim))).astype(seg.dtype)


class GDiceLoss(nn.Module):
    """Generalised Dice, per sample: 1 − 2(Σ_c w_c I_c + s) / (Σ_c w_c (Σp + Σy) + s), w_c = 1 / (Σy + 1e-10)².

    The original takes volumes only; here images too.

    Args:
        apply_nonlin: Applied to the output first.
        smooth: s.
    """

    def __init__(self, apply_nonlin: Nonlinearity | None = None, smooth: float = 1e-5) -> None:
        super().__init__()
        self.apply_nonlin, self.smooth = apply_nonlin, smooth

    def forward(self, net_output: Tensor, gt: Tensor) -> Tensor:
        """Return the mean over the batch for ``[B, C, …]`` outputs and one-hot or integer labels."""
        p = net_output if self.apply_nonlin is None else self.apply_nonlin(net_output)
        y = one_hot_target(gt, p)
        axes = range(2, p.ndim)
        weight = 1 / (sum_tensor(y, axes) + 1e-10) ** 2
        intersection = weight * sum_tensor(p * y, axes)
        union = weight * (sum_tensor(p, axes) + sum_tensor(y, axes))
        dice = 2 * (intersection.sum(1) + self.smooth) / (union.sum(1) + self.smooth)
        return (1 - dice).mean()


class GDiceLossV2(nn.Module):
    """Generalised Dice over the batch: 1 − 2Σ_c w_c I_c / max(Σ_c w_c (Σp + Σy), s), w_c = 1 / max((Σy)², s).

    Args:
        apply_nonlin: Applied to the output first; the original cannot do without.
        smooth: s.
    """

    def __init__(self, apply_nonlin: Nonlinearity | None = None, smooth: float = 1e-5) -> None:
        super().__init__()
        self.apply_nonlin, self.smooth = apply_nonlin, smooth

    def forward(self, net_output: Tensor, gt: Tensor) -> Tensor:
        """Return the loss of ``[B, C, …]`` outputs against one-hot or integer labels."""
        p = net_output if self.apply_nonlin is None else self.apply_nonlin(net_output)
        rows, y = flatten(p), flatten(one_hot_target(gt, p))
        occurring = y.sum(1)
        weight = 1 / (occurring * occurring).clamp(min=self.smooth)
        intersection = (weight * (rows * y).sum(1)).sum()
        union = (weight * (rows.sum(1) + occurring)).sum()
        return 1 - 2 * intersection / union.clamp(min=self.smooth)


class mIoULoss(nn.Module):  # noqa: N801 - the original's name
    """−mean (Σ p·y + 1e-6) / (Σ (p + y − p·y) + 1e-6), with the softmax inside.

    Args:
        weight: Accepted and without effect, as in the original.
        size_average: Accepted and without effect, as in the original.
        n_classes: C.
    """

    def __init__(self, weight: Tensor | None = None, size_average: bool = True, n_classes: int = 4) -> None:
        super().__init__()
        self.classes = n_classes

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``[B, C, …]`` against integer labels ``[B, …]``."""
        p = inputs.softmax(dim=1)
        y = one_hot_target(target, p)
        axes = range(2, p.ndim)
        intersection = sum_tensor(p * y, axes)
        union = sum_tensor(p + y - p * y, axes)
        return -((intersection + 1e-6) / (union + 1e-6)).mean()


class BinaryDiceLoss(nn.Module):
    """1 − (2Σpt + s) / (Σp^q + Σt^q + s) per sample.

    Args:
        smooth: s.
        p: q, the exponent in the denominator.
        reduction: Over the samples.
        faithful: The original's numerator Σpt + s, with which a perfect match has the loss 0.5.
    """

    def __init__(
        self,
        smooth: float = 1e-8,
        p: int = 2,
        reduction: Literal["mean", "sum", "none"] = "mean",
        *,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected mean, sum or none, found {reduction!r}")
        self.smooth, self.p, self.reduction = smooth, p, reduction
        self.factor = 1 if faithful else 2

    def forward(self, predict: Tensor, target: Tensor) -> Tensor:
        """Return the loss of probabilities ``[B, …]`` against labels of that shape."""
        if len(predict) != len(target):
            raise ValueError(f"batches of {len(predict)} predictions and {len(target)} labels do not match")
        p, t = predict.reshape(len(predict), -1), target.reshape(len(target), -1)
        overlap = self.factor * (p * t).sum(1) + self.smooth
        loss = 1 - overlap / ((p**self.p + t**self.p).sum(1) + self.smooth)
        return {"mean": loss.mean, "sum": loss.sum, "none": lambda: loss}[self.reduction]()


class DiceLoss(nn.Module):
    """Mean of `BinaryDiceLoss` over the classes of a softmax.

    Args:
        weight: ``[C]`` factors of the classes; the original fails with any.
        ignore_index: Class that is left out.
        faithful: The original's `BinaryDiceLoss`, and a mean that divides by C even where a class is left out.
        **kwargs: Of `BinaryDiceLoss`.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        *,
        faithful: bool = False,
        **kwargs,
    ) -> None:
        super().__init__()
        self.weight, self.ignore_index, self.faithful = weight, ignore_index, faithful
        self.dice = BinaryDiceLoss(faithful=faithful, **kwargs)

    def forward(self, predict: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``[B, C, …]`` against one-hot labels of that shape."""
        if predict.shape != target.shape:
            raise ValueError(
                f"logits {list(predict.shape)} and one-hot labels {list(target.shape)} differ in shape"
            )
        p, classes = predict.softmax(dim=1), range(target.shape[1])
        used = [c for c in classes if c != self.ignore_index]
        losses = [self.dice(p[:, c], target[:, c]) for c in used]
        if self.weight is not None:
            losses = [loss * self.weight[c] for loss, c in zip(losses, used, strict=True)]
        return torch.stack(losses).sum(0) / (len(classes) if self.faithful else len(used))


def diceloss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 − (2Σpt + 1e-5) / (Σp² + Σt² + 1e-5) over all entries.

    Args:
        prediction: Probabilities, any shape.
        target: Labels of that shape.
    """
    p, t = prediction.flatten(), target.flatten()
    return 1 - (2 * (p * t).sum() + _SMOOTH) / ((p * p).sum() + (t * t).sum() + _SMOOTH)


class DiceBCELoss(nn.Module):
    """weight · mean (1 − (2I + eps) / (U + eps)) + binary cross-entropy of the sigmoid.

    I and U are those of each sample and class, from the softmax.

    Args:
        eps: See the formula.
        weight: Of the Dice part.
        faithful: The original's numerator 2(I + eps): a class that neither occurs nor is predicted has Dice 2.
    """

    def __init__(self, eps: float = 1e-8, weight: float = 1, *, faithful: bool = False) -> None:
        super().__init__()
        self.eps, self.weight, self.faithful = eps, weight, faithful

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the mean Dice of logits ``[B, C, H, W]`` against one-hot labels of that shape."""
        p = inputs.softmax(dim=1)
        axes = range(2, p.ndim)
        intersection = sum_tensor(p * targets, axes)
        union = sum_tensor(p, axes) + sum_tensor(targets, axes)
        doubled = 2 * intersection + (2 if self.faithful else 1) * self.eps
        dice = doubled / (union + self.eps)
        cross_entropy = functional.binary_cross_entropy_with_logits(inputs, targets)
        return self.weight * (1 - dice).mean() + cross_entropy, dice.mean()
