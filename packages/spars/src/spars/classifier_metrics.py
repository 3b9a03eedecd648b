"""How well windows are told apart: on a fixed set of crops, and over all windows of a volume."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.classification import confusion_counts, roc_auc

Value = float | None
LARGE = 50  # tumour voxels of a window that clearly holds tumour


def decision_metrics(score: ArrayLike, target: ArrayLike) -> dict[str, Value]:
    """Summarise scores of crops against their classes.

    A crop is called positive when its score exceeds 0.5, as the larger of two logits; equal ones mean "no tumour".

    Args:
        score: Probability of tumour, ``[n]``.
        target: Class 0 or 1, ``[n]``.

    Returns:
        ``auc``, ``accuracy``, ``precision``, ``sensitivity``, ``specificity``; null where there is nothing to divide
        by. The original prints 0 there, and the accuracy of its last batch only.
    """
    s, t = np.asarray(score, np.float64), np.asarray(target)
    tp, fp, fn, tn = confusion_counts(s > 0.5, t)
    return {
        "auc": defined(roc_auc(s, t)),
        "accuracy": _ratio(tp + tn, s.size),
        "precision": _ratio(tp, tp + fp),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def window_metrics(score: ArrayLike, voxels: NDArray[np.int64]) -> dict[str, Value]:
    """Summarise scores of all windows of one or more volumes.

    Args:
        score: Probability of tumour, ``[n]``.
        voxels: Tumour voxels of each window, ``[n]`` (`spars.crops.window_counts`).

    Returns:
        ``window_auc``: windows with any tumour voxel against the others; ``window_auc_50_voxels``: windows with 50 or
        more against all others; ``score_gap``: mean score of windows with tumour minus that of the others. Null where
        a class is absent.
    """
    s = np.asarray(score, np.float64)
    positive = voxels > 0
    gap = float(s[positive].mean() - s[~positive].mean()) if 0 < positive.sum() < s.size else None
    return {
        "window_auc": defined(roc_auc(s, positive)),
        "window_auc_50_voxels": defined(roc_auc(s, voxels >= LARGE)),
        "score_gap": gap,
    }


def defined(value: float) -> Value:
    """Return a number, or null for NaN."""
    return None if math.isnan(value) else float(value)


def _ratio(part: int, whole: int) -> Value:
    return part / whole if whole else None
