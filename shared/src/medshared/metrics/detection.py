"""Points found against points annotated: one-to-one matching and the free-response ROC curve.

The curve is the step-wise one of the TIGER challenge: all regions pooled, every predicted probability a threshold,
false positives per area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TARGETS = (10.0, 20.0, 50.0, 100.0, 200.0, 300.0)  # false positives per mm² of the TIGER challenge
_UNMATCHED = -1
_SLACK = 1e-9  # the tree may round differently: a little more is asked of it, and distances are tested here


class PointMatches(NamedTuple):
    """How annotated and predicted points of one region belong together.

    Attributes:
        prediction_of: int64 ``[m]``, for every annotated point the prediction it was given, −1 without one.
        tp: Annotated points with a prediction.
        fn: Annotated points without one.
        fp: Predictions that no annotated point was given.
    """

    prediction_of: NDArray[np.int64]
    tp: int
    fn: int
    fp: int


class Region(NamedTuple):
    """Predictions and truth of one region.

    Attributes:
        points: float ``[n, 2]``, (x, y) of the predictions in the unit of the radius.
        probabilities: float ``[n]``.
        truth: float ``[m, 2]``, (x, y) of the annotated points.
    """

    points: ArrayLike
    probabilities: ArrayLike
    truth: ArrayLike


class RegionMatches(NamedTuple):
    """What the predictions of one region find, as the threshold falls.

    Attributes:
        probabilities: float64 ``[n]``, descending.
        gains: int64 ``[n]``, 1 where one more annotated point is found with this prediction, else 0.
        n_truth: Annotated points.
    """

    probabilities: NDArray[np.float64]
    gains: NDArray[np.int64]
    n_truth: int


class FrocCurve(NamedTuple):
    """A free-response ROC curve, one point for every distinct probability.

    Attributes:
        thresholds: float64 ``[k]``, descending.
        sensitivities: float64 ``[k]``, share of the annotated points that are found; 0 when there are none.
        false_positives: float64 ``[k]``, per unit of area, never falling.
        n_truth: Annotated points of all regions.
    """

    thresholds: NDArray[np.float64]
    sensitivities: NDArray[np.float64]
    false_positives: NDArray[np.float64]
    n_truth: int


def match_points(predictions: ArrayLike, truth: ArrayLike, radius: float) -> PointMatches:
    """Match one to one: annotated points, in list order, take the nearest unused prediction within the radius.

    Args:
        predictions: ``[n, 2]``, (x, y); of equally near ones the first in the list is taken.
        truth: ``[m, 2]``, (x, y).
        radius: Largest distance, inclusive.

    Returns:
        The matches.

    Example:
        >>> match_points([[0, 0], [6, 0]], [[5, 0], [-5, 0], [11, 0]], radius=8)[1:]
        (2, 1, 0)
    """
    p, t = _points(predictions, "predictions"), _points(truth, "truth")
    matching = _Matching(p, t, radius)
    for prediction in range(len(p)):
        matching.add(prediction)
    found = np.asarray(matching.prediction_of, np.int64).reshape(len(t))
    tp = int((found != _UNMATCHED).sum())
    return PointMatches(found, tp, len(t) - tp, len(p) - tp)


def froc_curve(regions: Sequence[Region], radius: float, area: float) -> FrocCurve:
    """Free-response ROC curve of several regions together, as the TIGER challenge defines it.

    At every threshold the predictions of at least that probability are matched anew by the rule of `match_points`.
    Distances do not depend on the threshold and are computed once; a prediction that comes in at a lower threshold
    changes the matching only along one chain of annotated points, so the curve takes O(n log n) in all.

    Args:
        regions: Predictions and truth; regions without either count too.
        radius: Largest distance of a match, inclusive, in the unit of the points.
        area: Of all regions together, such as mm².

    Returns:
        The curve; empty when nothing was predicted.

    Raises:
        ValueError: For arrays that do not fit together, and for an area that is not positive.

    Example:
        >>> curve = froc_curve([Region([[0, 0], [50, 0]], [0.9, 0.4], [[1, 0], [99, 0]])], radius=8, area=0.1)
        >>> curve.sensitivities.tolist(), curve.false_positives.tolist()
        ([0.5, 0.5], [0.0, 10.0])
    """
    return pool_matches([match_region(region, radius) for region in regions], area)


def match_region(region: Region, radius: float) -> RegionMatches:
    """Match one region at all thresholds at once.

    Args:
        region: Predictions and truth.
        radius: Largest distance of a match, inclusive.

    Returns:
        What `pool_matches` makes a curve of; resampled sets of regions need no matching anew.

    Raises:
        ValueError: For arrays that do not fit together or are not finite.
    """
    p, t = _points(region.points, "points of a region"), _points(region.truth, "truth of a region")
    scores = np.asarray(region.probabilities, np.float64).reshape(-1)
    if len(scores) != len(p):
        raise ValueError(f"a region has {len(p)} points, but {len(scores)} probabilities")
    if not np.isfinite(scores).all():
        raise ValueError("a region has probabilities that are no numbers")
    order = np.argsort(-scores, kind="stable")
    matching = _Matching(p, t, radius)
    gains = np.fromiter((matching.add(each) for each in order.tolist()), np.int64, len(order))
    return RegionMatches(scores[order], gains, len(t))


def pool_matches(matches: Sequence[RegionMatches], area: float) -> FrocCurve:
    """Make the curve of regions that are matched already.

    Args:
        matches: Of the regions, with repetitions where a resample asks for them.
        area: Of all regions together.

    Returns:
        The curve; empty when nothing was predicted.

    Raises:
        ValueError: For an area that is not positive.
    """
    if not (np.isfinite(area) and area > 0):
        raise ValueError(f"the area must be a positive number, found {area}")
    n_truth = sum(each.n_truth for each in matches)
    if sum(len(each.probabilities) for each in matches) == 0:
        empty = np.empty(0)
        return FrocCurve(empty, empty, empty, n_truth)
    scores = np.concatenate([each.probabilities for each in matches])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(np.concatenate([each.gains for each in matches])[order])
    # Predictions of one probability come in together: the last of them has the counts.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = hits[last]
    return FrocCurve(scores[last], found / max(n_truth, 1), (last + 1 - found) / area, n_truth)


def sensitivity_at(curve: FrocCurve, targets: Sequence[float] = TARGETS) -> NDArray[np.float64]:
    """Sensitivity at given rates of false positives: of the last threshold that does not exceed the rate.

    The curve is a staircase: nothing is interpolated. Below its first rate it is 0, beyond its last it is held.

    Args:
        curve: The curve.
        targets: False positives per unit of area.

    Returns:
        float64, one a target; zeros when nothing was predicted.
    """
    place = np.searchsorted(curve.false_positives, np.asarray(targets, np.float64), side="right")
    return np.concatenate([[0.0], curve.sensitivities])[place]


def froc_score(curve: FrocCurve, targets: Sequence[float] = TARGETS) -> float:
    """Mean sensitivity at the targets, the FROC score of the TIGER challenge.

    Args:
        curve: The curve.
        targets: False positives per unit of area; the challenge's are per mm².

    Returns:
        The score in [0, 1]; 0 when nothing was predicted.
    """
    return float(sensitivity_at(curve, targets).mean())


class _Matching:
    """The matching of one region while predictions come in, one after the other, in any order.

    Annotated points choose in list order, so all predictions agree on who comes first: a new prediction goes to the
    first annotated point that likes it better than what it has. What that one gives up is again free, but only for
    later points: earlier ones had the choice and took something nearer. The result is that of matching all anew.
    """

    def __init__(self, predictions: NDArray[np.float64], truth: NDArray[np.float64], radius: float) -> None:
        self.prediction_of = [_UNMATCHED] * len(truth)
        self._rank_of = [_UNMATCHED] * len(truth)
        self._near = _candidates(predictions, truth, radius)

    def add(self, prediction: int) -> int:
        """Let a prediction in; return 1 when one more annotated point has a prediction now."""
        after = -1
        while prediction in self._near:
            for point, rank in self._near[prediction].items():
                if point <= after:
                    continue
                held = self._rank_of[point]
                if held == _UNMATCHED:
                    self.prediction_of[point], self._rank_of[point] = prediction, rank
                    return 1
                if rank < held:
                    given_up = self.prediction_of[point]
                    self.prediction_of[point], self._rank_of[point] = prediction, rank
                    prediction, after = given_up, point
                    break
            else:
                return 0
        return 0


def _candidates(
    predictions: NDArray[np.float64], truth: NDArray[np.float64], radius: float
) -> dict[int, dict[int, int]]:
    """Return for every prediction the annotated points in reach, in list order, and how they rank it.

    Ranks order all pairs by distance, then by place in the list of predictions.
    """
    from scipy.spatial import KDTree

    if len(predictions) == 0 or len(truth) == 0:
        return {}
    tree, other = KDTree(predictions), KDTree(truth)
    pairs = tree.sparse_distance_matrix(other, radius * (1 + _SLACK) + _SLACK, output_type="ndarray")
    first, second = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64)
    distance = np.sqrt(((predictions[first] - truth[second]) ** 2).sum(axis=1))
    inside = distance <= radius
    first, second, distance = first[inside], second[inside], distance[inside]
    rank = np.empty(len(first), np.int64)
    rank[np.lexsort((first, distance))] = np.arange(len(first))
    order = np.lexsort((second, first))
    near: dict[int, dict[int, int]] = {}
    for prediction, point, place in zip(
        first[order].tolist(), second[order].tolist(), rank[order].tolist(), strict=True
    ):
        near.setdefault(prediction, {})[point] = place
    return near


def _points(values: ArrayLike, name: str) -> NDArray[np.float64]:
    points = np.asarray(values, np.float64)
    if points.size == 0:
        return np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{name} must have shape [n, 2], found {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite")
    return points
