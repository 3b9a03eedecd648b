"""Validation as the original does it: the scores of its logs, round by round, with one pass of the image encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aespa.config import Config
from aespa.data.arrays import Batch, RaterArrays
from aespa.draws import ItemDraws
from aespa.first_click import draw_groups
from aespa.losses import weighted_bce
from aespa.models.network import AespaNetwork
from aespa.original.aespa_rounds import Click
from aespa.original.metrics import compute_metrics, eval_seg
from aespa.original.rounds import cluster_click, follow_click
from aespa.original.spa_rounds import Draw, Select, sample_probabilities
from aespa.proposing import latent_draws
from aespa.rounds import Answer, Knowledge, answer, learn, no_knowledge
from medshared.gpu import derive_seed

Metrics = dict[str, float]


@dataclass(frozen=True)
class OriginalScores:
    """The scores of a validation, one entry a round.

    Attributes:
        loss: mean over the batches of the weighted cross entropy; in SPA that of the binary output.
        iou: likewise.
        dice: likewise; in SPA these three are divided by the number of batches once more, as in the original's logs.
        metrics: over several raters, with the round's number under ``run``.
        batches: number of batches n; the first three times n are the means in SPA.
    """

    loss: list[float]
    iou: list[float]
    dice: list[float]
    metrics: list[Metrics]
    batches: int


@dataclass(frozen=True)
class RoundScores:
    """One round of one batch."""

    loss: float
    iou: float
    dice: float
    metrics: Metrics


@torch.no_grad()
def validate_as_original(
    network: AespaNetwork,
    arrays: RaterArrays,
    config: Config,
    between: Callable[[], None] | None = None,
) -> OriginalScores:
    """Validate in the original's way; the chance of clicks and raters belongs to the seed and the image.

    Args:
        network: in evaluation mode.
        arrays: the images.
        config: resolved configuration.
        between: called before every batch; may raise to end the validation.

    Returns:
        The scores.

    Raises:
        ValueError: for mode SAM, which the original does not have.
    """
    if config.mode == "SAM":
        raise ValueError("the original validates AESPA and SPA, not SAM")
    device = network.initial_responsibilities.device
    batches: list[list[RoundScores]] = []
    for start in range(0, len(arrays), config.b):
        if between is not None:
            between()
        batch = arrays.batch(range(start, min(start + config.b, len(arrays))), device)
        names = [arrays.names[int(i)] for i in batch.index]
        draws = ItemDraws([derive_seed(config.seed, "validation", name) for name in names])
        validate = _validate_aespa if config.mode == "AESPA" else _validate_spa
        batches.append(validate(network, batch, draws, config))
    return average(batches, twice=config.mode == "SPA")


def average(batches: list[list[RoundScores]], *, twice: bool) -> OriginalScores:
    """Average over batches, each with the same weight.

    Args:
        batches: rounds of every batch.
        twice: divide loss, IoU and Dice by the number of batches once more, as the original does in SPA.
    """
    n = len(batches)
    share = 1 / n if twice else 1.0
    plain = np.array([[(s.loss, s.iou, s.dice) for s in rounds] for rounds in batches]).mean(axis=0) * share
    metrics = [
        {key: float(np.mean([s.metrics[key] for s in same])) for key in same[0].metrics}
        for same in zip(*batches, strict=True)
    ]
    loss, iou, dice = plain.T.tolist()
    return OriginalScores(loss, iou, dice, [{**each, "run": i} for i, each in enumerate(metrics)], n)


def _validate_aespa(
    network: AespaNetwork, batch: Batch, draws: ItemDraws, config: Config
) -> list[RoundScores]:
    click = follow_click(batch, draws, config, switch=0.0)
    chain = aespa_chain(network, network.encode(batch.images), click, config.runs)
    return list(score_aespa(network, chain, batch.raters, batch.valid, config.pos_weight))


def _validate_spa(network: AespaNetwork, batch: Batch, draws: ItemDraws, config: Config) -> list[RoundScores]:
    groups = draw_groups(batch.raters, batch.valid, draws.streams, kind=config.first_click)
    chain = spa_chain(
        network,
        network.encode(batch.images),
        (groups.coords, groups.labels),
        lambda: latent_draws(draws, config.num_samples, batch.images.device),
        cluster_click(network, groups.mask, draws, config),
        n_samples=config.num_samples,
        runs=config.runs,
    )
    return list(score_spa(network, chain, groups.mask, batch.raters, batch.valid, config.pos_weight))


@dataclass(frozen=True)
class Said:
    """What the network said in a round.

    Attributes:
        answer: its masks and the mixture.
        knowledge: what it knew.
        followed: ``[B]``, whom the click before this round followed; -1 nobody.
    """

    answer: Answer
    knowledge: Knowledge
    followed: Tensor


def aespa_chain(network: AespaNetwork, features: Tensor, click: Click, runs: int) -> Iterator[Said]:
    """Yield the rounds of AESPA.

    Args:
        network: in evaluation mode.
        features: embedded images ``[B,256,g,g]``.
        click: from probabilities ``[B,S,S]`` and followed raters ``[B]`` to the next click.
        runs: rounds.
    """
    knowledge = no_knowledge(network, len(features), features.device)
    followed = torch.full((len(features),), -1, device=features.device)
    for _ in range(runs):
        said = answer(network, features, knowledge)
        yield Said(said, knowledge, followed)
        probabilities = torch.sigmoid(said.mean.float())
        clicks = click(torch.sigmoid(network.upsample(said.mean.float()))[:, 0], followed)
        found = network.responsibilities(probabilities.flatten(1), said.mixture)
        knowledge = learn(knowledge, said, found).clicked(clicks.coords, clicks.labels)
        followed = clicks.rater


def spa_chain(
    network: AespaNetwork,
    features: Tensor,
    first: tuple[Tensor, Tensor],
    draw: Draw,
    select: Select,
    *,
    n_samples: int,
    runs: int,
) -> Iterator[Said]:
    """Yield the rounds of SPA, where unlike in training no mask is a prompt.

    Args:
        network: in evaluation mode.
        features: embedded images ``[B,256,g,g]``.
        first: (x, y) ``[B,2]`` and label ``[B]`` of the first click.
        draw: chance of the latents of a round.
        select: from probabilities of all samples ``[B,N,(4g)^2]`` to the mean of the chosen cluster and the next click.
        n_samples: N.
        runs: rounds.
    """
    knowledge = no_knowledge(network, len(features), features.device).clicked(*first)
    nobody = torch.full((len(features),), -1, device=features.device)
    for _ in range(runs):
        said = answer(network, features, knowledge, n_samples=n_samples, draws=draw())
        yield Said(said, knowledge, nobody)
        chosen, clicks = select(sample_probabilities(said))
        found = network.responsibilities(chosen, said.mixture)
        clicked = knowledge.clicked(clicks.coords, clicks.labels)
        knowledge = Knowledge(clicked.coords, clicked.labels, None, found)


def score_aespa(
    network: AespaNetwork, chain: Iterator[Said], raters: Tensor, valid: Tensor, pos_weight: float = 2.0
) -> Iterator[RoundScores]:
    """Score rounds of AESPA against the mask that most valid raters agree on.

    Args:
        network: enlarges the logits.
        chain: the rounds.
        raters: ``[B,R,S,S]``.
        valid: bool ``[B,R]``.
        pos_weight: of lesion pixels in the cross entropy.
    """
    weight = valid.to(raters) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    neutral = (torch.einsum("brhw,br->bhw", raters, weight) > 0.5).to(raters)[:, None]
    history: list[Tensor] = []
    for index, said in enumerate(chain):
        logits = network.upsample(said.answer.mean.float())
        probabilities = torch.sigmoid(logits)
        history.append(probabilities)
        iou, dice = eval_seg((probabilities > 0.5).float(), neutral)
        metrics = compute_metrics(
            probabilities,
            raters,
            valid,
            torch.stack(history, dim=1),
            said.followed if index else None,
            run=index,
        )
        yield RoundScores(weighted_bce(logits, neutral, pos_weight).item(), iou, dice, metrics)


def score_spa(
    network: AespaNetwork,
    chain: Iterator[Said],
    wanted: Tensor,
    raters: Tensor,
    valid: Tensor,
    pos_weight: float = 2.0,
) -> Iterator[RoundScores]:
    """Score rounds of SPA as the original: logits above 0.5 are the mask, and its cross entropy is that of this mask.

    Args:
        network: enlarges the logits.
        chain: the rounds.
        wanted: ``[B,S,S]``, the mask of the group that the user belongs to.
        raters: ``[B,R,S,S]``.
        valid: bool ``[B,R]``.
        pos_weight: of lesion pixels in the cross entropy.
    """
    history: list[Tensor] = []
    target = wanted[:, None].float()
    for index, said in enumerate(chain):
        binary = (network.upsample(said.answer.mean.float()) > 0.5).float()
        history.append(binary)
        iou, dice = eval_seg(binary, target)
        metrics = compute_metrics(binary, raters, valid, torch.stack(history, dim=1), run=index)
        yield RoundScores(weighted_bce(binary, target, pos_weight).item(), iou, dice, metrics)
