"""Checkpoints of the original: ``<p>modelG-best.pth`` and its like."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medshared.weights import (
    LoadReport,
    WeightsError,
    extract_state_dict,
    load_checkpoint,
    load_state_dict,
    save_checkpoint,
)

logger = logging.getLogger(__name__)

_TEMPERATURE = re.compile(r"(layers\.\d+\.conv)\.aggr_module\.t$")
_MLP_BIAS = re.compile(r"layers\.\d+\.conv\.mlp\.[04]\.bias$")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What a checkpoint held beside the weights.

    Attributes:
        epoch: Finished epochs (1-based number of the last one); None in a bare state dictionary.
        optimizer: State of its optimiser; None where there is none.
        report: What of the weights fitted.
        notes: Changes that the weights needed, in words.
    """

    epoch: int | None
    optimizer: dict[str, Any] | None
    report: LoadReport
    notes: tuple[str, ...] = ()


def adapt_state_dict(state: Mapping[str, Any], module: nn.Module) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Spell a state dictionary as this package does.

    Current graph libraries call the softmax temperature of a graph convolution ``aggr_module.t`` and leave out the
    biases of its network by default; a network without biases is one with zero biases.

    Args:
        state: Names and tensors.
        module: The network that they are for.

    Returns:
        The state dictionary, and what was changed in words.
    """
    adapted: dict[str, Any] = {}
    notes = []
    for key, value in state.items():
        name = _TEMPERATURE.sub(r"\1.t", key)
        if name != key:
            notes.append(f"{key} is read as {name}")
        if name.endswith("conv.t") and isinstance(value, Tensor):
            value = value.reshape(1)
        adapted[name] = value
    missing = [key for key in module.state_dict() if key not in adapted and _MLP_BIAS.search(key)]
    weights_of_missing = [key for key in missing if f"{key.removesuffix('bias')}weight" in adapted]
    own = module.state_dict()
    for key in weights_of_missing:
        adapted[key] = torch.zeros_like(own[key])
        notes.append(f"{key} is not in the file: zero")
    return adapted, tuple(notes)


def load_network(path: str | Path, network: nn.Module) -> LoadedCheckpoint:
    """Load a checkpoint of this package or of the original into a network, all of it.

    Args:
        path: The file: a dictionary with ``epoch``, ``model`` and ``optimizer``, or a bare state dictionary.
        network: Generator, discriminator or baseline of the same configuration.

    Raises:
        WeightsError: The file cannot be read, or its weights do not fit; with a table of what differs. The network is
            unchanged then.
    """
    content = load_checkpoint(path)
    try:
        state, notes = adapt_state_dict(extract_state_dict(content), network)
        report = load_state_dict(network, state, strict=True)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    for note in notes:
        logger.info("%s: %s", path, note)
    wrapped = isinstance(content, Mapping) and isinstance(content.get("model"), Mapping)
    epoch, optimizer = (content.get("epoch"), content.get("optimizer")) if wrapped else (None, None)
    return LoadedCheckpoint(epoch if isinstance(epoch, int) else None, optimizer, report, notes)


def save_network(
    path: str | Path, network: nn.Module, epoch: int, optimizer: torch.optim.Optimizer | None = None
) -> Path:
    """Write a checkpoint in the original's form.

    Args:
        path: The file; it is replaced as a whole.
        network: Generator, discriminator or baseline.
        epoch: Number of the finished epoch, 1-based.
        optimizer: Its optimiser.
    """
    state = {
        "epoch": epoch,
        "model": network.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
    }
    return save_checkpoint(path, state)
