"""Losses: pure functions of tensors, and the learned weighting that is offered beside the fixed one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class LossTerms(NamedTuple):
    """Scalars of one batch."""

    total: Tensor
    cls: Tensor
    reg: Tensor


def classification_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of ``[B, C]`` logits, or BCE-with-logits when C is 1; mean over the batch.

    Args:
        logits: ``[B, C]``.
        label: ``[B]`` int64 class indices.
    """
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], label.to(logits.dtype))
    return functional.cross_entropy(logits, label)


def regression_loss(time: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """SmoothL1 with β = 1 h: ``0.5 d²`` below 1 h, ``|d| − 0.5`` above; mean over the batch.

    Args:
        time: ``[B, 1]`` hours.
        target: ``[B, 1]`` hours.
        counts: ``[B]`` mask of the samples that have a time loss (all when None); an empty mask gives 0.
    """
    loss = functional.smooth_l1_loss(time, target, reduction="none", beta=1.0)[:, 0]
    if counts is None:
        return loss.mean()
    weight = counts.to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def multitask_loss(
    logits: Tensor,
    time: Tensor,
    label: Tensor,
    target: Tensor,
    *,
    classification_weight: float = 1.0,
    regression_weight: float = 1.0,
    counts: Tensor | None = None,
) -> LossTerms:
    """``w_c · CE(logits, y) + w_r · SmoothL1(time, t)``.

    Args:
        logits: ``[B, C]``.
        time: ``[B, 1]`` hours.
        label: ``[B]`` class indices.
        target: ``[B, 1]`` hours.
        classification_weight: w_c ≥ 0.
        regression_weight: w_r ≥ 0.
        counts: See :func:`regression_loss`.
    """
    cls = classification_loss(logits, label)
    reg = regression_loss(time, target, counts)
    return LossTerms(classification_weight * cls + regression_weight * reg, cls, reg)


class UncertaintyWeighting(nn.Module):
    """Learned task weights: ``Σ exp(−s_k) · w_k · L_k + s_k / 2`` with one log-variance s_k a task.

    Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018, eq. 7 (the
    factor ½ of the regression term is left to w_r). Not in the original, which sets the weights by hand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, terms: LossTerms, classification_weight: float, regression_weight: float) -> LossTerms:
        """Replace the total of ``terms`` by the uncertainty-weighted one."""
        s = self.log_variance
        weighted = (
            torch.exp(-s[0]) * classification_weight * terms.cls
            + torch.exp(-s[1]) * regression_weight * terms.reg
        )
        return terms._replace(total=weighted + 0.5 * s.sum())
