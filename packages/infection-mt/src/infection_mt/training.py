"""One run from start to end: train, keep the best epoch, score the test set, write what the guide promises."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infection_mt.config import Config
from infection_mt.data.prepare import RunData, plain_config, prepare_data
from infection_mt.errors import TrainingError
from infection_mt.trainer import (
    DEFAULT_SELECTION,
    Progress,
    RunOptions,
    Trainer,
    lower_is_better,
    make_fabric,
)
from medshared.command_line import RunInterruptedError
from medshared.distributed import first_goes_ahead, is_first, open_run, process_count, run_log
from medshared.gpu import derive_seed, peak_memory_bytes
from medshared.loggers import open_logger
from medshared.runs import StopSignal

__all__ = [
    "DEFAULT_SELECTION",
    "Progress",
    "RunInterruptedError",
    "RunOptions",
    "Trainer",
    "TrainingError",
    "fold_seed",
    "lower_is_better",
    "train_run",
]

logger = logging.getLogger(__name__)


def fold_seed(config: Config, fold_index: int | None) -> int:
    """Return the seed of a fold: its own, so that it can be reproduced alone; the run's in ``faithful`` mode."""
    if fold_index is None or config.faithful:
        return config.seed
    return derive_seed(config.seed, "fold", fold_index)


def train_run(
    config: Config,
    folder: Path,
    options: RunOptions,
    *,
    data: RunData | None = None,
    fold_index: int | None = None,
    command: Sequence[str] | None = None,
    trainer_class: type[Trainer] = Trainer,
) -> dict[str, Any]:
    """Train one run into ``folder`` and return what its ``results.json`` holds.

    Args:
        config: Configuration; null switches are resolved here.
        folder: Run directory, created.
        options: Device, resume, downloads.
        data: Prepared data, when the caller has it (folds, baselines).
        fold_index: Fold of ``cv.num_folds``.
        command: The command line, for the record.
        trainer_class: The loop; scripts that log more give their own.

    Raises:
        RunInterruptedError: A signal stopped the run; it can be resumed.
        TrainingError: Training cannot go on.
    """
    from infection_mt.reporting import finish_run

    config = config.resolved()
    if process_count() > 1:
        make_fabric(config, options.device)  # they meet
    run = open_run(folder)
    with first_goes_ahead():
        run.create(plain_config(config), command=command, seed=config.seed, resume=options.resume)
    with run_log("infection_mt", run), StopSignal() as stop:
        started = time.perf_counter()
        with first_goes_ahead():
            data = data or prepare_data(config, fold_index=fold_index)
        for warning in data.warnings:
            logger.warning(warning)
        for name, table in data.tables.items():
            logger.info("%s: %d stacks, %d frames", name, len(data.split.sides()[name]), len(table))
        trainer = trainer_class(config, data, run, options, seed=fold_seed(config, fold_index))
        kind = config.logging.logger if is_first() else "csv"  # which writes nothing itself
        sink = open_logger(kind, run.path, project="infection-mt", config=plain_config(config))
        try:
            trainer.fit(stop, sink)
        finally:
            sink.close()
        best_epoch = trainer.load_best()
        logger.info("peak memory %.0f MB", peak_memory_bytes(trainer.fabric.device) / 1e6)
        return finish_run(
            trainer, best_epoch=best_epoch, fold_index=fold_index, seconds=time.perf_counter() - started
        )
