"""Fixtures of the infection-mt suite."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

GOLDEN = Path(__file__).parent / "golden"


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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory):
    """Eight small stacks a class in the two-folder layout."""
    from infection_mt.synthetic import SyntheticParams, generate

    params = SyntheticParams(stacks_per_class=8, n_pages=6, size=32, frames_per_hour=0.125, n_cells=12)
    return generate(tmp_path_factory.mktemp("tiny"), params)


def settings_for(data: Any, folder: Path) -> dict[str, Any]:
    """Return a configuration that trains on the tiny data in a second."""
    return {
        "experiment_name": "tiny",
        "output_dir": str(folder / "outputs"),
        "seed": 3,
        "multitask": {"infection_onset_hour": 1.0},
        "data": {
            "infected_dir": str(data.infected_dir),
            "uninfected_dir": str(data.uninfected_dir),
            "split_ratios": [0.5, 0.25, 0.25],
            "batch_size": 8,
            "num_workers": 0,
            "cache_dir": str(folder / "cache"),
            "transforms": {"image_size": 32, "random_rotation": False},
            "frames": {
                "frames_per_hour": 0.125,
                "infected_window_hours": [8, 48],
                "uninfected_window_hours": [0, 48],
            },
        },
        "model": {"name": "resnet10", "pretrained": False, "hidden_dim": 16, "dropout": 0.1},
        "training": {"epochs": 2, "grad_clip": 1.0},
        "optimizer": {"lr": 1e-3},
        "scheduler": {"eta_min": 1e-5},
        "metrics": {"bootstrap_resamples": 20},
    }


@pytest.fixture
def tiny_settings(tiny_data, tmp_path: Path) -> dict[str, Any]:
    """Return a configuration that trains in a second."""
    return settings_for(tiny_data, tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tiny_data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of one epoch, made once; tests read it and write elsewhere."""
    from infection_mt.config import Config
    from infection_mt.training import RunOptions, train_run

    folder = tmp_path_factory.mktemp("tiny_run")
    settings = settings_for(tiny_data, folder)
    settings["training"]["epochs"] = 1
    train_run(Config.model_validate(settings), folder / "run", RunOptions(device="cpu"))
    return folder / "run"
