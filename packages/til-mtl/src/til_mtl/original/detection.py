"""Detection and its FROC under the original's names.

``faithful=True`` gives the original's numbers: many predictions may hit one cell and one prediction may hit many, false
positives are counted per image, and the curve is interpolated and held flat at both ends. By default matching is one to
one. Where the original stopped with an ``IndexError`` (predictions in an image without cells) they are false
positives, in both modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.metrics.detection import match_points
from til_mtl.peaks import find_peaks, keep_in_order

Floats = NDArray[np.float64]
CONFIDENCE = 0.1  # least probability of a detection
SUPPRESSION_PX = 18.0
RADIUS_PX = 8.0
THRESHOLDS = np.linspace(0, 1, 40)
FALSE_POSITIVES = (10.0, 20.0, 50.0, 100.0, 200.0, 300.0)  # per image, at which the sensitivity is averaged


def extract_predictions(prob_map: NDArray[np.floating], threshold: float) -> Floats:
    """List the pixels of a probability map.

    Args:
        prob_map: ``[H, W]``.
        threshold: Least probability, inclusive.

    Returns:
        float64 ``[n, 3]``: x, y, probability, the most probable first; equal ones in reading order, where the
        original's order is that of an unstable sort.
    """
    rows, columns = np.nonzero(prob_map >= threshold)
    points = np.stack([columns, rows, prob_map[rows, columns]], axis=1).astype(np.float64)
    return points[np.argsort(-points[:, 2], kind="stable")]


def non_max_supression_distance(points: ArrayLike, d: float) -> Floats:
    """Keep, in the order given, the points that are not within the distance of one kept before.

    Args:
        points: ``[n, 3]``: x, y, probability.
        d: Distance, inclusive.

    Returns:
        float64 ``[k, 3]``; the original returns shape ``(0,)`` when there is none.
    """
    listed = np.asarray(points, np.float64).reshape(-1, 3)
    return listed[keep_in_order(listed[:, :2], d)]


def count_tp_fp_fn(
    pred: ArrayLike, gt: ArrayLike, t: float, r: float, *, faithful: bool = False
) -> tuple[int, int, int]:
    """Count hits and misses in one image.

    Args:
        pred: ``[n, 3]``: x, y, probability.
        gt: ``[m, 3]``: x, y, and a value that the original holds against the threshold, too.
        t: Least probability.
        r: Hit radius, inclusive.
        faithful: Many to many, as the original.

    Returns:
        True positives, false positives, false negatives.
    """
    p = np.asarray(pred, np.float64).reshape(-1, 3)
    g = np.asarray(gt, np.float64).reshape(-1, 3)
    p, g = p[p[:, 2] >= t], g[g[:, 2] >= t]
    if not faithful:
        matches = match_points(p[:, :2], g[:, :2], r)
        return matches.tp, matches.fp, matches.fn
    hits = _distances(p, g) <= r
    tp = int(hits.any(axis=0).sum())
    return tp, int((~hits.any(axis=1)).sum()), len(g) - tp


def FROC(  # noqa: N802  # the original's name
    preds: Sequence[ArrayLike],
    gts: Sequence[ArrayLike],
    thresholds: ArrayLike = THRESHOLDS,
    r: float = RADIUS_PX,
    *,
    faithful: bool = False,
) -> tuple[list[float], list[float]]:
    """Compute the curve over several images.

    Args:
        preds: One ``[n, 3]`` an image.
        gts: One ``[m, 3]`` an image.
        thresholds: Rising.
        r: Hit radius.
        faithful: Many to many, as the original.

    Returns:
        For every threshold the sensitivity over all images and the mean number of false positives an image.
    """
    levels = np.asarray(thresholds, np.float64)
    counts = np.zeros((len(levels), 3))
    for pred, gt in zip(preds, gts, strict=True):
        if faithful:
            counts += _count_all(pred, gt, levels, r)
        else:
            counts += [count_tp_fp_fn(pred, gt, float(t), r) for t in levels]
    found, wrong, missed = counts.T
    cells = np.maximum(found + missed, 1)
    return (found / cells).tolist(), (wrong / max(len(preds), 1)).tolist()


def _count_all(pred: ArrayLike, gt: ArrayLike, levels: Floats, r: float) -> Floats:
    """Return the faithful counts ``[T, 3]`` of one image; distances do not depend on the threshold."""
    p = np.asarray(pred, np.float64).reshape(-1, 3)
    g = np.asarray(gt, np.float64).reshape(-1, 3)
    hits = _distances(p, g) <= r
    shown, cells = p[:, 2] >= levels[:, None], g[:, 2] >= levels[:, None]  # [T, n], [T, m]
    # A cell is found at the thresholds up to the most probable prediction in reach.
    best = np.where(hits, p[:, 2:], -np.inf).max(axis=0, initial=-np.inf)
    found = cells & (best >= levels[:, None])
    # A prediction is wrong at the thresholds that leave no cell in its reach.
    last = np.where(hits, g[:, 2], -np.inf).max(axis=1, initial=-np.inf)
    wrong = shown & (last < levels[:, None])
    tp = found.sum(axis=1)
    return np.stack([tp, wrong.sum(axis=1), cells.sum(axis=1) - tp], axis=1).astype(np.float64)


def _distances(p: Floats, g: Floats) -> Floats:
    offsets = p[:, None, :2] - g[None, :, :2]
    return np.sqrt((offsets**2).sum(axis=2))


def compute_froc_score(
    fps: ArrayLike, sens: ArrayLike, eval_thresholds: ArrayLike | None = None, *, faithful: bool = False
) -> float:
    """Average the interpolated sensitivity at given numbers of false positives.

    The curve is held flat below its least and beyond its largest number of false positives.

    Args:
        fps: False positives an image for rising thresholds.
        sens: Sensitivities.
        eval_thresholds: Where to read the curve; by default 10, 20, 50, 100, 200 and 300. The original ignores it.
        faithful: Ignore ``eval_thresholds``, as the original.

    Returns:
        The score.
    """
    places = FALSE_POSITIVES if faithful or eval_thresholds is None else eval_thresholds
    x, y = np.asarray(fps, np.float64)[::-1], np.asarray(sens, np.float64)[::-1]
    return float(np.mean(np.interp(np.asarray(places, np.float64), x, y)))


def batch_froc(
    probability: NDArray[np.floating], cells: NDArray[np.floating], *, running: bool = False
) -> float:
    """FROC of a batch as the original's training step logs it.

    Args:
        probability: ``[n, H, W]``, channel 1 of the softmax.
        cells: ``[n, H, W]``, channel 1 of the one-hot labels.
        running: Mean over k of the FROC of the first k images, as the multi-task script; else of all images.

    Returns:
        The score; 0 without an image.
    """
    if len(probability) == 0:
        return 0.0
    preds = [find_peaks(each, CONFIDENCE, SUPPRESSION_PX) for each in probability]
    gts = [find_peaks(each, CONFIDENCE, SUPPRESSION_PX) for each in cells]
    counts = np.stack([_count_all(p, g, THRESHOLDS, RADIUS_PX) for p, g in zip(preds, gts, strict=True)])
    scores = []
    for k in range(1 if running else len(counts), len(counts) + 1):
        found, wrong, missed = counts[:k].sum(axis=0).T
        scores.append(compute_froc_score(wrong / k, found / np.maximum(found + missed, 1), faithful=True))
    return float(np.mean(scores))
