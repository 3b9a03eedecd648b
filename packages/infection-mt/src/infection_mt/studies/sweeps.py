"""``analyze_interval_sweep_train.py`` and ``analyze_sliding_window_train.py``: one classifier for each interval."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from infection_mt.commands import run_options
from infection_mt.config import Config
from infection_mt.rescoring import Side
from infection_mt.studies.single_task import load_single_task
from infection_mt.studies.sweep_files import interval_stats, window_results, window_stem, write_curves
from infection_mt.studies.sweep_training import IntervalStudy, load_for
from infection_mt.studies.sweep_windows import Interval, windows_of, write_window_files
from medshared.files import write_json
from medshared.process import run_logging

logger = logging.getLogger(__name__)
MODES = ("train-test", "test-only")


def interval_sweep(arguments: argparse.Namespace) -> int:
    """Sweep the end of the interval: models on each interval, and the longest interval's model on all."""
    config = classifier_config(arguments)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    output, checkpoints = _sweep_folders(arguments, config, stamp)
    hours = sorted(set(arguments.upper_hours))
    if hours[0] <= arguments.start_hour:
        raise ValueError(f"--upper-hours {hours[0]:g} is not after --start-hour {arguments.start_hour:g}")
    intervals = [Interval(arguments.start_hour, hour) for hour in hours]
    modes = MODES if arguments.mode == "both" else (arguments.mode,)
    metrics = arguments.metrics or [arguments.metric]
    with run_logging("infection_mt", output / "interval_sweep_train.log"):
        study = IntervalStudy(
            config, run_options(arguments), output, match_uninfected=arguments.match_uninfected_window
        )
        found = {
            mode: _score_mode(
                study, mode, intervals, checkpoints, arguments.split, train=not arguments.eval_only
            )
            for mode in modes
        }
        stats = {
            metric: {
                mode: interval_stats([[fold[metric] for fold in row] for row in rows])
                for mode, rows in found.items()
            }
            for metric in metrics
        }
        curves = {
            metric: {mode: (s["mean"], s["std"]) for mode, s in of_mode.items()}
            for metric, of_mode in stats.items()
        }
        label = f"End of the interval from {arguments.start_hour:g} h (h)"
        written = write_curves(output, "interval_sweep", hours, curves, x_label=label)
        content = {
            "config": str(arguments.config),
            "timestamp": stamp,
            "start_hour": float(arguments.start_hour),
            "hours": hours,
            "metrics": list(metrics),
            "split": arguments.split,
            "k_folds": config.cv.num_folds,
            "stats": stats,
        }
        if arguments.save_data:
            written.append(write_json(output / "interval_sweep_data.json", content))
        for path in written:
            logger.info("wrote %s", path)
    return 0


def classifier_config(arguments: argparse.Namespace) -> Config:
    """Read a sweep's configuration.

    Raises:
        ValueError: It is one of a regression.
    """
    config = load_single_task(arguments)
    if config.task.type != "classification":
        raise ValueError(f"{arguments.config}: sweeps classify; task.type is {config.task.type}")
    return config


def _sweep_folders(arguments: argparse.Namespace, config: Config, stamp: str) -> tuple[Path, Path]:
    """Return where results go and where checkpoints are read or written."""
    root = config.logging.output_dir or config.output_dir
    if not arguments.eval_only:
        output = arguments.output or root / "interval_sweep_analysis" / stamp
        return output, arguments.checkpoint_dir or output / "checkpoints"
    given: Path | None = arguments.checkpoint_dir or arguments.output
    if given is None:
        raise ValueError("--eval-only needs --checkpoint-dir, the folder of the trained sweep")
    sweep = given.parent if given.name == "checkpoints" else given
    if not sweep.is_dir():
        raise FileNotFoundError(f"{sweep}: no such sweep")
    output = arguments.output or sweep.with_name(f"{sweep.name}_eval_{stamp}")
    return output, sweep / "checkpoints" if (sweep / "checkpoints").is_dir() else given


def _score_mode(
    study: IntervalStudy,
    mode: str,
    intervals: Sequence[Interval],
    checkpoints: Path,
    split: Side,
    *,
    train: bool,
) -> list[list[dict[str, float]]]:
    """Return the metrics of every interval and fold, [intervals][folds]."""
    rows: list[list[dict[str, float]]] = [[] for _ in intervals]
    for fold in study.folds:
        file = f"fold_{fold:02d}_best.pth"
        model = None
        for row, interval in zip(rows, intervals, strict=True):
            if mode == "train-test":
                about: dict[str, Any] = {
                    "mode": mode,
                    "start_hour": interval.start,
                    "upper_hour": interval.end,
                }
                target, trained_on = checkpoints / f"{mode}_interval_{interval.name}" / file, interval
                model = None
            else:
                trained_on = intervals[-1]
                about = {"training_interval": [trained_on.start, trained_on.end]}
                target = checkpoints / "test-only_base_models" / file
            if model is None:
                model = (
                    study.train(trained_on, fold, target, about, split) if train else load_for(target, about)
                )
            metrics = study.metrics(model, interval, fold, split)
            logger.info("%s [%s] h fold %d: AUC %.4f", mode, interval.name, fold, metrics["auc"])
            row.append(metrics)
    return rows


def sliding_sweep(arguments: argparse.Namespace) -> int:
    """Sweep a window of fixed length: one model a window, tested on its own window."""
    config = classifier_config(arguments)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    root = config.logging.output_dir or config.output_dir
    output = arguments.output or root / "sliding_window_analysis" / stamp
    windows, stride = windows_of(arguments)
    metrics = arguments.metrics or [arguments.metric]
    stem = window_stem("sliding_window", arguments.window_size, stride)
    with run_logging("infection_mt", output / "sliding_window_train.log"):
        study = IntervalStudy(
            config, run_options(arguments), output, match_uninfected=arguments.match_uninfected_window
        )
        rows: list[list[dict[str, float]]] = []
        for window in windows:
            row = []
            for fold in study.folds:
                target = output / "checkpoints" / f"window_{window.name}" / f"fold_{fold:02d}_best.pth"
                about = {"window_start": window.start, "window_end": window.end}
                model = study.train(window, fold, target, about, arguments.split)
                row.append(study.metrics(model, window, fold, arguments.split))
            rows.append(row)
        values = {metric: [[fold[metric] for fold in row] for row in rows] for metric in metrics}
        results = window_results([w.start for w in windows], [w.end for w in windows], values)
        content = {
            "config": str(arguments.config),
            "timestamp": stamp,
            "window_size": float(arguments.window_size),
            "stride": float(stride),
            "window_starts": [w.start for w in windows],
            "max_hour": arguments.max_hour,
            "metrics": list(metrics),
            "split": arguments.split,
            "k_folds": config.cv.num_folds,
            "results": results,
        }
        for path in write_window_files(output, stem, content, save_data=arguments.save_data):
            logger.info("wrote %s", path)
    return 0
