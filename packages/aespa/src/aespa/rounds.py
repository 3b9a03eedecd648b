"""Rounds of predicting and clicking: what the network knows of a user, and how a round changes it.

One set of functions serves training, evaluation and the page, so that a network meets everywhere the prompts that it
was trained with: all clicks so far, the logits of the previous round as mask prompt, and the responsibilities of the
mixture's components for that round's mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from aespa.models.network import AespaNetwork, Mixture

NO_CLICK = -1  # label of a place in the list of clicks that holds none


@dataclass(frozen=True)
class Knowledge:
    """What a batch of users has told so far.

    Attributes:
        coords: float32 ``[B, T, 2]``, clicks as (x, y) pixels of the network's input.
        labels: int64 ``[B, T]``: 1 inside, 0 outside, −1 no click.
        previous: float32 ``[B, 1, 4g, 4g]``, logits of the round before; null in the first round.
        responsibilities: float32 ``[B, K]``, share of the components in the mask of the round before.
    """

    coords: Tensor
    labels: Tensor
    previous: Tensor | None
    responsibilities: Tensor

    def clicked(self, coords: Tensor, labels: Tensor) -> Knowledge:
        """Return the knowledge after one click each.

        Args:
            coords: ``[B, 2]``, (x, y).
            labels: ``[B]``; −1 where a user did not click.
        """
        return replace(
            self,
            coords=torch.cat([self.coords, coords[:, None].to(self.coords)], dim=1),
            labels=torch.cat([self.labels, labels[:, None].to(self.labels)], dim=1),
        )


class LatentDraws(NamedTuple):
    """The chance of the latents of one round.

    Attributes:
        noise: Standard normal ``[N, B, 64]``.
        uniform: In [0, 1), ``[N, B]``, chooses the components.
    """

    noise: Tensor
    uniform: Tensor


@dataclass(frozen=True)
class Answer:
    """What the network says in a round.

    Attributes:
        logits: ``[N, B, 1, 4g, 4g]``, one mask a latent.
        mixture: The preference distribution that the latents were drawn from.
    """

    logits: Tensor
    mixture: Mixture

    @property
    def mean(self) -> Tensor:
        """Mean logits ``[B, 1, 4g, 4g]``: the recommended mask."""
        return self.logits[0] if len(self.logits) == 1 else self.logits.mean(dim=0)


def no_knowledge(network: AespaNetwork, n: int, device: torch.device | str | None = None) -> Knowledge:
    """Return what is known before the first click.

    Args:
        network: Holds the responsibilities to begin with.
        n: Number of users B.
        device: Of the tensors; that of the network by default.
    """
    stored = network.initial_responsibilities
    device = stored.device if device is None else device
    return Knowledge(
        coords=torch.zeros(n, 0, 2, device=device),
        labels=torch.zeros(n, 0, dtype=torch.int64, device=device),
        previous=None,
        responsibilities=stored.to(device).float()[None].expand(n, -1),
    )


def answer(
    network: AespaNetwork,
    features: Tensor,
    knowledge: Knowledge,
    *,
    n_samples: int = 1,
    draws: LatentDraws | None = None,
    boxes: Tensor | None = None,
) -> Answer:
    """Predict masks from image features and what the users told.

    Args:
        network: The network; a plain SAM ignores the preferences.
        features: ``[B, 256, g, g]`` of :meth:`AespaNetwork.encode`.
        knowledge: Of the same B users.
        n_samples: Latents N an image; 1 takes the mean of the mixture.
        draws: Chance of the latents; null draws it from torch's global generator.
        boxes: ``[B, 4]`` as (x, y, x, y) beside the clicks; null = none.
    """
    prompts = network.prompts(knowledge.coords, knowledge.labels, knowledge.previous, boxes)
    mixture = network.mixture(prompts.sparse, knowledge.responsibilities)
    if not network.architecture.preferences:
        return Answer(network.decode(features, None, prompts), mixture)
    noise, uniform = (None, None) if draws is None else draws
    latents = network.latents(mixture, n_samples, noise=noise, uniform=uniform)
    return Answer(network.decode(features, latents, prompts), mixture)


def learn(knowledge: Knowledge, said: Answer, responsibilities: Tensor) -> Knowledge:
    """Return the knowledge with this round's mask in place of the one before; no gradient crosses rounds."""
    return Knowledge(knowledge.coords, knowledge.labels, said.mean.detach(), responsibilities.detach())


def low_resolution(network: AespaNetwork, masks: Tensor) -> Tensor:
    """Average masks ``[..., S, S]`` over the cells of the network's logits ``[..., 4g, 4g]``."""
    size = network.architecture.low_res
    factor = masks.shape[-1] // size
    return masks.unflatten(-1, (size, factor)).unflatten(-3, (size, factor)).mean(dim=(-3, -1))
