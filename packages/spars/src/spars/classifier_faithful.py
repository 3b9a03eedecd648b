"""Training of the classifier as the original runs it, over its own data set, crops and loops.

Crops come from anywhere in the volume, by the dilated mask, in raw HU and stretched by trilinear interpolation; the
validation crops are drawn anew every epoch. What is added: a run directory, seeds, and a way to go on after a stop.
"""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from medshared.command_line import RunInterruptedError
from medshared.distributed import (
    average_gradients,
    by_first,
    is_first,
    optimizer_parameters,
    process_count,
    restore_shared_rng,
    stopped_together,
)
from medshared.gpu import capture_rng
from medshared.runs import RunDirectory, StopSignal
from medshared.shared_layers import share_layers
from medshared.weights import WeightsError
from spars.config import ClassifierConfig
from spars.errors import CheckpointError, DataError
from spars.models.build import ClassifierMeta, build_classifier, save_classifier
from spars.original.crops import NRandomCrop
from spars.original.dataset import NIfTIDataset
from spars.original.loops import BatchSource, evaluate_network, train_network
from spars.sharing import SharedNetwork

logger = logging.getLogger(__name__)


class _Stoppable:
    """Batches that end the epoch when a stop was asked for."""

    def __init__(self, source: BatchSource, stop: StopSignal) -> None:
        self.source, self.stop = source, stop

    def get_data_batch(self, batch_size: int, start_file_no: int, end_file_no: int) -> tuple[Tensor, Tensor]:
        if stopped_together(self.stop):
            raise RunInterruptedError(
                f"stopped by {self.stop.name} within an epoch; --resume continues after the last whole one"
            )
        return self.source.get_data_batch(batch_size, start_file_no, end_file_no)


def check_faithful(config: ClassifierConfig) -> None:
    """Refuse keys that the original's training has no counterpart of.

    Args:
        config: Resolved configuration.

    Raises:
        DataError: Naming the key.
    """
    if config.data_dir is None:
        raise DataError("data_dir is not set: give the folder that holds imagesTr and labelsTr")
    if not (config.data_dir / "labelsTr").is_dir():
        raise DataError(
            f"{config.data_dir / 'labelsTr'}: no such folder; data_dir must hold imagesTr and labelsTr"
        )
    if config.label_source == "csv":
        raise DataError(
            "mode: faithful chooses its crops by voxel labels; for label_source: csv use standard"
        )
    if config.splits is not None:
        raise DataError(
            f"mode: faithful takes index ranges (train_start, …), not splits ({config.splits}); use standard or paper"
        )


