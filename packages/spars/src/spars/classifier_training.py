"""Stage A from start to end: train the classifier, keep the best epoch, write its weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medshared.command_line import RunInterruptedError
from medshared.distributed import (
    average_gradients,
    by_first,
    first_goes_ahead,
    is_first,
    open_run,
    optimizer_parameters,
    run_log,
    shared_object,
    stopped_together,
)
from medshared.gpu import seed_everything
from medshared.loggers import open_logger
from medshared.runs import RunDirectory, StopSignal
from medshared.shared_layers import share_layers
from spars.classifier_data import ClassifierData, CropTask, load_classifier_data
from spars.classifier_faithful import check_faithful, train_faithful
from spars.classifier_metrics import Value
from spars.config import ClassifierConfig
from spars.data.image_labels import LABELS_TABLE, read_image_labels
from spars.data.layout import find_cases
from spars.errors import DataError, TrainingError
from spars.mil import BagTask
from spars.models.build import ClassifierMeta, build_classifier, save_classifier
from spars.resuming import load_last
from spars.sharing import join_processes

logger = logging.getLogger(__name__)

# Keys that change a run's course: one that goes on must have the same ones.
_COURSE = (
    *(
        "mode",
        "seed",
        "splits",
        "label_map",
        "full_image_size",
        "hu_window",
        "spacing",
        "crop_size",
        "crop_no",
    ),
    *("target_size", "label_source", "min_tumour_voxels", "negative_region", "mil_pooling", "mil_top_k"),
    *("mil_crops", "train_start", "train_end", "val_start", "val_end", "train_batches", "val_batches"),
    *("batch_size", "lr", "weight_decay", "select", "architecture", "width"),
)


class Task(Protocol):
    """What is learnt from: crops with classes (`CropTask`), or volumes with labels (`BagTask`)."""

    @property
    def n_batches(self) -> int: ...  # noqa: D102

    def loss(  # noqa: D102
        self, network: nn.Module, epoch: int, index: int, device: torch.device
    ) -> tuple[Tensor, int, int]: ...

    def validate(self, network: nn.Module) -> dict[str, Value]: ...  # noqa: D102


@dataclass
class Progress:
    """Where a run is; saved with every ``last.pt``."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch under way
    step: int = 0  # optimiser steps
    loss_sum: float = 0.0  # over the batches of the epoch under way
    right: int = 0
    seen: int = 0
    best_auc: float = math.nan  # on the validation cases; NaN where undefined
    best_loss: float = math.nan
    best_epoch: int = -1
    kept_epoch: int = -1  # whose weights lie in weights_out
    seconds: float = 0.0  # of training, over all sessions of the run


def demo_classifier_keys() -> dict[str, Any]:
    """Return the keys of a `ClassifierConfig` that suit the synthetic volumes (`spars.synthetic`)."""
    from spars.synthetic import HU_WINDOW, SIZE, WINDOW

    return {
        "full_image_size": SIZE,
        "crop_size": WINDOW,
        "hu_window": HU_WINDOW,
        "batch_size": 8,
        "crop_no": 8,
        "val_batches": 8,
        "epochs": 40,
        "lr": 3e-3,
    }


