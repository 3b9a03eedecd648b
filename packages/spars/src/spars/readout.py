"""From scored windows to a probability map, and from the map to a segmentation whose threshold validation chose.

Three ways to read a map, for windows that were scored (V) among all those of the lattice that cover a voxel (A):

* ``visits``: mean score over V. What lies at the rim of a search looks as sure as its middle.
* ``lattice``: sum of the scores over V divided by the number in A; what was not scored counts 0.
* ``smoothed``: as ``lattice``, but a window that was not scored counts what its scored neighbours suggest: their mean,
  weighted by a Gaussian of the distance (in moves) against a prior of 0.

With all windows scored the three are the same: the score map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.game.score_map import count_map, mean_map, render_sum
from spars.lattice import Lattice

ReadRule = Literal["visits", "lattice", "smoothed"]
RULES: tuple[ReadRule, ...] = ("visits", "lattice", "smoothed")

# Of the Gaussian of `smoothed`, in moves, and the weight of its prior.
_SPREAD, _PRIOR = 0.7, 0.05
# Thresholds that validation chooses from: every 0.02, finer towards 1 where sure classifiers crowd.
THRESHOLDS: NDArray[np.float64] = np.concatenate(
    [np.arange(1, 49) * 0.02, [0.97, 0.98, 0.985, 0.99, 0.995, 0.999]]
).round(3)


def read_map(
    lattice: Lattice, scores: NDArray[Any], seen: NDArray[np.bool_], rule: ReadRule
) -> NDArray[np.float32]:
    """Return the probability map of scored windows.

    Args:
        lattice: The window positions.
        scores: Of all windows ``[len(lattice)]``; those that were not scored are not used and may be NaN.
        seen: Windows that were scored, bool ``[len(lattice)]``.
        rule: See the module's text.

    Returns:
        float32 ``[grid]`` in [0, 1]; 0 where no window covers a voxel.
    """
    if rule not in RULES:
        raise DataError(f"unknown reading rule {rule!r}: expected {', '.join(RULES)}")
    known = np.where(seen, scores, 0).reshape(lattice.shape).astype(np.float64)
    visits = seen.reshape(lattice.shape)
    if rule == "visits":
        return mean_map(lattice, known, visits.astype(np.int64)).astype(np.float32)
    if rule == "smoothed":
        from scipy.ndimage import gaussian_filter

        weight = gaussian_filter(visits.astype(np.float64), _SPREAD, mode="constant")
        suggested = gaussian_filter(known, _SPREAD, mode="constant") / (weight + _PRIOR)
        known = np.where(visits, known, suggested)
    covering = _covering(lattice)
    total = render_sum(lattice, known)
    found = np.divide(total, covering, out=np.zeros(lattice.grid), where=covering > 0)
    # Sums by differences leave rounding errors beyond [0, 1].
    return found.clip(0, 1).astype(np.float32)


@lru_cache(maxsize=2)
def _covering(lattice: Lattice) -> NDArray[np.int32]:
    """Return how many windows cover each voxel: the same for every map of a lattice."""
    found = count_map(lattice)
    found.flags.writeable = False
    return found


def dice_curve(
    probability: NDArray[Any], target: NDArray[np.bool_], thresholds: NDArray[np.float64] = THRESHOLDS
) -> NDArray[np.float64]:
    """Return the Dice of ``probability > t`` for every threshold, by one pass over the voxels.

    Args:
        probability: Map, any shape.
        target: Same shape.
        thresholds: Ascending.

    Returns:
        float64, one each; 1 where both are empty.
    """
    # Number of thresholds that each voxel exceeds, compared in the precision of the map, as `>` with a number does it.
    level = np.searchsorted(thresholds.astype(probability.dtype), probability.ravel(), side="left")
    n = len(thresholds)
    everywhere = np.bincount(level, minlength=n + 1)
    within = np.bincount(level[target.ravel()], minlength=n + 1)
    predicted = everywhere[::-1].cumsum()[::-1][1:]
    hit = within[::-1].cumsum()[::-1][1:]
    size = predicted + int(target.sum())
    return np.divide(2.0 * hit, size, out=np.ones(n), where=size > 0)


@dataclass(frozen=True)
class Reading:
    """How a method's windows become a segmentation; chosen on validation volumes.

    Attributes:
        rule: How the map is read.
        threshold: Voxels above it are tumour.
        dice: Mean Dice on the validation volumes, where it was chosen by that.
    """

    rule: ReadRule
    threshold: float
    dice: float | None = None


@dataclass(frozen=True)
class Found:
    """What a search scored on one volume.

    Attributes:
        scores: Of all windows ``[len(lattice)]``; NaN where nobody scored.
        seen: Windows that the search scored.
        target: Tumour voxels on the grid.
    """

    scores: NDArray[Any]
    seen: NDArray[np.bool_]
    target: NDArray[np.bool_]


def choose_reading(lattice: Lattice, found: Sequence[Found], rules: Sequence[ReadRule] = RULES) -> Reading:
    """Choose the rule and the threshold with the highest mean Dice.

    Args:
        lattice: The window positions.
        found: Searches of the validation volumes.
        rules: To choose from.

    Raises:
        DataError: No volume to choose on.
    """
    if not found:
        raise DataError(
            "no validation volume with a label: a threshold cannot be chosen; set segmentation_threshold"
        )
    best: Reading | None = None
    for rule in rules:
        curves = [dice_curve(read_map(lattice, f.scores, f.seen, rule), f.target) for f in found]
        mean = np.mean(curves, axis=0)
        place = int(mean.argmax())
        if best is None or best.dice is None or mean[place] > best.dice:
            best = Reading(rule, float(THRESHOLDS[place]), float(mean[place]))
    assert best is not None  # noqa: S101 - there is at least one rule
    return best
