"""Fixtures of the til-mtl suite."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs():
    """One thread for tensors this small, and the list of installed packages read once and not by every run."""
    from medshared import environment

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("installed_packages", "git_state"):
            patched.setattr(environment, name, cache(getattr(environment, name)))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    """Read a golden JSON file; the strings ``nan``, ``inf`` and ``-inf`` become numbers."""

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: restore(item) for key, item in value.items()}
        if isinstance(value, list):
            return [restore(item) for item in value]
        return float(value) if value in ("nan", "inf", "-inf") else value

    return lambda name: restore(json.loads((GOLDEN / f"{name}.json").read_text()))


@pytest.fixture(scope="session")
def golden_npz() -> Callable[[str], dict[str, np.ndarray]]:
    """Read a golden array file."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return read


@pytest.fixture(scope="session")
def fill_golden_weights() -> Callable[[nn.Module, int], nn.Module]:
    """Give a module the weights that the goldens were made with: each tensor from its name, shape and a seed."""

    def values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
        if name.endswith("running_var"):
            return rng.uniform(0.5, 1.5, shape)
        drawn = rng.standard_normal(shape)
        if len(shape) <= 1:
            return (1.0 if name.endswith("weight") else 0.0) + 0.1 * drawn
        return drawn / math.sqrt(math.prod(shape[1:]))

    def fill(module: nn.Module, seed: int = 0) -> nn.Module:
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(np.asarray(values(name, tuple(tensor.shape), seed))))
                else:
                    tensor.zero_()
        return module

    return fill
