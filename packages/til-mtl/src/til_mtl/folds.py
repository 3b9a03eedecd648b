"""The folds of a data set: where each has its patches, and mean and standard deviation over them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medshared.files import write_json
from medshared.metrics.statistics import fold_summary
from medshared.tables import write_table
from til_mtl.config import TASKS, Config, PatchTask

logger = logging.getLogger(__name__)

_FOLDER_KEYS: dict[PatchTask, str] = {"segmentation": "fold_seg", "detection": "fold_det"}


def fold_config(config: Config, fold: int) -> Config:
    """Return the configuration of a fold: the folders ``fold<k>`` of the tasks that it trains.

    Args:
        config: Of all folds.
        fold: 1-based.
    """
    return config.model_copy(update={_FOLDER_KEYS[task]: f"fold{fold}" for task in TASKS[config.task]})


def write_fold_summary(folder: Path, results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Write ``folds.csv`` (one row a fold and set) and ``summary.json`` (mean, s.d. over folds).

    Args:
        folder: Where to write.
        results: What each fold's ``results.json`` holds.

    Returns:
        Set → metric → mean and s.d.
    """
    rows = [
        {"fold": fold, "set": name, **values}
        for fold, result in results.items()
        for name, values in result["metrics"].items()
    ]
    write_table(folder / "folds.csv", rows)
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        # A fold without patches of a task has no value for it.
        keys = dict.fromkeys(key for row in of_set for key in row if key not in ("fold", "set"))
        summary[name] = {key: fold_summary([_number(row.get(key)) for row in of_set]) for key in keys}
        logger.info(
            "%s over %d folds: %s",
            name,
            len(of_set),
            ", ".join(
                f"{key} {found['mean']:.4f} ± {found['std']:.4f}" for key, found in summary[name].items()
            ),
        )
    write_json(folder / "summary.json", summary)
    return summary


def _number(value: float | None) -> float:
    """Return a value, NaN where a file says that it is not defined."""
    return math.nan if value is None else value
