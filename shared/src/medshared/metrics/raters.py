"""Predictions against the masks of several raters: overlap, generalised energy distance, matching.

All pairs of masks of an image are compared at once, by `medshared.metrics.pairwise`; every metric follows from that one
product. Raters that are not valid count nowhere, and what is undefined is NaN.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.pairwise import (
    LEVEL,
    Bools,
    Floats,
    PairwiseOverlap,
    boolean_masks,
    overlaps_of_bits,
    packed_bits,
    pairwise_overlap,
    ratio,
    with_pixels,
)

__all__ = [
    "PairwiseOverlap",
    "RaterScores",
    "area_under_rounds",
    "defined_mean",
    "dice_follow",
    "interactions_to_reach",
    "pairwise_overlap",
    "rater_scores",
]

Distance = Literal["dice", "iou"]
Soft = Literal["mean", "five_thresholds"]
MatchNorm = Literal["gt", "max", "match"]
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
_BLOCK_PX = (
    2**17
)  # pixels of images that are compared at a time: what they need stays in the processor's cache


class RaterScores(NamedTuple):
    """How well predictions fit the raters of each image; see `rater_scores`.

    With p the predictions, g the valid raters, D the Dice coefficient and d = 1 - D (or 1 - IoU):

    Attributes:
        ged: ``[B]``, generalised energy distance 2·E d(p, g) - E d(p, p') - E d(g, g') over all ordered pairs, the
            diagonal included; 0 for equal sets. 1 - Dice is no metric, so that small negative values are possible.
        dice_max: ``[B]`` in [0, 1], mean over g of the largest D(p, g) over p.
        dice_match: ``[B]`` in [0, 1], the largest sum of D(p, g) over one-to-one pairs (Hungarian), divided by the
            number of raters.
        dice_soft: ``[B]`` in [0, 1], ``2·Σ p·s / (Σ p + Σ s)`` with the single prediction's probabilities p and the
            share s of raters.
        dice_personal_mean: ``[B]`` in [0, 1], mean over g of D(single, g).
        dice_neutral: ``[B]`` in [0, 1], the single prediction against what more than half of the raters marked.
        dice_per_rater: ``[B, R]``, the single prediction against each rater; NaN for those not valid.
    """

    ged: Floats
    dice_max: Floats
    dice_match: Floats
    dice_soft: Floats
    dice_personal_mean: Floats
    dice_neutral: Floats
    dice_per_rater: Floats

    def means(self) -> dict[str, float]:
        """Return the mean of every value over the images where it is defined; NaN where it is nowhere."""
        return {name: defined_mean(values) for name, values in self._asdict().items() if values.ndim == 1}


def rater_scores(
    predictions: ArrayLike,
    raters: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    single: ArrayLike | None = None,
    distance: Distance = "dice",
    soft: Soft = "mean",
    match_norm: MatchNorm = "gt",
    symmetric: bool = False,
) -> RaterScores:
    """Compare sets of predictions with sets of raters, image by image; `RaterScores` has the formulas.

    Args:
        predictions: ``[B, M, ...]``, booleans or probabilities in [0, 1]; masks are probabilities above 0.5.
        raters: ``[B, R, ...]``, booleans or 0 and 1, with the same pixels.
        valid: bool ``[B, R]``; None = every rater. Raters that are not valid (absent, padded) count nowhere.
        single: ``[B, ...]``, the one answer that is shown; None = the last of the predictions.
        distance: Of the energy distance.
        soft: ``"mean"`` as above; ``"five_thresholds"``: mean over 0.1, 0.3, … 0.9 of the Dice of the mean over the
            predictions above the threshold against the share of raters above it.
        match_norm: What divides the matched sum: ``"gt"`` the raters, ``"max"`` the larger set, ``"match"`` the
            smaller one, which is the number of pairs.
        symmetric: dice_max: average with the mean over predictions of the best rater.

    Returns:
        float64 values for each image; NaN for an image without a valid rater.

    Raises:
        ValueError: For shapes that do not fit, values outside [0, 1] and unknown options.

    Example:
        >>> raters = np.array([[[1, 1, 0, 0], [1, 1, 1, 1]]], bool)
        >>> scores = rater_scores(raters, raters)
        >>> float(scores.ged[0]), float(scores.dice_match[0]), scores.dice_per_rater.round(3).tolist()
        (0.0, 1.0, [[0.667, 1.0]])
    """
    _check_options(distance=(distance, Distance), soft=(soft, Soft), match_norm=(match_norm, MatchNorm))
    p = with_pixels("predictions", predictions)
    g, v = _raters(raters, valid, p)
    one = p[:, -1] if single is None else with_pixels("single", np.asarray(single)[:, None])[:, 0]
    if one.shape != (p.shape[0], p.shape[2]):
        raise ValueError(f"single must have the {p.shape[2]} pixels of the predictions, found {one.shape[1]}")
    known = v.any(axis=1)
    overlaps, soft_dice = _compare(p, one, g, v, soft)
    m, r = p.shape[1], g.shape[1]
    dice = overlaps.dice()
    cross = dice[:, :m, m + 1 : m + 1 + r]
    per_rater = np.where(v, dice[:, m, m + 1 : m + 1 + r], np.nan)
    n_valid = np.where(known, v.sum(axis=1), np.nan)
    similarity = dice if distance == "dice" else overlaps.iou()
    return RaterScores(
        ged=_energy_distance(1 - similarity, m, v, n_valid),
        dice_max=_best(cross, v, n_valid, symmetric),
        dice_match=_matched(cross, v, match_norm),
        dice_soft=np.where(known, soft_dice, np.nan),
        dice_personal_mean=np.where(v, per_rater, 0).sum(axis=1) / n_valid,
        dice_neutral=np.where(known, dice[:, m, m + 1 + r], np.nan),
        dice_per_rater=per_rater,
    )


def dice_follow(
    prediction: ArrayLike, raters: ArrayLike, followed: ArrayLike, valid: ArrayLike | None = None
) -> Floats:
    """Dice of each image's prediction with the rater whom its user followed.

    Args:
        prediction: ``[B, ...]``, booleans or probabilities.
        raters: ``[B, R, ...]``, booleans or 0 and 1.
        followed: int ``[B]``; -1 = nobody. A rater who is not valid stands for the first one who is.
        valid: bool ``[B, R]``; None = every rater.

    Returns:
        float64 ``[B]``; NaN where nobody was followed or nobody is valid.

    Raises:
        ValueError: For a rater number outside [-1, R) and shapes that do not fit.

    Example:
        >>> dice_follow([[1, 1, 0, 0]], [[[1, 0, 0, 0], [1, 1, 1, 1]]], [1]).round(3).tolist()
        [0.667]
    """
    values = np.asarray(prediction)
    who = np.asarray(followed)
    dice = rater_scores(values[:, None], raters, valid).dice_per_rater
    b, r = dice.shape
    if who.shape != (b,) or who.dtype.kind not in "iu" or (b and not -1 <= who.min() <= who.max() < r):
        raise ValueError(f"followed must be {b} rater numbers from -1 to {r - 1}, found {who.tolist()}")
    usable = ~np.isnan(dice)
    taken = np.where(usable[np.arange(b), who], who, usable.argmax(axis=1))
    return np.where(who >= 0, dice[np.arange(b), taken], np.nan)


def interactions_to_reach(dice: ArrayLike, level: float, never: float = 10, *, first: int = 0) -> Floats:
    """Count the interactions until the Dice coefficient reaches a level.

    Args:
        dice: ``[..., rounds]`` in [0, 1]; NaN reaches no level.
        level: The wanted Dice.
        never: What a level counts that no round reaches.
        first: Interactions before the first round: 0 when it has no click, 1 when it starts from one.

    Returns:
        float64 ``[...]``.

    Example:
        >>> interactions_to_reach([[0.7, 0.8, 0.9], [0.1, 0.2, 0.3]], 0.75).tolist()
        [1.0, 10.0]
    """
    reached = np.asarray(dice, np.float64) >= level
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + float(first), float(never))


def area_under_rounds(dice: ArrayLike) -> Floats:
    """Mean height of the curve of Dice over rounds, by the trapezoid rule.

    Args:
        dice: ``[..., rounds]`` in [0, 1], at least one round.

    Returns:
        float64 ``[...]`` in [0, 1]: 1 when every round is perfect; NaN when a round is.

    Example:
        >>> float(area_under_rounds([0.5, 1.0, 1.0]))
        0.875
    """
    values = np.asarray(dice, np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("dice needs at least one round on its last axis")
    if values.shape[-1] == 1:
        return values[..., 0]
    return ((values[..., 1:] + values[..., :-1]) / 2).mean(axis=-1)


def defined_mean(values: ArrayLike) -> float:
    """Return the mean of the values that are not NaN; NaN without any.

    Example:
        >>> defined_mean([0.5, float("nan"), 1.0])
        0.75
    """
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if kept.size else float("nan")


def _check_options(**options: tuple[str, Any]) -> None:
    """Refuse values that are none of a literal type's."""
    for name, (value, choices) in options.items():
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, found {value!r}")


