"""The metrics that the published logs hold, value by value.

They differ from `medshared.metrics.raters`: the energy distance has the other sign, raters that are empty or padded
count in all set metrics, what is undefined is 0, and whether values are logits is guessed from their range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.raters import THRESHOLDS, pairwise_overlap

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
EPS = 1e-7
IOU_EPS, DICE_EPS = 1e-6, 1e-4
NORMS = ("gt", "max", "match")


def compute_metrics(
    preds_single: ArrayLike | Tensor,
    raters: ArrayLike | Tensor,
    valid_raters: ArrayLike | Tensor | None = None,
    pred_set: ArrayLike | Tensor | None = None,
    follow_idx: ArrayLike | Tensor | None = None,
    *,
    dice_match_norm: str = "gt",
    dice_max_symmetric: bool = False,
    run: int | None = None,
) -> dict[str, float]:
    """Compute the original's metrics over several raters, averaged over the batch.

    Args:
        preds_single: ``[B, 1, H, W]``, the round's prediction. Values that all lie in [0, 1] are taken as
            probabilities, others as logits.
        raters: ``[B, R, 1, H, W]`` or ``[B, R, H, W]``, 0 and 1. Of several channels only the first is read.
        valid_raters: bool ``[B, R]``; None = all. The set metrics (GED, Dice_max, Dice_match) count all the same.
        pred_set: ``[B, M, 1, H, W]``, the predictions of all rounds so far; None = only the single one.
        follow_idx: int ``[B]``, the followed rater; out of range or not valid = the first valid one, else rater 0.
            None = nobody: the two values about following are 0.
        dice_match_norm: What divides the matched Dice: raters ``gt``, larger set ``max``, smaller set ``match``.
        dice_max_symmetric: Average with the mean over predictions of the best rater.
        run: Number of the round, returned under that key.

    Returns:
        ``GED`` (E d(p, p') + E d(g, g') - 2·E d(p, g), the negative of the distance), ``Dice_max``, ``Dice_match``,
        ``Dice_soft``, ``Dice_personal_mean``, ``Dice_follow`` and ``Delta_follow_vs_neutral``.

    Raises:
        ValueError: For a set that has not five axes and for an unknown norm.
    """
    if dice_match_norm not in NORMS:
        raise ValueError("normalize_by must be 'gt'|'max'|'match'.")
    single = _probabilities(_array(preds_single))
    b = len(single)
    g = _first_channel(_array(raters) > 0.5)
    valid = np.ones(g.shape[:2], bool) if valid_raters is None else _array(valid_raters).astype(bool)
    masks, one = _set_of(pred_set, single) > 0.5, single.reshape(b, -1)
    ged, best, matched = _set_metrics(masks, g, dice_match_norm, dice_max_symmetric)
    n_valid = valid.sum(axis=1)
    share = (g * valid[:, :, None]).sum(axis=1) / np.maximum(n_valid, 1)[:, None]
    per_rater = _smooth_dice(one[:, None] > 0.5, g)
    personal = (per_rater * valid).sum(axis=1) / np.maximum(n_valid, 1)
    follow = delta = 0.0
    if follow_idx is not None:
        chosen = per_rater[np.arange(b), _followed(_array(follow_idx), valid)]
        follow = float(chosen.mean())
        delta = float((chosen - _smooth_dice(one > 0.5, share > 0.5)).mean())
    soft = (2 * (one * share).sum(axis=1) + EPS) / (one.sum(axis=1) + share.sum(axis=1) + EPS)
    values = {
        "GED": ged,
        "Dice_max": best,
        "Dice_match": matched,
        "Dice_soft": float(soft.mean()),
        "Dice_personal_mean": float(personal.mean()),
        "Dice_follow": follow,
        "Delta_follow_vs_neutral": delta,
    }
    return values if run is None else {"run": run, **values}


def eval_seg(
    pred: ArrayLike | Tensor, true: ArrayLike | Tensor, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float, ...]:
    """Compute IoU and Dice, averaged over thresholds and images.

    Args:
        pred: ``[B, C, H, W]``, binarised above every threshold.
        true: Same shape, binarised likewise.
        thresholds: At least one.

    Returns:
        The IoU of every channel, then the Dice of every channel: 2·C numbers. Empty against empty is 1. The original
        failed for more than two channels with several thresholds.

    Raises:
        ValueError: For shapes that differ, and without a threshold.
    """
    p, t = _array(pred), _array(true)
    if p.shape != t.shape or p.ndim != 4:
        raise ValueError(f"pred and true must be [B, C, H, W], found {list(p.shape)} and {list(t.shape)}")
    if not thresholds:
        raise ValueError("thresholds must name at least one")
    iou, dice = [], []
    for level in thresholds:
        a, b = p > level, t > level
        inter = np.count_nonzero(a & b, axis=(2, 3))
        sizes = np.count_nonzero(a, axis=(2, 3)) + np.count_nonzero(b, axis=(2, 3))
        iou.append(((inter + IOU_EPS) / (sizes - inter + IOU_EPS)).mean(axis=0))
        dice.append(((2 * inter + DICE_EPS) / (sizes + DICE_EPS)).mean(axis=0))
    return tuple(float(value) for value in np.concatenate([np.mean(iou, axis=0), np.mean(dice, axis=0)]))


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return an array of a tensor on any device, or of anything else."""
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu())


