"""Gradients of several devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn


def average_gradients(fabric: Fabric, network: nn.Module) -> None:
    """Average the gradients of all devices in place.

    A batch takes several backward passes, some of them through a part of the network only, which the hooks of
    ``DistributedDataParallel`` do not fit; one exchange before each step does. A tensor that no device has a gradient
    of keeps none, so that the optimiser leaves it alone as it does on one device.

    Args:
        fabric: Of the run.
        network: Whose gradients are averaged.
    """
    tensors = list(network.parameters())
    present = torch.tensor([float(p.grad is not None) for p in tensors], device=fabric.device)
    present = reduced(fabric, present, "sum").tolist()
    chosen = [p for p, n in zip(tensors, present, strict=True) if n > 0]
    for p in chosen:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    if not chosen:
        return
    flat = torch.cat([p.grad.flatten() for p in chosen if p.grad is not None])
    flat = reduced(fabric, flat, "mean")
    parts = flat.split([p.numel() for p in chosen])
    for p, part in zip(chosen, parts, strict=True):
        p.grad = part.view_as(p)


def reduced(fabric: Fabric, values: torch.Tensor, operation: Literal["sum", "mean"]) -> torch.Tensor:
    """Return the sum or mean of a tensor over all devices."""
    found = fabric.all_reduce(values, reduce_op=operation)
    assert isinstance(found, torch.Tensor)  # noqa: S101 - a tensor stays one
    return found
