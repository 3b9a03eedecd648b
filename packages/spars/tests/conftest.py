"""Fixtures of the spars suite."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs(quick_runs):
    """Every test of this suite trains small networks in small runs."""


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_volumes():
    """The module that draws the volumes of the goldens: ``golden_volume(shape, seed)``, ``sample_indices``."""
    spec = importlib.util.spec_from_file_location("golden_volume", GOLDEN / "golden_volume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class TinyRuns:
    """A small data set, and runs on it that have learnt next to nothing."""

    data: Path
    classifier: Path
    game: Path
    evaluation: Path
    keys: dict

    @property
    def weights(self) -> Path:
        return self.classifier / "classifier.pth"

    @property
    def agent(self) -> Path:
        return self.game / "agent.pt"


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory) -> TinyRuns:
    """Eight volumes, a classifier and an agent of a few steps, and their evaluation; read, never changed."""
    from spars.classifier_training import train_classifier
    from spars.config import ClassifierConfig, GameConfig
    from spars.evaluation import evaluate
    from spars.synthetic import write_synthetic
    from spars.training import train_game

    root = tmp_path_factory.mktemp("tiny")
    size, window = (24, 24, 16), (6, 6, 4)
    write_synthetic(root / "data", 4, 2, 2, size=size)
    both = {
        "data_dir": root / "data",
        "full_image_size": size,
        "hu_window": (-60, 160),
        "seed": 0,
        "device": "cpu",
    }
    quick = {"crop_size": window, "batch_size": 2, "crop_no": 8, "epochs": 12, "lr": 3e-3, "width": 4}
    train_classifier(
        ClassifierConfig(**both, **quick, weights_out="classifier.pth"),
        root / "classifier",
        command=["spars"],
    )
    keys = {
        **both,
        "classifier_weights": root / "classifier" / "classifier.pth",
        "window_size": window,
        "cache_dir": root / "cache",
        "eval_seeds": 2,
    }
    small = {"n_games": 4, "n_steps": 8, "iterations": 6, "batch_size": 16, "max_steps": 6}
    train_game(GameConfig(**keys, **small), root / "game", command=["spars"])
    agent = root / "game" / "agent.pt"
    evaluate(GameConfig(**keys, **small), root / "evaluation", agent=agent, command=["spars"])
    return TinyRuns(root / "data", root / "classifier", root / "game", root / "evaluation", {**keys, **small})
