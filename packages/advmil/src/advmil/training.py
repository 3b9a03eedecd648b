"""One run from start to end: train, keep the best epoch, score every set, write what the guide promises."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from advmil.config import Config, Handler
from advmil.noise import NoiseSource, torch_noise
from advmil.outputs import (
    write_config,
    write_continuous_predictions,
    write_discrete_predictions,
    write_metrics,
    write_risk_predictions,
)
from advmil.predictions import Predictions
from advmil.reporting import write_run_report
from advmil.run_data import RunData, load_run_data
from advmil.scoring import MONITORED_LOSS, original_metrics
from advmil.trainer import Trainer, join_processes
from medshared.distributed import by_first, first_goes_ahead, is_first, open_run, process_count, run_log
from medshared.files import write_npz
from medshared.gpu import derive_seed, peak_memory_bytes
from medshared.loggers import MetricLogger, open_logger
from medshared.runs import RunDirectory, StopSignal
from medshared.tables import write_table

logger = logging.getLogger(__name__)


def train_run(
    config: Config,
    handler: Handler,
    folder: Path,
    *,
    device: str | None = None,
    resume: bool = False,
    data: RunData | None = None,
    command: Sequence[str] | None = None,
    report: bool = True,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train one run into ``folder`` and return what its ``results.json`` holds.

    Args:
        config: Configuration; switches that are null are resolved here.
        handler: ``adv`` or ``base``.
        folder: Run directory, created.
        device: Wins over the configuration's device.
        resume: Continue a stopped run.
        data: Prepared data, when the caller has it.
        command: The command line, for the record.
        report: Draw pictures and write ``report.html``.
        stop: Signals that the caller listens to already; by default the run listens itself.

    Returns:
        What ``results.json`` holds.

    Raises:
        RunInterruptedError: A signal stopped the run; it can be resumed.
        TrainingError: Training cannot go on.
    """
    config = config.resolved()
    if process_count() > 1:
        join_processes(config, device)
    run = open_run(folder)
    with first_goes_ahead():
        run.create(
            config.model_dump() | {"handler": handler}, command=command, seed=config.seed, resume=resume
        )
    with run_log("advmil", run), nullcontext(stop) if stop else StopSignal() as stop:
        started = time.perf_counter()
        with first_goes_ahead():
            if is_first():
                write_config(run.path / "print_config.txt", config.model_dump())
            data = data or load_run_data(config)
        for warning in data.warnings:
            logger.warning(warning.text)
        for name, patients in data.sets.items():
            events = int(data.labels.e[data.rows(patients)].sum())
            logger.info("%s: %d patients, %d events", name, len(patients), events)
        sink = open_sink(config, run.path, config.wandb_prj)
        try:
            trainer = Trainer(config, handler, data, run, device=device, resume=resume)
            trainer.fit(stop, sink)
            results = by_first(partial(_finish, trainer, sink, started))
        finally:
            sink.close()
        if report and is_first():
            try:
                write_run_report(run.path)
            except ValueError as reason:  # such as predictions that are not finite; the results are written
                logger.error("no report.html: %s", reason)
        return results


def open_sink(config: Config, folder: Path, project: str) -> MetricLogger:
    """Open the tracker of a run: ``wandb_dir`` is of W&B, which keeps runs apart itself; else the run directory.

    Args:
        config: Says which tracker.
        folder: Run directory.
        project: Name of the project in the tracker.
    """
    if not is_first():
        return open_logger("csv", folder, project=project)  # which writes nothing itself
    if config.logger == "wandb" and config.wandb_dir:
        folder = Path(config.wandb_dir)
        folder.mkdir(parents=True, exist_ok=True)
    return open_logger(config.logger, folder, project=project, config=config.model_dump())


