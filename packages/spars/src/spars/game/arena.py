"""Thousands of standard games at once: positions are numbers in arrays, scores are read from tables.

All games of an arena advance together. The rules are those of `spars.game.rules` in mode standard: both players begin
at the same place, a move that leaves the volume is refused, and what either player has scored is known to both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from spars.errors import DataError
from spars.game.boards import Board
from spars.game.rules import N_ACTIONS, Rules, is_over, rewards
from spars.game.score_table import ScoreTable
from spars.game.views import Views
from spars.lattice import MOVES, Lattice

Observations = dict[str, NDArray[np.float32]]

# The axis that each action moves along; codes come in pairs of opposite directions.
_AXIS = np.abs(MOVES).argmax(axis=1)


class Outcome(NamedTuple):
    """What one step of all games gave.

    Attributes:
        rewards: float64 ``[games, 2]``.
        scores: Of the windows now, ``[games, 2]``.
        first_visit: Whether nobody had scored the window in this game before, bool ``[games, 2]``.
        terminated: A score ended the game, bool ``[games]``.
        truncated: The game reached its last step without, bool ``[games]``.
    """

    rewards: NDArray[np.float64]
    scores: NDArray[Any]
    first_visit: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class Sight:
    """What players see besides their position.

    Attributes:
        stride: Voxels averaged to one voxel of a view.
        context: Width of the surroundings in windows; 0 = none.
        flips: Mirror every game at random: more anatomies to learn from.
        carry: Share of games that begin on the board of the game before with what was seen there, as a search does
            that goes on from another place.
    """

    stride: int = 1
    context: int = 0
    flips: bool = False
    carry: float = 0.0


class Arena:
    """Games side by side on boards with full score tables.

    Args:
        boards: Volumes with `ScoreTable` of one lattice; all scores are computed here if they are not yet known.
        rules: Of mode standard.
        n_games: Games side by side.
        seed: Of boards, starts and mirrors.
        sight: What players see.

    Attributes:
        lattice: The window positions.
        board: Which board each game is played on, int64 ``[games]``.
        index: Lattice index of both players, int64 ``[games, 2, 3]``.
        steps: Moves made in each game, int64 ``[games]``.
        seen: Windows scored in each game by either player, bool ``[games, len(lattice)]``.

    Raises:
        DataError: Boards without tables, or of another lattice; rules of another mode.
    """

    def __init__(
        self, boards: Sequence[Board], rules: Rules, n_games: int, seed: int = 0, sight: Sight | None = None
    ) -> None:
        if rules.mode != "standard" or rules.start == "corner":
            raise DataError(f"an arena plays mode standard, found {rules.mode} with start {rules.start}")
        if not boards:
            raise DataError("an arena needs at least one board; is the training split empty?")
        self.rules, self.n_games, self.sight = rules, n_games, sight or Sight()
        self.lattice = Lattice(rules.grid, rules.window, rules.step)
        self.table = np.stack([_table(board, self.lattice) for board in boards])
        self.views = Views([b.volume for b in boards], self.lattice, self.sight.stride, self.sight.context)
        self.rng = np.random.default_rng(seed)
        self._shape = np.array(self.lattice.shape, np.int64)
        self._games = np.arange(n_games)
        # A fifth of the lattice is twice what a search may see by default.
        self._full = max(2, len(self.lattice) // 5)
        self.board = np.zeros(n_games, np.int64)
        self.index = np.zeros((n_games, 2, 3), np.int64)
        self.steps = np.zeros(n_games, np.int64)
        self.seen = np.zeros((n_games, len(self.lattice)), np.bool_)
        self.flip = np.zeros((n_games, 3), np.bool_)

    @property
    def observation_space(self) -> spaces.Dict:
        """Space of what one player of one game sees."""
        return observation_space(self.views.shape, self.rules.memory)

    def reset(self, games: NDArray[np.int64] | None = None) -> None:
        """Begin new games: another board, another start, nothing seen (but see `Sight.carry`).

        Args:
            games: Which ones; null = all, and no game carries on what was seen before.
        """
        if games is None:
            games = self._games
            self.seen[:] = False
        kept = self.rng.random(len(games)) < self.sight.carry
        kept &= self.seen[games].any(axis=1) & (self.seen[games].sum(axis=1) < self._full)
        new = games[~kept]
        self.board[new] = self.rng.integers(0, len(self.table), len(new))
        self.seen[new] = False
        start = np.broadcast_to(self.lattice.centre, (len(games), 3))
        if self.rules.start == "random":
            start = self.rng.integers(0, self._shape, (len(games), 3))
        self.index[games] = start[:, None]
        self.steps[games] = 0
        if self.rules.memory:  # players who recall scores know that of the window they begin with
            self.seen[games, self.lattice.flat(start)] = True
        if self.sight.flips:
            self.flip[games] = self.rng.random((len(games), 3)) < 0.5

    def observe(self, player: int) -> Observations:
        """Return what one player of every game sees; the arrays belong to the caller.

        Args:
            player: 0 or 1.

        Returns:
            ``views`` ``[games, channels, x, y, z]``, ``position`` ``[games, 3]`` in [0, 1] (0.5 on an axis with one
            place), and with ``memory`` the recalled scores around, ``[games, 2, side, side, side]``.
        """
        seen = observe_places(
            self.views, self.board, self.index[:, player], self.seen, self.table, self.rules.memory
        )
        return mirrored(seen, self.flip)

    def step(self, actions: NDArray[Any]) -> Outcome:
        """Move both players of every game, also of games that are over: whoever steps resets those.

        Args:
            actions: Whole numbers ``[games, 2]`` in [0, 6), as the players see the game.
        """
        target = self.index + MOVES[mirrored_actions(np.asarray(actions), self.flip)]
        inside = ((target >= 0) & (target < self._shape)).all(axis=-1, keepdims=True)
        self.index = np.where(inside, target, self.index)
        flat = self.lattice.flat(self.index)
        games = self._games[:, None]
        scores = self.table[self.board[:, None], flat]
        first_visit = ~self.seen[games, flat]
        self.seen[games, flat] = True
        self.steps += 1
        terminated = is_over(self.rules, scores)
        last = self.rules.max_steps is not None and self.steps >= self.rules.max_steps
        truncated = np.logical_and(last, ~terminated)
        earned = rewards(self.rules, scores, first_visit, flat[:, 0] == flat[:, 1])
        return Outcome(earned, scores, first_visit, terminated, truncated)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that games under way consist of."""
        import torch

        arrays = ("board", "index", "steps", "seen", "flip")
        return {
            "arrays": {name: torch.from_numpy(getattr(self, name).copy()) for name in arrays},
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the games that `state_dict` returned."""
        for name, value in state["arrays"].items():
            getattr(self, name)[...] = value.numpy()
        self.rng.bit_generator.state = state["rng"]


def observation_space(view_shape: tuple[int, ...], memory: int) -> spaces.Dict:
    """Return the space of what one player sees.

    Args:
        view_shape: Of `Views`.
        memory: Radius of the recalled neighbourhood, 0 = none.
    """
    parts: dict[str, spaces.Space[Any]] = {
        "position": spaces.Box(0, 1, (3,), np.float32),
        "views": spaces.Box(0, 1, view_shape, np.float32),
    }
    if memory:
        side = 2 * memory + 1
        parts["memory"] = spaces.Box(0, 1, (2, side, side, side), np.float32)
    return spaces.Dict(parts)


def observe_places(
    views: Views,
    board: NDArray[np.int64],
    index: NDArray[np.int64],
    seen: NDArray[np.bool_],
    table: NDArray[Any],
    memory: int,
) -> Observations:
    """Return what a player sees at places of the lattice.

    Args:
        views: Of the boards.
        board: Number of the board of each place, int64 ``[n]``.
        index: Lattice indices, int64 ``[n, 3]``.
        seen: Windows whose score is known to the player, bool ``[n, len(lattice)]``.
        table: Scores ``[boards, len(lattice)]``; only those of seen windows are used.
        memory: Radius of the recalled neighbourhood, 0 = none.
    """
    lattice = views.lattice
    span = np.array(lattice.shape) - 1
    # The middle where there is one place only: what a mirrored game sees there too.
    position = np.where(span > 0, index / np.maximum(span, 1), 0.5)
    found: Observations = {
        "position": position.astype(np.float32),
        "views": views.at(board, lattice.starts(index)),
    }
    if memory:
        found["memory"] = recalled_scores(lattice, board, index, seen, table, memory)
    return found


def recalled_scores(
    lattice: Lattice,
    board: NDArray[np.int64],
    index: NDArray[np.int64],
    seen: NDArray[np.bool_],
    table: NDArray[Any],
    radius: int,
) -> NDArray[np.float32]:
    """Return the recalled scores and visits around places; see `observations.recalled_around`, which this equals.

    Only the neighbourhood is read, so the cost does not grow with the lattice.
    """
    shape = lattice.shape
    away = np.arange(-radius, radius + 1)
    places = [index[:, i, None] + away for i in range(3)]
    ok = [(p >= 0) & (p < shape[i]) for i, p in enumerate(places)]
    x, y, z = (p.clip(0, shape[i] - 1) for i, p in enumerate(places))
    inside = ok[0][:, :, None, None] & ok[1][:, None, :, None] & ok[2][:, None, None]
    flat = (x[:, :, None, None] * shape[1] + y[:, None, :, None]) * shape[2] + z[:, None, None]
    visited = seen[np.arange(len(index))[:, None, None, None], flat]
    scores = np.where(visited & inside, table[board[:, None, None, None], flat], 0)
    return np.stack([scores, visited | ~inside], axis=1).astype(np.float32)


def mirrored(observations: Observations, flip: NDArray[np.bool_]) -> Observations:
    """Return observations of mirrored games.

    Args:
        observations: Of every game.
        flip: Which axes are mirrored, bool ``[games, 3]``.
    """
    if not flip.any():
        return observations
    found = {name: values.copy() for name, values in observations.items()}
    for axis in range(3):
        games = np.flatnonzero(flip[:, axis])
        for name, values in found.items():
            if name == "position":
                values[games, axis] = 1 - values[games, axis]
            else:
                values[games] = np.flip(values[games], axis + 2)
    return found


def mirrored_actions(actions: NDArray[Any], flip: NDArray[np.bool_]) -> NDArray[Any]:
    """Return what actions of mirrored games mean in the volume; the function is its own inverse.

    Args:
        actions: ``[games]`` or ``[games, players]``.
        flip: Which axes are mirrored, bool ``[games, 3]``.
    """
    if ((actions < 0) | (actions >= N_ACTIONS)).any():
        raise ValueError(f"actions must be whole numbers from 0 to {N_ACTIONS - 1}, found {actions.tolist()}")
    games = np.arange(len(flip)).reshape(-1, *[1] * (actions.ndim - 1))
    return np.where(flip[games, _AXIS[actions]], actions ^ 1, actions)


def _table(board: Board, lattice: Lattice) -> NDArray[Any]:
    if not isinstance(board.scores, ScoreTable):
        raise DataError(f"{board.name}: an arena reads score tables; make the board with table: full or lazy")
    theirs = board.scores.lattice
    if theirs.shape != lattice.shape or theirs.grid != lattice.grid or theirs.window != lattice.window:
        raise DataError(f"{board.name}: its score table is of another grid, window or step than the rules")
    return board.scores.full().reshape(-1)
