"""The analysis of one run: figures, tables and summary from what the run left on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infection_mt.analysis.errors import error_table, largest_time_errors, sample_table, wrong_decisions
from infection_mt.analysis.results_file import Results, read_results
from infection_mt.analysis.summary import training_summary
from infection_mt.analysis.training_log import TrainingLog, read_training_log
from infection_mt.config import WindowsConfig
from infection_mt.prediction_files import METADATA_NAME, PREDICTIONS_NAME, PredictionFileError
from infection_mt.prediction_table import Predictions
from infection_mt.windows import earliest_reliable_hour, window_predictions
from medshared.files import to_plain, write_text
from medshared.tables import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
RESULTS_NAME = "results.json"
SUMMARY_NAME = "training_summary.txt"
DEFAULT_ONSET = 2.0  # of the original's configuration


def analyze_run(
    result_dir: Path | str,
    output_dir: Path | str | None = None,
    *,
    results: Mapping[str, Any] | None = None,
    n_resamples: int = 200,
) -> list[Path]:
    """Draw and summarise a finished run of this package or of the original.

    Reads ``results.json`` (also cut ones), the epochs (``history.csv``, ``history.json``, ``metrics.csv``
    or a log, also in the original's folder ``train.log``) and ``test_predictions.npz``. What is missing is
    left out with a warning.

    Args:
        result_dir: The run's folder.
        output_dir: Where to write; None writes into the run's folder.
        results: Content of ``results.json`` of a run that has not written it yet.
        n_resamples: Resamples of the windows' intervals.

    Returns:
        The written files: ``training_curves.png``, ``validation_metrics.png``, ``prediction_scatter.png``,
        ``temporal_generalization.png``, ``training_summary.txt``, more figures in ``figures/`` and tables
        in ``tables/``.

    Raises:
        FileNotFoundError: Without the folder or its ``results.json``.
        ValueError: When ``results.json`` is no JSON object.
    """
    source = Path(result_dir)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such run folder")
    target = source if output_dir is None else Path(output_dir)
    found = read_results(source / RESULTS_NAME) if results is None else Results(to_plain(results))
    if not found.complete:
        logger.warning("%s", found.problem)
    log = read_training_log(source)
    if log is None:
        logger.warning("%s: no history and no log with epochs: training curves are left out", source)
    written = _epoch_figures(log, target)
    predictions = _read_predictions(source, found)
    if predictions is not None and len(predictions):
        written += _prediction_figures(predictions, found, target, n_resamples)
        written += _tables(predictions, target)
    written.append(write_text(target / SUMMARY_NAME, training_summary(found.content, log)))
    return written


def analyze_command(result_dir: Path | str, output_dir: Path | str | None = None) -> int:
    """Analyse a run and return an exit code for the shell.

    Args:
        result_dir: The run's folder.
        output_dir: Where to write; None writes into the run's folder.

    Returns:
        0 when done, 2 when the run or its results are missing or unreadable.
    """
    try:
        written = analyze_run(result_dir, output_dir)
    except (FileNotFoundError, ValueError) as error:
        logger.error("%s", error)
        return 2
    for path in written:
        logger.info("wrote %s", path)
    return 0


def _setting(results: Results, section: str, key: str, default: Any) -> Any:
    config = results.content.get("config")
    values = config.get(section) if isinstance(config, Mapping) else None
    value = values.get(key) if isinstance(values, Mapping) else None
    return default if value is None else value


def _onset(results: Results) -> float:
    return float(_setting(results, "multitask", "infection_onset_hour", DEFAULT_ONSET))


def _read_predictions(source: Path, results: Results) -> Predictions | None:
    if not (source / PREDICTIONS_NAME).is_file():
        logger.warning("%s: no %s: figures of predictions are left out", source, PREDICTIONS_NAME)
        return None
    low, high = _setting(results, "multitask", "clamp_range", (0.0, 48.0))
    try:
        predictions = Predictions.load(source, onset_hour=_onset(results), clamp_range=(low, high))
    except PredictionFileError as error:
        logger.warning("%s", error)
        return None
    if not np.isfinite(predictions.hours).any():
        logger.warning("%s: no %s: windows and errors by hour are left out", source, METADATA_NAME)
    return predictions


def _epoch_figures(log: TrainingLog | None, target: Path) -> list[Path]:
    from infection_mt.analysis.plots import save_figure, training_curves, validation_metrics

    if log is None:
        return []
    written = [save_figure(target / "training_curves.png", training_curves(log))]
    metrics = validation_metrics(log)
    if metrics is not None:
        written.append(save_figure(target / "validation_metrics.png", metrics))
    return written


def _prediction_figures(p: Predictions, results: Results, target: Path, n_resamples: int) -> list[Path]:
    from infection_mt.analysis import prediction_plots as draw
    from infection_mt.analysis.plots import save_figure, temporal_generalization

    known_hours = bool(np.isfinite(p.hours).any())
    figures: dict[str, Callable[[], Figure | None]] = {}
    if p.has_time:
        figures["prediction_scatter.png"] = lambda: draw.prediction_scatter(p, onset_hour=_onset(results))
        figures["figures/error_distribution.png"] = lambda: draw.error_distribution(p)
    if p.has_classes:
        figures["figures/reliability.png"] = lambda: draw.reliability(p)
        figures["figures/roc.png"] = lambda: draw.roc(p)
    if known_hours and p.has_time:
        figures["figures/time_error_by_hour.png"] = lambda: draw.time_error_by_hour(p)
    if known_hours and p.has_classes:
        windows = window_predictions(p, _windows_config(results), n_resamples=n_resamples)
        reliable = earliest_reliable_hour(windows)
        figures["temporal_generalization.png"] = lambda: temporal_generalization(
            windows, reliable_from=reliable
        )
        figures["figures/probability_over_time.png"] = lambda: draw.probability_over_time(p)
    written = []
    for name, make in figures.items():
        figure = make()
        if figure is not None:
            written.append(save_figure(target / name, figure))
    return written


def _windows_config(results: Results) -> WindowsConfig:
    config = results.content.get("config")
    given = config.get("windows") if isinstance(config, Mapping) else None
    return WindowsConfig.model_validate(given) if isinstance(given, Mapping) else WindowsConfig()


def _tables(p: Predictions, target: Path) -> list[Path]:
    written = []
    if p.has_time and p.has_classes:
        for by in ("position", "tiff"):
            written.append(write_table(target / "tables" / f"{by}_error_summary.csv", error_table(p, by)))
            of_classes = error_table(p, by, by_class=True)
            written.append(write_table(target / "tables" / f"{by}_error_summary_by_class.csv", of_classes))
    if p.has_classes and len(wrong := wrong_decisions(p, 50)):
        written.append(write_table(target / "tables" / "cls_mistakes.csv", sample_table(p, wrong)))
    if p.has_time:
        worst = sample_table(p, largest_time_errors(p, 50))
        written.append(write_table(target / "tables" / "reg_errors.csv", worst))
    return written
