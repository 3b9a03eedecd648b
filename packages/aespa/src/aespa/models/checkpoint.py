"""Checkpoints of this package and of the original."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aespa.errors import CheckpointError
from aespa.models.architecture import SIZES, Architecture
from aespa.models.build import empty_network
from aespa.models.network import AespaNetwork
from aespa.models.sam_weights import check_fit
from aespa.models.tables import resize_positions, resize_relative
from medshared.weights import WeightsError, extract_state_dict, load_checkpoint, save_checkpoint

START = "EM_weights"  # key of the starting responsibilities, beside the state dictionary
MEND = "give a checkpoint that train.py wrote, or train anew"


def save_network(path: str | os.PathLike[str], network: AespaNetwork, **extra: Any) -> Path:
    """Write a checkpoint atomically, with the original's keys and the network's architecture.

    Args:
        path: file to write.
        network: the network.
        **extra: more entries, such as ``epoch`` and ``optimizer``; tensors and plain values.

    Returns:
        The path.
    """
    k = network.architecture.n_components
    state = {
        "epoch": 0,
        "model": "sam",
        "state_dict": {key: value.detach() for key, value in network.state_dict().items()},
        START: network.initial_responsibilities.detach().cpu().double(),
        "EM_means": torch.zeros(k, dtype=torch.float64),  # nothing reads these two, in the original neither
        "EM_variances": torch.ones(k, dtype=torch.float64),
        "architecture": network.architecture.to_dict(),
    }
    return save_checkpoint(path, {**state, **extra})


def load_network(
    path: str | os.PathLike[str], *, device: str | torch.device = "cpu", image_size: int | None = None
) -> tuple[AespaNetwork, dict[str, Any]]:
    """Read a checkpoint of this package or of the original.

    Args:
        path: the file.
        device: where the network is put; the rest stays on the CPU.
        image_size: side of the input in pixels if it is to differ from the checkpoint's; the position tables are
            resized.

    Returns:
        The network in evaluation mode, and what else the file holds.

    Raises:
        CheckpointError: naming the file, what does not fit and what to do.
    """
    loaded = read_checkpoint(path)
    try:
        bare = {key: value for key, value in loaded.items() if "." in key}
        state = extract_state_dict(loaded if "state_dict" in loaded else bare, keys=("state_dict",))
    except WeightsError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}; {MEND}") from error
    architecture = _architecture(path, loaded, state)
    if image_size is not None and image_size != architecture.image_size:
        try:
            architecture = architecture.resized(image_size)
        except ValueError as error:
            raise CheckpointError(f"{os.fspath(path)}: {error}") from error
        state = resize_state(state, architecture)
    network = empty_network(architecture)
    check_fit(path, state, network.state_dict(), mend=MEND)
    network.load_state_dict(state)
    network.initial_responsibilities.copy_(_start(path, loaded, architecture.n_components))
    rest = {key: value for key, value in loaded.items() if key != "state_dict"}
    return network.to(device).eval(), rest


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of ``torch.save`` safely; the original's NumPy vectors are allowed, and no other objects.

    Raises:
        CheckpointError: naming the file, when it is missing, damaged, unsafe or something else.
    """
    try:
        with torch.serialization.safe_globals(_numpy_arrays()):
            loaded = load_checkpoint(path)
    except WeightsError as error:
        raise CheckpointError(f"{error}; {MEND}") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{os.fspath(path)}: expected a mapping, found {type(loaded).__name__}; {MEND}")
    return dict(loaded)


def _numpy_arrays() -> list[Any]:
    """Return what pickled arrays of numbers refer to, under the names of NumPy 1 and 2."""

    def reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
        if kind is not np.ndarray or tuple(shape) != (0,):
            raise WeightsError(f"a pickled NumPy array of type {kind} is refused")
        return np.empty(0, dtype=np.int8)  # its state follows

    numbers = [np.float32, np.float64, np.int32, np.int64]
    kinds = {type(np.dtype(number)) for number in numbers}
    modules = ("numpy._core.multiarray", "numpy.core.multiarray")
    return [np.ndarray, np.dtype, *kinds, *((reconstruct, f"{name}._reconstruct") for name in modules)]


def _architecture(
    path: str | os.PathLike[str], loaded: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Architecture:
    """Return the architecture that a checkpoint names, or that the original's shapes imply."""
    if isinstance(loaded.get("architecture"), Mapping):
        try:
            return Architecture.from_dict(loaded["architecture"])
        except CheckpointError as error:
            raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    if any(".attn.rel_pos_h" in key for key in state):
        raise CheckpointError(
            f"{os.fspath(path)}: weights of SAM, without preferences: pass the file as -sam_ckpt"
        )
    tables = state.get("image_encoder.blocks.2.attn.rel_h")
    weights = state.get("EM_weights.fc1.weight")
    if tables is None or weights is None:
        raise CheckpointError(
            f"{os.fspath(path)}: no checkpoint of this network: its {len(state)} tensors lack "
            f"image_encoder.blocks.2.attn.rel_h or EM_weights.fc1.weight; {MEND}"
        )
    grid = (tables.shape[0] + 1) // 2
    return Architecture.original(grid * SIZES["vit_b"].patch, weights.shape[1])


def _start(path: str | os.PathLike[str], loaded: Mapping[str, Any], k: int) -> Tensor:
    """Return the responsibilities of the first round, ``[K]``."""
    found = loaded.get(START)
    if not isinstance(found, Tensor | np.ndarray):
        raise CheckpointError(
            f"{os.fspath(path)}: no vector {START!r} beside the state dictionary; the first round needs it. "
            "Save the whole checkpoint, not the state dictionary alone"
        )
    if isinstance(found, np.ndarray) and found.dtype.kind not in "fi":
        raise CheckpointError(f"{os.fspath(path)}: {START!r} holds {found.dtype}, expected numbers; {MEND}")
    vector = torch.as_tensor(found)
    if vector.shape != (k,):
        raise CheckpointError(f"{os.fspath(path)}: {START!r} is {list(vector.shape)}, expected [{k}]; {MEND}")
    return vector.float()


def resize_state(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Return weights for another image size: tables of places are resized, all else is the same.

    Args:
        state: state dictionary of the same network at any image size.
        architecture: the network with the image size wanted.

    Returns:
        A state dictionary.
    """
    size, rows = architecture.size, 2 * architecture.grid - 1
    result = dict(state)
    for block in size.global_blocks:
        for axis in "hw":
            key = f"image_encoder.blocks.{block}.attn.rel_{axis}"
            if key in result:
                result[key] = resize_relative(result[key].float(), rows)
    if size.stored_grid is None and "image_encoder.pos_embed" in result:
        table = resize_positions(result["image_encoder.pos_embed"].float(), architecture.grid)
        result["image_encoder.pos_embed"] = table.contiguous()
    return result
