"""Play the rounds of SPA that are evaluated: every rater in turn is the one whose mask a simulated user wants."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aespa.config import Config
from aespa.data.arrays import RaterArrays
from aespa.draws import ItemDraws
from aespa.first_click import Group, first_click
from aespa.following import Pairs, Played, pair_inputs, pair_names
from aespa.models.network import AespaNetwork
from aespa.proposing import after_pick, latent_draws, pick
from aespa.rounds import answer, no_knowledge
from medshared.gpu import derive_seed


@torch.no_grad()
def play_proposing(network: AespaNetwork, arrays: RaterArrays, pairs: Pairs, config: Config) -> Played:
    """Play all rounds of some pairs as SPA does: the first click, then picking a proposal and clicking.

    All chance belongs to the seed, the image's name and the rater.

    Args:
        network: In evaluation mode.
        arrays: The images.
        pairs: Sorted by image.
        config: Resolved configuration.
    """
    inputs = pair_inputs(network, arrays, pairs)
    device, n = inputs.features.device, config.num_samples
    wanted = inputs.raters[torch.arange(len(pairs), device=device), inputs.followed]
    draws = ItemDraws([derive_seed(config.seed, "proposing", name) for name in pair_names(arrays, pairs)])
    start, label = (each.to(device) for each in _first_clicks(arrays, pairs, draws, config))
    knowledge = no_knowledge(network, len(pairs)).clicked(start, label)
    samples: Tensor | None = None
    logits, chosen, clicks = [], [], []
    for _ in range(config.runs):
        said = answer(network, inputs.features, knowledge, n_samples=n, draws=latent_draws(draws, n, device))
        samples = said.logits[:, :, 0].float() if samples is None else samples
        pixel = torch.from_numpy(draws.uniform(1)[:, 0]).to(device)
        picked = pick(network, said, wanted, config.n_clusters, config.candidates, pixel)
        logits.append(said.mean[:, 0].float())
        chosen.append(picked.logits[:, 0].float())
        clicks.append(picked.clicks)
        knowledge = after_pick(network, knowledge, said, picked)
    return Played(
        pairs,
        torch.stack(logits),
        torch.stack([each.coords for each in clicks]),
        torch.stack([each.labels for each in clicks]),
        samples,
        torch.stack(chosen),
        (start, label),
    )


def _first_clicks(
    arrays: RaterArrays, pairs: Pairs, draws: ItemDraws, config: Config
) -> tuple[Tensor, Tensor]:
    """Return the clicks ``[P, 2]`` and labels ``[P]`` that the rounds start with."""
    coords, labels = [], []
    for image, rater, rng in zip(pairs.image, pairs.rater, draws.streams, strict=True):
        masks, valid = arrays.masks[image].astype(bool), arrays.valid[image]
        share = masks[valid].mean(axis=0)
        contested = np.flatnonzero((share > 0) & (share < 1))
        kind = config.first_click if contested.size else "unanimous"
        place = int(rng.choice(contested)) if contested.size else 0
        y, x = divmod(place, masks.shape[-1])
        alone = np.arange(len(masks)) == rater
        group = Group(x, y, int(masks[rater, y, x]), alone, masks[rater])
        found_x, found_y, label = first_click(masks, valid, group, rng, kind)
        coords.append((found_x, found_y))
        labels.append(label)
    return torch.tensor(coords, dtype=torch.float32), torch.tensor(labels)