def _finish(trainer: Trainer, sink: MetricLogger, started: float) -> dict[str, Any]:
    """Score the last and the best weights on every set and write all files of the run."""
    config, data, run = trainer.config, trainer.data, trainer.run
    samples = config.times_test_sample if trainer.handler == "adv" else 1
    fixed = _last_epoch_scores(trainer, samples)
    epoch = trainer.load_original("best")
    scores: dict[str, dict[str, float]] = {}
    predictions: dict[str, Predictions] = {}
    for name in data.sets:
        patients = _reported_order(trainer, name)
        noise = _evaluation_noise(config, name)
        predictions[name] = trainer.predict(patients, samples, noise)
        scores[name] = original_metrics(predictions[name], config)
        log_best(sink, data.name, name, scores[name], trainer.progress.updates)
    write_original_files(run.path, data.name, predictions, scores, config)
    write_house_files(run, predictions)
    logger.info("peak memory %.0f MB", peak_memory_bytes(trainer.device) / 1e6)
    results: dict[str, Any] = {
        "handler": trainer.handler,
        "task": config.task,
        "backbone": config.bcb_mode,
        "fold": config.data_split_seed,
        "best_epoch": epoch,
        "epochs": trainer.progress.epoch,
        "run_name": data.name,
        "labels": {
            "time_format": config.time_format,
            "unit_days": data.labels.unit_days,
            "end_time": data.labels.end_time,
            "edges": None if data.labels.edges is None else data.labels.edges.tolist(),
        },
        "sets": scores,
        "last_epoch": fixed,
        "seconds": time.perf_counter() - started,
    }
    run.write_results(results)
    return results


def log_best(sink: MetricLogger, run_name: str, set_name: str, scores: dict[str, float], step: int) -> None:
    """Log the metrics of a set under the original's names."""
    sink.log({f"bestckpt/{run_name}/{set_name}/{key}": value for key, value in scores.items()}, step)


def _last_epoch_scores(trainer: Trainer, samples: int) -> dict[str, dict[str, float]]:
    """Score the weights of the last epoch, so that choosing an epoch can be told from a fixed protocol."""
    trainer.load_original("last")
    names = [name for name in ("validation", "test") if name in trainer.data.sets]
    return {
        name: original_metrics(
            trainer.predict(trainer.data.sets[name], samples, _evaluation_noise(trainer.config, name)),
            trainer.config,
        )
        for name in names
    }


def _evaluation_noise(config: Config, name: str) -> NoiseSource:
    """Return noise that depends on seed and set only, so that a set is scored alike wherever it stands."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "evaluation", name))
    return torch_noise(config.gen_noi_noise_dist, generator)


def _reported_order(trainer: Trainer, name: str) -> Sequence[str]:
    """Return the patients of a set; the training set comes in its loader's shuffled order, as in the original."""
    patients = trainer.data.sets[name]
    if name != "train":
        return patients
    return [patients[i] for i in trainer.orders[0].epoch(trainer.progress.epoch)]


def write_original_files(
    folder: Path,
    name: str,
    predictions: dict[str, Predictions],
    scores: dict[str, dict[str, float]],
    config: Config,
) -> None:
    """Write metrics and predictions under the original's names.

    Args:
        folder: Run directory.
        name: Prefix of the files.
        predictions: By set.
        scores: The original's metrics by set.
        config: Says whether predictions are saved.
    """
    loss = MONITORED_LOSS[next(iter(predictions.values())).kind]
    shown = {set_name: {"cindex": s["c_index"], "loss": s[loss]} for set_name, s in scores.items()}
    write_metrics(folder / f"{name}_metrics-best.txt", shown)
    if not config.save_prediction:
        return
    for set_name, p in predictions.items():
        path = folder / f"{name}_best_pred_{set_name}.csv"
        if p.kind == "discrete":
            write_discrete_predictions(path, p.patients, p.t, p.e, p.survival)
        elif p.kind == "cox":
            write_risk_predictions(path, p.patients, p.t, p.e, p.point)
        else:
            write_continuous_predictions(path, p.patients, p.t, p.e, p.point, p.samples)


def write_house_files(run: RunDirectory, predictions: dict[str, Predictions]) -> None:
    """Write ``predictions.csv`` (all sets, days) and ``predictions_<set>.npz`` (all arrays)."""
    import pandas as pd

    frames = []
    for name, p in predictions.items():
        frame = p.table()
        frame.insert(0, "set", name)
        frames.append(frame)
        write_npz(run.path / f"predictions_{name}.npz", **p.arrays())
    write_table(run.path / "predictions.csv", pd.concat(frames, ignore_index=True))
