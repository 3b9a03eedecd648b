"""Maps and thresholds against brute force over every window and voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.metrics.segmentation import overlap
from spars.errors import DataError
from spars.game.score_map import mean_map
from spars.lattice import Lattice
from spars.readout import RULES, THRESHOLDS, Found, choose_reading, dice_curve, read_map


@st.composite
def scored(draw):
    window = draw(st.tuples(*[st.integers(1, 4)] * 3))
    grid = tuple(w + draw(st.integers(0, 4)) for w in window)
    lattice = Lattice(grid, window, draw(st.integers(1, 3)))  # type: ignore[arg-type]
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    seen = rng.random(len(lattice)) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return lattice, np.where(seen, rng.random(len(lattice)), np.nan), seen


def gaussian_sum(lattice: Lattice, values: np.ndarray) -> np.ndarray:
    """Σ over windows of value · normalised, truncated Gaussian of the distance in moves."""
    spread, reach = 0.7, int(4 * 0.7 + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    kernel /= kernel.sum()
    found = np.zeros(lattice.shape)
    for place in np.ndindex(*lattice.shape):
        for other in np.ndindex(*lattice.shape):
            away = np.subtract(other, place)
            if (np.abs(away) <= reach).all():
                found[place] += values[other] * np.prod(kernel[away + reach])
    return found


def slow_map(lattice: Lattice, scores, seen, rule) -> np.ndarray:
    values = np.where(seen, scores, 0).reshape(lattice.shape)
    counts = seen.reshape(lattice.shape).copy()
    if rule == "smoothed":
        guess = gaussian_sum(lattice, values) / (gaussian_sum(lattice, counts.astype(float)) + 0.05)
        values = np.where(counts, values, guess)
    if rule != "visits":
        counts = np.ones(lattice.shape, np.bool_)
    total, n = np.zeros(lattice.grid), np.zeros(lattice.grid)
    for flat, start in enumerate(lattice.all_starts()):
        box = tuple(slice(s, s + w) for s, w in zip(start, lattice.window, strict=True))
        if counts.ravel()[flat]:
            total[box] += values.ravel()[flat]
            n[box] += 1
    return np.divide(total, n, out=np.zeros(lattice.grid), where=n > 0)


@settings(max_examples=40, deadline=None)
@given(scored(), st.sampled_from(RULES))
def test_maps_are_means_over_windows(drawn, rule) -> None:
    lattice, scores, seen = drawn
    found = read_map(lattice, scores, seen, rule)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found, slow_map(lattice, scores, seen, rule), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(scored())
def test_with_all_windows_scored_the_rules_agree(drawn) -> None:
    lattice, scores, _ = drawn
    scores = np.nan_to_num(scores, nan=0.25)
    everything = np.ones(len(lattice), np.bool_)
    full = mean_map(lattice, scores.reshape(lattice.shape))
    for rule in RULES:
        np.testing.assert_allclose(read_map(lattice, scores, everything, rule), full, atol=1e-6)


def test_an_unknown_rule() -> None:
    lattice = Lattice((4, 4, 4), (2, 2, 2))
    with pytest.raises(DataError, match="unknown reading rule 'sum': expected visits, lattice, smoothed"):
        read_map(lattice, np.zeros(1), np.ones(1, np.bool_), "sum")  # type: ignore[arg-type]


@given(st.integers(0, 9999), st.sampled_from([np.float32, np.float64]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_curve_is_the_dice_of_every_threshold(seed, dtype, on_thresholds) -> None:
    """Also for maps whose values are the thresholds themselves, where float32 and float64 differ."""
    rng = np.random.default_rng(seed)
    probability = rng.choice(THRESHOLDS, (5, 4, 3)) if on_thresholds else rng.random((5, 4, 3))
    probability = probability.astype(dtype)
    target = rng.random((5, 4, 3)) < rng.choice([0, 0.3])
    curve = dice_curve(probability, target)
    expected = [overlap(probability > float(t), target, 1.0).dice for t in THRESHOLDS]
    np.testing.assert_allclose(curve, expected, atol=1e-12)


def test_the_curve_of_nothing() -> None:
    nothing = np.zeros((3, 3, 3), np.float32)
    assert (dice_curve(nothing, nothing > 0) == 1).all()
    assert (dice_curve(nothing + 1, nothing > 0) == 0).all()
    assert (dice_curve(nothing, nothing == 0) == 0).all()


def test_thresholds_rise_within_zero_and_one() -> None:
    assert (np.diff(THRESHOLDS) > 0).all()
    assert THRESHOLDS[0] > 0
    assert THRESHOLDS[-1] < 1
    assert 0.5 in THRESHOLDS


@pytest.mark.parametrize("rules", [RULES, ("lattice",)])
def test_rule_and_threshold_with_the_highest_mean_dice(rules) -> None:
    rng = np.random.default_rng(0)
    lattice = Lattice((8, 8, 8), (4, 4, 4), 2)
    found = []
    for _ in range(3):
        target = np.zeros(lattice.grid, np.bool_)
        corner = rng.integers(0, 4, 3)
        target[corner[0] :, corner[1] :, corner[2] :] = True
        scores = rng.random(len(lattice))
        found.append(Found(scores, rng.random(len(lattice)) < 0.5, target))
    reading = choose_reading(lattice, found, rules)
    best = max(
        np.mean(
            [overlap(read_map(lattice, f.scores, f.seen, rule) > float(t), f.target, 1.0).dice for f in found]
        )
        for rule in rules
        for t in THRESHOLDS
    )
    assert reading.rule in rules
    assert reading.dice == pytest.approx(best)
    there = [read_map(lattice, f.scores, f.seen, reading.rule) > reading.threshold for f in found]
    again = np.mean([overlap(mask, f.target, 1.0).dice for mask, f in zip(there, found, strict=True)])
    assert again == pytest.approx(best)


def test_nothing_to_choose_on() -> None:
    with pytest.raises(DataError, match="no validation volume with a label"):
        choose_reading(Lattice((8, 8, 8), (4, 4, 4)), [])
