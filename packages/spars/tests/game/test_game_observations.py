from __future__ import annotations

import numpy as np
import pytest

from spars.game.boards import make_board
from spars.game.duel import Duel
from spars.game.observations import observation_space, observe, recalled_around
from spars.game.rules import Rules, wrap_uint8
from spars.game.scorers import StubScorer
from spars.original.resize import stretch_nearest

GRID, WINDOW = (20, 18, 16), (8, 6, 4)


def game(rules: Rules, scale: float = 1.0) -> Duel:
    volume = np.random.default_rng(0).uniform(-1, 1, rules.grid).astype(np.float32) * scale
    if rules.mode == "standard":
        volume = np.abs(volume)
    duel = Duel(rules, make_board("a", volume, StubScorer(0.1, 0.5), rules))
    duel.reset()
    return duel


def test_the_originals_two_views(golden_npz, golden_volumes) -> None:
    """The learner sees bytes, the opponent floats; both are divided by 255 and turned to axes (2, 0, 1)."""
    golden = golden_npz("observation_views")
    grid, window = tuple(golden["grid"].tolist()), tuple(golden["window"].tolist())
    image, _ = golden_volumes.golden_volume(grid, int(golden["volume_seed"]))
    rules = Rules("faithful", grid, window, start="corner", tie=1, target_size=grid)
    duel = Duel(rules, make_board("a", image, StubScorer(1, 0), rules))
    duel.reset()
    np.testing.assert_array_equal(observe(duel, 1), golden["start_observation"])
    for player, name in enumerate(("learner_first", "competitor_first")):
        seen = np.asarray(observe(duel, player), np.float32).transpose(2, 0, 1)[None] / 255
        np.testing.assert_allclose(seen, golden[name], atol=1e-6)


@pytest.mark.parametrize("memory", [0, 2])
def test_the_standard_view(memory: int) -> None:
    duel = game(Rules("standard", GRID, WINDOW, memory=memory))
    for pair in ((5, 1), (4, 1)):
        turn = duel.step(pair)
    seen = observe(duel, 0)
    assert observation_space(duel.rules).contains(seen)
    x, y, z = duel.position[0]
    assert (x, y, z) == (6, 6, 6)
    np.testing.assert_array_equal(seen["window"][0], duel.board.volume[x : x + 8, y : y + 6, z : z + 4])
    np.testing.assert_allclose(seen["position"], [6 / 12, 6 / 12, 6 / 12])
    if memory:
        assert seen["memory"].shape == (2, 5, 5, 5)
        assert seen["memory"][0, 2, 2, 2] == np.float32(turn.scores[0])
        assert seen["memory"][0, 1, 2, 2] > 0  # where it came from
        assert seen["memory"][1, 1, 2, 2] == 1
        assert not seen["memory"][:, 3, 2, 2].any()  # inside, and never visited
        assert seen["memory"][1, [0, 4]].all()  # beyond the lattice
        assert not seen["memory"][0, [0, 4]].any()
    else:
        assert set(seen) == {"window", "position"}


def test_a_grid_as_small_as_the_window_has_a_position() -> None:
    duel = game(Rules("standard", (8, 6, 4), WINDOW))
    assert observe(duel)["position"].tolist() == [0, 0, 0]


def test_paper_divides_and_faithful_wraps() -> None:
    paper = game(Rules("paper", GRID, WINDOW, target_size=(16, 9, 5)), 1000)
    x, y, z = paper.position[0]
    window = paper.board.volume[x : x + 8, y : y + 6, z : z + 4]
    expected = stretch_nearest(window, (16, 9, 5))
    np.testing.assert_allclose(observe(paper, 0), expected / 255, rtol=1e-6)
    np.testing.assert_allclose(observe(paper, 1), expected / 255, rtol=1e-6)
    faithful = game(Rules("faithful", GRID, WINDOW, start="centre", target_size=(16, 9, 5)), 1000)
    np.testing.assert_array_equal(observe(faithful, 1), expected)
    np.testing.assert_array_equal(observe(faithful, 0), wrap_uint8(expected))
    assert observe(faithful, 0).dtype == np.uint8


@pytest.mark.parametrize("mode", ["standard", "paper", "faithful"])
def test_observations_are_copies(mode) -> None:
    duel = game(Rules(mode, GRID, WINDOW))
    before = duel.board.volume.copy()
    seen = observe(duel, 1)
    (seen["window"] if isinstance(seen, dict) else seen)[:] = 7
    np.testing.assert_array_equal(duel.board.volume, before)


def test_recalling_around_many_places_at_once() -> None:
    rng = np.random.default_rng(0)
    shape, n, r = (4, 5, 3), 30, 2
    seen = rng.random((n, *shape)) < 0.5
    recalled = (rng.random((n, *shape)) * seen).astype(np.float32)
    index = rng.integers(0, shape, (n, 3))
    found = recalled_around(recalled, seen, index, r)
    padding = [(0, 0)] + [(r, r)] * 3
    scores, visits = np.pad(recalled, padding), np.pad(seen, padding, constant_values=True)
    for i, (x, y, z) in enumerate(index):
        box = (i, slice(x, x + 5), slice(y, y + 5), slice(z, z + 5))
        np.testing.assert_array_equal(found[i, 0], scores[box])
        np.testing.assert_array_equal(found[i, 1], visits[box])