def train_classifier(
    config: ClassifierConfig,
    folder: Path,
    *,
    resume: bool = False,
    data: ClassifierData | None = None,
    command: Sequence[str] | None = None,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train one classifier into ``folder`` and return what its ``results.json`` holds.

    Args:
        config: Configuration; switches that are null are resolved here.
        folder: Run directory, created; receives ``weights_out`` besides.
        resume: Go on with the run that the folder holds.
        data: The volumes, when the caller has them; mode faithful reads its own.
        command: The command line, for the record.
        stop: A stop signal that the caller listens to already.

    Raises:
        medshared.command_line.RunInterruptedError: A signal stopped the run; it can be resumed.
        DataError: A file cannot be used; the training cases are all of one class.
        CheckpointError: The folder's run had other settings.
        TrainingError: The loss is not finite.
    """
    config = config.resolved()
    device = join_processes(config)
    task: Task | None = None
    if config.mode == "faithful":
        check_faithful(config)
    else:
        with first_goes_ahead():
            data = data or load_classifier_data(config)
        task = _build_task(config, data)
    seed_everything(config.seed)
    run = open_run(folder)
    with first_goes_ahead():
        run.create(config.model_dump(mode="json"), command=command, seed=config.seed, resume=resume)
    with run_log("spars", run):
        if stop is not None:
            return _train(config, run, device, task, data, stop, resume=resume)
        with StopSignal() as own:
            return _train(config, run, device, task, data, own, resume=resume)


def _build_task(config: ClassifierConfig, data: ClassifierData) -> Task:
    if config.label_source == "mask":
        return CropTask(data, config)
    path = config.label_csv
    if path is None:
        if config.data_dir is None:
            raise DataError("label_source: csv needs label_csv, or a data_dir that holds labels.csv")
        path = config.data_dir / LABELS_TABLE
    names = {case.name for case in (*data.train, *data.val)}
    cases = [case for case in find_cases(config.data_dir) if case.name in names]
    return BagTask(data, read_image_labels(path, cases), config)


def _train(
    config: ClassifierConfig,
    run: RunDirectory,
    device: torch.device,
    task: Task | None,
    data: ClassifierData | None,
    stop: StopSignal,
    *,
    resume: bool,
) -> dict[str, Any]:
    kind = config.logger if is_first() else "csv"  # which writes nothing itself
    sink = open_logger(kind, run.path, project="spars", config=config.model_dump(mode="json"))
    try:
        if task is None or data is None:
            results = train_faithful(config, run, device, stop, sink, resume=resume)
        else:
            logger.info("%d training cases, %d for validation", len(data.train), len(data.val))
            trainer = ClassifierTrainer(config, task, run, device)
            if resume:
                trainer.restore()
            trainer.fit(stop, sink)
            results = by_first(partial(trainer.results, data))
    finally:
        sink.close()
    by_first(partial(_finish, run, results))
    return results


def _finish(run: RunDirectory, results: dict[str, Any]) -> None:
    from spars.reporting import try_report

    try_report(run.path, results)
    run.write_results(results)


class ClassifierTrainer:
    """The loop: batches, epochs, the best epoch, and a state from which a run goes on exactly where it was.

    Args:
        config: Resolved configuration.
        task: What is learnt from.
        run: Run directory that receives checkpoints, metrics and weights.
        device: Where the network is.
    """

    def __init__(self, config: ClassifierConfig, task: Task, run: RunDirectory, device: torch.device) -> None:
        self.config, self.task, self.run, self.device = config, task, run, device
        self.network: nn.Module = build_classifier(config).to(device)
        share_layers(self.network, device)
        self.adam = torch.optim.Adam(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.progress = Progress()

    @property
    def weights_path(self) -> Path:
        """Where the selected weights are written."""
        return self.run.path / self.config.weights_out

    def fit(self, stop: StopSignal, sink: Any) -> None:
        """Train until the last epoch, or until ``patience`` epochs brought nothing better."""
        progress, patience = self.progress, self.config.patience
        while progress.epoch < self.config.epochs:
            if patience is not None and progress.epoch - progress.best_epoch > patience:
                logger.info("no better epoch than %d in %d: training ends", progress.best_epoch, patience)
                break
            self._epoch(stop)
            row = self._finish_epoch()
            sink.log(row, progress.step)
            self.save()
            if stopped_together(stop) and progress.epoch < self.config.epochs:
                raise RunInterruptedError(
                    f"stopped by {stop.name} after epoch {progress.epoch - 1}; --resume continues"
                )

    def _epoch(self, stop: StopSignal) -> None:
        progress = self.progress
        self.network.train()
        while progress.batch < self.task.n_batches:
            started = time.perf_counter()
            loss, right, n = self.task.loss(self.network, progress.epoch, progress.batch, self.device)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss of epoch {progress.epoch}, batch {progress.batch} is {value}; lower lr, or check the "
                    "intensities (hu_window)"
                )
            self.adam.zero_grad()
            loss.backward()
            average_gradients(optimizer_parameters(self.adam))
            self.adam.step()
            progress.batch, progress.step = progress.batch + 1, progress.step + 1
            progress.loss_sum += value
            progress.right, progress.seen = progress.right + right, progress.seen + n
            progress.seconds += time.perf_counter() - started
            if stopped_together(stop) and progress.batch < self.task.n_batches:
                self.save()
                raise RunInterruptedError(
                    f"stopped by {stop.name} in epoch {progress.epoch} after {progress.batch} batches; "
                    "--resume continues"
                )

    def _finish_epoch(self) -> dict[str, Any]:
        """Validate, keep the weights if they are the ones to keep, and log the epoch."""
        progress, started = self.progress, time.perf_counter()
        # Process 0's numbers decide in all: unlike processors may round unlike, and all must end at the same epoch.
        found = shared_object(self.task.validate(self.network))
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "train_loss": progress.loss_sum / progress.batch,
            "train_accuracy": progress.right / progress.seen,
            **{f"val_{key}": value for key, value in found.items()},
        }
        better = self._is_better(found)
        if better:
            auc, loss = found["auc"], found["loss"]
            progress.best_auc = math.nan if auc is None else auc
            progress.best_loss = math.nan if loss is None else loss
            progress.best_epoch = progress.epoch
        if better or self.config.select == "last":
            progress.kept_epoch = progress.epoch
            if is_first():
                save_classifier(self.weights_path, self.network, ClassifierMeta.of(self.config))
        logger.info(
            "epoch %d: loss %.4f, validation %s",
            progress.epoch,
            row["train_loss"],
            ", ".join(f"{key} {value:.4f}" for key, value in found.items() if value is not None),
        )
        self.run.log_metrics(row)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.loss_sum, progress.right, progress.seen = 0.0, 0, 0
        progress.seconds += time.perf_counter() - started
        return {key: value for key, value in row.items() if value is not None}

    def _is_better(self, found: Mapping[str, Value]) -> bool:
        """Return whether this is the best epoch so far: a higher AUC, or at the same AUC a lower loss.

        Where the AUC is undefined the last one is: on cases of one class the loss is lowest for a network that
        says the same of everything.
        """
        auc, loss = found["auc"], found["loss"]
        if self.progress.best_epoch < 0 or auc is None or loss is None:
            return True
        if auc != self.progress.best_auc:
            return auc > self.progress.best_auc
        return loss < self.progress.best_loss

    def results(self, data: ClassifierData) -> dict[str, Any]:
        """Return what ``results.json`` holds; the metrics are those of the epoch whose weights were kept.

        Args:
            data: The volumes, for their names.
        """
        config, progress = self.config, self.progress
        kept = next(row for row in self.run.metrics_rows if row["epoch"] == progress.kept_epoch)
        return {
            "mode": config.mode,
            "label_source": config.label_source,
            "weights": config.weights_out,
            "epochs": progress.epoch,
            "best_epoch": progress.kept_epoch,
            "steps": progress.step,
            "cases": {part: [case.name for case in getattr(data, part)] for part in ("train", "val")},
            "metrics": {key: value for key, value in kept.items() if key.startswith(("train_", "val_"))},
            "seconds": progress.seconds,
        }

    # ------------------------------------------------------------------ state

    def save(self) -> None:
        """Save all that a continued run needs."""
        self.run.save_checkpoint(
            "last",
            {
                "network": self.network.state_dict(),
                "adam": self.adam.state_dict(),
                "progress": asdict(self.progress),
                "metrics_rows": len(self.run.metrics_rows),
                "config": self.config.model_dump(mode="json"),
            },
        )

    def restore(self) -> None:
        """Go on from ``last.pt``: afterwards every number is what the uninterrupted run would have had.

        Raises:
            CheckpointError: The file cannot be read, or is of a run with other settings.
        """
        state = load_last(self.run, self.config, _COURSE)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.adam.load_state_dict(state["adam"])
        self.progress = Progress(**state["progress"])
        self.run.truncate_metrics(int(state["metrics_rows"]))
        logger.info("resumed at epoch %d, batch %d", self.progress.epoch, self.progress.batch)
