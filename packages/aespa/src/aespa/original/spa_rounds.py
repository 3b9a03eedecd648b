"""The original's order of training SPA on a batch, with one pass of the image encoder a round.

In every round the image encoder and the decoder take a step; the user picks a cluster of samples and clicks; the prompt
encoder and the network of means and variances take a step with new samples; the network of the mixture weights takes a
step. The last two leave the image encoder as it is, so the pass that the second step needs is also the next round's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aespa.clicks import Clicks
from aespa.losses import mixture_mse
from aespa.original.phases import Phases, mask_loss, mask_responsibilities
from aespa.rounds import Answer, Knowledge, LatentDraws, answer, learn, no_knowledge

Draw = Callable[[], LatentDraws]
Select = Callable[[Tensor], tuple[Tensor, Clicks]]


def spa_rounds(
    phases: Phases,
    images: Tensor,
    wanted: Tensor,
    first: tuple[Tensor, Tensor],
    draw: Draw,
    select: Select,
    *,
    n_samples: int,
    runs: int,
    pos_weight: float = 2.0,
) -> None:
    """Train on a batch.

    Args:
        phases: network and optimiser; the losses are appended there, three a round.
        images: ``[B,3,S,S]`` in [0, 1].
        wanted: ``[B,S,S]``, the mask of the group that the user belongs to.
        first: (x, y) ``[B,2]`` and label ``[B]`` of the first click.
        draw: chance of the latents, two draws a round.
        select: from probabilities of all samples ``[B,N,(4g)^2]`` to the mean of the chosen cluster ``[B,(4g)^2]``
            and the next click.
        n_samples: N.
        runs: rounds.
        pos_weight: of lesion pixels in the cross entropy.
    """
    network = phases.network

    def say(features: Tensor, knowledge: Knowledge) -> Answer:
        said = answer(network, features, knowledge, n_samples=n_samples, draws=draw())
        phases.step("bce", mask_loss(network, said.mean, wanted, pos_weight))
        return said

    knowledge = no_knowledge(network, len(images), images.device).clicked(*first)
    with phases.learning(network.image_encoder):
        features = network.encode(images)
    for index in range(runs):
        with phases.learning(network.image_encoder, network.mask_decoder):
            said = say(features, knowledge)
        with torch.no_grad():
            chosen, clicks = select(sample_probabilities(said))
            responsibilities = network.responsibilities(chosen, said.mixture)
        knowledge = learn(knowledge, said, responsibilities).clicked(clicks.coords, clicks.labels)
        del said  # its graph
        with phases.learning(*([network.image_encoder] if index < runs - 1 else [])):
            features = network.encode(images)
        with phases.learning(network.prompt_encoder, network.EM_mean_variance):
            say(features.detach(), knowledge)
        _refine_weights(phases, knowledge, chosen, wanted)


def _refine_weights(phases: Phases, knowledge: Knowledge, chosen: Tensor, wanted: Tensor) -> None:
    """Take a step that makes the refined responsibilities of the chosen cluster those of the wanted mask."""
    network = phases.network
    with torch.no_grad():
        sparse = network.prompts(knowledge.coords, knowledge.labels, None).sparse
        mixture = network.mixture(sparse, knowledge.responsibilities)
        found = network.responsibilities(chosen, mixture)
        target = mask_responsibilities(network, wanted, mixture)
    with phases.learning(network.EM_weights):
        phases.step("mse", mixture_mse(network.EM_weights(found), target))


def sample_probabilities(said: Answer) -> Tensor:
    """Return the probabilities of all samples ``[B,N,(4g)^2]``."""
    return torch.sigmoid(said.logits[:, :, 0].float()).flatten(2).transpose(0, 1)
