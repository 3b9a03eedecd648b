"""One run from start to end: train, keep the best epoch, score validation and test sets, write what a person reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medshared.distributed import by_first, first_goes_ahead, is_first, open_run, process_count, run_log
from medshared.gpu import peak_memory_bytes
from medshared.loggers import open_logger
from medshared.runs import RunDirectory, StopSignal
from medshared.tables import write_table
from til_mtl.checkpoints import plain_config
from til_mtl.config import Config
from til_mtl.devices import choose_device
from til_mtl.errors import CheckpointError
from til_mtl.patch_scores import PatchScores
from til_mtl.run_data import RunData, load_run_data
from til_mtl.trainer import RunOptions, Trainer, make_fabric

logger = logging.getLogger(__name__)


def next_version(log_dir: Path) -> Path:
    """Return the folder of a new run: ``<log_dir>/default/version_<k>``, as TensorBoard's logger counts.

    Args:
        log_dir: Root of all runs.
    """
    root = log_dir / "default"
    taken = [int(p.name.removeprefix("version_")) for p in root.glob("version_*") if p.name[8:].isdigit()]
    return root / f"version_{max(taken, default=-1) + 1}"


def train_run(
    config: Config,
    folder: Path,
    options: RunOptions | None = None,
    *,
    data: RunData | None = None,
    command: Sequence[str] | None = None,
    report: bool = True,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train one run into ``folder`` and return what its ``results.json`` holds.

    Args:
        config: Configuration; switches that are null are resolved here.
        folder: Run directory, created.
        options: Resume, downloads.
        data: The sets, when the caller has them.
        command: The command line, for the record.
        report: Write ``report.html``.
        stop: A stop signal that the caller listens to already.

    Raises:
        medshared.command_line.RunInterruptedError: A signal stopped the run; it can be resumed.
        til_mtl.errors.DataError: A set is empty or a file cannot be used; a checkpoint is missing.
        til_mtl.errors.TrainingError: Training cannot go on.
    """
    config, options = config.resolved(), options or RunOptions()
    _check_first(config, options)
    if process_count() > 1:
        make_fabric(config)  # they meet
    with first_goes_ahead():
        data = data or load_run_data(config)
    run = open_run(folder)
    with first_goes_ahead():
        run.create(plain_config(config), command=command, seed=config.seed_everything, resume=options.resume)
    with run_log("til_mtl", run):
        if stop is not None:
            return _train(config, data, run, options, stop, report=report)
        with StopSignal() as own:
            return _train(config, data, run, options, own, report=report)


def _check_first(config: Config, options: RunOptions) -> None:
    """Refuse what cannot start before patches are read and the run directory is made."""
    choose_device(config)
    if config.pretrained not in ("none", "imagenet") and not Path(config.pretrained).is_file():
        raise CheckpointError(
            f"pretrained: {config.pretrained}: no such file; give a checkpoint of the encoder, imagenet, or none"
        )
    given = options.resume_from_checkpoint
    if given is not None and not given.is_file():
        raise CheckpointError(f"--resume_from_checkpoint {given}: no such file")


def _train(
    config: Config, data: RunData, run: RunDirectory, options: RunOptions, stop: StopSignal, *, report: bool
) -> dict[str, Any]:
    started = time.perf_counter()
    for name, counts in data.counts().items():
        logger.info("%s: %s", name, ", ".join(f"{n} {task} patches" for task, n in counts.items() if n))
    trainer = Trainer(config, data, run, options)
    if config.enable_model_summary:
        n = sum(p.numel() for p in trainer.network.parameters() if p.requires_grad)
        logger.info("total parameter count: %d trainable", n)
    kind = config.logger if is_first() else "csv"  # which writes nothing itself
    sink = open_logger(kind, run.path, project="til-mtl", config=plain_config(config))
    try:
        trainer.fit(stop, sink)
    finally:
        sink.close()
    best_epoch = trainer.load_best()
    limits = {name: trainer.limit(name) for name in ("val", "test") if name in data.stores}
    scores = {name: trainer.evaluate(name, limit) for name, limit in limits.items() if limit}
    logger.info("peak memory %.0f MB", peak_memory_bytes(trainer.fabric.device) / 1e6)
    results = {
        "task": config.task,
        "best_epoch": best_epoch,
        "monitor": {config.monitor: trainer.progress.best_value},
        "steps": trainer.progress.global_step,
        "samples": {name: len(store) for name, store in data.stores.items()},
        "metrics": {name: found.metrics() for name, (_, found) in scores.items()},
        "epoch_values": {key: value for values, _ in scores.values() for key, value in values.items()},
        "training_seconds": trainer.progress.seconds,
        "seconds": time.perf_counter() - started,
    }
    of_patches = {name: found for name, (_, found) in scores.items()}
    return by_first(lambda: finish_run(run, results, of_patches, trainer if report else None))


def finish_run(
    run: RunDirectory, results: dict[str, Any], scores: dict[str, PatchScores], trainer: Trainer | None
) -> dict[str, Any]:
    """Write predictions, report and, last of all, ``results.json``.

    Args:
        run: Run directory.
        results: What ``results.json`` holds.
        scores: By set.
        trainer: Draws overlays for the report; null writes no report.
    """
    rows = []
    for name, found in scores.items():
        found.write(run.path / f"predictions_{name}.npz")
        rows += [{"set": name, **row} for row in found.table()]
    write_table(run.path / "predictions.csv", rows)
    if trainer is not None:
        from til_mtl.reporting import write_run_report

        write_run_report(trainer, results, scores)
    run.write_results(results)
    for name, values in results["metrics"].items():
        logger.info("%s: %s", name, ", ".join(f"{key} {value:.4f}" for key, value in values.items()))
    return results
