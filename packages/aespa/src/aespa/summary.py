"""What an evaluation comes to: means over images with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.metrics.raters import area_under_rounds, defined_mean, interactions_to_reach
from medshared.metrics.resampling import cluster_bootstrap_many

LEVELS = (0.75, 0.8, 0.85, 0.9)
NEVER = 10  # interactions that a level counts which no round reaches, as in the SPA paper
ROUND_KEYS = (
    "dice",
    "iou",
    "native_dice",
    "random_click_dice",
    "proposal_dice",
    "plain_sam_dice",
    "plain_sam_own_clicks_dice",
)
Row = dict[str, Any]


def rounds_of(row: Row, key: str) -> list[float]:
    """Return the values of a measure by round; empty where it was not taken."""
    values = []
    while f"{key}_r{len(values)}" in row:
        values.append(row[f"{key}_r{len(values)}"])
    return values


def late(values: Sequence[float]) -> float:
    """Return the mean over the late rounds: 3, 4, 5 of six, the second half of others."""
    return float(np.mean(values[len(values) // 2 :]))


def image_table(pairs: Sequence[Row], images: Sequence[Row], *, first: int) -> list[Row]:
    """Return one row an image: its measures as a set, and the means over its raters of what the pairs gave.

    Args:
        pairs: One row an image and rater.
        images: One row an image.
        first: Interactions before the first answer: 0, in SPA 1.
    """
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in pairs:
        grouped.setdefault((row["image"], row.get("class")), []).append(row)
    table = []
    for image in images:
        mine = grouped[image["image"], image.get("class")]
        row = dict(image)
        for key in ROUND_KEYS:
            by_round = np.array([rounds_of(each, key) for each in mine])
            if by_round.size:
                row |= {f"{key}_r{i}": float(v) for i, v in enumerate(by_round.mean(axis=0))}
                row[f"{key}_late"] = float(np.mean([late(each) for each in by_round]))
        dice = np.array([rounds_of(each, "dice") for each in mine])
        row["dice_area"] = float(np.mean(area_under_rounds(dice)))
        row["majority_dice"] = float(np.mean([each["majority_dice"] for each in mine]))
        row["clicks"] = float(np.mean([each["clicks"] for each in mine]))
        for level in LEVELS:
            needed = interactions_to_reach(dice, level, NEVER, first=first)
            row[f"interactions_to_{level:g}".replace(".", "_")] = float(np.mean(needed))
        table.append(row)
    return table


def summarise(table: Sequence[Row], seed: int = 0) -> dict[str, dict[str, float | int | None]]:
    """Return mean, 95 % interval (bootstrap over patients) and number of images of every measure.

    Args:
        table: Of `image_table`.
        seed: Of the bootstrap.
    """
    keys = [
        key
        for key in dict.fromkeys(key for row in table for key in row)
        if key not in ("image", "patient", "class", "n_raters")
    ]
    values = {key: np.array([row.get(key, math.nan) for row in table], np.float64) for key in keys}

    def means(index: NDArray[np.int64]) -> dict[str, float]:
        return {key: defined_mean(each[index]) for key, each in values.items()}

    intervals = cluster_bootstrap_many(means, [row["patient"] for row in table], rng=seed)
    return {
        key: {
            "mean": _plain(found.estimate),
            "low": _plain(found.low),
            "high": _plain(found.high),
            "n": int(np.isfinite(values[key]).sum()),
        }
        for key, found in intervals.items()
    }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
