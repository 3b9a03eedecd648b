"""Fixtures of the infection-mt suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN


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
