"""Metrics in sliding windows: from saved predictions, or from the checkpoints of a final model."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from infection_mt.aggregation import aggregate_windows, cv_temporal_metrics
from infection_mt.analysis.plots import save_figure, temporal_generalization, window_overlay
from infection_mt.config import WindowsConfig
from infection_mt.prediction_table import Predictions
from infection_mt.studies.panels import line_panel, panel_grid
from infection_mt.studies.run_folders import Fold, find_checkpoints, find_folds, load_folds
from infection_mt.studies.sweep_files import LABELS, window_results, window_stem
from infection_mt.studies.sweep_windows import windows_of, write_window_files
from infection_mt.window_files import temporal_metrics, window_lists, write_temporal_metrics
from infection_mt.window_rules import WindowMetrics
from infection_mt.windows import earliest_reliable_hour, window_predictions, windowed_metrics
from medshared.files import write_json
from medshared.process import run_logging

logger = logging.getLogger(__name__)


def rewrite_windows(arguments: argparse.Namespace) -> int:
    """Write windows again from saved predictions: of one run, or of every fold and over folds."""
    config = window_config(arguments)
    folds = find_folds(arguments.result_dir)
    if folds[0].number == 0:
        predictions = _with_classes(load_folds(arguments.result_dir), arguments.result_dir)[0]
        _check_hours(arguments.result_dir, predictions)
        windows = window_predictions(predictions, config, n_resamples=200)
        content = temporal_metrics(
            windows,
            size_hours=config.size_hours,
            stride_hours=config.stride_hours,
            start_hour=config.start_hour,
            end_hour=config.end_hour,
        )
        write_json(arguments.result_dir / "temporal_metrics.json", content)
        figure = temporal_generalization(windows, reliable_from=earliest_reliable_hour(windows))
        logger.info("wrote %s", save_figure(arguments.result_dir / "temporal_generalization.png", figure))
        return 0
    return rewrite_fold_windows(arguments)


def rewrite_fold_windows(arguments: argparse.Namespace) -> int:
    """Write the windows of every fold and their means from saved predictions; models are not run again.

    Folds are aligned by the centre of their windows; a fold without predictions is predicted first.
    """
    config = window_config(arguments)
    _predict_missing(arguments.result_dir, getattr(arguments, "device", "auto"))
    folds = _with_classes(load_folds(arguments.result_dir), arguments.result_dir)
    windows: dict[str, Sequence[WindowMetrics]] = {}
    for fold in find_folds(arguments.result_dir):
        if fold.number in folds:
            _check_hours(fold.path, folds[fold.number])
            found = window_predictions(folds[fold.number], config)
            write_temporal_metrics(fold.path, found, config, fold=True)
            windows[f"fold {fold.number}"] = found
    lists = [window_lists(found) for found in windows.values()]
    content = cv_temporal_metrics(lists, size_hours=config.size_hours, stride_hours=config.stride_hours)
    write_json(arguments.result_dir / "cv_temporal_metrics.json", content)
    picture = save_figure(arguments.result_dir / "cv_temporal_generalization.png", window_overlay(windows))
    logger.info("wrote %s", picture)
    return 0


def window_config(arguments: argparse.Namespace) -> WindowsConfig:
    """Return the windows that a command line asks for."""
    end = getattr(arguments, "max_time", None) or getattr(arguments, "end_hour", None) or 48.0
    return WindowsConfig(
        size_hours=arguments.window_size,
        stride_hours=arguments.stride,
        start_hour=getattr(arguments, "start_hour", 0.0),
        end_hour=end,
    )


def _with_classes(folds: Mapping[int, Predictions], where: Path) -> dict[int, Predictions]:
    if not all(p.has_classes for p in folds.values()):
        raise ValueError(f"{where}: this model does not classify; windows show the class over time")
    return dict(folds)


def _check_hours(where: Path, predictions: Predictions) -> None:
    if not np.isfinite(predictions.hours).all():
        raise ValueError(
            f"{where}: the hours of some frames are unknown; test_metadata.jsonl with them is missing"
        )


def _predict_missing(result_dir: Path, device: str) -> None:
    from infection_mt.studies.regeneration import missing_folds, predict_missing

    if missing_folds(result_dir):
        predict_missing(result_dir, None, device=device)


def final_model_windows(arguments: argparse.Namespace) -> int:
    """Slide windows over the frames of a final model's folds, one inference a fold."""
    windows, stride = windows_of(arguments)
    folds, rows = _windows_of_checkpoints(arguments, [(w.start, w.end) for w in windows])
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    output = arguments.output_dir or Path("outputs") / "final_model_sliding_window" / stamp
    values = {
        m: [[getattr(fold[i], m) for fold in rows] for i in range(len(windows))] for m in arguments.metrics
    }
    content = {
        "config": str(arguments.config),
        "timestamp": stamp,
        "checkpoint_dir": str(arguments.checkpoint_dir),
        "model_name": arguments.checkpoint_dir.name,
        "window_size": float(arguments.window_size),
        "stride": float(stride),
        "window_starts": [w.start for w in windows],
        "max_hour": arguments.max_hour,
        "metrics": list(arguments.metrics),
        "split": arguments.split,
        "k_folds": len(folds),
        "time_field": arguments.time_field,
        "results": window_results([w.start for w in windows], [w.end for w in windows], values),
    }
    stem = window_stem("final_model_sliding", arguments.window_size, stride)
    with run_logging("infection_mt", output / f"{stem}.log"):
        for path in write_window_files(output, stem, content, save_data=arguments.save_data):
            logger.info("wrote %s", path)
    return 0


