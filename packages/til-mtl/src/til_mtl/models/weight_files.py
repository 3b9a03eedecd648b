"""Reading weight files of any kind: checkpoints of torch and Lightning, safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from medshared import weights
from til_mtl.errors import CheckpointError

STATE_KEYS = (*weights.STATE_KEYS, "student", "network")  # where checkpoints keep a state dictionary


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a weight file without running code that it may hold.

    Args:
        path: ``.safetensors``, or a file of ``torch.save`` under any name (``.torch``, ``.pth``, ``.pt``, ``.ckpt``).

    Returns:
        Names and tensors, without ``module.`` where all names share it; and the checkpoint's other entries (epoch,
        configuration, …; not the optimiser's state).

    Raises:
        CheckpointError: Naming the file: missing, damaged, unsafe, or without a state dictionary.
    """
    path = Path(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    try:
        state = weights.extract_state_dict(content, STATE_KEYS)
    except weights.WeightsError as error:
        raise CheckpointError(f"{path}: {error}") from None
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: expected names and tensors, found a state dictionary without tensors")
    others: dict[str, Any] = {}
    if any(isinstance(content.get(key), Mapping) for key in STATE_KEYS):
        dropped = (*STATE_KEYS, "optimizer", "optimizer_states")
        others = {str(key): value for key, value in content.items() if key not in dropped}
    return tensors, others


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        content = weights.load_checkpoint(path)
    except weights.WeightsError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: expected a checkpoint or a state dictionary, found {type(content).__name__}"
        )
    return content


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: the weight file could not be read, it may be damaged: {error}"
        ) from error
