"""A classifier for each interval of hours: trained on it, selected on validation, kept with its interval.

The original scored the test split at every improvement of the validation score, and trained its ``test-only`` models
on another window than it said; here the test split is scored once with the best weights, the model is trained on the
interval that names it, and a checkpoint is used only for the interval that it states.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt.config import Config, FramesConfig
from infection_mt.data.dataset import FrameStore
from infection_mt.data.policy import SPECIAL_KEYS, interval_override, resolve_policy
from infection_mt.data.prepare import RunData, cache_folder, plain_config, prepare_data
from infection_mt.data.stacks import Stack, load_stacks
from infection_mt.inference import predict_table, score
from infection_mt.models.base import ResNetBase
from infection_mt.models.checkpoint import load_model
from infection_mt.rescoring import Side
from infection_mt.studies.single_task import fold_index_of, plain_names
from infection_mt.studies.sweep_windows import Interval
from infection_mt.training import RunOptions, Trainer, fold_seed
from medshared.checkpoints import load_checkpoint, save_checkpoint
from medshared.gpu import select_device
from medshared.runs import RunDirectory, StopSignal

logger = logging.getLogger(__name__)
MODE_KEYS = ("mode", "start_hour", "upper_hour")


def on_interval(config: Config, interval: Interval, *, match_uninfected: bool) -> Config:
    """Return the configuration with every split restricted to an interval.

    Args:
        config: Base configuration.
        interval: Of the infected frames.
        match_uninfected: Restrict the uninfected frames too.
    """
    frames = config.data.frames
    given = frames.model_dump(exclude_unset=True) if frames is not None else {}
    given = {key: value for key, value in given.items() if value is not None or key not in SPECIAL_KEYS}
    changed = interval_override(given, interval.start, interval.end, "train-test", match_uninfected)
    copy = config.model_copy(deep=True)
    copy.data.frames = FramesConfig.model_validate(changed)
    return copy


class IntervalStudy:
    """Classifiers on intervals over the folds of one configuration; stacks and frames are read once.

    Args:
        config: Resolved single-task configuration.
        options: Device, resume, downloads.
        output: Receives ``checkpoints`` and, while a model trains, ``runs``.
        match_uninfected: Restrict uninfected frames to the interval too.
    """

    def __init__(self, config: Config, options: RunOptions, output: Path, *, match_uninfected: bool) -> None:
        self.config, self.options, self.output = config, options, output
        self.match_uninfected = match_uninfected
        self.stacks: list[Stack] = load_stacks(config.data, cache_folder(config))
        self.store = FrameStore(self.stacks, config.data, cache_folder(config))
        self.folds = range(1, config.cv.num_folds + 1)
        self._trained: dict[tuple[Interval, int], Path] = {}

    def data(self, interval: Interval, fold: int) -> tuple[Config, RunData]:
        """Return the configuration and the tables of an interval and fold (from 1)."""
        config = on_interval(self.config, interval, match_uninfected=self.match_uninfected)
        index = fold_index_of(config, fold)
        return config, prepare_data(config, fold_index=index, stacks=self.stacks, store=self.store)

    def train(
        self, interval: Interval, fold: int, target: Path, about: Mapping[str, Any], split: Side
    ) -> ResNetBase:
        """Train a classifier on an interval and keep it in ``target``, or reuse it when resuming.

        Args:
            interval: What it is trained on.
            fold: From 1.
            target: Checkpoint file.
            about: Entries of the checkpoint that state the interval.
            split: Set whose metrics are stored beside the weights.

        Returns:
            The network with the best weights.
        """
        if self.options.resume and target.is_file():
            return load_for(target, about)
        earlier = self._trained.get((interval, fold))
        if earlier is not None:  # the same model under another name: the longest interval of both modes
            state = {key: value for key, value in load_checkpoint(earlier).items() if key not in MODE_KEYS}
            save_checkpoint(target, {**state, **about})
            return load_for(target, about)
        config, data = self.data(interval, fold)
        run = RunDirectory(self.output / "runs" / f"interval_{interval.name}" / f"fold_{fold:02d}")
        run.create(plain_config(config), seed=config.seed, resume=self.options.resume)
        logger.info("training on [%g, %g] h, fold %d: %d frames", interval.start, interval.end, fold,
                    len(data.tables["train"]))  # fmt: skip
        trainer = Trainer(
            config, data, run, self.options, seed=fold_seed(config, fold_index_of(config, fold))
        )
        with StopSignal() as stop:
            trainer.fit(stop, _NoSink())
        epoch = trainer.load_best()
        metrics = plain_names(score(trainer.predict(split), config, trainer.time_scale))
        found = {"epoch": epoch, **about, "fold": fold, "best_metrics": metrics}
        state = exported_state(trainer, run.load_checkpoint("best"), found)
        save_checkpoint(target, state)
        self._trained[interval, fold] = target
        for name in ("last", "best"):  # all that they hold is in the exported file
            run.checkpoint_path(name).unlink(missing_ok=True)
        return trainer.network.eval()

    def metrics(self, model: ResNetBase, interval: Interval, fold: int, split: Side) -> dict[str, float]:
        """Score a network on the frames of an interval in one side of a fold."""
        config, data = self.data(interval, fold)
        device = select_device(self.options.device)
        size = config.data.batch_size * config.data.eval_batch_size_multiplier
        predictions = predict_table(
            model.to(device), data.tables[split], data.store, config, device=device, batch_size=size
        )
        return plain_names(score(predictions, config, 1.0))


def exported_state(trainer: Trainer, best: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep's checkpoint holds, under the original's keys.

    Args:
        trainer: After training.
        best: Its best checkpoint.
        found: Epoch, fold, interval and metrics.
    """
    schedule = trainer.scheduler.state_dict() if trainer.scheduler is not None else {}
    return {
        "model_state_dict": best["model_state"],
        "optimizer_state_dict": best["optimizer_state"],
        **found,
        "best_val_score": trainer.progress.best_value,
        "config": best["config"],
        "scheduler_state_dict": {
            k: v for k, v in schedule.items() if isinstance(v, (int, float, bool, list))
        },
    }


class _NoSink:
    """Where the rows of a sweep's epochs go besides ``metrics.csv``: nowhere."""

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Drop a row."""


def load_for(path: Path, about: Mapping[str, Any]) -> ResNetBase:
    """Load a sweep's checkpoint and check that it belongs to the interval it is wanted for.

    Args:
        path: Checkpoint file.
        about: What its entries must say.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It states another interval, or its configuration was trained on another one.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; train the sweep first, or name its --checkpoint-dir"
        )
    model, found = load_model(path)
    for key, wanted in about.items():
        stated = found.get(key)
        plain = list(stated) if isinstance(stated, (list, tuple)) else stated
        if plain != wanted:
            raise ValueError(
                f"{path}: {key} is {plain!r}, expected {wanted!r}: this model belongs to another interval"
            )
    if "training_interval" in about:
        _check_window(path, found.get("config"), about["training_interval"])
    return model


def _check_window(path: Path, config: Any, interval: Sequence[float]) -> None:
    """Refuse models whose configuration names another training window, as those of the original's base models."""
    data = config.get("data") if isinstance(config, Mapping) else None
    frames = data.get("frames") if isinstance(data, Mapping) else None
    if not isinstance(frames, Mapping):
        return
    window = resolve_policy(frames, "train").infected_window_hours
    if window is None or not np.allclose(window, interval):
        raise ValueError(
            f"{path}: says it was trained on {list(interval)} h, but its configuration trained on {window}: "
            "its scores on short intervals are artefacts; train the sweep again"
        )
