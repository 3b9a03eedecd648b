"""Losses of the masks and of the mixture weights: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

POS_WEIGHT = 2.0  # a lesion pixel counts as two of the background


def weighted_bce(logits: Tensor, target: Tensor, pos_weight: float = POS_WEIGHT) -> Tensor:
    """Binary cross entropy in which lesion pixels weigh more.

    The mean over everything of ``-(pos_weight · t · log s(x) + (1 - t) · log(1 - s(x)))``, s the sigmoid.

    Args:
        logits: Raw values at the network's input size, any shape such as ``[B, 1, S, S]``.
        target: Same shape, in [0, 1]; a mean over raters may lie between.
        pos_weight: Weight of the first term, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: For shapes that differ; broadcasting would compare every image with every target.

    Example:
        >>> round(float(weighted_bce(torch.zeros(2, 2), torch.zeros(2, 2))), 4)  # ln 2
        0.6931
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"logits and target must have one shape, found {list(logits.shape)} and {list(target.shape)}"
        )
    weight = torch.as_tensor(pos_weight, dtype=logits.dtype, device=logits.device)
    return functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), pos_weight=weight)


def mixture_mse(predicted: Tensor, wanted: Tensor, *, detach: bool = True) -> Tensor:
    """Mean squared difference between refined and wanted mixture weights.

    Args:
        predicted: ``[B, K]``, what ``EM_weights`` makes of the responsibilities of the predicted mask.
        wanted: ``[B, K]``, responsibilities of the wanted mask.
        detach: Keep gradients out of ``wanted``: a target that moves towards its prediction teaches nothing. False:
            both carry gradients, as in the original's AESPA training.

    Returns:
        The loss, a scalar; mean over images and components.

    Raises:
        ValueError: For shapes that differ.
    """
    if predicted.shape != wanted.shape:
        raise ValueError(
            f"mixture weights must have one shape, found {list(predicted.shape)} and {list(wanted.shape)}"
        )
    return functional.mse_loss(predicted, wanted.detach() if detach else wanted)
