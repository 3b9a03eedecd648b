"""k-fold cross-validation, seed repeats, and what is said of them together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infection_mt import ensemble, evaluation
from infection_mt.aggregation import aggregate_folds, cv_temporal_metrics
from infection_mt.config import Config
from infection_mt.data.dataset import FrameStore
from infection_mt.data.prepare import cache_folder, plain_config, prepare_data
from infection_mt.data.stacks import load_stacks
from infection_mt.inference import time_scale
from infection_mt.prediction_table import concatenate
from infection_mt.reporting import assess
from infection_mt.training import RunOptions, train_run
from infection_mt.window_files import window_lists
from infection_mt.windows import window_predictions
from medshared.distributed import by_first, first_goes_ahead, shared_object
from medshared.files import read_json, write_json
from medshared.report import Report
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)


def cross_validate(
    config: Config,
    folder: Path,
    options: RunOptions,
    *,
    command: Sequence[str] | None = None,
    only: int | None = None,
) -> dict[str, Any] | None:
    """Train and test ``cv.num_folds`` folds, then write their summary.

    Args:
        config: ``cv.test`` ``rotating`` tests every stack once; ``fixed`` keeps the original's one test set, whose
            spread over folds says nothing about new wells.
        folder: Receives ``fold_1`` … ``fold_k``, ``cv_summary.json`` and the rest.
        options: Device, resume, downloads.
        command: For the record.
        only: Train this fold alone (0-based), as a job of an array; the summary is written when all are there.

    Returns:
        What ``cv_summary.json`` holds, or None while folds are missing.
    """
    config = config.resolved()
    with first_goes_ahead():
        stacks = load_stacks(config.data, cache_folder(config))
        store = FrameStore(stacks, config.data, cache_folder(config))
    folds = range(config.cv.num_folds) if only is None else [only]
    for index in folds:
        run_folder = folder / f"fold_{index + 1}"
        if options.resume and shared_object(RunDirectory(run_folder).is_complete):
            logger.info("fold %d is complete", index + 1)
            continue
        with first_goes_ahead():
            data = prepare_data(config, fold_index=index, stacks=stacks, store=store)
        train_run(config, run_folder, options, data=data, fold_index=index, command=command)
    runs = [folder / f"fold_{index + 1}" for index in range(config.cv.num_folds)]
    if not shared_object(all(RunDirectory(run).is_complete for run in runs)):
        return None
    return by_first(lambda: summarise_folds(config, folder, runs))


def repeat_seeds(config: Config, folder: Path, options: RunOptions, seeds: Sequence[int]) -> dict[str, Any]:
    """Train the same split with several seeds and average their predictions.

    Args:
        config: One run's configuration; its seed is replaced.
        folder: Receives ``seed_<s>`` and ``ensemble``.
        options: Device, resume, downloads.
        seeds: One run each.

    Returns:
        The ensemble's results.
    """
    runs = []
    for seed in seeds:
        run_folder = folder / f"seed_{seed}"
        if not (options.resume and RunDirectory(run_folder).is_complete):
            train_run(config.model_copy(update={"seed": seed}), run_folder, options)
        runs.append(run_folder)
    return ensemble.evaluate_ensemble(runs, folder / "ensemble", config)


def summarise_folds(config: Config, folder: Path, runs: Sequence[Path]) -> dict[str, Any]:
    """Write ``cv_summary.json``, the temporal aggregate, its picture and ``report.html`` from finished folds."""
    results = [read_json(run / "results.json") for run in runs]
    predictions = [evaluation.Predictions.load(run) for run in runs]
    folds = [{key: r[key] for key in ("fold_index", "best_val_metric", "test_metrics")} for r in results]
    summary: dict[str, Any] = {
        **aggregate_folds(folds),
        "test": config.cv.test,
        "config": plain_config(config),
    }
    if config.cv.test == "rotating":
        pooled = concatenate(predictions)
        summary["pooled"] = assess(pooled, config, time_scale(config, pooled))
        pooled.save(folder)
    else:
        summary["ensemble"] = ensemble.evaluate_ensemble(runs, folder / "ensemble", config)["test_metrics"]
    picture = _write_windows(config, folder, predictions) if predictions[0].has_classes else None
    _report(config, summary, picture).write(folder / "report.html")
    write_json(folder / "cv_summary.json", summary)
    return summary


def _write_windows(config: Config, folder: Path, predictions: Sequence[evaluation.Predictions]) -> Path:
    """Write ``cv_temporal_metrics.json`` and its picture."""
    from infection_mt.analysis.plots import save_figure, window_overlay

    w = config.windows
    folds = {f"fold {i + 1}": window_predictions(p, w) for i, p in enumerate(predictions)}
    lists = [window_lists(windows) for windows in folds.values()]
    content = cv_temporal_metrics(lists, size_hours=w.size_hours, stride_hours=w.stride_hours)
    write_json(folder / "cv_temporal_metrics.json", content)
    return save_figure(folder / "cv_temporal_generalization.png", window_overlay(folds))


def _report(config: Config, summary: Mapping[str, Any], picture: Path | None) -> Report:
    report = Report(f"{config.experiment_name}: {summary['num_folds']}-fold cross-validation")
    if config.cv.test == "fixed":
        report.warning(
            "All folds share one test set: the spread over folds is training noise and says nothing about new wells."
        )
    columns = ("mean", "std", "min", "max")
    rows = [[name, *(f"{s[c]:.4f}" for c in columns)] for name, s in summary["aggregated_metrics"].items()]
    report.section("Metrics over folds")
    caption = "Test metrics; std is the population standard deviation over folds."
    report.table(rows, caption, headers=["metric", *columns])
    if picture is not None:
        report.section("Over time")
        report.figure(
            picture, caption="Metrics in sliding windows of hours since the first frame, fold by fold."
        )
    report.config(summary["config"])
    return report