def _first_channel(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return ``[B, R, P]`` of masks with or without an axis of channels."""
    one = masks[:, :, 0] if masks.ndim == 5 else masks
    return one.reshape(*one.shape[:2], -1)


def _probabilities(values: NDArray[Any]) -> Floats:
    """Take values as probabilities when all lie in [0, 1], else as logits."""
    x = values.astype(np.float64)
    if x.size and x.min() >= 0 and x.max() <= 1:
        return x
    from scipy.special import expit

    return np.asarray(expit(x))


def _set_of(pred_set: ArrayLike | Tensor | None, single: Floats) -> Floats:
    """Return the probabilities ``[B, M, P]`` of a set; the range is judged for each image."""
    b = len(single)
    if pred_set is None:
        return single.reshape(b, 1, -1)
    values = _array(pred_set)
    if values.ndim != 5:
        raise ValueError(
            "dice_max/pred_set: expected (B,M,1,H,W) or (B,M,H,W) or (B,1,H,W); "
            f"got {values.shape}, of which only (B,M,1,H,W) was ever read"
        )
    return np.stack([_probabilities(each) for each in values]).reshape(b, values.shape[1], -1)


def _set_metrics(
    p: NDArray[np.bool_], g: NDArray[np.bool_], norm: str, symmetric: bool
) -> tuple[float, float, float]:
    """Return GED, Dice_max and Dice_match of ``[B, M, P]`` and ``[B, R, P]``, averaged over the batch."""
    from scipy.optimize import linear_sum_assignment

    overlap = pairwise_overlap(np.concatenate([p, g], axis=1))
    sizes = overlap.sizes[:, :, None] + overlap.sizes[:, None, :]
    dice = np.where(sizes == 0, 1.0, 2 * overlap.intersections / (sizes + EPS))
    m, r = p.shape[1], g.shape[1]
    d, cross = 1 - dice, dice[:, :m, m:]
    ged = d[:, :m, :m].mean(axis=(1, 2)) + d[:, m:, m:].mean(axis=(1, 2)) - 2 * d[:, :m, m:].mean(axis=(1, 2))
    best = cross.max(axis=1).mean(axis=1)
    if symmetric:
        best = (best + cross.max(axis=2).mean(axis=1)) / 2
    divisor = {"gt": r, "max": max(m, r), "match": min(m, r)}[norm]
    matched = [each[linear_sum_assignment(each, maximize=True)].sum() / divisor for each in cross]
    return float(ged.mean()), float(best.mean()), float(np.mean(matched))


def _smooth_dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Floats:
    """Return ``(2·|A∩B| + eps) / (|A| + |B| + eps)`` over the last axis."""
    sizes = np.count_nonzero(a, axis=-1) + np.count_nonzero(b, axis=-1)
    return (2 * np.count_nonzero(a & b, axis=-1) + EPS) / (sizes + EPS)


def _followed(follow: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Replace raters that cannot be followed by the first valid one, or rater 0."""
    rows, r = np.arange(len(valid)), valid.shape[1]
    in_range = (follow >= 0) & (follow < r)
    usable = in_range & valid[rows, np.where(in_range, follow, 0)]
    return np.where(usable, follow, valid.argmax(axis=1)).astype(np.intp)
