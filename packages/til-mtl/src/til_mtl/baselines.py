"""What one gets without learning: the numbers that a network has to beat.

Darkness finds every dark nucleus, whatever it is; the majority class paints every pixel alike; random dots are where
chance is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from til_mtl.config import IGNORE_INDEX
from til_mtl.data.store import PatchStore
from til_mtl.patch_scores import PatchScores
from til_mtl.peaks import find_peaks

Floats = NDArray[np.float64]


def darkness(image: NDArray[np.uint8], sigma_px: float) -> NDArray[np.float32]:
    """Return how dark each pixel's neighbourhood is, 0 (white) to 1 (black).

    Args:
        image: uint8 [H, W, 3].
        sigma_px: Standard deviation of the Gaussian blur.
    """
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(1 - image.mean(-1, dtype=np.float32) / 255, sigma_px), np.float32)


def darkness_scores(
    store: PatchStore, scores: PatchScores, *, sigma_px: float, distance_px: float
) -> PatchScores:
    """Return what dark peaks find on the cell patches of a set.

    Args:
        store: The patches.
        scores: A network's results on the same store in order; their truth is used.
        sigma_px: Of the blur.
        distance_px: Suppression distance.
    """
    found = []
    for index, task in enumerate(store.tasks):
        if task != 1:
            found.append(np.zeros((0, 3)))
            continue
        peaks = find_peaks(darkness(store.images([index])[0], sigma_px), 0.0, distance_px)
        peaks[:, :2] += 0.5
        found.append(peaks)
    return replace(scores, detections=tuple(found))


def random_scores(store: PatchStore, scores: PatchScores, *, seed: int, per_patch: int) -> PatchScores:
    """Return what dots at random places, with random probabilities, find.

    Args:
        store: The patches.
        scores: A network's results on the same store in order; their truth is used.
        seed: Of the dots.
        per_patch: Dots on each cell patch.
    """
    rng = np.random.default_rng(seed)
    width, height = store.size
    dots = [rng.uniform((0, 0, 0), (width, height, 1), (per_patch if task else 0, 3)) for task in store.tasks]
    return replace(scores, detections=tuple(dots))


def majority_dice(store: PatchStore, n_classes: int) -> float:
    """Return the best mean Dice of tumour and stroma that one class for all pixels reaches.

    Args:
        store: The patches.
        n_classes: Of the tissue map.
    """
    rows = np.flatnonzero(store.tasks == 0)
    masks = store.masks(rows)
    counts = np.bincount(masks[masks != IGNORE_INDEX], minlength=n_classes)[:n_classes]
    # Painting everything with class c gives it 2n_c / (n_c + n) and every other class 0.
    dice = 2 * counts / (counts + counts.sum())
    return float(dice[1:3].max() / 2)


def slide_darkness(image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> float:
    """Return the mean darkness of a slide's tissue, 0–1; NaN without tissue."""
    return float((1 - image.mean(-1) / 255)[tissue].mean()) if tissue.any() else math.nan


def median_mae(truth: Sequence[float]) -> float:
    """Return the mean absolute error of giving every slide the median score."""
    values = np.asarray(truth, dtype=np.float64)
    return float(np.abs(values - np.median(values)).mean())
