"""The curve of a self-play run, a row an iteration, and what the original prints of it at the end."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from medshared.files import write_text

CURVE_COLUMNS = (
    "iteration",
    "env_steps",
    "last_reward",
    "mean_score1",
    "mean_score2",
    "dice",
    "episodes",
    "mean_episode_length",
)
Row = dict[str, float | int | None]


def write_curve(path: Path, curve: list[Row]) -> None:
    """Write ``curve.csv``; undefined values are empty cells."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in curve:
        writer.writerow({name: row[name] if defined(row[name]) else "" for name in CURVE_COLUMNS})
    write_text(path, buffer.getvalue())


def summarise(curve: list[Row]) -> dict[str, Any]:
    """Return what the original prints at the end: last, mean and population sd of rewards and Dice over iterations.

    Undefined values count for nothing; they are ``None`` where no value is defined.
    """
    results: dict[str, Any] = {"iterations": len(curve), "env_steps": curve[-1]["env_steps"] if curve else 0}
    for name, column in (("dice", "dice"), ("reward", "last_reward")):
        values = [float(row[column]) for row in curve if defined(row[column])]  # type: ignore[arg-type]
        results[f"{name}_last"] = values[-1] if values else None
        results[f"{name}_mean"] = float(np.mean(values)) if values else None
        results[f"{name}_sd_population"] = float(np.std(values)) if values else None
    return results


def defined(value: float | int | None) -> bool:
    """Return whether there is a number."""
    return value is not None and math.isfinite(value)
