"""Play the rounds that are evaluated: every rater in turn is the one whom a simulated user follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aespa.clicks import Clicks, fixed_draws, random_clicks, simulate_clicks
from aespa.config import Config
from aespa.data.arrays import RaterArrays
from aespa.models.network import AespaNetwork
from aespa.rounds import answer, learn, no_knowledge

Clicker = Literal["simulated", "random"]


@dataclass(frozen=True)
class Pairs:
    """Images and the raters who are followed on them.

    Attributes:
        image: int64 ``[P]``, places in the arrays.
        rater: int64 ``[P]``, columns of the arrays.
    """

    image: NDArray[np.int64]
    rater: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Played:
    """What some pairs gave.

    Attributes:
        pairs: Who followed whom.
        logits: float32 ``[rounds, P, 4g, 4g]``, the recommended mask of every round.
        coords: float32 ``[rounds, P, 2]``, the click after each round as (x, y).
        labels: int64 ``[rounds, P]``; −1 where none was needed.
        first_samples: float32 ``[N, P, 4g, 4g]``, logits of all samples of the first round; null with one.
        chosen: float32 ``[rounds, P, 4g, 4g]``, logits of the proposal that the user picked; null without proposals.
        first_clicks: (x, y) ``[P, 2]`` and labels ``[P]`` of a click before the first round; null without one.
    """

    pairs: Pairs
    logits: Tensor
    coords: Tensor
    labels: Tensor
    first_samples: Tensor | None = None
    chosen: Tensor | None = None
    first_clicks: tuple[Tensor, Tensor] | None = None


def pairs_of(arrays: RaterArrays) -> Pairs:
    """Return every image with every rater who outlined something on it, image by image."""
    image, rater = np.nonzero(arrays.valid)
    return Pairs(image.astype(np.int64), rater.astype(np.int64))


def in_chunks(pairs: Pairs, size: int) -> Iterator[Pairs]:
    """Yield pairs in chunks that keep the pairs of an image together.

    Args:
        pairs: Sorted by image.
        size: Pairs of a chunk, exceeded only by a single image.
    """
    starts = np.flatnonzero(np.r_[True, pairs.image[1:] != pairs.image[:-1]])
    ends = np.r_[starts[1:], len(pairs)]
    first = 0
    for i, end in enumerate(ends):
        if i + 1 == len(ends) or ends[i + 1] - first > size:
            yield Pairs(pairs.image[first:end], pairs.rater[first:end])
            first = int(end)


@dataclass(frozen=True)
class PairInputs:
    """What the rounds of some pairs start from.

    Attributes:
        features: ``[P, 256, g, g]``; each image was encoded once.
        raters: ``[P, R, S, S]``.
        valid: bool ``[P, R]``.
        followed: int64 ``[P]``.
    """

    features: Tensor
    raters: Tensor
    valid: Tensor
    followed: Tensor


def pair_inputs(network: AespaNetwork, arrays: RaterArrays, pairs: Pairs) -> PairInputs:
    """Encode the images of some pairs."""
    device = network.initial_responsibilities.device
    images, where = np.unique(pairs.image, return_inverse=True)
    batch = arrays.batch(images, device)
    rows = torch.from_numpy(where).to(device)
    return PairInputs(
        network.encode(batch.images)[rows],
        batch.raters[rows],
        batch.valid[rows],
        torch.from_numpy(pairs.rater).to(device),
    )


def pair_names(arrays: RaterArrays, pairs: Pairs) -> list[str]:
    """Return a name for every pair, for the chance that belongs to it."""
    return [f"{arrays.names[i]}/{arrays.rater_ids[r]}" for i, r in zip(pairs.image, pairs.rater, strict=True)]


@torch.no_grad()
def play_following(
    network: AespaNetwork,
    arrays: RaterArrays,
    pairs: Pairs,
    config: Config,
    *,
    clicker: Clicker = "simulated",
    replay: Played | None = None,
) -> Played:
    """Play all rounds of some pairs; one pass of the image encoder an image.

    The clicks of a pair depend on the seed, the image's name, the rater and the round alone.

    Args:
        network: In evaluation mode.
        arrays: The images.
        pairs: Sorted by image.
        config: Resolved configuration; ``runs``, ``candidates``, ``seed`` are read.
        clicker: ``random`` clicks anywhere with any label, the control.
        replay: Clicks of the same pairs that are used instead, with the one before the first round if there was one.
    """
    inputs = pair_inputs(network, arrays, pairs)
    raters, valid, followed = inputs.raters, inputs.valid, inputs.followed
    names = pair_names(arrays, pairs)
    knowledge = no_knowledge(network, len(pairs))
    if replay is not None and replay.first_clicks is not None:
        knowledge = knowledge.clicked(*replay.first_clicks)
    logits, coords, labels = [], [], []
    for number in range(config.runs):
        said = answer(network, inputs.features, knowledge)
        logits.append(said.mean[:, 0].float())
        probability = torch.sigmoid(network.upsample(said.mean).float())[:, 0]
        if replay is not None:
            clicks = Clicks(replay.coords[number], replay.labels[number], probability, followed)
        else:
            draws = fixed_draws(config.seed, names, number)
            if clicker == "random":
                clicks = random_clicks(raters, valid, followed, draws=draws)
            else:
                clicks = simulate_clicks(
                    probability,
                    raters,
                    valid,
                    followed,
                    switch=0.0,
                    candidates=config.candidates,
                    stop_when_right=bool(config.stop_when_right),
                    draws=draws,
                )
        coords.append(clicks.coords)
        labels.append(clicks.labels)
        found = network.responsibilities(torch.sigmoid(said.mean.float()).flatten(1), said.mixture)
        knowledge = learn(knowledge, said, found).clicked(clicks.coords, clicks.labels)
    return Played(pairs, torch.stack(logits), torch.stack(coords), torch.stack(labels))
