"""One run from start to end: train, keep the best epoch, measure it, write what a person reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aespa.config import Config
from aespa.data.arrays import RaterArrays, load_arrays
from aespa.data.splitting import split_by_patient
from aespa.errors import CheckpointError, TrainingError
from aespa.evaluation import evaluate, write_tables
from aespa.models.checkpoint import load_network
from aespa.models.network import AespaNetwork
from aespa.original_files import original_log
from aespa.round_scores import RoundScores, scores_of
from aespa.trainer import Trainer
from medshared.command_line import RunInterruptedError
from medshared.distributed import by_first, is_first
from medshared.files import to_plain
from medshared.gpu import peak_memory_bytes
from medshared.loggers import open_logger
from medshared.process import StopSignal, run_logging
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunArrays:
    """The images of a run.

    Attributes:
        train: For training.
        val: Chooses the epoch.
        test: Measures it; the same as ``val`` where the configuration keeps no training patients for that.
    """

    train: RaterArrays
    val: RaterArrays
    test: RaterArrays


def load_run_arrays(config: Config) -> RunArrays:
    """Read the images of a run.

    Args:
        config: Resolved configuration.

    Raises:
        DataError: A file cannot be used, or a split is empty.
    """
    train, test = load_arrays(config, "train"), load_arrays(config, "test")
    if not config.val_fraction:
        logger.warning(
            "the test images choose the checkpoint, as in the original; -val_fraction 0.1 keeps patients for it"
        )
        return RunArrays(train, test, test)
    kept, val = split_by_patient(train, config.val_fraction, config.seed)
    return RunArrays(kept, val, test)


def train_run(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    arrays: RunArrays | None = None,
    command: Sequence[str] | None = None,
    stop: StopSignal | None = None,
    measure: bool = True,
) -> dict[str, Any]:
    """Train one run into ``folder`` and return what its ``results.json`` holds.

    Args:
        config: Configuration; switches that are null are resolved here.
        folder: Run directory, created.
        resume: Go on with the run that ``folder`` holds.
        arrays: The images, when the caller has them.
        command: The command line, for the record.
        stop: A stop signal that the caller listens to already.
        measure: Measure the best epoch on the test images and write ``report.html``.

    Raises:
        medshared.command_line.RunInterruptedError: A signal stopped the run; it can be resumed.
        DataError: A split is empty or a file cannot be used.
        TrainingError: Training cannot go on.
    """
    config = config.resolved()
    for key in ("sam_ckpt", "pretrain"):
        path = getattr(config, key)
        if path is not None and not path.is_file():
            raise CheckpointError(f"-{key} {path}: no such file")
    if config.update == "alternating" and config.mode == "SAM":
        raise TrainingError("-mode SAM: the original trains AESPA and SPA alone; add -update per_batch")
    arrays = arrays or load_run_arrays(config)
    run = RunDirectory(folder)
    with ExitStack() as stack:
        # Of several processes one writes; the others are told the folder when they meet.
        if is_first():
            run.create(to_plain(config.model_dump()), command=command, seed=config.seed, resume=resume)
            stack.enter_context(run_logging("aespa", run.path / "log.txt"))
            stack.enter_context(original_log(run.path))
        else:
            stack.enter_context(run_logging("aespa", level=logging.WARNING))
        logger.info("Logger is ready.")
        logger.info("%s", config)
        stop = stop or stack.enter_context(StopSignal())
        return _train(config, arrays, run, stop, resume=resume, measure=measure)


def _train(
    config: Config, arrays: RunArrays, run: RunDirectory, stop: StopSignal, *, resume: bool, measure: bool
) -> dict[str, Any]:
    started = time.perf_counter()
    logger.info("%d images to train on, %d to validate", len(arrays.train), len(arrays.val))

    def measure_epoch(network: AespaNetwork, epoch: int) -> dict[str, float]:
        return validate(network, arrays.val, config, epoch, lambda: trainer.pause(stop))

    trainer = Trainer(config, arrays.train, run, measure_epoch)
    run = trainer.run
    if resume and run.has_checkpoint("last"):
        trainer.restore()
    kind = config.logger if trainer.fabric.is_global_zero else "csv"
    sink = open_logger(kind, run.path, project="aespa", config=to_plain(config.model_dump()))
    try:
        trainer.fit(stop, sink)
    finally:
        sink.close()
    return by_first(partial(_finish, trainer, arrays, config, run, stop, started, measure=measure))


def _finish(
    trainer: Trainer,
    arrays: RunArrays,
    config: Config,
    run: RunDirectory,
    stop: StopSignal,
    started: float,
    *,
    measure: bool,
) -> dict[str, Any]:
    """Measure the best epoch and write what the run found."""
    results: dict[str, Any] = {
        "mode": config.mode,
        "dataset": config.dataset,
        "best_epoch": trainer.progress.best_epoch,
        "images": {"train": len(arrays.train), "val": len(arrays.val), "test": len(arrays.test)},
        "training_seconds": trainer.progress.seconds,
    }
    if measure:
        network = _best_network(trainer, run)
        tables = evaluate(network, arrays.test, config, between=lambda: _stop_measuring(stop))
        summary = write_tables(run.path, tables, config)
        results["metrics"] = {key: each["mean"] for key, each in summary.items()}
    results |= {
        "peak_memory_mb": peak_memory_bytes(trainer.fabric.device) / 1e6,
        "seconds": time.perf_counter() - started,
    }
    if measure:
        from aespa.reporting import try_report

        try_report(run.path, results)
    run.write_results(results)
    return results


def _stop_measuring(stop: StopSignal) -> None:
    if stop.requested:
        raise RunInterruptedError(
            f"stopped by {stop.name} while measuring the best epoch; -resume measures it"
        )


def _best_network(trainer: Trainer, run: RunDirectory) -> AespaNetwork:
    """Return the selected network, in evaluation mode."""
    network = trainer.network
    if run.has_checkpoint("best"):
        network, _ = load_network(run.checkpoint_path("best"), device=trainer.fabric.device)
    return network.eval()


def validate(
    network: AespaNetwork,
    arrays: RaterArrays,
    config: Config,
    epoch: int,
    between: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Measure the network during training; ``dice`` chooses the best epoch.

    Args:
        network: In evaluation mode.
        arrays: The validation images.
        config: Resolved configuration.
        epoch: For the log.
        between: Called between two batches; may raise to end the validation.

    Returns:
        ``dice`` of the best round, its value by round, and the other measures of the last round.
    """
    if config.update == "alternating":
        from aespa.original.validation import validate_as_original

        found = validate_as_original(network, arrays, config, between)
        scores = RoundScores(found.loss, found.iou, found.dice, found.metrics)
    else:
        scores = scores_of(evaluate(network, arrays, config, control=False, native=False, between=between))
    scores.log(epoch)
    values = {"dice": float(np.nanmax(scores.dice))}
    values |= {f"dice_r{i}": float(each) for i, each in enumerate(scores.dice)}
    values |= {f"iou_r{i}": float(each) for i, each in enumerate(scores.iou)}
    return values | {key: value for key, value in scores.rounds[-1].items() if key != "run"}
