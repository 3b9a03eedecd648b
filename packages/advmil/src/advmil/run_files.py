"""Finished runs as they lie on disk: their configuration, predictions and weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from advmil.config import Config, Handler
from advmil.errors import DataError
from advmil.models.build import build_baseline, build_discriminator, build_generator
from advmil.models.checkpoint import load_network
from advmil.models.discriminator import Discriminator
from advmil.predictions import Predictions, from_arrays
from medshared.configuration import load_config, load_yaml_or_json
from medshared.files import read_json

TRAINING_SETS = ("train", "labeled_train")


@dataclass(frozen=True)
class FinishedRun:
    """A run directory that holds a finished run.

    Attributes:
        folder: The directory.
        config: Its configuration.
        handler: ``adv`` or ``base``.
        results: Content of ``results.json``.
    """

    folder: Path
    config: Config
    handler: Handler
    results: dict[str, Any]

    def predictions(self, name: str) -> Predictions:
        """Return the predictions of a set.

        Raises:
            DataError: The run has no such set.
        """
        path = self.folder / f"predictions_{name}.npz"
        if not path.is_file():
            known = sorted(p.stem.removeprefix("predictions_") for p in self.folder.glob("predictions_*.npz"))
            raise DataError(
                f"{self.folder}: no predictions of a set {name!r}; it has {', '.join(known) or 'none'}"
            )
        with np.load(path, allow_pickle=False) as arrays:
            return from_arrays(dict(arrays))

    def training_predictions(self) -> Predictions:
        """Return the predictions of the training patients whose labels were used; in test mode the loaded run's."""
        if self.config.test:
            return open_run(Path(self.results["test_load_path"])).training_predictions()
        name = next((n for n in TRAINING_SETS if (self.folder / f"predictions_{n}.npz").is_file()), "train")
        return self.predictions(name)

    @property
    def name(self) -> str:
        """Prefix of the original's files."""
        return str(self.results.get("run_name", "train"))


@dataclass(frozen=True)
class TrainedModel:
    """Networks of a finished run, in evaluation mode.

    Attributes:
        run: The run.
        network: Generator or baseline.
        discriminator: D; null for a baseline.
        unit_days: Days of one unit of the predicted time; NaN for bins.
        edges: Edges of the bins in days; null unless discrete.
    """

    run: FinishedRun
    network: nn.Module
    discriminator: Discriminator | None
    unit_days: float
    edges: np.ndarray | None


def open_run(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        DataError: The folder holds none.
    """
    if not (folder / "results.json").is_file() or not (folder / "config.yaml").is_file():
        hint = (
            "; the run is not finished, continue it with --resume"
            if (folder / "config.yaml").is_file()
            else ""
        )
        raise DataError(f"{folder}: no finished run here (expected config.yaml and results.json){hint}")
    mapping = load_yaml_or_json(folder / "config.yaml")
    handler = mapping.pop("handler", "adv")
    config = load_config(Config, mapping, label=str(folder / "config.yaml"))
    return FinishedRun(folder, config, cast(Handler, handler), read_json(folder / "results.json"))


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories that paths stand for, in order and each once.

    Args:
        paths: Run directories, folders that hold some, or folders with the ``summary.json`` of a grid.

    Raises:
        DataError: A path holds no finished run.
    """
    found: list[Path] = []
    for path in paths:
        runs = _runs_at(path)
        if not runs:
            raise DataError(
                f"{path}: no finished run here or directly below (expected results.json), nor the summary of a grid"
            )
        found += runs
    return list(dict.fromkeys(found))


def _runs_at(path: Path) -> list[Path]:
    if (path / "results.json").is_file():
        return [path]
    if (path / "summary.json").is_file():
        listed = [
            Path(os.path.normpath(path / run)) for run in read_json(path / "summary.json").get("runs", [])
        ]
        return [run for run in listed if (run / "results.json").is_file()]
    return sorted(p.parent for p in path.glob("*/results.json"))


def load_model(folder: Path, device: torch.device | str = "cpu", which: str = "best") -> TrainedModel:
    """Load the networks of a finished run.

    Args:
        folder: Run directory.
        device: Where they go.
        which: ``best`` (the last epoch's where no epoch was chosen) or ``last``.
    """
    run = open_run(folder)
    if run.config.test:
        raise DataError(
            f"{folder}: a run of test mode has no weights of its own; give {run.config.test_load_path}"
        )
    discriminator = None
    if run.handler == "base":
        networks: dict[str, nn.Module] = {"model": build_baseline(run.config)}
    else:
        discriminator = build_discriminator(run.config)
        networks = {"modelG": build_generator(run.config), "modelD": discriminator}
    for name, network in networks.items():
        path = folder / f"{run.name}_{name}-{which}.pth"
        if which == "best" and not path.is_file():
            path = folder / f"{run.name}_{name}-last.pth"
        load_network(path, network)
        network.to(device).eval()
    labels = run.results["labels"]
    edges = None if labels["edges"] is None else np.asarray(labels["edges"], dtype=np.float64)
    unit = float("nan") if labels["unit_days"] is None else float(labels["unit_days"])
    return TrainedModel(run, next(iter(networks.values())), discriminator, unit, edges)
