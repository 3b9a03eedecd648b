"""What ``--demo`` of a script runs on: synthetic volumes beside the run, and keys with which it takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spars.presets import Stage, find_preset

logger = logging.getLogger(__name__)

# Training, validation and test cases. For the classifier as many as the index ranges of the original's scripts reach.
_CASES: dict[Stage, tuple[int, int, int]] = {"classifier": (24, 16, 2), "game": (8, 2, 2)}
# Windows of the original's scripts, scaled to the synthetic volumes; the smallest that a classifier takes has 4 voxels.
_WINDOWS = {
    (8, 8, 8): (6, 6, 6),
    (16, 16, 8): (8, 8, 6),
    (32, 32, 16): (10, 10, 8),
    (48, 48, 24): (12, 12, 8),
    (64, 64, 32): (16, 16, 10),
}


def demo_window(preset: str | None) -> tuple[int, int, int]:
    """Return the window that stands for that of a preset of the game in volumes of 48×48×32 voxels.

    Args:
        preset: Of `spars.presets`; null = the published setting.
    """
    keys = find_preset(preset or "best_RL").keys
    return _WINDOWS[keys.get("window_size", (48, 48, 24))]


def demo_data(output: Path, stage: Stage, seed: int = 0) -> Path:
    """Draw the synthetic data of a run, unless they are there; return their folder.

    Args:
        output: Run directory; the data go to ``data`` in it.
        stage: What they are for.
        seed: Of the volumes.
    """
    from spars.synthetic import write_synthetic

    folder = output / "data"
    if not (folder / "splits.json").is_file():  # written last
        # Axes and voxels as the original expects them: its modes look at no affine.
        write_synthetic(folder, *_CASES[stage], seed=seed, geometry="plain")
    return folder


def demo_classifier_keys(mode: str) -> dict[str, Any]:
    """Return the keys of a classifier's run on the synthetic volumes.

    Args:
        mode: standard, paper or faithful. The last two get the small network on windows of their own size too: the
            original's takes seconds for each window.
    """
    from spars.synthetic import HU_WINDOW, SIZE, WINDOW

    keys: dict[str, Any] = {"full_image_size": SIZE, "crop_size": WINDOW, "batch_size": 8, "crop_no": 8}
    keys |= {"epochs": 12, "lr": 3e-3, "val_batches": 8}
    if mode == "standard":
        return keys | {"hu_window": HU_WINDOW}
    keys |= {"architecture": "window", "target_size": "native", "epochs": 2}
    return keys | ({"batch_size": 2, "crop_no": 4, "val_batches": 2} if mode == "faithful" else {})


def demo_game_keys(mode: str, preset: str | None) -> dict[str, Any]:
    """Return the keys of a game's run on the synthetic volumes.

    Args:
        mode: standard, paper or faithful.
        preset: Of the script.
    """
    from spars.synthetic import HU_WINDOW, SIZE

    keys: dict[str, Any] = {"full_image_size": SIZE, "window_size": demo_window(preset), "table_batch": 256}
    if mode == "standard":
        return keys | {"hu_window": HU_WINDOW, "iterations": 20, "n_games": 16, "eval_seeds": 2}
    return keys | {"target_size": "native", "iterations": 10, "log_interval": 5}


def demo_weights(output: Path, keys: Mapping[str, Any], mode: str, seed: int) -> Path:
    """Train the classifier that a game's demo plays with, unless it is there; return its weight file.

    Args:
        output: Run directory of the game; the classifier goes to ``classifier`` in it.
        keys: Of the game's run.
        mode: standard, paper or faithful.
        seed: Of the training.
    """
    from spars.experiments import classifier_config, run_classifier

    mine = demo_classifier_keys("paper" if mode == "faithful" else mode)
    mine |= {key: keys[key] for key in ("full_image_size", "hu_window", "data_dir", "device") if key in keys}
    mine |= {"mode": "paper" if mode == "faithful" else mode, "seed": seed, "crop_size": keys["window_size"]}
    mine |= {"val_batches": 2, "epochs": 30}
    config = classifier_config("net_global", mine, "demo")
    folder = output / "classifier"
    logger.info("%s: a small classifier for the demo", folder)
    run_classifier(config, folder, resume=True)
    return folder / config.weights_out
