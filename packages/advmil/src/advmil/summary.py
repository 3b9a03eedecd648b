"""Results of a grid or of the folds: one table, mean ± sd (``summary.csv``, ``summary.json``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medshared.files import read_json, write_json
from medshared.tables import write_table

logger = logging.getLogger(__name__)

FOLD_KEY = "data_split_seed"


def collect_runs(runs: Sequence[tuple[Mapping[str, Any], Path]]) -> pd.DataFrame:
    """Return one row a run: its point of the grid and every metric of every set as ``<set>/<metric>``.

    Args:
        runs: Point of the grid and run directory.
    """
    rows = []
    for point, folder in runs:
        results = read_json(folder / "results.json")
        row: dict[str, Any] = dict(point) | {"run": folder.name}
        for name, scores in results["sets"].items():
            row |= {f"{name}/{key}": _number(value) for key, value in scores.items()}
        for key in ("best_epoch", "epochs", "seconds"):
            if key in results:
                row[key] = results[key]
        for name, scores in results.get("last_epoch", {}).items():
            row[f"last_epoch/{name}/c_index"] = _number(scores["c_index"])
        rows.append(row)
    return pd.DataFrame(rows)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def summarise(frame: pd.DataFrame, axes: Sequence[str]) -> list[dict[str, Any]]:
    """Average runs over folds.

    Args:
        frame: Of :func:`collect_runs`.
        axes: Keys of the grid; runs that differ in ``data_split_seed`` only are averaged.

    Returns:
        One entry for each other point of the grid: ``point``, ``folds``, and metric → mean and sd over folds
        (population sd, as papers on this method report it) with the values. Undefined folds are left out and counted.
    """
    others = [axis for axis in axes if axis != FOLD_KEY]
    metrics = [name for name in frame.columns if "/" in name]
    groups = frame.groupby(others, sort=False, dropna=False) if others else [((), frame)]
    found = []
    for key, group in groups:
        values = key if isinstance(key, tuple) else (key,)
        entry: dict[str, Any] = {"point": dict(zip(others, values, strict=True)), "folds": len(group)}
        entry["metrics"] = {}
        for name in metrics:
            numbers = group[name].to_numpy(dtype=np.float64)
            defined = numbers[np.isfinite(numbers)]
            entry["metrics"][name] = {
                "mean": float(defined.mean()) if len(defined) else None,
                "sd": float(defined.std()) if len(defined) else None,
                "values": [float(x) if np.isfinite(x) else None for x in numbers],
                "undefined": int(len(numbers) - len(defined)),
            }
        found.append(entry)
    return found


def write_summary(folder: Path, runs: Sequence[tuple[Mapping[str, Any], Path]]) -> dict[str, Any]:
    """Write ``summary.csv`` (one row a run) and ``summary.json`` (mean ± sd over folds) and log the test C-index.

    Args:
        folder: Where both go.
        runs: Point of the grid and run directory of each finished run.

    Returns:
        What ``summary.json`` holds.
    """
    frame = collect_runs(runs)
    axes = list(runs[0][0])
    groups = summarise(frame, axes)
    write_table(folder / "summary.csv", frame)
    places = [os.path.relpath(run, folder) for _, run in runs]
    content = {"axes": axes, "runs": places, "groups": groups}
    write_json(folder / "summary.json", content)
    for group in groups:
        for name, value in group["metrics"].items():
            if name.endswith("test/c_index") and not name.startswith("last") and value["mean"] is not None:
                logger.info(
                    "%s %s: %.4f ± %.4f over %d runs",
                    ", ".join(f"{k}={v}" for k, v in group["point"].items()) or folder.name,
                    name,
                    value["mean"],
                    value["sd"],
                    group["folds"],
                )
    return content
