"""What both faithful orders of training share: phases in which some parts of the network learn and the rest waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aespa.losses import weighted_bce
from aespa.models.network import AespaNetwork, Mixture
from aespa.rounds import low_resolution

Kind = Literal["bce", "mse"]
_MANY_VALUES = 64  # a mean of a few binary masks takes fewer


class Phases:
    """Steps of one optimiser, each for some parts of the network.

    The optimiser skips a tensor without gradient, so that parts which never learn have no moments either.

    Args:
        network: the network.
        optimizer: of all its parameters.

    Attributes:
        losses: what every step reduced, in order, without gradient.
    """

    def __init__(self, network: AespaNetwork, optimizer: Any) -> None:
        self.network, self.optimizer = network, optimizer
        self.losses: list[tuple[Kind, Tensor]] = []

    @contextmanager
    def learning(self, *parts: nn.Module) -> Iterator[None]:
        """Let only these parts have gradients; what was before holds again after."""
        chosen = {id(parameter) for part in parts for parameter in part.parameters()}
        before = [(parameter, parameter.requires_grad) for parameter in self.network.parameters()]
        try:
            for parameter, _ in before:
                parameter.requires_grad_(id(parameter) in chosen)
            yield
        finally:
            for parameter, flag in before:
                parameter.requires_grad_(flag)

    def step(self, kind: Kind, loss: Tensor) -> None:
        """Reduce a loss by one step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append((kind, loss.detach()))

    def summary(self) -> dict[str, float]:
        """Return the sum of all losses (``loss``, as the original reports it), and of each kind."""
        names = {"mask": "bce", "mixture": "mse"}
        sums = {name: _total(self.losses, kind) for name, kind in names.items()}
        return {"loss": sum(sums.values()), **sums}


def _total(losses: list[tuple[Kind, Tensor]], kind: str) -> float:
    chosen = [loss for name, loss in losses if name == kind]
    return torch.stack(chosen).sum().item() if chosen else 0.0


def mask_loss(network: AespaNetwork, logits: Tensor, wanted: Tensor, pos_weight: float) -> Tensor:
    """Return the cross entropy of low-resolution logits ``[B,1,4g,4g]`` enlarged to a mask ``[B,S,S]``.

    Pixels that share a logit need only their mean target, because the loss is linear in the target.
    """
    if network.architecture.upsample == "nearest":
        return weighted_bce(logits[:, 0].float(), low_resolution(network, wanted), pos_weight)
    return weighted_bce(network.upsample(logits)[:, 0].float(), wanted, pos_weight)


def mask_responsibilities(network: AespaNetwork, wanted: Tensor, mixture: Mixture) -> Tensor:
    """Return the mean responsibilities ``[B,K]`` of a wanted mask ``[B,S,S]``.

    A mean of a few binary masks has few different values; each is evaluated once and counted.
    """
    flat = wanted.flatten(1)
    values, place = torch.unique(flat, return_inverse=True)
    if len(values) > _MANY_VALUES:
        return network.responsibilities(flat, mixture)
    counts = torch.zeros(len(flat), len(values), device=flat.device)
    counts.scatter_add_(1, place.view_as(flat), torch.ones_like(flat, dtype=counts.dtype))
    return network.responsibilities(values.expand(len(flat), -1), mixture, counts)
