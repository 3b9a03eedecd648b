"""SPA: the network proposes, the user picks a proposal and clicks where it differs from the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aespa.clicks import Clicks
from aespa.clustering import Choice, choose_cluster, selection_clicks
from aespa.draws import ItemDraws
from aespa.models.fusion import LATENT
from aespa.models.network import AespaNetwork
from aespa.rounds import Answer, Knowledge, LatentDraws, learn, low_resolution


@dataclass(frozen=True)
class Picked:
    """The proposal that a batch of users picked, and where they click next.

    Attributes:
        choice: Which samples it is made of.
        logits: ``[B, 1, 4g, 4g]``, mean logits of its samples.
        clicks: One an image; none where there was nothing to choose.
    """

    choice: Choice
    logits: Tensor
    clicks: Clicks


def latent_draws(draws: ItemDraws, n: int, device: torch.device | str) -> LatentDraws:
    """Draw the chance of the latents of one round."""
    uniform = torch.from_numpy(draws.uniform(n).T.astype("float32").copy())
    return LatentDraws(draws.normal(n, LATENT).to(device), uniform.to(device))


def pick(
    network: AespaNetwork, said: Answer, wanted: Tensor, n_clusters: int, candidates: int, pixel: Tensor
) -> Picked:
    """Cluster the samples, pick the cluster nearest to the wanted mask, click where it differs from all others.

    Args:
        network: Knows the resolutions.
        said: Samples of this round.
        wanted: ``[B, S, S]``.
        n_clusters: Proposals.
        candidates: Pixels with the largest difference, of which one is clicked.
        pixel: ``[B]`` in [0, 1), which of them.
    """
    samples = torch.sigmoid(said.logits[:, :, 0].detach().float()).flatten(2).transpose(0, 1)
    choice = choose_cluster(samples, low_resolution(network, wanted).flatten(1), n_clusters)
    weight = choice.members.to(said.logits)
    weight = weight / weight.sum(dim=1, keepdim=True)
    logits = torch.einsum("nbchw,bn->bchw", said.logits, weight)
    side = network.architecture.low_res
    clicks = selection_clicks(
        choice.select.unflatten(1, (side, side)),
        choice.exclude.unflatten(1, (side, side)),
        wanted,
        choice.has_alternative,
        candidates=candidates,
        enlarge=network.architecture.upsample,
        pixel=pixel,
    )
    return Picked(choice, logits, clicks)


def after_pick(network: AespaNetwork, knowledge: Knowledge, said: Answer, picked: Picked) -> Knowledge:
    """Return what is known after the users picked and clicked.

    The mean of all samples is the mask prompt of the next round; what was picked is told by the responsibilities.
    (With the picked proposal as the prompt, the network learns to repeat it and Dice grows less.)

    Args:
        network: Computes the responsibilities of the picked proposal.
        knowledge: Before the round.
        said: Of the round.
        picked: Of the round.
    """
    with torch.no_grad():
        found = network.responsibilities(picked.choice.select, said.mixture)
    known = learn(knowledge, said, found)
    return known.clicked(picked.clicks.coords, picked.clicks.labels)
