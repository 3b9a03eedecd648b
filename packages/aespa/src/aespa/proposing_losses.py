"""The losses of SPA, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aespa.config import Config
from aespa.draws import ItemDraws
from aespa.first_click import draw_groups
from aespa.losses import weighted_bce
from aespa.models.network import AespaNetwork
from aespa.proposing import after_pick, latent_draws, pick
from aespa.rounds import answer, no_knowledge
from aespa.training_rounds import RoundLoss, refine


def proposal_losses(
    network: AespaNetwork,
    encode: Callable[[], Tensor],
    raters: Tensor,
    valid: Tensor,
    draws: ItemDraws,
    config: Config,
) -> Iterator[RoundLoss]:
    """Yield the losses of SPA: a simulated user wants what a group of agreeing raters marked.

    The mean of all samples is compared with the wanted mask, as in the paper, and so is the proposal that the user
    picks, with the weight ``proposal_weight``: without it nothing makes one sample differ from another.

    Args:
        network: In training.
        encode: Returns the image features ``[B, 256, g, g]`` for a round.
        raters: ``[B, R, S, S]``.
        valid: bool ``[B, R]``.
        draws: Of the batch.
        config: Resolved configuration.
    """
    groups = draw_groups(raters, valid, draws.streams, kind=config.first_click)
    device, n, wanted = raters.device, config.num_samples, groups.mask
    knowledge = no_knowledge(network, len(raters), device).clicked(groups.coords, groups.labels)
    for _ in range(config.runs):
        said = answer(network, encode(), knowledge, n_samples=n, draws=latent_draws(draws, n, device))
        pixel = torch.from_numpy(draws.uniform(1)[:, 0]).to(device)
        picked = pick(network, said, wanted, config.n_clusters, config.candidates, pixel)
        loss = weighted_bce(network.upsample(said.mean)[:, 0].float(), wanted, config.pos_weight)
        if config.proposal_weight:
            proposal = network.upsample(picked.logits)[:, 0].float()
            loss = loss + config.proposal_weight * weighted_bce(proposal, wanted, config.pos_weight)
        mixture_loss, _ = refine(network, said, wanted)
        yield RoundLoss(loss, mixture_loss)
        knowledge = after_pick(network, knowledge, said, picked)
