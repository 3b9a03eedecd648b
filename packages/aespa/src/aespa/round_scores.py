"""Measures of every round under the names of the original's log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from aespa.evaluation import Tables
from aespa.summary import rounds_of

logger = logging.getLogger(__name__)

# The original's name → the key of this package's tables.
_NAMES = {
    "GED": "ged_dice",
    "Dice_max": "dice_max",
    "Dice_match": "dice_match",
    "Dice_soft": "dice_soft",
    "Dice_personal_mean": "dice_personal",
    "Dice_follow": "dice_follow",
    "Delta_follow_vs_neutral": "follow_less_neutral",
}


@dataclass(frozen=True)
class RoundScores:
    """What one validation gave.

    Attributes:
        loss: By round; empty where it was not computed.
        iou: By round.
        dice: By round; the best one chooses the checkpoint.
        rounds: The measures of several raters by round, with the original's keys.
    """

    loss: list[float]
    iou: list[float]
    dice: list[float]
    rounds: list[dict[str, Any]]

    def log(self, epoch: int) -> None:
        """Write the line that the original writes after a validation."""
        logger.info(
            "Total score: %s, IOU: %s, DICE: %s, MABR: %s || @ epoch %d.",
            self.loss,
            self.iou,
            self.dice,
            self.rounds,
            epoch,
        )


def scores_of(tables: Tables) -> RoundScores:
    """Return the measures of an evaluation by round.

    Dice and IoU are those to the followed rater, averaged over all images and raters.

    Args:
        tables: Of :func:`aespa.evaluation.evaluate`.
    """
    by_name = {
        name: np.nanmean([rounds_of(row, key) for row in tables.images], axis=0).tolist()
        for name, key in _NAMES.items()
    }
    n = len(by_name["GED"])
    rounds: list[dict[str, Any]] = [
        {"run": i} | {name: values[i] for name, values in by_name.items()} for i in range(n)
    ]
    iou, dice = (
        np.mean([rounds_of(row, key) for row in tables.pairs], axis=0).tolist() for key in ("iou", "dice")
    )
    return RoundScores([], iou, dice, rounds)