def multitask_windows(arguments: argparse.Namespace) -> int:
    """Slide windows over the test frames of a multi-task run or its folds."""
    windows, stride = windows_of(arguments)
    folds, rows = _windows_of_checkpoints(arguments, [(w.start, w.end) for w in windows])
    output = arguments.output_dir or arguments.checkpoint_dir
    output = output if not output.is_file() else output.parent
    lists = [window_lists(fold, arguments.metrics) for fold in rows]
    aggregated = aggregate_windows(lists)
    results = {
        metric: {"window_centers": aggregated["window_centers"], "means": a["mean"], "stds": a["std"]}
        for metric, a in aggregated["aggregated"].items()
    }
    content = {
        "config": str(arguments.config),
        "timestamp": datetime.now().strftime("%Y%m%d-%H%M%S"),
        "checkpoint": str(folds[0].path if len(folds) == 1 else arguments.checkpoint_dir),
        "window_size": float(arguments.window_size),
        "stride": float(stride),
        "time_range": [float(arguments.start_hour), float(arguments.end_hour)],
        "metrics": list(arguments.metrics),
        "results": results,
        "windows": [{"start": w.start, "end": w.end, "center": w.center} for w in windows],
    }
    write_json(output / "multitask_sliding_window_results.json", content)
    figure, [axes] = panel_grid(1, width=9, height=5)
    series = {LABELS[m]: (r["means"], r["stds"] if len(folds) > 1 else None) for m, r in results.items()}
    label = f"Centre of the {arguments.window_size:g} h window (h)"
    line_panel(
        axes,
        aggregated["window_centers"],
        series,
        title="Performance over time",
        x_label=label,
        y_label="Score",
        limits=(0.0, 1.0),
    )
    name = f"multitask_temporal_generalization_w{arguments.window_size:g}h.png"
    logger.info("wrote %s", save_figure(output / name, figure))
    return 0


def _windows_of_checkpoints(
    arguments: argparse.Namespace, windows: Sequence[tuple[float, float]]
) -> tuple[list[Fold], list[list[WindowMetrics]]]:
    """Return the checkpoints and their metrics in every window."""
    from infection_mt.studies.fold_inference import folds_config, predict_folds, with_test_hours

    folds = find_checkpoints(arguments.checkpoint_dir)
    config = folds_config(folds, arguments.config, getattr(arguments, "k_folds", None))
    if arguments.time_field == "hours_since_start":
        first, last = min(start for start, _ in windows), max(end for _, end in windows)
        config = with_test_hours(config, first, last)
    found = predict_folds(
        folds,
        config,
        split=getattr(arguments, "split", "test"),
        device=arguments.device,
    )
    rows = []
    for p in _with_classes(found, arguments.checkpoint_dir).values():
        rows.append(
            windowed_metrics(
                p.probability,
                p.label,
                times_of(p, arguments.time_field),
                size_hours=windows[0][1] - windows[0][0],
                starts=[start for start, _ in windows],
                logit=p.logit,
                time=p.time,
                time_target=p.time_target,
            )
        )
    return folds, rows


def times_of(predictions: Predictions, field: str) -> np.ndarray:
    """Return the number that windows are laid over, [N].

    Raises:
        ValueError: The frames' descriptions lack the field.
    """
    if field == "hours_since_start":
        return predictions.hours
    if not all(isinstance(row.get(field), (int, float)) for row in predictions.metadata):
        known = ", ".join(predictions.metadata[0])
        raise ValueError(f"--time-field {field!r}: no such number among {known}")
    return np.array([float(row[field]) for row in predictions.metadata])
