"""Checkpoint files: written atomically, read without running code that they may hold."""

from __future__ import annotations

import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.files import atomic_open

if TYPE_CHECKING:
    import torch


class WeightsError(ValueError):
    """Weights that cannot be read, do not fit, or are not there."""


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint atomically that `load_checkpoint` is sure to read back.

    Args:
        path: the file to write.
        state: tensors, numbers, text, and lists, tuples and dictionaries of them. NumPy scalars and paths
            become plain values.

    Returns:
        The path.

    Raises:
        TypeError: naming what safe loading would refuse; nothing is written then.
        OSError: naming the file and the reason; an earlier checkpoint is then unchanged.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint

    ready = _loadable(state, "state")
    with atomic_open(path, "wb") as handle:
        try:
            torch.save(ready, handle)
            handle.flush()
        except RuntimeError as error:
            # torch's archive writer hides the system's error when it fails while closing.
            cause = error.__context__
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror) from error
            raise
        unsafe = get_unsafe_globals_in_checkpoint(handle.name)
        if unsafe:
            raise TypeError(
                f"{os.fspath(path)}: safe loading would refuse {', '.join(unsafe)}; store plain values"
            )
    return Path(path)


def _loadable(value: Any, where: str) -> Any:
    """Copy containers, turn NumPy scalars and paths into plain values, name arrays."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        raise TypeError(f"{where} is a NumPy array, which safe loading refuses: use torch.as_tensor")
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if type(value) in (dict, OrderedDict):
        copy = type(value)()
        if isinstance(value, OrderedDict):
            copy.__dict__.update(value.__dict__)  # the `_metadata` of state dictionaries
        for key, item in value.items():
            copy[_loadable(key, f"{where} key")] = _loadable(item, f"{where}[{key!r}]")
        return copy
    if type(value) in (list, tuple):
        return type(value)(_loadable(item, f"{where}[{index}]") for index, item in enumerate(value))
    return value


def load_checkpoint(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Read a file of ``torch.save`` without running code that it may hold.

    Older checkpoints hold NumPy scalars among their metrics; exactly those are allowed besides what
    ``torch.load(weights_only=True)`` reads.

    Args:
        path: the file.
        map_location: device of the tensors.

    Returns:
        What was saved.

    Raises:
        WeightsError: naming the file, when it is missing, cut off, something else, or unsafe.
    """
    import pickle

    import torch

    path = Path(path)
    _check_format(path)
    try:
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError:
            with torch.serialization.safe_globals(_numpy_scalars()):
                return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_why_refused(path, error)}") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path}: the checkpoint could not be read, it may be damaged: {reason}"
        ) from error


def _check_format(path: Path) -> None:
    """Name the usual reasons why a file is no checkpoint, which torch reports in riddles."""
    if path.is_dir():
        raise WeightsError(f"{path}: this is a folder; give the checkpoint file in it")
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            head = handle.read(64)
    except FileNotFoundError:
        nearby = sorted(entry.name for entry in path.parent.glob("*.pt*")) if path.parent.is_dir() else []
        hint = f"; the folder has {', '.join(nearby[:5])}" if nearby else ""
        raise WeightsError(f"{path}: no such checkpoint{hint}") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise WeightsError(f"{path}: the file is empty; copying or downloading it was probably interrupted")
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path}: the checkpoint is cut off after {size:,} bytes (its end is missing); "
            "copy or download it again"
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: this is a pointer of Git LFS, not the file itself; run `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise WeightsError(
            f"{path}: this is a web page, not a checkpoint; the download link needs another form"
        )
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise WeightsError(f"{path}: this is no file of torch.save (it starts with {head[:8]!r})")


def _numpy_scalars() -> list[Any]:
    """Return what pickled NumPy numbers refer to, under the names of NumPy 1 and 2, and nothing else."""
    import numpy as np

    def scalar(dtype: Any, data: bytes) -> Any:
        if not isinstance(dtype, np.dtype) or dtype.kind not in "biufc":
            raise WeightsError(f"a NumPy scalar of dtype {dtype} is refused")
        return np.frombuffer(data, dtype=dtype, count=1)[0]

    numbers = (np.bool_, *np.sctypeDict.values())
    kinds = {type(np.dtype(number)) for number in numbers if np.dtype(number).kind in "biufc"}
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [np.dtype, *kinds, *((scalar, name) for name in names)]


def _why_refused(path: Path, error: Exception) -> str:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []  # files of torch < 1.6 cannot be listed
    if not names:
        # torch's own text goes on to advise unsafe loading: only the reason in it is passed on.
        names = re.findall(r"(?:unsupported|Unsupported global:) GLOBAL (\S+)", str(error))
    if not names:
        reason = re.search(r"WeightsUnpickler error:\s*([^\n]+)", str(error))
        return f"the checkpoint is damaged, or safe loading refuses it: {reason[1] if reason else 'unknown'}"
    return (
        f"refused, because reading it could run code: it holds {', '.join(names)}. If you trust where it "
        "comes from, save its tensors anew: torch.save(model.state_dict(), ...)"
    )
