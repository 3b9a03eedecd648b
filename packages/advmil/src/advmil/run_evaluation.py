"""Finished runs against the field's metrics: one run, all folds, or two models side by side."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from advmil.errors import DataError
from advmil.evaluation import (
    Evaluation,
    compare_folds,
    compare_predictions,
    evaluate_predictions,
    fold_table,
)
from advmil.predictions import join_predictions
from advmil.run_files import FinishedRun, find_runs, open_run
from medshared.files import write_json
from medshared.report import Report
from medshared.tables import write_table

logger = logging.getLogger(__name__)


def evaluate_run(
    run: FinishedRun, set_name: str = "test", *, resamples: int = 1000, seed: int = 0
) -> Evaluation:
    """Score one set of a finished run; the training patients of the run give the censoring weights.

    Args:
        run: The run.
        set_name: Set to score.
        resamples: Bootstrap resamples by patient.
        seed: Of the bootstrap.
    """
    train = run.training_predictions()
    return evaluate_predictions(
        run.predictions(set_name),
        train.e,
        train.days,
        train_predictions=train,
        n_resamples=resamples,
        seed=seed,
    )


def evaluate_runs(
    paths: Sequence[Path],
    *,
    set_name: str = "test",
    resamples: int = 1000,
    seed: int = 0,
    output: Path | None = None,
) -> dict[str, Any]:
    """Score runs; several are taken as folds and summarised with mean ± sd and a pooled row.

    Args:
        paths: Run directories, or a folder that holds them.
        set_name: Set to score.
        resamples: Bootstrap resamples by patient.
        seed: Of the bootstrap.
        output: Folder of the results; null = ``evaluation`` beside or within.

    Returns:
        What ``evaluation.json`` holds.
    """
    runs = [open_run(folder) for folder in find_runs(paths)]
    folder = output or (paths[0] / "evaluation")
    names = _short_names([run.folder for run in runs])
    found = {
        name: evaluate_run(run, set_name, resamples=resamples, seed=seed)
        for name, run in zip(names, runs, strict=True)
    }
    content: dict[str, Any] = {"set": set_name, "runs": {name: e.flat() for name, e in found.items()}}
    report = Report("AdvMIL evaluation", f"{len(runs)} run{'s' * (len(runs) > 1)}, set {set_name}")
    for name, evaluation in found.items():
        report.section(name).table(
            evaluation.table(), caption=f"{evaluation.patients} patients, {evaluation.events} events"
        )
        write_table(folder / f"metrics_{name}.csv", evaluation.table())
    if len(runs) > 1:
        table = fold_table(found)
        write_table(folder / "folds.csv", table)
        report.section("Folds").table(table, caption="mean and population standard deviation over the runs")
        content["folds"] = table.to_dict("records")
        pooled = _pooled(runs, set_name, resamples, seed)
        if pooled is not None:
            content["pooled"] = pooled.flat()
            report.section("All folds pooled").table(
                pooled.table(), caption="out-of-fold predictions together"
            )
    write_json(folder / "evaluation.json", content)
    report.write(folder / "evaluation.html")
    for name, evaluation in found.items():
        value = evaluation.metrics["c_index"]
        logger.info("%s: C-index %.4f (%.4f to %.4f)", name, value.estimate, value.low, value.high)
    return content


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of paths, as many as tell the folders apart."""
    absolute = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100 - links stay as they are
    for n in range(1, max(len(path.parts) for path in absolute)):
        names = ["_".join(path.parts[-n:]) for path in absolute]
        if len(set(names)) == len(names):
            return names
    return [str(k) for k in range(len(folders))]


def _pooled(runs: Sequence[FinishedRun], set_name: str, resamples: int, seed: int) -> Evaluation | None:
    """Score the sets of all folds together where they are disjoint and of one kind; weights from all patients."""
    try:
        joined = join_predictions([run.predictions(set_name) for run in runs])
    except ValueError as reason:
        logger.info("no pooled result: %s", reason)
        return None
    return evaluate_predictions(joined, joined.e, joined.days, n_resamples=resamples, seed=seed)


def _by_fold(path: Path) -> dict[int, FinishedRun]:
    """Return the runs at a path by fold.

    Raises:
        DataError: Two runs of one fold.
    """
    found: dict[int, FinishedRun] = {}
    for run in (open_run(folder) for folder in find_runs([path])):
        fold = int(run.results.get("fold", 0))
        if fold in found:
            raise DataError(
                f"{found[fold].folder} and {run.folder} are both of fold {fold}; give a folder that holds one model's "
                "folds, or single runs"
            )
        found[fold] = run
    return found


def compare_runs(
    a: Path,
    b: Path,
    *,
    set_name: str = "test",
    resamples: int = 1000,
    seed: int = 0,
    output: Path,
) -> dict[str, Any]:
    """Compare two models on the same patients: paired bootstrap in each fold, corrected tests over the folds.

    Args:
        a: Run directory or folder of folds.
        b: Likewise; folds are paired by ``data_split_seed``.
        set_name: Set to compare on.
        resamples: Bootstrap resamples by patient.
        seed: Of the bootstrap.
        output: Folder of the results.

    Raises:
        DataError: The two have different folds.
    """
    first, second = (_by_fold(path) for path in (a, b))
    if set(first) != set(second):
        raise DataError(
            f"{a} has the folds {sorted(first)}, {b} has {sorted(second)}; compare runs of the same folds"
        )
    report = Report("AdvMIL comparison", f"a = {a.name}, b = {b.name}, set {set_name}")
    content: dict[str, Any] = {"a": str(a), "b": str(b), "set": set_name, "folds": {}}
    evaluations: tuple[list[Evaluation], list[Evaluation]] = ([], [])
    for fold in sorted(first):
        x, y = first[fold], second[fold]
        train = x.training_predictions()
        table = compare_predictions(
            x.predictions(set_name),
            y.predictions(set_name),
            train.e,
            train.days,
            train_predictions_a=train,
            train_predictions_b=y.training_predictions(),
            n_resamples=resamples,
            seed=seed,
        )
        write_table(output / f"comparison_fold{fold}.csv", table)
        report.section(f"Fold {fold}").table(
            table, caption="difference a − b on the same resamples of the patients"
        )
        content["folds"][str(fold)] = table.to_dict("records")
        for runs, run in zip(evaluations, (x, y), strict=True):
            runs.append(evaluate_run(run, set_name, resamples=0))
    if len(first) > 1:
        any_run = next(iter(first.values()))
        n_train, n_test = len(any_run.training_predictions()), len(any_run.predictions(set_name))
        table: pd.DataFrame = compare_folds(*evaluations, n_train, n_test)
        write_table(output / "comparison.csv", table)
        report.section("Over the folds").table(
            table, caption="corrected resampled t test (Nadeau and Bengio), Holm"
        )
        content["over_folds"] = table.to_dict("records")
    write_json(output / "comparison.json", content)
    report.write(output / "comparison.html")
    return content
