"""Where a finished run or its folds err; each function is one original-style script."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt.analysis.errors import (
    calibration,
    decision_confidence,
    error_table,
    period_masks,
    sample_table,
    wrong_decisions,
)
from infection_mt.analysis.plots import save_figure
from infection_mt.analysis.prediction_plots import error_distribution, prediction_scatter, reliability
from infection_mt.analysis.training_log import read_training_log
from infection_mt.config import WindowsConfig
from infection_mt.evaluation import evaluate_predictions
from infection_mt.prediction_table import Predictions
from infection_mt.sample_keys import file_name, well_and_position
from infection_mt.studies import error_figures as draw
from infection_mt.studies.periods import Periods, period_report
from infection_mt.studies.result_tables import load_named_folds, load_pooled, worst_report
from infection_mt.studies.run_folders import find_folds
from infection_mt.windows import COMPREHENSIVE, window_predictions
from medshared.files import write_text
from medshared.tables import write_table

logger = logging.getLogger(__name__)
TOP = 20  # rows of the short tables, whose names say so


def _save(output: Path, figures: Mapping[str, Any]) -> None:
    for name, figure in figures.items():
        logger.info("wrote %s", save_figure(output / name, figure))


def comprehensive(arguments: argparse.Namespace) -> int:
    """Write the eight pictures and reports of ``analyze_cv_results_comprehensive.py``."""
    p, output = load_pooled(arguments, time=True, classes=True, hours=True)
    periods = Periods()
    end = float(np.ceil(p.hours.max()))
    windows = window_predictions(p, WindowsConfig(end_hour=max(end, 6.0)), rule=COMPREHENSIVE)
    figures = {
        "prediction_scatter.png": prediction_scatter(p),
        "error_analysis_by_time.png": draw.error_by_time(p),
        "error_vs_classification_confidence.png": draw.error_by_confidence(p),
        "valley_period_analysis.png": draw.period_figure(
            p, period_masks(p, periods.early, periods.valley, periods.mid), periods.labels()
        ),
        "classification_by_time_window.png": draw.class_by_time(p, windows),
        "error_distribution_by_time_range.png": draw.error_boxes_by_time(p),
        "regression_residual_over_time.png": draw.residual_over_time(p),
    }
    _save(output, figures)
    text = worst_report(p, TOP) + "\n" + period_report(p, periods)
    logger.info("wrote %s", write_text(output / "worst_predictions_report.txt", text))
    return 0


def full_cv(arguments: argparse.Namespace) -> int:
    """Predict the folds that lack predictions, then run the comprehensive analysis."""
    from infection_mt.studies.regeneration import predict_missing

    predict_missing(arguments.result_dir, arguments.config, device=arguments.device)
    return comprehensive(arguments)


def cv_pictures(arguments: argparse.Namespace) -> int:
    """Write the five ``cv_*.png`` of ``generate_cv_visualizations.py``; what a model lacks is left out."""
    folds = load_named_folds(arguments)
    pooled, output = load_pooled(arguments)
    logs = {
        f"fold {fold.number}" if fold.number else "run": log
        for fold in find_folds(arguments.result_dir)
        if (log := read_training_log(fold.path)) is not None
    }
    figures: dict[str, Any] = {}
    if logs:
        figures["cv_training_curves.png"] = draw.fold_curves(logs)
    else:
        logger.warning("%s: no history of epochs: cv_training_curves.png is left out", arguments.result_dir)
    metrics = {name: evaluate_predictions(p) for name, p in folds.items()}
    figures["cv_fold_performance.png"] = draw.fold_bars(metrics)
    if pooled.has_time:
        figures["cv_prediction_scatter.png"] = prediction_scatter(pooled)
        figures["cv_error_distributions.png"] = draw.error_histograms(folds)
    if pooled.has_classes:
        figures["cv_confusion_matrices.png"] = draw.confusion_matrices(folds)
    _save(output, figures)
    return 0


def regression_errors(arguments: argparse.Namespace) -> int:
    """Write the time errors by time, confidence and correctness, and the surest mistakes."""
    p, output = load_pooled(arguments, time=True, classes=True, hours=True)
    figures = {
        "error_by_time_range.png": draw.error_boxes_by_time(p),
        "error_vs_confidence.png": draw.error_by_confidence(p),
        "confidence_diagnostics.png": draw.confidence_diagnostics(p),
        "error_by_correctness.png": draw.error_by_correctness(p),
    }
    _save(output, figures)
    wrong = wrong_decisions(p, strict=False)
    sure = wrong[decision_confidence(p)[wrong] >= arguments.high_conf_threshold]
    table = output / "high_confidence_mistakes.csv"
    if len(sure):
        logger.info("wrote %s", write_table(table, sample_table(p, sure)))
    text = worst_report(p, arguments.top_k)
    text += f"\n{len(sure)} wrong decisions with confidence of at least {arguments.high_conf_threshold:g}\n"
    logger.info("wrote %s", write_text(output / "worst_predictions_report.txt", text))
    return 0


def residuals(arguments: argparse.Namespace) -> int:
    """Write the residuals over time, their distribution, and their mean and spread across folds."""
    p, output = load_pooled(arguments, time=True, hours=True)
    folds = load_named_folds(arguments)
    fold_of = np.repeat(np.arange(len(folds)), [len(fold) for fold in folds.values()])
    size = arguments.bin_size
    distribution = error_distribution(p) if p.has_classes else draw.error_histograms(folds)
    figures = {
        "regression_residual_over_time.png": draw.residual_over_time(p, bin_hours=size),
        "regression_error_distribution.png": distribution,
        "regression_residual_mean_std.png": draw.residual_over_time(p, bin_hours=size, by_fold=fold_of),
    }
    _save(output, figures)
    return 0


def field_errors(arguments: argparse.Namespace) -> int:
    """Write the errors of each field of view or stack: three tables, boxes and a scatter."""
    p, output = load_pooled(arguments, time=True, classes=True)
    by = arguments.by
    rows = error_table(p, by)
    stem = f"{by}_error_summary"
    for name, table in (
        (stem, rows),
        (f"{stem}_top20", rows[:TOP]),
        (f"{stem}_by_class", error_table(p, by, by_class=True)),
    ):
        logger.info("wrote %s", write_table(output / f"{name}.csv", table))
    names = [_field_of_row(row, by) for row in rows]
    frames = [_field_of_frame(metadata, by) for metadata in p.metadata]
    _save(
        output,
        {
            f"{by}_error_boxplot.png": draw.field_boxes(p, frames, names[: arguments.top_k]),
            f"{by}_error_scatter.png": draw.field_scatter(rows, names),
        },
    )
    return 0


def _field_of_row(row: Mapping[str, Any], by: str) -> str:
    return _short(row["tiff_name"]) if by == "tiff" else _name(row["plate"], row["well"], row["position"])


def _field_of_frame(metadata: Mapping[str, Any], by: str) -> str:
    path = str(metadata.get("path", ""))
    if by == "tiff":
        return _short(file_name(path))
    well, position = well_and_position(path)
    well = metadata.get("well") or well or metadata.get("condition") or "unknown"
    return _name(metadata.get("plate"), well, metadata.get("position") or position or "unknown")


def _name(plate: Any, well: Any, position: Any) -> str:
    return " ".join(str(part) for part in (plate, well, f"p{position}") if part)


def _short(name: str) -> str:
    """Shorten a file name to what tells it from others of an experiment."""
    well, position = well_and_position(name)
    return name if well is None else f"{well} p{position}"


def diagnostics(arguments: argparse.Namespace) -> int:
    """Write confusion and residual by time, predicted against true hours, calibration overall and early."""
    p, output = load_pooled(arguments, time=True, classes=True, hours=True)
    figures = {
        "confusion_rates_by_time.png": draw.confusion_by_time(p),
        "residual_by_time.png": draw.residual_by_bin(p),
        "predicted_vs_true.png": prediction_scatter(p),
        "calibration_overall.png": reliability(p),
    }
    early = p.subset(p.hours < 6.0)
    if len(early) and calibration(early).n.size:
        figures["calibration_0_6h.png"] = reliability(early)
    else:
        logger.warning("%s: no frames before 6 h: calibration_0_6h.png is left out", arguments.result_dir)
    _save(output, figures)
    return 0


def all_errors(run: Path, output: Path) -> None:
    """Write every error study of a run or its folds that its outputs allow.

    Args:
        run: A run or its folds.
        output: Folder of the pictures and tables.
    """
    settings = {"top_k": TOP, "high_conf_threshold": 0.9, "bin_size": 3.0}
    arguments = argparse.Namespace(result_dir=run, output_dir=output, num_folds=None, **settings)
    p: Predictions = load_pooled(arguments)[0]
    cv_pictures(arguments)
    if p.has_time:
        residuals(arguments)
    if p.has_time and p.has_classes:
        comprehensive(arguments)
        regression_errors(arguments)
        diagnostics(arguments)
        for by in ("position", "tiff"):
            arguments.by = by
            field_errors(arguments)
