from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.config import GameConfig
from spars.errors import DataError
from spars.game.rules import (
    Rules,
    action_masks,
    is_over,
    map_box,
    move,
    rewards,
    rules_of,
    shown_start,
    start_position,
    window_lattice,
    wrap_uint8,
)
from spars.lattice import Lattice

GRID, WINDOW = (20, 18, 15), (6, 5, 4)


def rules(mode, **keys) -> Rules:
    return Rules(mode, GRID, WINDOW, **keys)


@st.composite
def games(draw) -> tuple[Rules, np.ndarray]:
    grid = tuple(draw(st.integers(3, 14)) for _ in range(3))
    window = tuple(draw(st.integers(1, size - 2)) for size in grid)
    mode = draw(st.sampled_from(["faithful", "paper", "standard"]))
    start = draw(st.sampled_from(["centre", "corner"]))
    made = Rules(mode, grid, window, draw(st.integers(1, 5)), start=start)
    return made, np.array(draw(st.lists(st.integers(0, 5), min_size=1, max_size=40)))


@settings(max_examples=80, deadline=None)
@given(games())
def test_windows_stay_inside_and_in_the_lattice_of_the_mode(game: tuple[Rules, np.ndarray]) -> None:
    made, actions = game
    position = start_position(made)
    axes = window_lattice(made).axes
    for action in actions:
        position = move(made, position, action)
        shown = shown_start(made, position)
        assert (shown >= 0).all()
        assert (shown <= made.limit).all()
        assert all(start in axis for start, axis in zip(shown, axes, strict=True))
        # The map's box is what Python makes of the slice.
        low, high = map_box(made, position)
        for axis in range(3):
            raw = slice(int(position[axis]), int(position[axis]) + made.window[axis])
            expected = list(range(made.grid[axis]))[raw]
            assert list(range(int(low[axis]), int(high[axis]))) == expected


@settings(max_examples=40, deadline=None)
@given(games())
def test_masks_name_the_moves_that_change_something(game: tuple[Rules, np.ndarray]) -> None:
    made, actions = game
    position = start_position(made)
    for action in actions:
        masks = action_masks(made, position)
        changed = [bool((move(made, position, np.array(a)) != position).any()) for a in range(6)]
        assert masks.tolist() == (changed if any(changed) else [True] * 6)
        position = move(made, position, action)


def test_many_games_move_at_once() -> None:
    made = rules("standard")
    rng = np.random.default_rng(0)
    positions, actions = rng.integers(0, 11, (50, 3)), rng.integers(0, 6, 50)
    together = move(made, positions, actions)
    alone = [move(made, p, a).tolist() for p, a in zip(positions, actions, strict=True)]
    assert together.tolist() == alone
    assert action_masks(made, positions).shape == (50, 6)


def test_action_codes_are_the_originals() -> None:
    steps = [move(rules("faithful"), np.zeros(3, np.int64), np.array(a)).tolist() for a in range(6)]
    assert steps == [[0, 0, 4], [0, 0, -4], [0, 4, 0], [0, -4, 0], [4, 0, 0], [-4, 0, 0]]


@pytest.mark.parametrize("action", [6, -1, 0.0, [0, 7]])
def test_unknown_actions_are_refused(action) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 5"):
        move(rules("standard"), np.zeros(3, np.int64), np.array(action))


def test_starts() -> None:
    assert start_position(rules("faithful", start="corner")).tolist() == [10, 9, 7]
    assert start_position(rules("paper")).tolist() == [7, 6, 5]
    with pytest.raises(ValueError, match="needs a random generator"):
        start_position(rules("standard", start="random"))


def test_rewards() -> None:
    scores = np.array([[0.6, 0.5], [0.5, 0.6], [0.5, 0.5]])
    assert rewards(rules("standard"), scores).tolist() == [[1, -1], [-1, 1], [0, 0]]
    assert rewards(rules("faithful", tie=1), scores)[2].tolist() == [1, -1]
    assert rewards(rules("paper", tie=-1), scores)[2].tolist() == [-1, -1]
    margin = rewards(rules("standard", reward="margin"), scores)
    np.testing.assert_allclose(margin, [[0.1, -0.1], [-0.1, 0.1], [0, 0]])
    new = np.array([[False, True], [True, True], [True, False]])
    novelty = rewards(rules("standard", reward="novelty"), scores, new)
    np.testing.assert_allclose(novelty, [[-0.5, 0.5], [-0.1, 0.1], [0.5, -0.5]])
    with pytest.raises(ValueError, match="which windows are new"):
        rewards(rules("standard", reward="novelty"), scores)


def test_the_threshold_is_strict() -> None:
    scores = np.array([[0.3, 0.1], [0.1, 0.31], [0.0, 0.0]])
    assert is_over(rules("paper", threshold=0.3), scores).tolist() == [False, True, False]
    assert is_over(rules("paper"), scores).tolist() == [False, False, False]


def test_bytes_wrap_as_the_golden_table(golden_npz) -> None:
    table = golden_npz("observation_views")
    np.testing.assert_array_equal(wrap_uint8(table["cast_input"]), table["cast_uint8"])
    assert wrap_uint8(np.array([-1000.0, -1.9, -0.5, 300.0])).tolist() == [24, 255, 0, 44]


@pytest.mark.parametrize(
    ("window", "distinct", "standard"),
    [
        ((8, 8, 8), (63, 63, 45), (63, 63, 43)),
        ((16, 16, 8), (61, 61, 45), (61, 61, 43)),
        ((32, 32, 16), (57, 57, 43), (57, 57, 41)),
        ((48, 48, 24), (53, 53, 41), (53, 53, 39)),
        ((64, 64, 32), (49, 49, 39), (49, 49, 37)),
    ],
)
def test_numbers_of_distinct_windows(window, distinct, standard) -> None:
    grid = (256, 256, 180)
    assert window_lattice(Rules("faithful", grid, window)).shape == distinct
    assert window_lattice(Rules("standard", grid, window)).shape == standard
    assert type(window_lattice(Rules("standard", grid, window))) is Lattice


def test_configurations_become_rules() -> None:
    faithful = rules_of(GameConfig(mode="faithful"))
    assert faithful == Rules(
        "faithful",
        (256, 256, 180),
        (48, 48, 24),
        start="corner",
        tie=1,
        threshold=0.3,
        max_steps=32,
        target_size=(256, 256, 180),
    )
    standard = rules_of(GameConfig(termination_threshold=0.7, memory=1))
    assert (standard.threshold, standard.target_size, standard.memory) == (None, None, 1)
    assert rules_of(GameConfig(mode="paper")).tie == -1
    assert rules_of(GameConfig(termination=True)).threshold == 0.3


def test_rules_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="does not fit"):
        Rules("standard", (4, 4, 4), (5, 4, 4))
    with pytest.raises(DataError, match="memory needs the lattice"):
        rules("paper", memory=1)
