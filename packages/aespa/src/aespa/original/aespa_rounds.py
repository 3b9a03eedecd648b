"""The original's order of training AESPA on a batch, without the work that changes nothing.

In every round the image encoder and the decoder take a step towards the current target; the user clicks; then the
prompt encoder and the network of the mixture weights take a step that makes the refined responsibilities of the
predicted mask those of the mask the click asks for. Left out are one evaluation of the mixture whose result the
original discards, the embedded mask prompt of the second step, and pixels that repeat.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aespa.clicks import Clicks
from aespa.losses import mixture_mse
from aespa.original.phases import Phases, mask_loss, mask_responsibilities
from aespa.rounds import answer, learn, no_knowledge

Click = Callable[[Tensor, Tensor], Clicks]


def aespa_rounds(
    phases: Phases, images: Tensor, target: Tensor, click: Click, *, runs: int, pos_weight: float = 2.0
) -> None:
    """Train on a batch.

    Args:
        phases: network and optimiser; the losses are appended there, cross entropy and squared error in turn.
        images: ``[B,3,S,S]`` in [0, 1].
        target: ``[B,S,S]``, what is wanted before the first click.
        click: from probabilities ``[B,S,S]`` and the followed raters ``[B]`` (-1 nobody yet) to the next click.
        runs: rounds.
        pos_weight: of lesion pixels in the cross entropy.
    """
    network = phases.network
    knowledge = no_knowledge(network, len(images), images.device)
    followed = torch.full((len(images),), -1, device=images.device)
    for _ in range(runs):
        with phases.learning(network.image_encoder, network.mask_decoder):
            said = answer(network, network.encode(images), knowledge)
            phases.step("bce", mask_loss(network, said.mean, target, pos_weight))
        with torch.no_grad():
            probabilities = torch.sigmoid(said.mean.float())
            clicks = click(torch.sigmoid(network.upsample(said.mean.float()))[:, 0], followed)
            responsibilities = network.responsibilities(probabilities.flatten(1), said.mixture)
        knowledge = learn(knowledge, said, responsibilities).clicked(clicks.coords, clicks.labels)
        target, followed = clicks.target, clicks.rater
        with phases.learning(network.prompt_encoder, network.EM_weights):
            sparse = network.prompts(knowledge.coords, knowledge.labels, None).sparse
            mixture = network.mixture(sparse, responsibilities)
            # The weights are those of the frozen network here; means and variances lead back to the clicks.
            mixture = mixture._replace(weights=mixture.weights.detach())
            found = network.responsibilities(probabilities.flatten(1), mixture)
            wanted = mask_responsibilities(network, target, mixture)
            phases.step("mse", mixture_mse(network.EM_weights(found), wanted, detach=False))
