"""Metrics of binary decisions and scores.

Every function takes the estimate first and the truth second, works in float64 and changes nothing it is
given. Truth is an array of 0 and 1 (or booleans), shape ``[N]``; 1 is the positive class.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class RocCurve(NamedTuple):
    """Points of a receiver operating characteristic, from the strictest threshold to the loosest.

    Attributes:
        false_positive_rate: Shape ``[K]``, from 0 to 1.
        true_positive_rate: Shape ``[K]``, from 0 to 1.
        threshold: Shape ``[K]``; a sample is positive when ``score >= threshold``; the first entry is
            infinite.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    threshold: Floats


class CalibrationTable(NamedTuple):
    """Predicted probability against observed rate; empty bins are left out.

    Attributes:
        mean_probability: Shape ``[B]``, mean of the predicted probabilities in a bin.
        observed_rate: Shape ``[B]``, share of positives in a bin.
        n: Shape ``[B]``, samples in a bin.
        bin_index: Shape ``[B]``, which of the equal bins this is, counted from 0.
    """

    mean_probability: Floats
    observed_rate: Floats
    n: NDArray[np.int64]
    bin_index: NDArray[np.int64]


def _score_and_target(score: ArrayLike, target: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Check both arrays and return them as float64 and bool."""
    s = np.asarray(score, dtype=np.float64)
    t = np.asarray(target)
    if s.ndim != 1 or t.ndim != 1:
        raise ValueError(f"score and target must have one dimension, found shapes {s.shape} and {t.shape}")
    if s.shape != t.shape:
        raise ValueError(f"score has {s.size} entries but target has {t.size}: give one of each per sample")
    positive = t.astype(bool)
    if not np.array_equal(positive, t):
        wrong = np.unique(t[positive != t])[:5].tolist()
        raise ValueError(f"target must hold only 0 and 1, found {wrong}")
    return s, positive


def midranks(values: ArrayLike) -> Floats:
    """Return ranks from 1, equal values sharing the mean of their ranks.

    Args:
        values: Shape ``[N]``, without NaN.

    Returns:
        Ranks, shape ``[N]``.

    Example:
        >>> midranks([0.2, 0.5, 0.5, 0.1]).tolist()
        [2.0, 3.5, 3.5, 1.0]
    """
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def confusion_counts(decision: ArrayLike, target: ArrayLike) -> tuple[int, int, int, int]:
    """Count right and wrong decisions.

    Args:
        decision: 0 or 1 per sample, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.

    Returns:
        True positives, false positives, false negatives, true negatives.

    Raises:
        ValueError: For other values, other shapes or different lengths.

    Example:
        >>> confusion_counts([1, 1, 0, 0], [1, 0, 1, 0])
        (1, 1, 1, 1)
    """
    d, positive = _score_and_target(decision, target)
    if not np.isin(d, (0.0, 1.0)).all():
        raise ValueError("decision must hold only 0 and 1; compare scores with a threshold first")
    decided = d.astype(bool)
    tp = int(np.count_nonzero(decided & positive))
    fp = int(np.count_nonzero(decided & ~positive))
    fn = int(np.count_nonzero(~decided & positive))
    return tp, fp, fn, int(d.size - tp - fp - fn)


def roc_auc(score: ArrayLike, target: ArrayLike) -> float:
    """Area under the receiver operating characteristic, ties counted half.

    ``AUC = (R₊ − P(P + 1)/2) / (P · N)`` with ``R₊`` the sum of the midranks of the ``P`` positives among all
    samples and ``N`` the number of negatives (Mann-Whitney U).

    Args:
        score: Higher means more positive, any monotone scale, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.

    Returns:
        The area in [0, 1]; NaN when only one class is present or a score is NaN.

    Example:
        >>> roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75
    """
    s, positive = _score_and_target(score, target)
    n_positive = int(np.count_nonzero(positive))
    n_negative = s.size - n_positive
    if n_positive == 0 or n_negative == 0 or np.isnan(s).any():
        return float("nan")
    rank_sum = midranks(s)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative))


def _cumulative_counts(s: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return true positives and false positives at each distinct score, strictest first, and the scores."""
    order = np.argsort(-s, kind="stable")
    sorted_score = s[order]
    last_of_ties = np.r_[np.nonzero(np.diff(sorted_score))[0], s.size - 1]
    tp = np.cumsum(positive[order])[last_of_ties].astype(np.float64)
    return tp, last_of_ties + 1.0 - tp, sorted_score[last_of_ties]


def _require_scores(s: Floats, positive: NDArray[np.bool_], purpose: str) -> None:
    if np.isnan(s).any():
        raise ValueError(f"{int(np.isnan(s).sum())} of {s.size} scores are NaN: {purpose} needs numbers")
    if s.size == 0 or positive.all() or not positive.any():
        raise ValueError(
            f"{purpose} needs both classes, found {int(positive.sum())} positives in {s.size} samples"
        )


def roc_curve(score: ArrayLike, target: ArrayLike) -> RocCurve:
    """Return the receiver operating characteristic at every distinct score.

    Args:
        score: Higher means more positive, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.

    Returns:
        The curve, beginning at (0, 0) and ending at (1, 1).

    Raises:
        ValueError: With one class only or NaN scores.

    Example:
        >>> roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).true_positive_rate.tolist()
        [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    s, positive = _score_and_target(score, target)
    _require_scores(s, positive, "a ROC curve")
    tp, fp, threshold = _cumulative_counts(s, positive)
    return RocCurve(np.r_[0.0, fp / fp[-1]], np.r_[0.0, tp / tp[-1]], np.r_[np.inf, threshold])


def average_precision(score: ArrayLike, target: ArrayLike) -> float:
    """Average precision ``Σ (R_k − R_{k−1}) · P_k`` over the distinct scores, strictest first.

    Args:
        score: Higher means more positive, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.

    Returns:
        The value in [0, 1]; NaN without positives or with NaN scores.

    Example:
        >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
        0.8333
    """
    s, positive = _score_and_target(score, target)
    if not positive.any() or np.isnan(s).any():
        return float("nan")
    tp, fp, _ = _cumulative_counts(s, positive)
    recall = tp / tp[-1]
    return float(np.sum(np.diff(np.r_[0.0, recall]) * tp / (tp + fp)))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def counts_to_metrics(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """Return the ratios of a confusion table; 0/0 is 0.

    Args:
        tp: True positives.
        fp: False positives.
        fn: False negatives.
        tn: True negatives.

    Returns:
        ``accuracy``, ``precision``, ``recall``, ``f1`` and ``specificity``, all in [0, 1].

    Example:
        >>> counts_to_metrics(2, 1, 0, 1)["accuracy"]
        0.75
    """
    precision = _ratio(tp, tp + fp)
    recall = _ratio(tp, tp + fn)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "specificity": _ratio(tn, tn + fp),
    }


def binary_metrics(
    score: ArrayLike, target: ArrayLike, threshold: float = 0.5, *, strict: bool = False
) -> dict[str, float]:
    """Metrics of the decision ``score >= threshold`` and the area under the ROC curve.

    Args:
        score: Shape ``[N]``; NaN counts as a negative decision.
        target: Truth, 0 or 1, shape ``[N]``.
        threshold: Decision threshold on the scale of the scores.
        strict: Decide by ``score > threshold`` instead.

    Returns:
        ``accuracy``, ``precision``, ``recall``, ``f1``, ``specificity`` (0 for 0/0) and ``auc`` (NaN for
        one class).

    Raises:
        ValueError: Without samples.

    Example:
        >>> metrics = binary_metrics([0.9, 0.6, 0.4, 0.1], [1, 0, 1, 0])
        >>> metrics["accuracy"], metrics["auc"]
        (0.5, 0.75)
    """
    s, positive = _score_and_target(score, target)
    if s.size == 0:
        raise ValueError("no samples: metrics of an empty set are undefined")
    decision = s > threshold if strict else s >= threshold
    metrics = counts_to_metrics(*confusion_counts(decision, positive))
    metrics["auc"] = roc_auc(s, positive)
    return metrics


def _probability(probability: ArrayLike, target: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    p, positive = _score_and_target(probability, target)
    if p.size == 0:
        raise ValueError("no samples: calibration of an empty set is undefined")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probability must lie in [0, 1]; apply the sigmoid to logits first")
    return p, positive


def calibration_table(
    probability: ArrayLike, target: ArrayLike, n_bins: int = 10, *, clip: float = 0.0
) -> CalibrationTable:
    """Compare predicted probabilities with observed rates in equal bins on [0, 1].

    Args:
        probability: Of the positive class, in [0, 1], shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.
        n_bins: Number of bins; each holds its left end, the last one also its right end.
        clip: Probabilities are first moved into ``[clip, 1 − clip]``.

    Returns:
        One row per bin that holds samples.

    Example:
        >>> table = calibration_table([0.05, 0.15, 0.95], [0, 0, 1], n_bins=2)
        >>> table.observed_rate.tolist(), table.n.tolist()
        ([0.0, 1.0], [2, 1])
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, found {n_bins}")
    p, positive = _probability(probability, target)
    p = np.clip(p, clip, 1.0 - clip)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    used = np.nonzero(count)[0]
    mean = np.bincount(bins, weights=p, minlength=n_bins)[used] / count[used]
    rate = np.bincount(bins, weights=positive, minlength=n_bins)[used] / count[used]
    return CalibrationTable(mean, rate, count[used].astype(np.int64), used.astype(np.int64))


def expected_calibration_error(probability: ArrayLike, target: ArrayLike, n_bins: int = 10) -> float:
    """Expected calibration error ``Σ_b n_b/N · |mean p_b − rate_b|`` over equal bins.

    Args:
        probability: Of the positive class, in [0, 1], shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.
        n_bins: Number of bins.

    Returns:
        The error in [0, 1]; 0 is best.

    Example:
        >>> round(expected_calibration_error([0.1, 0.9], [0, 1]), 3)
        0.1
    """
    table = calibration_table(probability, target, n_bins)
    gap = np.abs(table.mean_probability - table.observed_rate)
    return float(np.sum(gap * table.n) / table.n.sum())


def brier_score(probability: ArrayLike, target: ArrayLike) -> float:
    """Mean squared difference between probability and truth.

    Args:
        probability: Of the positive class, in [0, 1], shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.

    Returns:
        The score in [0, 1]; 0 is best.

    Example:
        >>> brier_score([0.5, 1.0], [0, 1])
        0.125
    """
    p, positive = _probability(probability, target)
    return float(np.mean((p - positive) ** 2))


def best_threshold(
    score: ArrayLike,
    target: ArrayLike,
    criterion: Literal["youden", "f1"] = "youden",
    *,
    near: float = 0.5,
) -> float:
    """Choose the decision threshold that is best on these samples.

    Candidates lie half-way between neighbouring distinct scores, so that unseen scores fall on the likelier
    side. Choose it on validation data and apply it to the test data.

    Args:
        score: Higher means more positive, shape ``[N]``.
        target: Truth, 0 or 1, shape ``[N]``.
        criterion: ``youden`` maximises recall + specificity − 1, ``f1`` the F1 of the positive class.
        near: Among equally good candidates the one nearest to this value is taken.

    Returns:
        The threshold for the decision ``score >= threshold``.

    Raises:
        ValueError: With one class only, NaN scores or an unknown criterion.

    Example:
        >>> best_threshold([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
        0.25
    """
    s, positive = _score_and_target(score, target)
    _require_scores(s, positive, "choosing a threshold")
    tp, fp, distinct = _cumulative_counts(s, positive)
    if criterion == "youden":
        value = tp / tp[-1] - fp / fp[-1]
    elif criterion == "f1":
        value = 2 * tp / (tp + fp + tp[-1])
    else:
        raise ValueError(f"criterion must be 'youden' or 'f1', found {criterion!r}")
    below = np.r_[distinct[1:], distinct[-1]]
    candidates = below + (distinct - below) / 2.0
    best = np.nonzero(value >= value.max() - 1e-12)[0]
    return float(candidates[best[np.argmin(np.abs(candidates[best] - near))]])


def fit_temperature(
    logit: ArrayLike, target: ArrayLike, *, lowest: float = 0.01, highest: float = 100.0
) -> float:
    """Fit the temperature T that minimises the cross-entropy of ``sigmoid(logit / T)``.

    The cross-entropy is convex in 1/T; its derivative is bisected, so the result does not depend on a start
    value.

    Args:
        logit: Log-odds of the positive class, shape ``[N]``; for two logits their difference.
        target: Truth, 0 or 1, shape ``[N]``.
        lowest: Lower bound of T (reached by perfectly separated data).
        highest: Upper bound of T (reached by data without signal).

    Returns:
        T > 0; above 1 means that the model was over-confident.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(0, 2, 4000)
        >>> y = rng.random(4000) < 1 / (1 + np.exp(-z))
        >>> 2.7 < fit_temperature(3 * z, y) < 3.3
        True
    """
    z, positive = _score_and_target(logit, target)
    if z.size == 0 or not np.isfinite(z).all():
        raise ValueError("fitting a temperature needs at least one logit and only finite ones")
    margin = np.where(positive, z, -z)

    def slope(inverse_temperature: float) -> float:
        scaled = np.clip(inverse_temperature * margin, -700.0, 700.0)
        return float(-np.mean(margin / (1.0 + np.exp(scaled))))

    low, high = 1.0 / highest, 1.0 / lowest
    for _ in range(100):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1.0 / np.sqrt(low * high))
