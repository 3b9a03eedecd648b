"""Training on a batch in the original's order: several optimiser steps a round (``update: alternating``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aespa.clicks import Clicks, simulate_clicks
from aespa.clustering import choose_cluster, selection_clicks
from aespa.config import Config
from aespa.data.arrays import Batch
from aespa.draws import ItemDraws
from aespa.errors import TrainingError
from aespa.first_click import draw_groups
from aespa.models.network import AespaNetwork
from aespa.original.aespa_rounds import Click, aespa_rounds
from aespa.original.phases import Phases
from aespa.original.spa_rounds import Select, spa_rounds
from aespa.proposing import latent_draws
from aespa.rounds import low_resolution
from aespa.training_rounds import click_draws


def alternating_step(
    network: AespaNetwork, optimizer: Any, batch: Batch, *, draws: ItemDraws, config: Config
) -> dict[str, float]:
    """Train on one batch in the original's order.

    Args:
        network: in training.
        optimizer: Adam of all its parameters; parts that never learn get no moments.
        batch: images and raters.
        draws: chance of the batch's images.
        config: resolved configuration.

    Returns:
        ``loss``, the sum over all steps as the original reports it, and its parts ``mask`` and ``mixture``.

    Raises:
        TrainingError: for what has no such order: mode SAM, and precision 16 (its scale belongs to one step a batch).
    """
    if config.amp == "16":
        raise TrainingError("update: alternating takes several steps a batch: use -amp 32 or -amp bf16")
    phases = Phases(network, optimizer)
    # Casts are not kept: the weights change between the steps of a batch, and a kept cast would be of the old ones.
    half = config.amp == "bf16"
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        if config.mode == "AESPA":
            _train_aespa(phases, batch, draws, config)
        elif config.mode == "SPA":
            _train_spa(phases, batch, draws, config)
        else:
            raise TrainingError("update: alternating trains AESPA and SPA; use -update per_batch for SAM")
    return phases.summary()


def _train_aespa(phases: Phases, batch: Batch, draws: ItemDraws, config: Config) -> None:
    nobody = torch.full((len(batch),), -1, device=batch.raters.device)
    start = simulate_clicks(None, batch.raters, batch.valid, nobody, valid_only=bool(config.valid_only))
    click = follow_click(batch, draws, config, switch=config.switch_rater)
    aespa_rounds(phases, batch.images, start.target, click, runs=config.runs, pos_weight=config.pos_weight)


def _train_spa(phases: Phases, batch: Batch, draws: ItemDraws, config: Config) -> None:
    groups = draw_groups(batch.raters, batch.valid, draws.streams, kind=config.first_click)
    spa_rounds(
        phases,
        batch.images,
        groups.mask,
        (groups.coords, groups.labels),
        lambda: latent_draws(draws, config.num_samples, batch.images.device),
        cluster_click(phases.network, groups.mask, draws, config),
        n_samples=config.num_samples,
        runs=config.runs,
        pos_weight=config.pos_weight,
    )


def follow_click(batch: Batch, draws: ItemDraws, config: Config, *, switch: float) -> Click:
    """Return the user of AESPA, who follows a rater.

    Args:
        batch: with the raters.
        draws: chance of the batch's images.
        config: resolved configuration.
        switch: chance that another rater is followed from now on.
    """

    def click(probabilities: Tensor, followed: Tensor) -> Clicks:
        return simulate_clicks(
            probabilities,
            batch.raters,
            batch.valid,
            followed,
            draws=click_draws(draws, batch.raters.device),
            switch=switch,
            candidates=config.candidates,
            stop_when_right=bool(config.stop_when_right),
            valid_only=bool(config.valid_only),
        )

    return click


def cluster_click(network: AespaNetwork, wanted: Tensor, draws: ItemDraws, config: Config) -> Select:
    """Return the user of SPA, who picks the cluster nearest to a mask and clicks where it differs from the others.

    Args:
        network: knows the resolutions.
        wanted: ``[B,S,S]``.
        draws: chance of the batch's images.
        config: resolved configuration; ``faithful`` clusters the whole batch at once.
    """
    side = network.architecture.low_res
    small = low_resolution(network, wanted).flatten(1)

    def select(samples: Tensor) -> tuple[Tensor, Clicks]:
        choice = choose_cluster(samples, small, config.n_clusters, joint=config.faithful)
        clicks = selection_clicks(
            choice.select.unflatten(1, (side, side)),
            choice.exclude.unflatten(1, (side, side)),
            wanted,
            choice.has_alternative,
            candidates=config.candidates,
            enlarge=network.architecture.upsample,
            pixel=torch.from_numpy(draws.uniform(1)[:, 0]),
        )
        return choice.select, clicks

    return select
