"""One update of a baseline network from one group of bags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from advmil import losses
from advmil.backpropagation import (
    Arithmetic,
    GroupLoss,
    Memory,
    backpropagate,
    full_precision,
    penalise,
    trained_parameters,
)
from advmil.config import Config
from advmil.groups import Bag, FirstLayers, GroupLabels, StepResult, input_of, make_group, number
from advmil.models.survival_net import SurvivalNet
from advmil.sharing import Draws, GroupWork
from medshared.distributed import Share, optimizer_parameters


@dataclass(frozen=True)
class BaselineSettings:
    """Loss of a baseline and how it is computed."""

    task: Literal["surv_reg", "surv_cox", "surv_nll"]
    l1_coef: float | None = 1e-5
    reg_loss: Literal["mse", "recon"] = "mse"  # surv_reg: squared error, or the time loss of AdvMIL
    include_censored: bool = True  # mse: the censored count
    recon_norm: losses.Norm = "l1"
    recon_alpha: float = 0.0
    recon_gamma: float = 0.0
    mle_alpha: float = 0.0
    memory: Memory = "bag"
    freeze_unused: bool = True
    cox_faithful: bool = False  # the original's training loss, in which every bag counts as an event
    events_inverted_faithful: bool = False  # surv_nll: likelihood with events and censored swapped
    draws: Draws = "stream"

    @classmethod
    def from_config(cls, config: Config) -> BaselineSettings:
        """Take the settings from a configuration of ``--handler base``.

        As in the original, ``surv_reg`` has the squared error with the patch backbone and AdvMIL's time loss with the
        others.
        """
        config = config.resolved()
        task = config.task
        if task not in ("surv_reg", "surv_cox", "surv_nll"):
            raise ValueError(f"task of a baseline: expected surv_reg, surv_cox or surv_nll, found {task}")
        return cls(
            task=task,
            l1_coef=config.loss_regl1_coef,
            reg_loss="mse" if config.bcb_mode == "patch" else "recon",
            include_censored=config.loss_use_censored,
            recon_norm=config.loss_recon_norm,
            recon_alpha=config.loss_recon_alpha,
            recon_gamma=config.loss_recon_gamma,
            mle_alpha=config.loss_mle_alpha,
            memory=config.memory,
            freeze_unused=bool(config.freeze_unused),
            draws=config.draws or "stream",
        )


class BaselineUpdate:
    """Updates of a baseline from groups of bags.

    Args:
        network: Backbone and head.
        optimizer: Its optimiser.
        settings: Loss.
        arithmetic: How passes are run.
    """

    def __init__(
        self,
        network: SurvivalNet,
        optimizer: Optimizer,
        settings: BaselineSettings,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.network, self.optimizer, self.settings = network, optimizer, settings
        self.arithmetic = arithmetic or Arithmetic()
        self._first_layers = FirstLayers(network.backbone)
        self._penalised = trained_parameters(network, network.unused if settings.freeze_unused else ())

    @property
    def _like(self) -> Tensor:
        return next(self.network.parameters())

    def step(self, bags: Sequence[Bag], labels: GroupLabels, share: Share | None = None) -> StepResult:
        """Update the network on one group.

        Args:
            bags: The group.
            labels: Its labels.
            share: Which bags are this process's; the places of the others hold nothing. By default all.

        Returns:
            The predictions before the update, from the training pass, as the original's metrics use them.
        """
        group = make_group(bags, labels, None, self._like)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        work = GroupWork(len(bags), self.settings.draws, share)
        values: list[Tensor] = []
        compared: list[Tensor] = []

        def each(i: int, prediction: Tensor) -> Tensor:
            terms = self._terms(prediction, group.t[i : i + 1], group.e[i : i + 1])
            values.append(terms.detach().sum() / len(bags))
            return terms.sum() / len(bags)

        def together(predictions: Tensor) -> Tensor:
            function = losses.cox_loss_faithful if self.settings.cox_faithful else losses.cox_loss
            loss = function(predictions, group.t, group.e)
            compared.append(loss.detach())
            return loss

        def forward(i: int) -> Tensor:
            work.begin(i)
            return self._forward(i, bags[i])

        cox = self.settings.task == "surv_cox"
        predictions = backpropagate(
            len(bags),
            forward,
            GroupLoss(lambda *_: None, together) if cox else GroupLoss(each),
            memory=self.settings.memory,
            device=self._like.device,
            arithmetic=self.arithmetic,
            work=work,
        )
        work.end()
        work.add_gradients(optimizer_parameters(self.optimizer))
        penalty = number(penalise(self._penalised, self.settings.l1_coef, self.arithmetic))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._first_layers.clear()
        # Every process compares the whole group, but sums its own bags.
        supervised = number(torch.stack(compared).sum() if cox else work.total(values, self._like))
        log = {"loss_supervision": supervised, "loss_total": supervised + penalty}
        return StepResult(
            predictions.cpu(), None, {f"train_batch/net/{key}": value for key, value in log.items()}
        )

    def _forward(self, i: int, bag: Bag) -> Tensor:
        x, extra = input_of(bag, self._like)
        backbone = self.network.backbone
        with self.arithmetic.forward():
            patches = backbone.first_layer(x, self._first_layers.take(i, bag.x))
            if not torch.is_grad_enabled():  # the first of two passes
                self._first_layers.keep(i, bag.x, patches)
            return full_precision(self.network.head(backbone.encode(patches, extra)))

    def _terms(self, prediction: Tensor, t: Tensor, e: Tensor) -> Tensor:
        settings = self.settings
        if settings.task == "surv_reg" and settings.reg_loss == "mse":
            return losses.mse_terms(prediction, t, e, include_censored=settings.include_censored)
        if settings.task == "surv_reg":
            alpha, gamma, norm = settings.recon_alpha, settings.recon_gamma, settings.recon_norm
            return losses.recon_terms(prediction, t, e, alpha=alpha, gamma=gamma, norm=norm)
        e = 1 - e if settings.events_inverted_faithful else e
        return losses.mle_terms(prediction, t, e, alpha=settings.mle_alpha)
