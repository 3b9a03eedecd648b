"""Runs side by side on the same frames: does the second task help, and is the difference more than chance?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infection_mt import evaluation
from infection_mt.config import Config
from infection_mt.data.prepare import RunData, cache_folder, prepare_data
from infection_mt.data.stacks import load_stacks
from infection_mt.reporting import bootstrap_unit, number
from infection_mt.training import RunOptions, train_run
from medshared.files import write_json
from medshared.metrics.statistics import holm
from medshared.report import Report
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)
TASKS = ("multitask", "classification", "regression")
HEADERS = (
    "first run", "second run", "metric", "first", "second", "difference", "interval", "p (Holm)", "frames"
)  # fmt: skip
NAMES = {"cls_auc": "AUC", "cls_f1": "F1", "cls_accuracy": "accuracy", "reg_mae": "mean time error (h)"}


def task_config(config: Config, task: str) -> Config:
    """Return the configuration with another task; everything else stays, so that only the losses differ."""
    return config.model_copy(
        update={"task": config.task.model_copy(update={"type": task}), "regression": None}
    )


def train_all_tasks(config: Config, folder: Path, options: RunOptions) -> dict[str, dict[str, Any]]:
    """Train the multi-task model and both single-task models on one split, then compare them.

    Args:
        config: Settings of all three.
        folder: Receives ``multitask``, ``classification``, ``regression`` and ``comparison``.
        options: Device, resume, downloads.

    Returns:
        Results by task.
    """
    config = config.resolved()
    stacks = load_stacks(config.data, cache_folder(config))
    shared: RunData = prepare_data(config, stacks=stacks)
    results = {}
    for task in TASKS:
        run = folder / task
        if options.resume and RunDirectory(run).is_complete:
            continue
        results[task] = train_run(task_config(config, task), run, options, data=shared)
    compare_runs([folder / task for task in TASKS], folder / "comparison")
    return results


def compare_runs(runs: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    """Compare the first run with each of the others, frame by frame, and write a table and a page.

    Pairs are joined by sample key (well, position, frame). Intervals resample whole stacks or wells; p-values
    exchange the models group by group and are corrected by Holm's method over the whole table.

    Args:
        runs: Run directories with predictions.
        output: Receives ``comparison.json`` and ``report.html``.

    Raises:
        ValueError: Fewer than two runs, or runs without common frames.
    """
    if len(runs) < 2:
        raise ValueError("compare needs at least two runs")
    predictions = [evaluation.Predictions.load(run) for run in runs]
    unit = bootstrap_unit(predictions[0])
    rows: list[dict[str, Any]] = []
    for run, other in zip(runs[1:], predictions[1:], strict=True):
        for found in evaluation.compare_predictions(predictions[0], other, group=unit):
            values = asdict(found)
            pair = {"first": runs[0].name, "second": run.name}
            rows.append({**pair, "value_first": values.pop("a"), "value_second": values.pop("b"), **values})
    adjusted = holm([row["p_value"] for row in rows])
    for row, p_value in zip(rows, adjusted, strict=True):
        row["p_holm"] = float(p_value)
    write_json(output / "comparison.json", rows)
    comparison_report(rows, unit).write(output / "report.html")
    return rows


def comparison_report(rows: Sequence[Mapping[str, Any]], unit: str) -> Report:
    """Build the page of a comparison."""
    report = Report("Runs on the same frames")
    report.text(
        f"Differences are first minus second, with 95 % intervals over whole {unit}s; p-values exchange the two models "
        f"{unit} by {unit} and are corrected by Holm's method. An interval that holds 0 shows no difference."
    )
    report.table(comparison_rows(rows), "Paired comparison", headers=HEADERS)
    return report


def comparison_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the comparison as text rows under :data:`HEADERS`."""
    table = []
    for row in rows:
        d = row["difference"]
        table.append(
            [
                row["first"],
                row["second"],
                NAMES.get(row["metric"], row["metric"]),
                number(row["value_first"]),
                number(row["value_second"]),
                number(d["estimate"]),
                f"[{number(d['low'])}, {number(d['high'])}]",
                number(row["p_holm"]),
                str(row["n"]),
            ]
        )
    return table
