"""Multi-task against single-task: the three networks on the same folds, one table with paired intervals.

All three go through the same loop with the same sampler. The held-out patches of all folds are pooled, and intervals
come from resampling patients, the same ones for both sides, so that differences between patients cancel.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medshared.command_line import RunInterruptedError
from medshared.files import read_json, write_json
from medshared.metrics.resampling import cluster_bootstrap_many
from medshared.process import StopSignal
from medshared.report import Report
from medshared.tables import write_table
from til_mtl.config import Config, Task
from til_mtl.data.tiger import patient_of
from til_mtl.errors import DataError
from til_mtl.folds import fold_config
from til_mtl.patch_scores import PatchScores
from til_mtl.trainer import RunOptions
from til_mtl.training import train_run

logger = logging.getLogger(__name__)

NETWORKS: tuple[Task, ...] = ("mtl", "seg", "det")
METRICS = ("dice_tumor", "dice_stroma", "dice_mean", "froc", "cell_f1")


@dataclass(frozen=True)
class Comparison:
    """What to compare.

    Attributes:
        config: Settings of all networks.
        folds: K; the folds are ``fold1`` … ``fold<K>``.
        output: Folder; runs go to ``fold<k>/{mtl,seg,det}``.
        only: Folds to train here; empty: all.
        resume: Continue stopped runs, leave finished ones alone.
        download: Allow fetching ImageNet weights.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.
    """

    config: Config
    folds: int
    output: Path
    only: tuple[int, ...] = ()
    resume: bool = False
    download: bool = False
    resamples: int = 1000
    seed: int = 0


def run_comparison(comparison: Comparison) -> int:
    """Train what is missing and, once all folds are there, write ``comparison.json``, ``.csv`` and ``report.html``.

    Args:
        comparison: What to compare.

    Returns:
        Exit code: 1 when a run failed.

    Raises:
        RunInterruptedError: A signal stopped it; ``--resume`` continues.
        DataError: A fold is out of range.
    """
    wanted = comparison.only or tuple(range(1, comparison.folds + 1))
    outside = [fold for fold in wanted if not 1 <= fold <= comparison.folds]
    if outside:
        raise DataError(f"--only {outside}: folds are 1 to {comparison.folds} (--folds)")
    failed = []
    with StopSignal() as stop:
        for fold in wanted:
            for task in NETWORKS:
                folder = comparison.output / f"fold{fold}" / task
                if stop.requested:
                    raise RunInterruptedError(f"stopped by {stop.name} before {folder}; --resume continues")
                try:
                    _train(comparison, task, fold, folder, stop)
                except RunInterruptedError:
                    raise
                except (OSError, ValueError, RuntimeError) as error:
                    logger.error("%s failed: %s", folder, error)
                    failed.append(str(folder))
    if failed:
        logger.error("%d runs failed: %s", len(failed), ", ".join(failed))
        return 1
    if all(
        _folder(comparison, fold, task).is_file()
        for fold in range(1, comparison.folds + 1)
        for task in NETWORKS
    ):
        write_comparison(comparison)
    else:
        logger.info("other folds are still to be trained; the job that finishes last writes the table")
    return 0


def _folder(comparison: Comparison, fold: int, task: Task) -> Path:
    return comparison.output / f"fold{fold}" / task / "results.json"


def _train(comparison: Comparison, task: Task, fold: int, folder: Path, stop: StopSignal) -> None:
    if comparison.resume and (folder / "results.json").is_file():
        logger.info("%s: finished already", folder)
        return
    config = fold_config(comparison.config.model_copy(update={"task": task}), fold)
    train_run(config, folder, RunOptions(comparison.resume, None, comparison.download), stop=stop)


def pooled_scores(folders: list[Path]) -> PatchScores:
    """Return the held-out results of several runs as one set.

    Args:
        folders: Run directories, one a fold.
    """
    return PatchScores.join([PatchScores.read(folder / "predictions_val.npz") for folder in folders])


def paired_table(
    multi: PatchScores, single: PatchScores, *, resamples: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Return one row a metric: both sides with intervals, and their difference with its own.

    Args:
        multi: Results of the multi-task network.
        single: Results of the two single-task networks on the same patches, in any order.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.

    Raises:
        DataError: The sides were not scored on the same patches.
    """
    order = _same_order(multi, single)
    groups = [patient_of(slide) if slide else f"patch {i}" for i, slide in enumerate(multi.slides)]

    def statistics(rows: np.ndarray) -> dict[str, float]:
        a, b = multi.metrics(rows), single.metrics(order[rows])
        found: dict[str, float] = {}
        for name in METRICS:
            one, other = a.get(name, np.nan), b.get(name, np.nan)
            found |= {f"mtl_{name}": one, f"stl_{name}": other, f"difference_{name}": one - other}
        return found

    intervals = cluster_bootstrap_many(statistics, np.array(groups), resamples, rng=seed)
    table = []
    for name in METRICS:
        row: dict[str, Any] = {"metric": name}
        for side in ("mtl", "stl", "difference"):
            found = intervals[f"{side}_{name}"]
            row |= {side: found.estimate, f"{side}_low": found.low, f"{side}_high": found.high}
        table.append(row)
    return table


