"""The optimiser and the learning-rate schedule of a run."""

from __future__ import annotations

import logging
from typing import Any

import torch

from infection_mt.config import Config

logger = logging.getLogger(__name__)


def build_optimizer(config: Config, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser of the ``optimizer`` section."""
    o = config.optimizer
    if o.name == "sgd":
        return torch.optim.SGD(parameters, lr=o.lr, weight_decay=o.weight_decay, momentum=o.momentum)
    kind = torch.optim.AdamW if o.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=o.lr, weight_decay=o.weight_decay, betas=o.betas, eps=o.eps, amsgrad=o.amsgrad)


def build_scheduler(config: Config, optimizer: Any) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Build the schedule, stepped once an epoch; cosine annealing keeps PyTorch's recursion.

    A ``t_max`` below the number of epochs lets the rate rise again, as in the original's 100-epoch runs; the log
    warns of it.
    """
    s = config.scheduler
    if s is None or s.type == "none":
        return None
    t_max = s.t_max or max(config.training.epochs - s.warmup_epochs, 1)
    if t_max < config.training.epochs - s.warmup_epochs:
        logger.warning(
            "scheduler.t_max %d is below the %d epochs: the learning rate rises again after epoch %d",
            t_max,
            config.training.epochs,
            t_max,
        )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=t_max, eta_min=s.eta_min)
    if not s.warmup_epochs:
        return cosine
    warmup = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / (s.warmup_epochs + 1), total_iters=s.warmup_epochs
    )
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[s.warmup_epochs])
