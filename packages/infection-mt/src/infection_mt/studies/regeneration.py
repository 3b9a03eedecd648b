"""Predictions made again from the checkpoints of a run or its folds, in the one layout of this package."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from infection_mt import evaluation
from infection_mt.analysis.plots import save_figure
from infection_mt.analysis.prediction_plots import prediction_scatter
from infection_mt.prediction_files import PREDICTIONS_NAME
from infection_mt.studies.fold_inference import folds_config, predict_folds
from infection_mt.studies.run_folders import Fold, find_folds

logger = logging.getLogger(__name__)


def missing_folds(result_dir: Path) -> list[Fold]:
    """Return the folds without predictions."""
    return [fold for fold in find_folds(result_dir) if not (fold.path / PREDICTIONS_NAME).is_file()]


def predict_missing(result_dir: Path, config_file: Path | None, *, device: str = "auto") -> list[Fold]:
    """Predict the test frames of every fold that has no predictions, with its best weights.

    Args:
        result_dir: A run or its folds.
        config_file: Configuration; None takes the checkpoints' own.
        device: As in :func:`medshared.gpu.select_device`.

    Returns:
        The folds that were predicted.

    Raises:
        FileNotFoundError: A checkpoint is missing.
    """
    missing = missing_folds(result_dir)
    everyone = find_folds(result_dir)
    if not missing:
        logger.info("%s: all %d folds have predictions", result_dir, len(everyone))
        return []
    checkpoints = [Fold(fold.number, checkpoint_of(fold)) for fold in missing]
    config = folds_config(checkpoints, config_file, len(everyone) if len(everyone) > 1 else None)
    found = predict_folds(checkpoints, config, device=device)
    for fold in missing:
        found[fold.number].save(fold.path)
    return missing


def checkpoint_of(fold: Fold, name: str = "best.pt") -> Path:
    """Return the checkpoint file of a fold.

    Raises:
        FileNotFoundError: It is not there.
    """
    for path in (fold.path / "checkpoints" / name, fold.path / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{fold.path}: no checkpoints/{name}")


def regenerate(arguments: argparse.Namespace) -> int:
    """Write ``test_predictions.npz`` of the folds that lack it; existing files are kept."""
    for fold in predict_missing(arguments.result_dir, arguments.config, device=arguments.device):
        logger.info("wrote %s", fold.path / PREDICTIONS_NAME)
    return 0


def predict_and_plot(arguments: argparse.Namespace) -> int:
    """Predict the test frames of one run again, and draw predicted against true hours with fitted lines."""
    [fold, *others] = find_folds(arguments.result_dir)
    if others:
        raise ValueError(f"{arguments.result_dir}: holds folds; name one of them, for example {fold.path}")
    fold = Fold(fold.number, checkpoint_of(fold, arguments.checkpoint_name))
    stored = arguments.result_dir / "results.json"
    index = None
    if stored.is_file():
        from infection_mt.analysis.results_file import read_results

        index = read_results(stored).content.get("fold_index")
    checkpoint = Fold(0 if index is None else int(index) + 1, fold.path)
    config = folds_config([checkpoint], None)
    predictions = predict_folds([checkpoint], config, device=arguments.device)[checkpoint.number]
    if not predictions.has_time:
        raise ValueError(f"{fold.path}: this model estimates no time; there is nothing to scatter")
    predictions.save(arguments.result_dir)
    logger.info(evaluation.format_metrics("test", evaluation.evaluate_predictions(predictions)))
    figure = prediction_scatter(predictions, onset_hour=config.multitask.infection_onset_hour)
    logger.info("wrote %s", save_figure(arguments.result_dir / arguments.output_name, figure))
    return 0
