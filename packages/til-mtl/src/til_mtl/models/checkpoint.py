"""Checkpoints of this package and of the original: which network they belong to, and loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from medshared import weights
from til_mtl.config import Config, Task
from til_mtl.errors import CheckpointError
from til_mtl.models.build import assemble_network
from til_mtl.models.deeplab import TilNetwork
from til_mtl.models.encoder import RESNET50
from til_mtl.models.weight_files import read_weights

NAMES = {"mtl": "multi-task network (mtl)", "seg": "tissue network (seg)", "det": "cell network (det)"}
_PREFIXES = ("net.", "_orig_mod.", "module.")  # of the training module, of torch.compile, of DataParallel
_KEPT = (
    "encoder",
    "aspp_rates",
    "freeze_encoder",
    "freeze_until",
    "freeze_bn",
    "faithful",
)  # of a configuration


def load_network(
    path: str | os.PathLike[str], *, task: Task | None = None, device: str | torch.device = "cpu"
) -> tuple[TilNetwork, dict[str, Any]]:
    """Build the network that a checkpoint belongs to and load it strictly.

    Args:
        path: ``best.pt`` or ``last.pt`` of a run, a Lightning ``.ckpt`` of the original, or a bare state dictionary
            (also ``.safetensors``).
        task: What the network must predict: ``mtl``, ``seg`` or ``det``; None takes any.
        device: Where the network is put.

    Returns:
        The network in evaluation mode, in float32; and the checkpoint's other entries (``config``, ``epoch``,
        ``global_step``, …; empty for a bare state dictionary).

    Raises:
        CheckpointError: The file cannot be read, is of another task, or does not fit.
    """
    state, meta = read_weights(path)
    state = _network_state(state)
    config = meta.get("config")
    config = dict(config) if isinstance(config, Mapping) else {}
    found = _task_of(state, config, str(path))
    if task is not None and task != found:
        raise CheckpointError(
            f"{path}: this is a checkpoint of the {NAMES[found]}, the {NAMES[task]} was asked for; "
            "give the checkpoint of that network"
        )
    values: dict[str, Any] = {key: config[key] for key in _KEPT if config.get(key) is not None}
    if values.get("encoder", RESNET50) == RESNET50 and "conv1.0.weight" not in state:
        raise CheckpointError(
            f"{path}: the checkpoint's encoder is not resnet50 and it has no configuration that names it; "
            "use the best.pt or last.pt of the run"
        )
    values |= {"task": found, **_class_numbers(state, found)}
    try:
        network = _assemble(Config.model_validate(values))
        numbers = {
            name: value.float() if value.is_floating_point() else value for name, value in state.items()
        }
        _check(network, numbers)
        network.load_state_dict(numbers, assign=True)
    except (weights.WeightsError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return network.eval().to(device), meta


def _network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's part of a training module's state under the network's own names."""
    result = dict(state)
    for prefix in _PREFIXES:
        members = {name.removeprefix(prefix): v for name, v in result.items() if name.startswith(prefix)}
        result = members or result
    return result


def _task_of(state: Mapping[str, Tensor], config: Mapping[str, Any], path: str) -> Task:
    if any(name.startswith("aspp.") for name in state):
        return "mtl"
    if not any(name.startswith("aspp_seg.") for name in state):
        known = ", ".join(list(state)[:4])
        hint = (
            "; weights of an encoder alone belong into `pretrained`"
            if "layer1.0.conv1.weight" in state
            else ""
        )
        raise CheckpointError(
            f"{path}: these are not the weights of a til-mtl network: expected names that begin with 'aspp.' (mtl) or "
            f"'aspp_seg.' (seg, det), found {len(state)} names like {known}{hint}"
        )
    if config.get("task") in ("seg", "det"):
        return cast("Task", config["task"])
    # The original calls the parts of both single-task networks alike; only the number of classes differs.
    return "det" if len(state.get("final_conv_seg.weight", ())) == 2 else "seg"


def _class_numbers(state: Mapping[str, Tensor], task: Task) -> dict[str, int]:
    keys = {"num_classes_seg": "final_conv_seg.weight", "num_classes_det": "final_conv_det.weight"}
    if task != "mtl":
        keys = {f"num_classes_{task}": "final_conv_seg.weight"}
    return {option: len(state[key]) for option, key in keys.items() if key in state}


def _assemble(config: Config) -> TilNetwork:
    """Build without drawing 40 million random numbers that are overwritten at once."""
    if config.encoder != RESNET50:  # timm runs its networks while it builds them
        return assemble_network(config)
    with torch.device("meta"):
        return assemble_network(config)


def _check(network: TilNetwork, state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes before anything is loaded, for a readable table."""
    own = network.state_dict()
    reshaped = [
        (key, tuple(value.shape), tuple(state[key].shape))
        for key, value in own.items()
        if key in state and value.shape != state[key].shape
    ]
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = {key: tuple(own[key].shape) for key in missing}
    shapes |= {key: tuple(state[key].shape) for key in unexpected}
    matched = [key for key in own if key in state and own[key].shape == state[key].shape]
    report = weights.LoadReport(matched, missing, unexpected, reshaped, shapes)
    if not report.ok:
        raise CheckpointError(f"the weights do not fit the {NAMES[network.task]}:\n{report.table()}")
