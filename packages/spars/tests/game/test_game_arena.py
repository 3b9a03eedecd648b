"""Games side by side follow the rules of one game; mirrored games are games on mirrored volumes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.errors import DataError
from spars.game.arena import Arena, Sight, mirrored, mirrored_actions, recalled_scores
from spars.game.boards import Board
from spars.game.duel import Duel
from spars.game.observations import recalled_around
from spars.game.rules import Rules
from spars.game.score_table import ScoreTable
from spars.lattice import Lattice


def board(lattice: Lattice, seed: int = 0, name: str = "case") -> Board:
    rng = np.random.default_rng(seed)
    scores = rng.random(lattice.shape, np.float32)
    return Board(name, rng.random(lattice.grid, np.float32), ScoreTable(lattice, scores))


def rules(lattice: Lattice, **keys) -> Rules:
    keys = {"start": "random", "memory": 1, "max_steps": 9, "reward": "finds", **keys}
    return Rules("standard", lattice.grid, lattice.window, lattice.step, **keys)


SMALL = Lattice((16, 14, 12), (6, 6, 4), 2)


@pytest.mark.parametrize("reward", ["sign", "margin", "novelty", "finds"])
@pytest.mark.parametrize("threshold", [None, 0.9])
def test_a_game_of_an_arena_is_a_duel(reward, threshold) -> None:
    made = rules(SMALL, reward=reward, threshold=threshold)
    boards = [board(SMALL, 0), board(SMALL, 1)]
    arena = Arena(boards, made, 6, seed=3, sight=Sight(2, 3))
    arena.reset()
    duels = [Duel(made, boards[b]) for b in arena.board]
    for duel, index in zip(duels, arena.index, strict=True):
        duel.reset(SMALL.starts(index))
    rng = np.random.default_rng(5)
    for _ in range(12):
        actions = rng.integers(0, 6, (6, 2))
        outcome = arena.step(actions)
        turns = [duel.step(pair) for duel, pair in zip(duels, actions, strict=True)]
        np.testing.assert_array_equal(SMALL.starts(arena.index), [duel.position for duel in duels])
        np.testing.assert_array_equal(outcome.scores, [turn.scores for turn in turns])
        np.testing.assert_allclose(outcome.rewards, [turn.rewards for turn in turns], atol=1e-7)
        assert outcome.terminated.tolist() == [turn.terminated for turn in turns]
        assert outcome.truncated.tolist() == [turn.truncated for turn in turns]
        np.testing.assert_array_equal(arena.seen, [duel.seen[0].ravel() for duel in duels])


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(0, 3)] * 3), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 999)
)
def test_mirroring_commutes_with_playing_the_mirrored_volume(more, flip, seed) -> None:
    """The lattice is symmetric when G − w is even; an axis may have one place only."""
    grid = tuple(4 + 2 * m for m in more)
    lattice = Lattice(grid, (4, 4, 4), 2)  # type: ignore[arg-type]
    axes = tuple(axis for axis in range(3) if flip[axis])
    straight = board(lattice, seed)
    scores = np.flip(straight.scores.scores, axes)  # type: ignore[attr-defined]
    other = Board("mirror", np.flip(straight.volume, axes).copy(), ScoreTable(lattice, scores))
    made = rules(lattice)
    ours = Arena([straight], made, 3, seed, Sight(2, 3))
    theirs = Arena([other], made, 3, seed, Sight(2, 3))
    ours.reset()
    theirs.reset()
    ours.flip[:] = flip
    last = np.array(lattice.shape) - 1
    theirs.index = np.where(flip, last - ours.index, ours.index)
    theirs.seen[:] = False
    theirs.seen[np.arange(3), lattice.flat(theirs.index[:, 0])] = True
    rng = np.random.default_rng(seed)
    for _ in range(6):
        for player in range(2):
            seen, expected = ours.observe(player), theirs.observe(player)
            for name in expected:
                np.testing.assert_allclose(seen[name], expected[name], atol=1e-6, err_msg=name)
        actions = rng.integers(0, 6, (3, 2))
        np.testing.assert_array_equal(ours.step(actions).scores, theirs.step(actions).scores)


@given(st.lists(st.tuples(st.integers(0, 5), st.tuples(*[st.booleans()] * 3)), min_size=1, max_size=8))
def test_mirrored_actions_are_their_own_inverse(drawn) -> None:
    actions = np.array([a for a, _ in drawn])
    flip = np.array([f for _, f in drawn])
    assert mirrored_actions(mirrored_actions(actions, flip), flip).tolist() == actions.tolist()


def test_mirroring_twice_changes_nothing_and_leaves_the_argument_alone() -> None:
    arena = Arena([board(SMALL)], rules(SMALL), 4, sight=Sight(2, 2))
    arena.reset()
    seen = arena.observe(0)
    kept = {name: values.copy() for name, values in seen.items()}
    flip = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], np.bool_)
    twice = mirrored(mirrored(seen, flip), flip)
    for name in seen:
        np.testing.assert_array_equal(seen[name], kept[name])
        np.testing.assert_allclose(twice[name], kept[name], atol=1e-6)


@given(st.integers(1, 3), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_recalled_scores_are_those_around(radius, seed) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.random((4, len(SMALL))) < 0.4
    table = rng.random((2, len(SMALL)), np.float32)
    case = rng.integers(0, 2, 4)
    index = SMALL.unflat(rng.integers(0, len(SMALL), 4))
    found = recalled_scores(SMALL, case, index, seen, table, radius)
    full = np.where(seen, table[case], 0).reshape(-1, *SMALL.shape)
    expected = recalled_around(full, seen.reshape(-1, *SMALL.shape), index, radius)
    np.testing.assert_array_equal(found, expected)


def test_what_was_not_scored_is_not_read() -> None:
    arena = Arena([board(SMALL)], rules(SMALL), 4, seed=1, sight=Sight(2))
    arena.reset()
    for _ in range(4):
        arena.step(np.random.default_rng(0).integers(0, 6, (4, 2)))
    before = arena.observe(0)
    arena.table = np.where(arena.seen.any(axis=0), arena.table, np.nan)
    for name, values in arena.observe(0).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("grid", [(4, 8, 8), (4, 4, 4)])
def test_a_lattice_with_one_place_on_an_axis(grid) -> None:
    lattice = Lattice(grid, (4, 4, 4), 4)
    arena = Arena([board(lattice)], rules(lattice), 5, sight=Sight(1, 3, flips=True, carry=0.5))
    arena.reset()
    for _ in range(10):
        outcome = arena.step(np.random.default_rng(0).integers(0, 6, (5, 2)))
        assert np.isfinite(outcome.rewards).all()
        seen = arena.observe(0)
        assert (seen["position"][:, 0] == 0.5).all()
        arena.reset(np.flatnonzero(outcome.truncated))
    space = arena.observation_space
    assert all(space.contains({name: v[i] for name, v in seen.items()}) for i in range(5))


def test_games_carry_on_with_their_board_and_what_was_seen() -> None:
    arena = Arena([board(SMALL, i) for i in range(4)], rules(SMALL), 200, sight=Sight(2, carry=0.5))
    arena.reset()
    arena.step(np.zeros((200, 2), np.int64))
    before, seen = arena.board.copy(), arena.seen.copy()
    arena.reset(np.arange(200))
    moved = seen.sum(axis=1) > 1
    carried = moved & (arena.seen.sum(axis=1) > 1)  # of new games only the start is known
    assert 0.35 < carried[moved].mean() < 0.65
    assert (arena.board[carried] == before[carried]).all()
    assert (arena.seen | ~seen)[carried].all()


def test_a_reset_of_all_games_forgets_everything() -> None:
    arena = Arena([board(SMALL)], rules(SMALL), 50, sight=Sight(2, carry=1.0))
    arena.reset()
    arena.step(np.ones((50, 2), np.int64))
    arena.reset()
    assert (arena.seen.sum(axis=1) == 1).all()


def test_a_state_goes_on_where_it_was() -> None:
    made = [
        Arena([board(SMALL, i) for i in range(2)], rules(SMALL), 5, seed, Sight(2, 0, True, 0.5))
        for seed in (0, 9)
    ]
    for arena in made:
        arena.reset()
        arena.step(np.full((5, 2), 2))
    made[1].load_state_dict(made[0].state_dict())
    for _ in range(3):
        for arena in made:
            arena.step(np.ones((5, 2), np.int64))
            arena.reset(np.array([1, 3]))
        first, second = (arena.observe(1) for arena in made)
        assert all((first[name] == second[name]).all() for name in first)


def test_wrong_use_is_named() -> None:
    made = rules(SMALL)
    with pytest.raises(DataError, match="needs at least one board"):
        Arena([], made, 2)
    with pytest.raises(DataError, match="plays mode standard, found paper with start centre"):
        Arena([board(SMALL)], Rules("paper", SMALL.grid, SMALL.window, 2), 2)
    with pytest.raises(DataError, match="case: its score table is of another grid, window or step"):
        Arena([board(Lattice(SMALL.grid, SMALL.window, 4))], made, 2)
    arena = Arena([board(SMALL)], made, 2)
    with pytest.raises(ValueError, match="actions must be whole numbers from 0 to 5, found"):
        arena.step(np.array([[0, 6], [0, 0]]))
