from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.errors import DataError
from spars.game.score_map import count_map, mean_map, render_sum
from spars.game.score_table import ScoreTable
from spars.game.scorers import StubScorer
from spars.lattice import Lattice


@st.composite
def lattices(draw) -> Lattice:
    grid = tuple(draw(st.integers(1, 11)) for _ in range(3))
    window = tuple(draw(st.integers(1, size)) for size in grid)
    return Lattice(grid, window, draw(st.integers(1, 4)))


def brute_sum(lattice: Lattice, weights: np.ndarray) -> np.ndarray:
    out = np.zeros(lattice.grid)
    w = lattice.window
    for start, weight in zip(lattice.all_starts(), weights.ravel(), strict=True):
        x, y, z = start
        out[x : x + w[0], y : y + w[1], z : z + w[2]] += weight
    return out


@settings(max_examples=60, deadline=None)
@given(lattices(), st.integers(0, 2**31))
def test_sums_are_those_of_every_window_drawn_alone(lattice: Lattice, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.random(lattice.shape) * (rng.random(lattice.shape) < 0.5)
    found = render_sum(lattice, weights)
    expected = brute_sum(lattice, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(found == 0, expected == 0)
    visits = rng.integers(0, 4, lattice.shape)
    counts = count_map(lattice, visits)
    np.testing.assert_array_equal(counts, brute_sum(lattice, visits))
    assert counts.sum() == visits.sum() * np.prod(lattice.window)


@settings(max_examples=30, deadline=None)
@given(lattices(), st.floats(0.01, 1))
def test_the_mean_of_equal_scores_is_that_score(lattice: Lattice, score: float) -> None:
    found = mean_map(lattice, np.full(lattice.shape, score))
    np.testing.assert_allclose(found, np.where(count_map(lattice) > 0, score, 0), rtol=1e-6)


def test_the_golden_map(golden_npz, golden_volumes) -> None:
    golden = golden_npz("score_map")
    grid, window = tuple(golden["grid"].tolist()), tuple(golden["window"].tolist())
    image, label = golden_volumes.golden_volume(grid, int(golden["volume_seed"]))
    lattice = Lattice(grid, window, 4)
    for axis in range(3):
        np.testing.assert_array_equal(lattice.axes[axis], golden[f"axis{axis}"])
    scorer = StubScorer(float(golden["stub_a"]), float(golden["stub_b"]), (256, 256, 180))
    table = ScoreTable(lattice, np.full(lattice.shape, np.nan), scorer, image)
    np.testing.assert_allclose(table.full(), golden["scores"], rtol=1e-9, atol=1e-15)
    found = mean_map(lattice, table.scores)
    np.testing.assert_allclose(found, golden["mean_map"], atol=1e-6)
    np.testing.assert_array_equal(count_map(lattice), golden["count_map"])
    for threshold, dice in zip(golden["dice_thresholds"], golden["dice"], strict=True):
        predicted, target = found > threshold, label == 2
        both = np.count_nonzero(predicted & target)
        assert 2 * both / (predicted.sum() + target.sum()) == pytest.approx(dice, abs=1e-9)


def test_only_visited_windows_count() -> None:
    lattice = Lattice((12, 4, 4), (4, 4, 4), 4)
    scores = np.array([0.25, np.nan, 0.75], np.float32).reshape(3, 1, 1)
    found = mean_map(lattice, scores)
    assert found[:, 0, 0].tolist() == [0.25] * 4 + [0.0] * 4 + [0.75] * 4
    assert not mean_map(lattice, scores, np.array([3, 0, 0]).reshape(3, 1, 1))[4:].any()
    visits = np.array([3, 1, 0]).reshape(3, 1, 1)
    with pytest.raises(DataError, match="1 visited windows have no score"):
        mean_map(lattice, scores, visits)


def test_wrong_weights_are_refused() -> None:
    lattice = Lattice((12, 4, 4), (4, 4, 4), 4)
    with pytest.raises(DataError, match="lattice's shape"):
        render_sum(lattice, np.zeros((2, 1, 1)))
    with pytest.raises(DataError, match="NaN or infinity"):
        render_sum(lattice, np.full((3, 1, 1), np.nan))
    with pytest.raises(DataError, match="visits have shape"):
        mean_map(lattice, np.zeros((3, 1, 1)), np.zeros((1, 1, 1)))
