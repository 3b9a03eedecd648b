"""What one run leaves behind once training has ended: scores, predictions, windows, pictures, the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from infection_mt import evaluation
from infection_mt.config import Config
from infection_mt.data.prepare import plain_config, table_targets
from infection_mt.inference import score
from infection_mt.probabilities import sigmoid
from infection_mt.window_files import write_temporal_metrics
from infection_mt.windows import window_predictions
from medshared.distributed import by_first
from medshared.files import read_json, write_json
from medshared.metrics.classification import (
    best_threshold,
    brier_score,
    expected_calibration_error,
    fit_temperature,
)
from medshared.report import Report
from medshared.runs import RunDirectory

if TYPE_CHECKING:
    from infection_mt.training import Trainer

logger = logging.getLogger(__name__)


def finish_run(
    trainer: Trainer, *, best_epoch: int, fold_index: int | None, seconds: float
) -> dict[str, Any]:
    """Score the test set once and write every output of a run; ``results.json`` comes last.

    All processes of the run predict, process 0 does the rest.

    Args:
        trainer: Holds the weights that score the test set.
        best_epoch: Their epoch.
        fold_index: 0-based fold, or None.
        seconds: Time that training took.

    Returns:
        What ``results.json`` holds.
    """
    validation, predictions = trainer.predict("val"), trainer.predict("test")
    return by_first(
        lambda: _write(
            trainer, validation, predictions, best_epoch=best_epoch, fold_index=fold_index, seconds=seconds
        )
    )


def _write(
    trainer: Trainer,
    validation: evaluation.Predictions,
    predictions: evaluation.Predictions,
    *,
    best_epoch: int,
    fold_index: int | None,
    seconds: float,
) -> dict[str, Any]:
    config, run = trainer.config, trainer.run
    threshold = choose_threshold(validation, config)
    predictions.save(run.path)
    results = {
        "experiment_name": config.experiment_name,
        "run_id": run.path.name,
        "fold_index": fold_index,
        "config": plain_config(config),
        "best_val_metric": trainer.progress.best_value,
        "best_epoch": best_epoch,
        "threshold": threshold,
        **assess(predictions, config, trainer.time_scale, threshold),
        "baseline": baselines(trainer, predictions),
        "calibration": calibration_numbers(validation, predictions),
        "warnings": list(trainer.data.warnings),
        "frames": {name: len(table) for name, table in trainer.data.tables.items()},
        "stacks": {name: len(stacks) for name, stacks in trainer.data.split.sides().items()},
        "seconds": seconds,
    }
    if threshold != 0.5:
        _store_threshold(run, threshold)
    logger.info(evaluation.format_metrics("test", results["test_metrics"]))
    write_outputs(run, config, predictions, results, fold_index=fold_index)
    run.write_results(results)
    return results


def assess(
    predictions: evaluation.Predictions, config: Config, time_scale: float, threshold: float = 0.5
) -> dict[str, Any]:
    """Return metrics, intervals and naive baselines of one set of predictions.

    Args:
        predictions: Of one set of frames.
        config: Task, weights, bootstrap.
        time_scale: Hours at which the time part of ``combined`` is 0.
        threshold: Chosen on validation; the metrics at 0.5 are always reported too.
    """
    m = config.metrics
    assessed: dict[str, Any] = {
        "test_metrics": score(predictions, config, time_scale),
        "baseline": evaluation.naive_baselines(predictions.label, predictions.time_target),
    }
    if threshold != 0.5:
        assessed["test_metrics_at_threshold"] = score(predictions, config, time_scale, threshold)
    if m.bootstrap_resamples:
        groups = bootstrap_unit(predictions)
        found = evaluation.bootstrap_intervals(
            predictions,
            predictions.groups(groups),
            n_resamples=m.bootstrap_resamples,
            confidence=m.confidence,
            seed=config.seed,
        )
        assessed["intervals"] = {
            "groups": groups,
            "confidence": m.confidence,
            **{name: asdict(interval) for name, interval in found.items()},
        }
    return assessed


def baselines(trainer: Trainer, predictions: evaluation.Predictions) -> dict[str, float]:
    """Return what needs no image, chosen on the training frames: the commonest class, a constant time."""
    table = trainer.data.tables["train"]
    train_target = table_targets(trainer.config, table)
    naive = evaluation.naive_baselines(
        predictions.label,
        predictions.time_target,
        train_label=table.infected(),
        train_time_target=train_target,
    )
    mean = float(np.mean(train_target, dtype=np.float64))
    return {**naive, "mean_mae": float(np.mean(np.abs(predictions.time_target - mean)))}


def bootstrap_unit(predictions: evaluation.Predictions) -> Literal["stack", "well"]:
    """Return what is resampled: wells when every class has several, else stacks."""
    wells = predictions.groups("well")
    per_class = [len(set(wells[predictions.label == label])) for label in set(predictions.label.tolist())]
    return "well" if min(per_class, default=0) > 3 else "stack"


def calibration_numbers(
    validation: evaluation.Predictions, predictions: evaluation.Predictions
) -> dict[str, float] | None:
    """Return how far the probabilities of a test set can be trusted, as they are and after temperature scaling.

    Args:
        validation: Chooses the temperature (Guo et al., "On calibration of modern neural networks", ICML 2017).
        predictions: Is judged.

    Returns:
        Expected calibration error (10 bins) and Brier score before and after, and the temperature; None without
        class outputs or with a one-class validation set.
    """
    if not predictions.has_classes or len(set(validation.label.tolist())) < 2:
        return None
    temperature = fit_temperature(validation.logit, validation.label)
    scaled = sigmoid(predictions.logit / temperature)
    return {
        "ece": expected_calibration_error(predictions.probability, predictions.label),
        "brier": brier_score(predictions.probability, predictions.label),
        "temperature": temperature,
        "ece_scaled": expected_calibration_error(scaled, predictions.label),
        "brier_scaled": brier_score(scaled, predictions.label),
    }


def choose_threshold(validation: evaluation.Predictions, config: Config) -> float:
    """Return the decision threshold: 0.5, or the best one on the validation set."""
    if config.selection.threshold == "fixed" or not validation.has_classes:
        return 0.5
    if len(set(validation.label.tolist())) < 2:
        logger.warning("the validation set has one class: the decision threshold stays at 0.5")
        return 0.5
    return float(best_threshold(validation.probability, validation.label, config.selection.threshold))


def write_outputs(
    run: RunDirectory,
    config: Config,
    predictions: evaluation.Predictions,
    results: Mapping[str, Any],
    *,
    fold_index: int | None = None,
) -> None:
    """Write windows, history, pictures, text summary and report; a failing picture never fails the run."""
    windowed = window_predictions(
        predictions, config.windows, n_resamples=min(config.metrics.bootstrap_resamples, 200)
    )
    write_temporal_metrics(run.path, windowed, config.windows, fold=fold_index is not None)
    write_json(run.path / "history.json", run.metrics_rows)
    try:
        from infection_mt.analysis.run_analysis import analyze_run

        analyze_run(run.path, results=results)
    except Exception:  # whatever goes wrong with a picture, hours of training are kept
        logger.exception("the analysis failed; run `infection-mt analyze %s` again", run.path)
    build_report(run, results).write(run.path / "report.html")


def build_report(run: RunDirectory, results: Mapping[str, Any]) -> Report:
    """Build the page of one run from its results and pictures."""
    config = results["config"]
    report = Report(
        f"{config['experiment_name']}", subtitle=f"run {results['run_id']} · {config['task']['type']}"
    )
    for warning in results.get("warnings", ()):
        report.warning(warning)
    test, intervals = results["test_metrics"], results.get("intervals") or {}
    report.cards(_cards(test, intervals, results["baseline"]))
    report.section("Test metrics")
    report.text(
        f"{results['frames']['test']} frames of {results['stacks']['test']} stacks that training never saw, scored "
        f"with the weights of epoch {results['best_epoch']}. Intervals resample whole {intervals.get('groups', '')}s."
    )
    report.table(_metric_rows(test, intervals), "Test set", headers=["metric", "value", "interval"])
    for title, names in PICTURES.items():
        pictures = [run.path / name for name in names if (run.path / name).exists()]
        if pictures:
            report.section(title)
        calibration = results.get("calibration")
        if title == "Calibration" and calibration:
            report.text(
                f"Expected calibration error {number(calibration['ece'])}, Brier score {number(calibration['brier'])}; "
                f"with the temperature {number(calibration['temperature'], 2)} chosen on validation "
                f"{number(calibration['ece_scaled'])} and {number(calibration['brier_scaled'])}."
            )
        for picture in pictures:
            report.figure(picture, caption=PICTURE_CAPTIONS.get(picture.name, picture.stem.replace("_", " ")))
    report.config(config)
    environment = run.path / "environment.json"
    if environment.exists():
        report.provenance(read_json(environment))
    return report


PICTURES = {
    "Time": ["prediction_scatter.png", "figures/time_error_by_hour.png", "temporal_generalization.png"],
    "Class": ["figures/probability_over_time.png", "figures/roc.png"],
    "Calibration": ["figures/reliability.png"],
    "Training": ["training_curves.png", "validation_metrics.png"],
}
PICTURE_CAPTIONS = {
    "prediction_scatter.png": "Predicted against true hours; the line is the identity.",
    "time_error_by_hour.png": "Time error over the hours of the recording.",
    "temporal_generalization.png": "Metrics in sliding windows of hours since the first frame.",
    "probability_over_time.png": "P(infected) of each test stack over its recording.",
    "roc.png": "Receiver operating characteristic on the test set.",
    "reliability.png": "Observed share of infected frames against predicted probability.",
    "training_curves.png": "Losses over epochs.",
    "validation_metrics.png": "Validation metrics over epochs.",
}
CARDS = {
    "cls_auc": ("AUC", "", None),
    "cls_f1": ("F1", "", None),
    "cls_accuracy": ("Accuracy", "", "majority_accuracy"),
    "reg_mae": ("Mean time error", " h", "constant_mae"),
}


def number(value: Any, digits: int = 3, unit: str = "") -> str:
    """Format a metric; an undefined one (None, NaN) reads "undefined"."""
    if value is None or value != value:
        return "undefined"
    return f"{value:.{digits}f}{unit}"


def _cards(
    test: Mapping[str, Any], intervals: Mapping[str, Any], baseline: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    cards = {}
    for name, (label, unit, naive) in CARDS.items():
        if name not in test:
            continue
        interval, notes = intervals.get(name), []
        if interval and interval.get("low") is not None:
            notes.append(f"{number(interval['low'])} to {number(interval['high'])}")
        if naive and naive in baseline:
            notes.append(f"naive {number(baseline[naive], unit=unit)}")
        cards[label] = (number(test[name], unit=unit), ", ".join(notes))
    return cards


def _metric_rows(test: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, value in test.items():
        interval = intervals.get(name)
        between = f"[{number(interval['low'], 4)}, {number(interval['high'], 4)}]" if interval else ""
        rows.append([name, number(value, 4), between])
    return rows


def _store_threshold(run: RunDirectory, threshold: float) -> None:
    """Keep the decision threshold with the weights that it belongs to."""
    run.save_checkpoint("best", {**run.load_checkpoint("best"), "threshold": threshold})


def rewrite_report(folder: Path, output: Path | None = None) -> Path:
    """Write a finished run's report again from its files.

    Raises:
        FileNotFoundError: The run has no ``results.json``.
    """
    results = read_json(folder / "results.json")
    target = (output or folder) / "report.html"
    build_report(RunDirectory(folder), results).write(target)
    return target
