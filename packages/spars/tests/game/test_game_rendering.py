from __future__ import annotations

import numpy as np
import pytest

from spars.game.boards import Board, make_board
from spars.game.duel import Duel
from spars.game.rendering import PLAYER_COLOURS, render_frame
from spars.game.rules import Rules
from spars.game.scorers import StubScorer
from spars.game.single_env import WindowGame

GRID, WINDOW = (20, 18, 16), (8, 6, 4)


def has(frame: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((frame == np.array(colour)).all(axis=-1).any())


@pytest.mark.parametrize("mode", ["standard", "paper", "faithful"])
def test_a_frame_shows_slices_windows_and_the_map(boards_of, mode) -> None:
    rules = Rules(mode, GRID, WINDOW)
    env = WindowGame(boards_of(rules), rules, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first is not None
    assert first.shape == (18, 20 + 20 + 18 + 8, 3)
    assert first.dtype == np.uint8
    env.step(2)
    second = env.render()
    assert second is not None
    assert all(has(second, colour) for colour in PLAYER_COLOURS)
    assert (first != second).any()
    assert WindowGame(boards_of(rules), rules).render_mode is None


def test_the_axes_point_right_and_up() -> None:
    rules = Rules("standard", GRID, WINDOW)
    volume = np.zeros(GRID, np.float32)
    volume[0, 0, :] = 1
    duel = Duel(rules, Board("a", volume, None))  # type: ignore[arg-type]
    duel.reset()
    frame = render_frame(duel)
    bright = np.argwhere((frame == 255).all(axis=-1))
    assert bright.tolist() == [[17, 0]]


def test_volumes_smaller_than_the_grid_are_drawn_on_black() -> None:
    rules = Rules("faithful", GRID, WINDOW, start="corner")
    board = make_board("a", np.full((25, 10, 12), 300.0), StubScorer(1, 0), rules)
    duel = Duel(rules, board)
    duel.reset()
    frame = render_frame(duel)
    assert not frame[:8, 18:20].any()  # the first panel, above the tenth row, beside the windows
    assert (frame[9:, 0] == 255).all()
