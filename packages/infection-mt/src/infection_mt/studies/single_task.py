"""``train.py``: classification or regression alone, k folds, in the original's layout of folders."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from infection_mt import evaluation
from infection_mt.commands import load_run_config, together
from infection_mt.config import Config
from infection_mt.data.dataset import FrameStore
from infection_mt.data.prepare import RunData, cache_folder, prepare_data
from infection_mt.data.stacks import load_stacks
from infection_mt.operating_points import format_threshold_table, format_time_bins, threshold_table, time_bins
from infection_mt.training import RunOptions, Trainer, train_run
from medshared.checkpoints import save_checkpoint
from medshared.configuration import load_yaml_or_json
from medshared.distributed import by_first, first_goes_ahead, is_first, shared_object
from medshared.files import read_json, write_bytes, write_json, write_text
from medshared.processes import several_processes
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)

# What the original's train.py assumes where a configuration is silent.
DEFAULTS: Mapping[str, Any] = {
    "experiment_name": "single_task",
    "task": {"type": "classification"},
    "data": {"batch_size": 4, "drop_last": True},
    "model": {"num_classes": 1, "hidden_dim": 0},
    "logging": {"output_dir": "outputs"},
}


class SingleTaskTrainer(Trainer):
    """The loop, which also logs the threshold table and the time bins of every scored set."""

    def predict(self, name: str) -> evaluation.Predictions:
        """Run the network over a table and log the operating points of a classifier."""
        predictions = super().predict(name)
        if predictions.has_classes:
            a, p = self.config.analysis, predictions
            logger.info(format_threshold_table(name, threshold_table(p.probability, p.label, a.thresholds)))
            for line in format_time_bins(name, time_bins(p.logit, p.label, p.hours, a.time_bins)):
                logger.info(line)
        return predictions


def single_task_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weakest keys of a single-task run for a user's configuration.

    A classifier has no onset: the configured windows alone say which frames are infected. A regressor's onset is
    that of ``task.regression``.
    """
    task = given.get("task") or {}
    defaults = {key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()}
    if task.get("type", "classification") == "classification":
        return {**defaults, "multitask": {"pre_onset": "keep"}}
    regression = task.get("regression") or {}
    defaults["task"] = {"regression": {}}
    defaults["selection"] = {"metric": "reg_rmse"}
    return {**defaults, "multitask": {"infection_onset_hour": regression.get("infection_onset_hour", 2.0)}}


def load_single_task(arguments: argparse.Namespace) -> Config:
    """Read the configuration of a single-task script and lay the command line over it.

    Raises:
        ValueError: The configuration is one of a multi-task run.
    """
    given = load_yaml_or_json(arguments.config)
    if (given.get("task") or {}).get("type") == "multitask":
        raise ValueError(
            f"{arguments.config}: task.type is multitask; use train_multitask.py, or set another type"
        )
    config = load_run_config(arguments, single_task_defaults(given), used=["training.checkpoint_dir"])
    k = getattr(arguments, "k_folds", None)
    if k is not None:
        config.training.k_folds = k
    if getattr(arguments, "epochs", None) is not None:
        config.training.epochs = arguments.epochs
    return config.resolved()


def fold_index_of(config: Config, number: int) -> int | None:
    """Return the fold index of fold ``number`` (from 1), None when there is one fold."""
    return None if config.cv.num_folds == 1 else number - 1


@several_processes
def train(arguments: argparse.Namespace) -> int:
    """Train the folds of ``train.py`` and write its files."""
    config, options = together(arguments, lambda: load_single_task(arguments))
    if arguments.resume and arguments.output is None and config.run_id is None:
        raise ValueError("--resume needs to know which run: give --output RUN, or set run_id")
    run_id = config.run_id or shared_object(datetime.now().strftime("%Y%m%d-%H%M%S"))
    outputs, name = config.logging.output_dir or config.output_dir, config.experiment_name
    logs = arguments.output or outputs / name / run_id
    root = config.training.checkpoint_dir or Path("checkpoints")
    # With --output everything of a run lies in one place.
    checkpoints = logs / "checkpoints" if arguments.output is not None else root / name / run_id
    k = config.cv.num_folds
    if arguments.fold is not None and not 1 <= arguments.fold <= k:
        raise ValueError(f"--fold {arguments.fold}: expected 1 to {k}")
    with first_goes_ahead():
        stacks = load_stacks(config.data, cache_folder(config))
        store = FrameStore(stacks, config.data, cache_folder(config))
    summary = []
    for number in [arguments.fold] if arguments.fold is not None else range(1, k + 1):
        index = fold_index_of(config, number)
        with first_goes_ahead():
            data = prepare_data(config, fold_index=index, stacks=stacks, store=store)
        summary.append(train_fold(config, data, number, logs, checkpoints, options))
    if k > 1 and len(summary) == k and is_first():
        write_json(logs / "cv_summary.json", summary)
    return 0


def train_fold(
    config: Config, data: RunData, number: int, logs: Path, checkpoints: Path, options: RunOptions
) -> dict[str, Any]:
    """Train one fold, export its checkpoint and lists, and return its entry of ``cv_summary.json``.

    Args:
        config: Resolved configuration.
        data: Of the fold.
        number: From 1.
        logs: Receives ``fold_01of05``.
        checkpoints: Receives ``fold_01of05/best.pt``.
        options: Device, resume, downloads.
    """
    name = f"fold_{number:02d}of{config.cv.num_folds:02d}"
    run = RunDirectory(logs / name)
    index = fold_index_of(config, number)
    finished = options.resume and shared_object(run.is_complete)
    if finished:
        logger.info("%s is complete", name)
    else:
        train_run(config, run.path, options, data=data, fold_index=index, trainer_class=SingleTaskTrainer)
    return by_first(lambda: _export_fold(config, data, number, run, checkpoints, lists=not finished))


def _export_fold(
    config: Config, data: RunData, number: int, run: RunDirectory, checkpoints: Path, *, lists: bool
) -> dict[str, Any]:
    """Write a trained fold under the original's names and return its entry of ``cv_summary.json``."""
    name, results = run.path.name, read_json(run.path / "results.json")
    if lists:
        for side, stacks in data.split.sides().items():
            write_text(run.path / f"{side}_stacks.txt", "".join(f"{stack.path}\n" for stack in stacks))
        write_bytes(run.path / f"{config.experiment_name}_{name}.log", (run.path / "log.txt").read_bytes())
    state = dict(run.load_checkpoint("best"))
    state["val_metrics"] = plain_names(state.get("val_metrics", {}))
    exported = save_checkpoint(checkpoints / name / "best.pt", {**state, "fold": number})
    return {
        "fold": number,
        "val": plain_names(scored_epoch(run, int(results["best_epoch"]))),
        "test": plain_names(results["test_metrics"]),
        "best_metric": results["best_val_metric"],
        "primary_metric": "auc" if config.task.type == "classification" else "rmse",
        "checkpoint": str(exported),
        "log_dir": str(run.path),
    }


def scored_epoch(run: RunDirectory, epoch: int) -> dict[str, float]:
    """Return the validation metrics of the epoch whose weights score the test set."""
    row = next((row for row in run.metrics_rows if row.get("epoch") == epoch), {})
    return {
        key.removeprefix("val_"): float(v)
        for key, v in row.items()
        if key.startswith("val_") and v is not None
    }


def plain_names(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics under the names of the original's single-task scripts: without ``cls_`` and ``reg_``."""
    return {key.removeprefix("cls_").removeprefix("reg_"): value for key, value in metrics.items()}