def train_faithful(
    config: ClassifierConfig,
    run: RunDirectory,
    device: torch.device,
    stop: StopSignal,
    sink: Any,
    *,
    resume: bool,
) -> dict[str, Any]:
    """Train as the original does; return what ``results.json`` shall hold.

    Args:
        config: Resolved configuration that `check_faithful` accepts.
        run: Run directory, created.
        device: Where the network is.
        stop: Asked between batches; the epoch under way is then repeated on resuming.
        sink: Receives the rows.
        resume: Go on from ``last.pt``.

    Raises:
        RunInterruptedError: A signal stopped the run.
        DataError: A file cannot be used.
    """
    assert config.data_dir is not None  # noqa: S101 (check_faithful)
    size = config.crop_size if config.target_size in (None, "native") else config.target_size
    crops = NRandomCrop(config.crop_size, config.crop_no, size=size, faithful=True)  # type: ignore[arg-type]
    source = _Stoppable(NIfTIDataset(config.data_dir, crops, faithful=True), stop)
    network = build_classifier(config).to(device)
    share_layers(network, device)
    adam = torch.optim.Adam(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    model: torch.nn.Module = network
    if process_count() > 1:
        model = SharedNetwork(network)
        adam.register_step_pre_hook(lambda *_: average_gradients(optimizer_parameters(adam)))
    state: dict[str, Any] = {"epoch": 0, "kept_epoch": -1, "best": -math.inf, "seconds": 0.0}
    if resume:
        state |= _restored(run, network, adam)
    batches = config.train_batches or max(1, (config.train_end - config.train_start) // config.batch_size)
    logger.warning("faithful: validation crops are drawn anew every epoch; epochs cannot be compared exactly")
    while state["epoch"] < config.epochs:
        started, epoch = time.perf_counter(), state["epoch"]
        row = _epoch(config, model, source, adam, epoch, batches, device)
        run.log_metrics(row)
        sink.log({key: value for key, value in row.items() if value is not None}, row["step"])
        if config.select == "last" or row["val_accuracy"] > state["best"]:
            state |= {"kept_epoch": epoch, "best": row["val_accuracy"]}
            if is_first():
                save_classifier(run.path / config.weights_out, network, ClassifierMeta.of(config))
        state |= {"epoch": epoch + 1, "seconds": state["seconds"] + time.perf_counter() - started}
        _save(run, network, adam, state)
    return by_first(partial(_results, config, run, state, batches))


def _epoch(
    config: ClassifierConfig,
    network: torch.nn.Module,
    source: BatchSource,
    adam: torch.optim.Adam,
    epoch: int,
    batches: int,
    device: torch.device,
) -> dict[str, Any]:
    """Train and evaluate one epoch; return its row of metrics."""
    loss = train_network(
        network,
        source,
        adam,
        epoch=epoch + 1,
        no_of_batches=batches,
        batch_size=config.batch_size,
        start_file_no=config.train_start,
        end_file_no=config.train_end,
        device=device,
        faithful=True,
    )
    found = evaluate_network(
        network,
        source,
        no_of_batches=config.val_batches,
        batch_size=config.batch_size,
        start_file_no=config.val_start,
        end_file_no=config.val_end,
        device=device,
        faithful=True,
    )
    return {
        "epoch": epoch,
        "step": (epoch + 1) * batches,
        "train_loss": loss,
        "val_accuracy": found.accuracy,
        "val_last_batch_accuracy": found.last_accuracy,
        "val_precision": found.precision,
        "val_sensitivity": found.sensitivity,
        "val_specificity": found.specificity,
    }


def _save(run: RunDirectory, network: torch.nn.Module, adam: torch.optim.Adam, state: dict[str, Any]) -> None:
    saved = {"network": network.state_dict(), "adam": adam.state_dict(), "rng": capture_rng()}
    run.save_checkpoint("last", saved | {"state": state, "metrics_rows": len(run.metrics_rows)})


def _restored(run: RunDirectory, network: torch.nn.Module, adam: torch.optim.Adam) -> dict[str, Any]:
    """Put everything where ``last.pt`` says; without one the run starts at its beginning."""
    if not run.has_checkpoint("last"):
        logger.warning("%s: nothing to resume, the run starts at its beginning", run.path)
        return {}
    try:
        saved = run.load_checkpoint("last")
        network.load_state_dict(saved["network"])
    except (WeightsError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{run.checkpoint_path('last')}: cannot continue this run ({reason}); start a new one"
        ) from error
    adam.load_state_dict(saved["adam"])
    run.truncate_metrics(int(saved["metrics_rows"]))
    restore_shared_rng(saved["rng"])
    return dict(saved["state"])


def _results(
    config: ClassifierConfig, run: RunDirectory, state: dict[str, Any], batches: int
) -> dict[str, Any]:
    kept = next(row for row in run.metrics_rows if row["epoch"] == state["kept_epoch"])
    return {
        "mode": config.mode,
        "label_source": config.label_source,
        "weights": config.weights_out,
        "epochs": state["epoch"],
        "best_epoch": state["kept_epoch"],
        "steps": state["epoch"] * batches,
        "cases": {
            part: [getattr(config, f"{part}_{end}") for end in ("start", "end")] for part in ("train", "val")
        },
        "metrics": {key: value for key, value in kept.items() if key.startswith(("train_", "val_"))},
        "seconds": state["seconds"],
    }
