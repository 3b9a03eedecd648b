"""What one run, or the folds of a model, shows a person: pictures and ``report.html``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advmil import figures
from advmil.evaluation import Evaluation
from advmil.figures import save_figure as save_figure
from advmil.predictions import Predictions
from advmil.run_evaluation import evaluate_run, evaluate_runs
from advmil.run_files import FinishedRun, open_run
from advmil.scoring import MONITORED_LOSS
from medshared.files import read_json
from medshared.report import Report, format_value
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)

TITLES = {
    "history": "Learning curves",
    "scatter": "Predicted and observed time of the {} patients, with each patient's 90 % interval",
    "risk_groups": "Kaplan-Meier curves of the {} patients by predicted risk",
    "curves": "Predicted survival of some {} patients",
    "brier": "Brier score over time",
    "calibration": "D-calibration: where patients' own times fall in their predicted distributions",
}


def write_run_report(folder: Path) -> Path:
    """Draw the pictures of a finished run and write its ``report.html``; a folder of runs gets its evaluation page.

    Args:
        folder: Run directory, or a folder of folds.

    Returns:
        The page.
    """
    if not (folder / "results.json").is_file():
        evaluate_runs([folder])
        return folder / "evaluation" / "evaluation.html"
    run = open_run(folder)
    sets = run.results["sets"]
    set_name = next((name for name in ("test", "validation") if name in sets), next(iter(sets)))
    predictions = run.predictions(set_name)
    evaluation = evaluate_run(run, set_name, resamples=500) if not run.config.test else None
    drawn = draw_figures(run, predictions, evaluation)
    report = Report(f"AdvMIL: {folder.name}", _subtitle(run))
    if evaluation is not None:
        _headline(report, evaluation, set_name)
    for name, path in drawn.items():
        report.figure(path, TITLES[name].format(set_name))
    _selection(report, run)
    report.section("The original's metrics").table(
        _original_rows(run.results["sets"]),
        headers=["metric", *run.results["sets"]],
        caption="chosen epoch's weights",
    )
    report.config(run.config.model_dump())
    environment = folder / "environment.json"
    if environment.is_file():
        report.provenance(read_json(environment))
    return report.write(folder / "report.html")


def _subtitle(run: FinishedRun) -> str:
    c = run.config
    return f"{c.task}, backbone {c.bcb_mode}, fold {c.data_split_seed}, seed {c.seed}"


def _headline(report: Report, evaluation: Evaluation, set_name: str) -> None:
    value = evaluation.metrics["c_index"]
    cards: dict[str, Any] = {
        "C-index": value.estimate,
        "95 % interval": f"{format_value(value.low)} – {format_value(value.high)}",
        f"{set_name} patients": evaluation.patients,
        "events": evaluation.events,
    }
    if "mae_days" in evaluation.metrics:
        cards["MAE (days)"] = evaluation.metrics["mae_days"].estimate
        cards["constant (days)"] = evaluation.metrics["constant_mae_days"].estimate
    report.cards(cards)
    report.table(
        evaluation.table(),
        caption=f"metrics of the {set_name} patients; intervals by a bootstrap over patients",
    )


def _selection(report: Report, run: FinishedRun) -> None:
    """Say what the chosen epoch gained over the last one, so that selection can be told from a fixed protocol."""
    last = run.results.get("last_epoch", {}).get("test")
    best = run.results["sets"].get("test")
    if not last or not best or best["c_index"] is None or last["c_index"] is None:
        return
    report.section("Choice of the epoch").text(
        f"Epoch {run.results['best_epoch']} of {run.results['epochs']} was chosen on the validation set: test C-index "
        f"{best['c_index']:.4f}. The last epoch, which needs no choice, has {last['c_index']:.4f}."
    )


def _original_rows(sets: dict[str, dict[str, Any]]) -> list[list[Any]]:
    names = list(next(iter(sets.values())))
    return [[name, *(scores.get(name) for scores in sets.values())] for name in names]


def draw_figures(
    run: FinishedRun, predictions: Predictions, evaluation: Evaluation | None
) -> dict[str, Path]:
    """Draw every picture that the run has data for into ``figures/``; a picture that fails never fails the run."""
    train = None if run.config.test else run.training_predictions()
    drawers: dict[str, Callable[[], Any]] = {}
    rows = RunDirectory(run.folder).metrics_rows if (run.folder / "metrics.csv").is_file() else []
    if rows:
        loss = MONITORED_LOSS[predictions.kind]
        drawers["history"] = lambda: figures.draw_history(rows, loss, int(run.results["best_epoch"]))
    if predictions.kind == "continuous":
        drawers["scatter"] = lambda: figures.draw_scatter(predictions)
    drawers["risk_groups"] = lambda: figures.draw_risk_groups(predictions)
    if evaluation is not None and evaluation.grid.size:
        drawers["curves"] = lambda: figures.draw_curves(predictions, evaluation.grid, train=train)
        if evaluation.brier.size:
            drawers["brier"] = lambda: figures.draw_brier(evaluation)
        if evaluation.histogram.size:
            p = evaluation.tests["d_calibration_p"]
            drawers["calibration"] = lambda: figures.draw_calibration(evaluation.histogram, p)
    drawn: dict[str, Path] = {}
    for name, draw in drawers.items():
        try:
            drawn[name] = save_figure(draw(), run.folder / "figures" / f"{name}.png")
        except OSError:  # a full disk is no fault of the figure's
            raise
        except Exception:
            logger.exception("figure %s could not be drawn", name)
    return drawn
