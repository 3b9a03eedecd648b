"""The losses of a batch, round by round, for the three methods.

Each function is a generator of one loss a round, so that the caller decides when to step: after every round with new
image features (``update: per_round``), or once a batch with the features of one pass (``update: per_batch``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aespa.clicks import NO_CLICK, ClickDraws, Clicks, simulate_clicks
from aespa.config import Config
from aespa.draws import ItemDraws
from aespa.losses import mixture_mse, weighted_bce
from aespa.models.network import AespaNetwork
from aespa.rounds import Answer, answer, learn, low_resolution, no_knowledge


@dataclass(frozen=True)
class RoundLoss:
    """Losses of one round.

    Attributes:
        mask: Cross entropy of the recommended mask, and in SPA of the chosen proposal.
        mixture: Squared error of the refined mixture weights.
    """

    mask: Tensor
    mixture: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.mask + self.mixture


Encode = Callable[[], Tensor]


def mean_of_valid(raters: Tensor, valid: Tensor) -> Tensor:
    """Return the mean mask ``[B, S, S]`` of the valid raters; zeros without any.

    Args:
        raters: ``[B, R, S, S]``, 0 or 1.
        valid: bool ``[B, R]``.
    """
    weight = valid.to(raters) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("brhw,br->bhw", raters, weight)


def follow_losses(
    network: AespaNetwork,
    encode: Encode,
    raters: Tensor,
    valid: Tensor,
    draws: ItemDraws,
    config: Config,
) -> Iterator[RoundLoss]:
    """Yield the losses of AESPA: a simulated user follows one rater, and the target those who agree with the click.

    Args:
        network: In training.
        encode: Returns the image features ``[B, 256, g, g]`` for a round.
        raters: ``[B, R, S, S]``.
        valid: bool ``[B, R]``.
        draws: Of the batch.
        config: Resolved configuration.
    """
    target = mean_of_valid(raters, valid if config.valid_only else torch.ones_like(valid))
    knowledge = no_knowledge(network, len(raters), raters.device)
    followed = torch.full((len(raters),), -1, device=raters.device)
    agreeing = valid
    for _ in range(config.runs):
        said = answer(network, encode(), knowledge)
        logits = network.upsample(said.mean)[:, 0].float()
        mask_loss = weighted_bce(logits, target, config.pos_weight)
        with torch.no_grad():
            clicks = simulate_clicks(
                torch.sigmoid(logits),
                raters,
                valid,
                followed,
                draws=click_draws(draws, raters.device),
                switch=config.switch_rater,
                candidates=config.candidates,
                stop_when_right=bool(config.stop_when_right),
                valid_only=bool(config.valid_only),
            )
        wanted = clicks.target
        if config.agreement == "all":
            agreeing = still_agreeing(agreeing, raters, valid, clicks, followed)
            right = clicks.labels == NO_CLICK
            wanted = torch.where(right[:, None, None], wanted, mean_of_valid(raters, agreeing))
        mixture_loss, responsibilities = refine(network, said, wanted)
        yield RoundLoss(mask_loss, mixture_loss)
        target, followed = wanted, clicks.rater
        knowledge = learn(knowledge, said, responsibilities).clicked(clicks.coords, clicks.labels)


def still_agreeing(
    agreeing: Tensor, raters: Tensor, valid: Tensor, clicks: Clicks, followed: Tensor
) -> Tensor:
    """Return the raters who agree with all clicks since the user last changed whom to follow.

    With the last click alone, as in the original, a click that all raters agree with makes the network forget what
    the clicks before it have told.

    Args:
        agreeing: bool ``[B, R]`` before this click.
        raters: ``[B, R, S, S]``.
        valid: bool ``[B, R]``.
        clicks: Of this round.
        followed: int64 ``[B]``, who was followed before it; −1 nobody.
    """
    rows = torch.arange(len(raters), device=raters.device)
    x, y = clicks.coords.long().unbind(dim=1)
    agree = ((raters[rows, :, y, x] > 0.5) == (clicks.labels == 1)[:, None]) & valid
    agree = torch.where((clicks.labels == NO_CLICK)[:, None], valid, agree)
    changed = (followed >= 0) & (followed != clicks.rater)
    both = torch.where(changed[:, None], agree, agreeing & agree)
    return torch.where(both.any(dim=1, keepdim=True), both, agree)


def plain_losses(
    network: AespaNetwork,
    encode: Encode,
    raters: Tensor,
    valid: Tensor,
    draws: ItemDraws,
    config: Config,
) -> Iterator[RoundLoss]:
    """Yield the losses of a plain SAM, which learns the mask that the raters agree on and to be corrected towards it.

    Args:
        network: Without preferences.
        encode: Returns the image features ``[B, 256, g, g]`` for a round.
        raters: ``[B, R, S, S]``.
        valid: bool ``[B, R]``.
        draws: Of the batch.
        config: Resolved configuration.
    """
    target = (mean_of_valid(raters, valid) > 0.5).to(raters)
    knowledge = no_knowledge(network, len(raters), raters.device)
    everyone = torch.ones(len(raters), 1, dtype=torch.bool, device=raters.device)
    followed = torch.zeros(len(raters), dtype=torch.int64, device=raters.device)
    for _ in range(config.runs):
        said = answer(network, encode(), knowledge)
        logits = network.upsample(said.mean)[:, 0].float()
        yield RoundLoss(weighted_bce(logits, target, config.pos_weight), logits.new_zeros(()))
        with torch.no_grad():
            clicks = simulate_clicks(
                torch.sigmoid(logits),
                target[:, None],
                everyone,
                followed,
                draws=click_draws(draws, raters.device),
                switch=0.0,
                candidates=config.candidates,
                stop_when_right=bool(config.stop_when_right),
            )
        knowledge = learn(knowledge, said, knowledge.responsibilities).clicked(clicks.coords, clicks.labels)


def click_draws(draws: ItemDraws, device: torch.device | str) -> ClickDraws:
    """Draw the chance of one round of clicks."""
    return ClickDraws(*torch.from_numpy(draws.uniform(4).T.astype("float32").copy()).to(device))


def refine(network: AespaNetwork, said: Answer, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of the mixture's weights and the responsibilities of the mask that was predicted.

    The weights that ``EM_weights`` makes of the predicted mask's responsibilities are compared with the
    responsibilities of the mask that was wanted, which is a constant here.

    Args:
        network: In training.
        said: Of this round.
        wanted: ``[B, S, S]`` in [0, 1].

    Returns:
        The loss, and ``[B, K]`` without gradient.
    """
    with torch.no_grad():
        found = network.responsibilities(torch.sigmoid(said.mean.float()).flatten(1), said.mixture)
        target = network.responsibilities(low_resolution(network, wanted).flatten(1), said.mixture)
    return mixture_mse(network.EM_weights(found), target), found