def _raters(raters: ArrayLike, valid: ArrayLike | None, p: NDArray[Any]) -> tuple[Bools, Bools]:
    """Return the raters' pixels and who is valid, checked against the predictions ``[B, M, P]``."""
    g = boolean_masks("raters", raters)
    if p.shape[1] == 0:
        raise ValueError("predictions need at least one mask an image")
    if (g.shape[0], g.shape[2]) != (p.shape[0], p.shape[2]):
        raise ValueError(
            f"predictions and raters must have the same images and pixels, found {p.shape[0]} of {p.shape[2]} "
            f"and {g.shape[0]} of {g.shape[2]}"
        )
    v = np.ones(g.shape[:2], bool) if valid is None else np.asarray(valid)
    if v.shape != g.shape[:2] or v.dtype != bool:
        raise ValueError(f"valid must be bool {list(g.shape[:2])}, found {v.dtype} {list(v.shape)}")
    return g, v


def _compare(
    p: NDArray[Any], one: NDArray[Any], g: Bools, v: Bools, soft: Soft
) -> tuple[PairwiseOverlap, Floats]:
    """Return the overlaps of predictions, single one, raters and neutral mask, in this order, and the soft Dice."""
    parts, soft_dice = [], []
    step = max(1, _BLOCK_PX // max(1, p.shape[2]))
    for start in range(0, max(len(p), 1), step):
        rows = slice(start, start + step)
        share = _share(g[rows], v[rows])
        neutral = (share > LEVEL)[:, None]
        masks = (
            packed_bits(p[rows], "predictions"),
            packed_bits(one[rows, None], "single"),
            packed_bits(g[rows]),
            packed_bits(neutral),
        )
        parts.append(overlaps_of_bits(np.concatenate(masks, axis=1)))
        soft_dice.append(
            _soft_dice(one[rows], share) if soft == "mean" else _dice_at_thresholds(p[rows], share)
        )
    return PairwiseOverlap(*map(np.concatenate, zip(*parts, strict=True))), np.concatenate(soft_dice)


def _share(g: Bools, v: Bools) -> NDArray[np.float32]:
    """Return ``[B, P]``, the share of valid raters who marked a pixel; 0 without any."""
    # Bytes are added where they suffice; no copy of all masks as floats is made.
    count = np.zeros((g.shape[0], g.shape[2]), np.uint8 if g.shape[1] < 256 else np.uint32)
    for rater in range(g.shape[1]):
        count += g[:, rater].view(np.uint8) * v[:, rater, None].view(np.uint8)
    return count.astype(np.float32) / np.maximum(v.sum(axis=1), 1).astype(np.float32)[:, None]


def _energy_distance(d: Floats, m: int, v: Bools, n_valid: Floats) -> Floats:
    """Return 2·E d(p, g) - E d(p, p') - E d(g, g') from ``[B, n, n]``: predictions, the single one, raters."""
    r = v.shape[1]
    cross, within = d[:, :m, m + 1 : m + 1 + r], d[:, m + 1 : m + 1 + r, m + 1 : m + 1 + r]
    between = (cross * v[:, None]).sum(axis=(1, 2)) / (m * n_valid)
    raters = (within * v[:, None] * v[:, :, None]).sum(axis=(1, 2)) / n_valid**2
    return 2 * between - d[:, :m, :m].mean(axis=(1, 2)) - raters


def _best(cross: Floats, v: Bools, n_valid: Floats, symmetric: bool) -> Floats:
    """Return the mean over raters of the best prediction, from Dice ``[B, M, R]``."""
    best = (cross.max(axis=1) * v).sum(axis=1) / n_valid
    if not symmetric:
        return best
    reverse = np.where(v[:, None], cross, 0).max(axis=2).mean(axis=1)
    return (best + reverse) / 2


def _matched(cross: Floats, v: Bools, norm: MatchNorm) -> Floats:
    """Return the matched Dice of every image, from Dice ``[B, M, R]``."""
    from scipy.optimize import linear_sum_assignment

    result = np.full(len(cross), np.nan)
    for i in np.flatnonzero(v.any(axis=1)):
        dice = cross[i][:, v[i]]
        rows, columns = linear_sum_assignment(dice, maximize=True)
        divisor = {"gt": dice.shape[1], "max": max(dice.shape), "match": min(dice.shape)}[norm]
        result[i] = dice[rows, columns].sum() / divisor
    return result


def _soft_dice(p: NDArray[Any], share: NDArray[np.float32]) -> Floats:
    """Return ``2·Σ p·s / (Σ p + Σ s)`` for ``[B, P]``; 1 when both are 0 everywhere."""
    # Sums along the last axis are pairwise, so that single precision holds for large images, too.
    both, total = (p * share).sum(axis=1), p.sum(axis=1, dtype=share.dtype) + share.sum(axis=1)
    return ratio(2 * both, total)


def _dice_at_thresholds(p: NDArray[Any], share: NDArray[np.float32]) -> Floats:
    """Return the Dice of mean prediction and mean rater, averaged over five thresholds."""
    mean = p.mean(axis=1, dtype=np.float64)
    values = []
    for level in THRESHOLDS:
        a, b = mean > level, share > level
        sizes = np.count_nonzero(a, axis=1) + np.count_nonzero(b, axis=1)
        values.append(ratio(2 * np.count_nonzero(a & b, axis=1), sizes))
    return np.mean(values, axis=0)
