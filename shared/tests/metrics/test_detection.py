"""Matching and curve against the challenge's rule, written out threshold by threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.metrics.detection import (
    TARGETS,
    FrocCurve,
    Region,
    froc_curve,
    froc_score,
    match_points,
    sensitivity_at,
)


def match_by_hand(predictions, truth, radius):
    """Each annotated point in turn takes the nearest unused prediction."""
    used, given_to = set(), []
    for point in truth:
        best, best_distance = -1, np.inf
        for number, prediction in enumerate(predictions):
            distance = np.sqrt(((np.asarray(point) - prediction) ** 2).sum())
            if number not in used and distance <= radius and distance < best_distance:
                best, best_distance = number, distance
        given_to.append(best)
        used.add(best)
    return given_to


def curve_by_hand(regions, radius, area):
    thresholds = sorted({p for region in regions for p in region[1].tolist()}, reverse=True)
    sensitivity, rates = [], []
    for t in thresholds:
        tp = fn = fp = 0
        for points, probabilities, truth in regions:
            shown = points[probabilities >= t]
            found = sum(each >= 0 for each in match_by_hand(shown, truth, radius))
            tp, fn, fp = tp + found, fn + len(truth) - found, fp + len(shown) - found
        sensitivity.append(tp / max(tp + fn, 1))
        rates.append(fp / area)
    return thresholds, sensitivity, rates


def score_by_hand(sensitivity, rates, targets):
    if not rates:
        return 0.0
    rates, sensitivity = list(rates), list(sensitivity)
    if rates[0] != 0:
        rates, sensitivity = [0.0, *rates], [0.0, *sensitivity]
    for target in targets:
        if target > max(rates):
            rates.append(target)
            sensitivity.append(sensitivity[-1])
    values = [sensitivity[max(i for i, rate in enumerate(rates) if rate <= target)] for target in targets]
    return float(np.mean(values))


def draw(seed, n_regions, spread):
    rng = np.random.default_rng(seed)
    regions = []
    for _ in range(n_regions):
        n, m = rng.integers(0, 25, 2)
        regions.append(
            Region(
                rng.integers(0, spread, (n, 2)).astype(float),
                rng.integers(0, 12, n) / 12,
                rng.integers(0, spread, (m, 2)).astype(float),
            )
        )
    return regions


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4), st.sampled_from([6, 20, 60]), st.sampled_from([0, 3, 5, 8]))
def test_curve_and_score_equal_the_rule(seed, n_regions, spread, radius):
    regions = draw(seed, n_regions, spread)
    curve = froc_curve(regions, radius, 0.05)
    thresholds, sensitivity, rates = curve_by_hand(regions, radius, 0.05)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    np.testing.assert_allclose(curve.sensitivities, sensitivity, rtol=1e-12)
    np.testing.assert_allclose(curve.false_positives, rates, rtol=1e-12)
    assert curve.n_truth == sum(len(region.truth) for region in regions)
    for targets in (TARGETS, (1, 40, 1000)):
        assert froc_score(curve, targets) == pytest.approx(score_by_hand(sensitivity, rates, targets))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([6, 20, 60]))
def test_matches_equal_the_rule(seed, spread):
    region = draw(seed, 1, spread)[0]
    matches = match_points(region.points, region.truth, 5)
    assert matches.prediction_of.tolist() == match_by_hand(region.points, region.truth, 5)
    assert matches.tp + matches.fn == len(region.truth)
    assert matches.tp + matches.fp == len(region.points)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_only_the_order_of_probabilities_counts(seed):
    regions = draw(seed, 3, 20)
    bent = [region._replace(probabilities=np.asarray(region.probabilities) ** 3) for region in regions]
    first, second = froc_curve(regions, 5, 1.0), froc_curve(bent, 5, 1.0)
    np.testing.assert_array_equal(first.sensitivities, second.sensitivities)
    np.testing.assert_array_equal(first.false_positives, second.false_positives)


def test_equally_near_predictions_are_taken_in_list_order():
    assert match_points([[1, 0], [-1, 0]], [[0, 0]], 8).prediction_of.tolist() == [0]
    assert match_points([[-1, 0], [1, 0]], [[0, 0]], 8).prediction_of.tolist() == [0]


def test_the_radius_is_inclusive_where_rounding_bites():
    truth, prediction = [[0.1 + 0.2, 0.0]], [[8.3, 0.0]]
    inside = np.sqrt((8.3 - (0.1 + 0.2)) ** 2) <= 8.0
    assert match_points(prediction, truth, 8.0).tp == int(inside)
    assert match_points([[3.0, 4.0]], [[0, 0]], 5.0).tp == 1


def test_the_score_is_a_staircase():
    curve = FrocCurve(np.array([0.9, 0.5, 0.1]), np.array([0.2, 0.6, 0.8]), np.array([15.0, 50.0, 60.0]), 10)
    assert sensitivity_at(curve).tolist() == [0.0, 0.2, 0.6, 0.8, 0.8, 0.8]
    assert froc_score(curve, (14.9, 15.0)) == pytest.approx(0.1)


def test_nothing_predicted_scores_0():
    curve = froc_curve([Region([], [], [[1, 1]])], 8, 1.0)
    assert (froc_score(curve), curve.n_truth) == (0.0, 1)


@pytest.mark.parametrize(
    ("region", "area", "message"),
    [
        (Region([[0, 0]], [0.5, 0.6], []), 1, "1 points, but 2 probabilities"),
        (Region([[0, 0]], [np.nan], []), 1, "probabilities that are no numbers"),
        (Region([[0, 0, 1]], [0.5], []), 1, r"shape \[n, 2\], found \[1, 3\]"),
        (Region([[0, np.inf]], [0.5], []), 1, "must be finite"),
        (Region([], [], []), 0, "the area must be a positive number, found 0"),
    ],
)
def test_bad_arguments_are_named(region, area, message):
    with pytest.raises(ValueError, match=message):
        froc_curve([region], 8, area)
