"""Saved predictions of a result directory, put together for the error studies; the report of the worst frames."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from infection_mt.analysis.errors import decision_confidence, largest_time_errors, pool_folds, wrong_decisions
from infection_mt.prediction_table import Predictions
from infection_mt.studies.run_folders import load_folds
from infection_mt.studies.text_tables import text_table


def load_named_folds(arguments: argparse.Namespace) -> dict[str, Predictions]:
    """Return the predictions of every fold by a name for pictures.

    Raises:
        ValueError: ``--num-folds`` asks for more folds than there are.
    """
    folds = load_folds(arguments.result_dir)
    wanted = getattr(arguments, "num_folds", None)
    if wanted is not None and len(folds) < wanted:
        raise ValueError(
            f"{arguments.result_dir}: {len(folds)} folds have predictions, --num-folds asks for {wanted}"
        )
    chosen = list(folds.items())[:wanted]
    return {f"fold {number}" if number else "test set": p for number, p in chosen}


def load_pooled(
    arguments: argparse.Namespace, *, time: bool = False, classes: bool = False, hours: bool = False
) -> tuple[Predictions, Path]:
    """Return the frames of all folds together, and where results go.

    Args:
        arguments: With ``result_dir`` and perhaps ``output_dir`` and ``num_folds``.
        time: The study needs predicted hours.
        classes: The study needs classes.
        hours: The study needs the hours since the first frame.

    Raises:
        ValueError: The model lacks what the study needs.
    """
    folds = load_named_folds(arguments)
    pooled = pool_folds(list(folds.values()))
    if len(folds) > 1:
        names = [f"{name} {key}" for name, fold in folds.items() for key in fold.keys]
        pooled = replace(pooled, keys=names)
    where = arguments.result_dir
    if time and not pooled.has_time:
        raise ValueError(f"{where}: this model estimates no time; the study is of time errors")
    if classes and not pooled.has_classes:
        raise ValueError(f"{where}: this model does not classify; the study is of decisions")
    if hours and not np.isfinite(pooled.hours).all():
        raise ValueError(
            f"{where}: the hours of some frames are unknown; test_metadata.jsonl with them is missing"
        )
    return pooled, getattr(arguments, "output_dir", None) or where


def worst_report(predictions: Predictions, k: int) -> str:
    """Return the frames with the largest time errors of each class, and the wrong decisions, as text.

    Args:
        predictions: Outputs and truth.
        k: Rows of each table.
    """
    p, sure = predictions, decision_confidence(predictions)
    headers = ["frame", "true h", "predicted h", "error h", "P(infected)", "confidence"]
    parts = []
    for title, label in (("Infected", 1), ("Uninfected", 0)):
        rows = largest_time_errors(p, k, label=label)
        table = [
            [p.keys[i], float(p.time_target[i]), float(p.time[i]), float(p.time[i] - p.time_target[i]),
             float(p.probability[i]), float(sure[i])]
            for i in rows
        ]  # fmt: skip
        parts.append(f"{title}: the {len(rows)} largest time errors\n" + text_table(headers, table))
    wrong = wrong_decisions(p, strict=False)
    n = int(np.isfinite(p.probability).sum())
    table = [
        [
            p.keys[i],
            float(p.hours[i]),
            "infected" if p.label[i] else "mock",
            float(p.probability[i]),
            float(sure[i]),
        ]
        for i in wrong[:k]
    ]
    headers = ["frame", "hours", "truth", "P(infected)", "confidence of the decision"]
    title = f"Wrong decisions: {len(wrong)} of {n} frames" + (f", the {k} surest" if len(wrong) > k else "")
    parts.append(title + ("\n" + text_table(headers, table) if len(wrong) else ""))
    return "\n\n".join(parts) + "\n"
