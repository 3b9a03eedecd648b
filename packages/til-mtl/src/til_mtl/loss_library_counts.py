"""Losses from soft counts of true positives, false positives and false negatives.

With p the network's output (after ``apply_nonlin``) and y one-hot labels: tp = Σ p·y, fp = Σ p·(1−y),
fn = Σ (1−p)·y, per sample and class, or per class over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Nonlinearity = Callable[[Tensor], Tensor]


def softmax_helper(x: Tensor) -> Tensor:
    """Softmax over the classes (dim 1)."""
    return x.softmax(dim=1)


def sum_tensor(x: Tensor, axes: Iterable[int], keepdim: bool = False) -> Tensor:
    """Sum over axes, each of them once.

    Args:
        x: Any shape.
        axes: Axes; repeated ones count once.
        keepdim: Leave axes of length 1.
    """
    return x.sum(dim=tuple(sorted(set(axes))), keepdim=keepdim)


def one_hot_target(target: Tensor, output: Tensor) -> Tensor:
    """Return labels as channels, in the output's dtype.

    Args:
        target: One-hot ``[B, C, …]``, or integer classes ``[B, …]`` or ``[B, 1, …]``.
        output: ``[B, C, …]``.
    """
    if target.shape == output.shape:
        return target.to(output.dtype)
    indices = target.reshape(len(target), 1, *output.shape[2:]).long()
    return torch.zeros_like(output).scatter_(1, indices, 1)


def get_tp_fp_fn(
    net_output: Tensor,
    gt: Tensor,
    axes: Iterable[int] | None = None,
    mask: Tensor | None = None,
    square: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Count softly.

    Args:
        net_output: Probabilities ``[B, C, …]``.
        gt: One-hot labels of that shape, or integer classes without the channels.
        axes: Axes to sum over; by default those behind the channels.
        mask: ``[B, 1, …]``, 1 where a pixel counts.
        square: Square the maps before they are summed.

    Returns:
        True positives, false positives and false negatives, ``[B, C]`` by default.
    """
    axes = range(2, net_output.ndim) if axes is None else axes
    y = one_hot_target(gt, net_output)
    maps = [net_output * y, net_output * (1 - y), (1 - net_output) * y]
    if mask is not None:
        maps = [each * mask for each in maps]
    if square:
        maps = [each**2 for each in maps]
    tp, fp, fn = (sum_tensor(each, axes) for each in maps)
    return tp, fp, fn


class _CountLoss(nn.Module):
    """What the losses below have in common.

    Args:
        apply_nonlin: Applied to the output first, e.g. `softmax_helper`; None takes probabilities.
        batch_dice: Sum over the batch too.
        do_bg: Count class 0.
        smooth: Added to numerators and denominators.
        square: Square the maps of tp, fp and fn before they are summed.
    """

    def __init__(
        self,
        apply_nonlin: Nonlinearity | None = None,
        batch_dice: bool = False,
        do_bg: bool = True,
        smooth: float = 1.0,
        square: bool = False,
    ) -> None:
        super().__init__()
        self.apply_nonlin, self.batch_dice, self.do_bg = apply_nonlin, batch_dice, do_bg
        self.smooth, self.square = smooth, square

    def _axes(self, x: Tensor) -> list[int]:
        return [*([0] if self.batch_dice else []), *range(2, x.ndim)]

    def _foreground(self, scores: Tensor) -> Tensor:
        return scores if self.do_bg else scores[..., 1:]

    def _mean_score(self, x: Tensor, y: Tensor, loss_mask: Tensor | None) -> Tensor:
        if self.apply_nonlin is not None:
            x = self.apply_nonlin(x)
        counts = get_tp_fp_fn(x, y, self._axes(x), loss_mask, self.square)
        return self._foreground(self.score(*counts)).mean()

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Return the overlap of each class from its counts."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Return −(mean overlap).

        Args:
            x: ``[B, C, …]``.
            y: One-hot of that shape, or integer classes.
            loss_mask: ``[B, 1, …]``, 1 where a pixel counts.
        """
        return -self._mean_score(x, y, loss_mask)


class SoftDiceLoss(_CountLoss):
    """−mean (2tp + s) / (2tp + fp + fn + s)."""

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Return the Dice overlap."""
        return (2 * tp + self.smooth) / (2 * tp + fp + fn + self.smooth)


class IoULoss(_CountLoss):
    """−mean (tp + s) / (tp + fp + fn + s)."""

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Return intersection over union."""
        return (tp + self.smooth) / (tp + fp + fn + self.smooth)


class TverskyLoss(_CountLoss):
    """1 − mean (tp + s) / (tp + 0.3 fp + 0.7 fn + s); unlike its siblings it is not negative."""

    alpha = 0.3
    beta = 0.7

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Return the Tversky index."""
        return (tp + self.smooth) / (tp + self.alpha * fp + self.beta * fn + self.smooth)

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Return 1 − (mean index); the arguments are those of its siblings."""
        return 1 - self._mean_score(x, y, loss_mask)


class FocalTversky_loss(nn.Module):  # noqa: N801 - the original's name
    """(1 − TI)^γ with TI the Tversky index.

    Args:
        tversky_kwargs: Of `TverskyLoss`.
        gamma: γ.
        faithful: The original's (2 − TI)^γ, which adds 1 to a loss that is 1 − TI already.
    """

    def __init__(
        self, tversky_kwargs: Mapping[str, Any] | None = None, gamma: float = 0.75, *, faithful: bool = False
    ) -> None:
        super().__init__()
        self.gamma, self.faithful = gamma, faithful
        self.tversky = TverskyLoss(**(tversky_kwargs or {}))

    def forward(self, net_output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``[B, C, …]`` outputs against one-hot or integer labels."""
        loss = self.tversky(net_output, target)
        return (1 + loss if self.faithful else loss) ** self.gamma


class AsymLoss(_CountLoss):
    """−mean (tp + s) / (tp + w·fn + (1−w)·fp + s) with w = 2.25 / 3.25: misses weigh more than false alarms."""

    miss_weight = 2.25 / 3.25

    def score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        """Return the asymmetric overlap."""
        errors = self.miss_weight * fn + (1 - self.miss_weight) * fp
        return (tp + self.smooth) / (tp + errors + self.smooth)


class SSLoss(_CountLoss):
    """mean 0.1·Σ(y−p)²y/(Σy+s) + 0.9·Σ(y−p)²(1−y)/(Σ(1−y)+s): sensitivity and specificity errors.

    The original needs ``apply_nonlin`` and ignores ``square`` and ``loss_mask``; here only ``square`` has no effect.
    """

    sensitivity_weight = 0.1

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Return the loss; the arguments are those of its siblings."""
        p = x if self.apply_nonlin is None else self.apply_nonlin(x)
        axes = self._axes(p)
        hot = one_hot_target(y, p)
        mask = torch.ones_like(hot[:, :1]) if loss_mask is None else loss_mask
        error = (hot - p) ** 2 * mask
        positive, negative = hot * mask, (1 - hot) * mask
        missed = sum_tensor(error * hot, axes) / (sum_tensor(positive, axes) + self.smooth)
        alarms = sum_tensor(error * (1 - hot), axes) / (sum_tensor(negative, axes) + self.smooth)
        weight = self.sensitivity_weight
        return self._foreground(weight * missed + (1 - weight) * alarms).mean()