def _same_order(multi: PatchScores, single: PatchScores) -> np.ndarray:
    """Return for every patch of the first its place in the second."""
    keys = [list(zip(s.tasks.tolist(), s.slides, s.names, strict=True)) for s in (multi, single)]
    place = {key: i for i, key in enumerate(keys[1])}
    missing = [key for key in keys[0] if key not in place]
    if missing or len(keys[0]) != len(keys[1]):
        shown = ", ".join(name for _, _, name in missing[:3])
        raise DataError(
            f"the multi-task and single-task runs were not scored on the same patches ({len(keys[0])} and "
            f"{len(keys[1])}{'; only in the first: ' + shown if shown else ''}); train them on the same data"
        )
    return np.array([place[key] for key in keys[0]])


def write_comparison(comparison: Comparison) -> dict[str, Any]:
    """Write the table of a finished comparison and return what ``comparison.json`` holds."""
    folds = range(1, comparison.folds + 1)
    runs = {task: [comparison.output / f"fold{fold}" / task for fold in folds] for task in NETWORKS}
    scores = {task: pooled_scores(folders) for task, folders in runs.items()}
    single = PatchScores.join([scores["seg"], scores["det"]])
    table = paired_table(scores["mtl"], single, resamples=comparison.resamples, seed=comparison.seed)
    kept = ("steps", "training_seconds", "best_epoch")
    effort = {
        task: [
            {k: v for k, v in read_json(folder / "results.json").items() if k in kept} for folder in folders
        ]
        for task, folders in runs.items()
    }
    content = {
        "folds": comparison.folds,
        "patches": len(single),
        "slides": len(set(single.slides) - {""}),
        "patients": len({patient_of(slide) for slide in single.slides if slide}),
        "table": table,
        "effort": effort,
    }
    write_table(comparison.output / "comparison.csv", table)
    write_json(comparison.output / "comparison.json", content)
    _write_report(comparison.output / "report.html", content)
    for row in table:
        logger.info(
            "%s: mtl %.4f, stl %.4f, difference %.4f [%.4f, %.4f]",
            *(
                row[key]
                for key in ("metric", "mtl", "stl", "difference", "difference_low", "difference_high")
            ),
        )
    return content


def _write_report(path: Path, content: dict[str, Any]) -> None:
    subtitle = f"{content['folds']} folds, {content['patches']} patches"
    report = Report("Multi-task against single-task", subtitle=subtitle)
    report.section("Held-out patches of all folds").table(shown_table(content["table"]))
    report.text(
        f"95 % intervals from resampling the {content['patients']} patients, the same ones for both sides. Epochs were "
        "selected on the same patches, alike for all networks, so levels are a little high; differences are fair."
    )
    report.section("Effort")
    effort = [
        {"network": task, "fold": k + 1, **run}
        for task, runs in content["effort"].items()
        for k, run in enumerate(runs)
    ]
    report.table(effort)
    report.write(path)


def shown_table(table: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the rows of :func:`paired_table` with each interval beside its value, for a page."""
    shown = []
    for row in table:
        cells = {"metric": row["metric"]}
        for side in ("mtl", "stl", "difference"):
            cells[side] = f"{row[side]:.3f} ({row[side + '_low']:.3f} to {row[side + '_high']:.3f})"
        shown.append(cells)
    return shown
