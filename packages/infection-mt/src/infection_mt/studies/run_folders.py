"""What a result directory holds: its folds, their predictions and checkpoints, and the settings they were made with."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infection_mt.analysis.results_file import read_results
from infection_mt.config import ClampRange, Config
from infection_mt.prediction_files import PREDICTIONS_NAME
from infection_mt.prediction_table import Predictions
from medshared.configuration import load_config, load_yaml_or_json

logger = logging.getLogger(__name__)
FOLD_NAME = re.compile(r"fold_(\d+)(?:of\d+)?(?:_best)?$")
CHECKPOINTS = ("checkpoints/best.pt", "best.pt", "best.pth")


@dataclass(frozen=True)
class Fold:
    """One fold of a result directory.

    Attributes:
        number: From 1; 0 for a single run.
        path: The fold's folder, or its checkpoint file where checkpoints lie side by side.
    """

    number: int
    path: Path

    @property
    def index(self) -> int | None:
        """The fold's index from 0, None for a single run."""
        return self.number - 1 if self.number else None


def find_folds(result_dir: Path) -> list[Fold]:
    """Return the folds of a result directory, however many there are, or the directory itself as a single run.

    Args:
        result_dir: Holds ``fold_1`` … or ``fold_01of05`` …, or is one run.

    Raises:
        FileNotFoundError: The directory does not exist, or is neither.
    """
    if not result_dir.is_dir():
        raise FileNotFoundError(f"{result_dir}: no such result directory")
    folds = [
        Fold(int(match[1]), path)
        for path in result_dir.iterdir()
        if path.is_dir() and (match := FOLD_NAME.match(path.name))
    ]
    if folds:
        return sorted(folds, key=lambda fold: fold.number)
    if (
        (result_dir / PREDICTIONS_NAME).exists()
        or (result_dir / "results.json").exists()
        or _checkpoint_in(result_dir)
    ):
        return [Fold(0, result_dir)]
    raise FileNotFoundError(
        f"{result_dir}: neither fold_1, fold_2, … nor {PREDICTIONS_NAME} or checkpoints are there"
    )


def find_checkpoints(folder: Path) -> list[Fold]:
    """Return the checkpoint of every fold below a folder, or the single one that is there.

    Understands ``fold_1/checkpoints/best.pt`` (cross-validation), ``fold_01of05/best.pt`` (single task),
    ``fold_01_best.pth`` (sweeps), a single run, and a checkpoint file itself.

    Raises:
        FileNotFoundError: There is none.
    """
    if folder.is_file():
        return [Fold(0, folder)]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of checkpoints")
    files = [
        Fold(int(match[1]), path)
        for path in folder.glob("*.pt*")
        if (match := FOLD_NAME.match(path.stem)) and path.is_file()
    ]
    if files:
        return sorted(files, key=lambda fold: fold.number)
    single = _checkpoint_in(folder)
    if single is not None:
        return [Fold(0, single)]
    try:
        folds = find_folds(folder)
    except FileNotFoundError:
        folds = []
    found = [Fold(fold.number, path) for fold in folds if (path := _checkpoint_in(fold.path)) is not None]
    if not found:
        raise FileNotFoundError(
            f"{folder}: no checkpoints (fold_1/checkpoints/best.pt, fold_01_best.pth or best.pt)"
        )
    return found


def _checkpoint_in(folder: Path) -> Path | None:
    return next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)


def load_folds(result_dir: Path) -> dict[int, Predictions]:
    """Return the predictions of every fold by its number.

    Raises:
        FileNotFoundError: No fold has predictions; the message names the script that makes them.
    """
    folds = find_folds(result_dir)
    settings = target_settings(result_dir)
    found: dict[int, Predictions] = {}
    for fold in folds:
        if (fold.path / PREDICTIONS_NAME).is_file():
            found[fold.number] = Predictions.load(fold.path, **settings)
        else:
            logger.warning("%s: no %s: the fold is left out", fold.path, PREDICTIONS_NAME)
    if not found:
        raise FileNotFoundError(
            f"{result_dir}: no {PREDICTIONS_NAME}; regenerate_cv_predictions.py makes them"
        )
    return found


def target_settings(result_dir: Path) -> dict[str, Any]:
    """Return onset and clamp of a run's time targets, which files of the second layout need."""
    content = stored_settings(result_dir)
    task = content.get("task") or {}
    of_task = content.get("regression") if task.get("type") == "regression" else None
    section = of_task or content.get("multitask") or {}
    if not content:
        return {}
    low, high = section.get("clamp_range") or (0.0, 48.0)
    clamp: ClampRange = (low, high)
    return {"onset_hour": float(section.get("infection_onset_hour", 2.0)), "clamp_range": clamp}


def stored_settings(result_dir: Path) -> Mapping[str, Any]:
    """Return the configuration that a run or its first fold left behind; empty when there is none."""
    folds = find_folds(result_dir)
    for folder in (result_dir, *(fold.path for fold in folds)):
        if (folder / "results.json").is_file():
            config = read_results(folder / "results.json").content.get("config")
            if isinstance(config, Mapping):
                return config
        if (folder / "config.yaml").is_file():
            return load_yaml_or_json(folder / "config.yaml")
    # The original's cross-validation keeps its configuration in the checkpoints only.
    checkpoint = next((path for fold in folds if (path := _checkpoint_in(fold.path)) is not None), None)
    return {} if checkpoint is None else checkpoint_settings(checkpoint)


def checkpoint_settings(checkpoint: Path) -> Mapping[str, Any]:
    """Return the configuration stored in a checkpoint; empty when there is none."""
    from medshared.weights import load_checkpoint

    content = load_checkpoint(checkpoint)
    config = content.get("config") if isinstance(content, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def load_settings(result_dir: Path, config: Path | None = None) -> Config:
    """Return the configuration of a result directory.

    Args:
        result_dir: A run or its folds.
        config: A configuration file that is used in place of the stored one.

    Raises:
        FileNotFoundError: Nothing is stored and no file is given.
    """
    if config is not None:
        return load_config(Config, load_yaml_or_json(config)).resolved()
    stored = stored_settings(result_dir)
    if not stored:
        raise FileNotFoundError(f"{result_dir}: no configuration is stored there; give --config")
    return load_config(Config, stored).resolved()
