"""One game between two players, in all three modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.metrics.segmentation import overlap
from spars.game.boards import Board
from spars.game.rules import (
    Positions,
    Rules,
    action_masks,
    is_over,
    map_box,
    move,
    rewards,
    shown_start,
    start_position,
    window_lattice,
)


@dataclass(frozen=True)
class Turn:
    """What one move of both players gave.

    Attributes:
        scores: Of the players' windows after the move, ``[2]``.
        rewards: float64 ``[2]``.
        terminated: A score exceeded the threshold.
        truncated: The limit of moves was reached, and the game is not terminated.
    """

    scores: NDArray[np.floating[Any]]
    rewards: NDArray[np.float64]
    terminated: bool
    truncated: bool


class Duel:
    """Two windows on one volume. Both players move, both windows are scored, the map grows.

    Player 2 of the original moves after player 1, on a view of its own window that player 1 does not change; moving
    both at once is therefore the same game. Nothing ends by itself: after ``terminated`` the caller resets, or not.

    Args:
        rules: the rules.
        board: the volume and its scores.

    Attributes:
        position: Corners of both windows, int64 ``[2, 3]``; in faithful mode they may lie outside.
        n_steps: Moves since the start.
        actions: Moves of both players since the start.
        path: Shown corners of both players after each move, ``[n_steps]`` of int64 ``[2, 3]``.
        lattice: All windows that the game can show.
        recalled: With ``memory``: scores that each player recalls, float32 ``[2, *lattice.shape]``. What either has
            scored is known to both.
        seen: With ``memory``: which windows they are of, same shape.
    """

    def __init__(self, rules: Rules, board: Board) -> None:
        self.rules = rules
        self.board = board
        self.lattice = window_lattice(rules)
        self._clear(np.zeros(3, np.int64))

    def reset(self, start: NDArray[np.int64] | None = None, rng: np.random.Generator | None = None) -> None:
        """Put both players on their start and empty the map.

        Args:
            start: the corner, ``[3]``, or one for each player, ``[2, 3]``; ``None`` = as the rules say.
            rng: draws random starts.
        """
        self._clear(start_position(self.rules, rng) if start is None else np.asarray(start, np.int64))
        if self.rules.memory:  # players who recall scores know that of the window they begin with
            self._recall(self.shown, self.board.scores.at(self.shown))

    def _clear(self, placed: Positions) -> None:
        self.position: Positions = np.broadcast_to(placed, (2, 3)).copy()
        self.n_steps = 0
        self.actions: list[tuple[int, int]] = []
        self.path: list[Positions] = []
        self._maps: tuple[NDArray[np.float64], NDArray[np.int32]] | None = None
        self._pending: list[tuple[Positions, Positions, float]] = []
        self._visited: set[tuple[int, ...]] = set()
        if self.rules.memory:
            self.recalled = np.zeros((2, *self.lattice.shape), np.float32)
            self.seen = np.zeros((2, *self.lattice.shape), np.bool_)

    @property
    def shown(self) -> Positions:
        """Lowest corners of the windows as they are cut out, int64 ``[2, 3]``."""
        return shown_start(self.rules, self.position)

    def step(self, actions: Sequence[int] | NDArray[Any]) -> Turn:
        """Move both players.

        Args:
            actions: of player 1 and player 2.

        Returns:
            Scores, rewards and whether the game is over.
        """
        self.position = move(self.rules, self.position, np.asarray(actions))
        shown = self.shown
        scores = self.board.scores.at(shown)  # player 1 first
        new = self._note(shown, scores)
        self.n_steps += 1
        self.actions.append((int(actions[0]), int(actions[1])))
        self.path.append(shown)
        terminated = bool(is_over(self.rules, scores))
        cut_off = self.rules.max_steps is not None and self.n_steps >= self.rules.max_steps
        together = np.asarray((shown[0] == shown[1]).all())
        earned = rewards(self.rules, scores, new, together)
        return Turn(scores, earned, terminated, cut_off and not terminated)

    def info(self, player: int = 0, turn: Turn | None = None) -> dict[str, Any]:
        """Return what an environment tells beside the observation, from one player's side.

        Args:
            player: 0 or 1.
            turn: the move that led here; ``None`` after a reset.

        Returns:
            ``case``, ``position`` and ``position_opponent`` (corners, may lie outside in faithful mode), ``window``
            (``[2, 3]``: low and high corner of what is shown), ``action_mask`` (bool ``[6]``), and after a move
            ``score``, ``score_opponent`` and ``n_steps``.
        """
        low = self.shown[player]
        told: dict[str, Any] = {
            "case": self.board.name,
            "position": self.position[player].copy(),
            "position_opponent": self.position[1 - player].copy(),
            "window": np.stack([low, low + np.array(self.rules.window)]),
            "action_mask": action_masks(self.rules, self.position[player]),
        }
        if turn is not None:
            told["n_steps"] = self.n_steps
            told["score"] = float(turn.scores[player])
            told["score_opponent"] = float(turn.scores[1 - player])
        return told

    def ending(self, threshold: float = 0.5, empty_value: float = 1.0) -> dict[str, Any]:
        """Return ``final_map`` and, where the target is known, ``dice`` of ``final_map > threshold``.

        Args:
            threshold: of the map.
            empty_value: Dice when neither the map nor the target has a voxel.
        """
        final = self.final_map()
        told: dict[str, Any] = {"final_map": final}
        if self.board.target is not None:
            told["dice"] = overlap(final > threshold, self.board.target, empty_value).dice
        return told

    def sum_map(self) -> NDArray[np.float64]:
        """Return the accumulated scores of every voxel, float64 ``[grid]``; the array grows with the game."""
        return self._rendered()[0]

    def count_map(self) -> NDArray[np.int32]:
        """Return how often each voxel was covered by what the map adds, int32 ``[grid]``."""
        return self._rendered()[1]

    def final_map(self) -> NDArray[np.float32]:
        """Return the mode's map, float32 ``[grid]``: the mean over visits in standard, the sum otherwise."""
        total, count = self._rendered()
        if self.rules.mode == "standard":
            total = np.divide(total, count, out=np.zeros(self.rules.grid), where=count > 0)
        return total.astype(np.float32)

    def _note(self, shown: Positions, scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Add to the map and the memory; return whose window is new in this game."""
        low, high = map_box(self.rules, self.position)
        if self.rules.mode == "faithful":
            # The original overwrites the first score by the second before it adds.
            self._pending.append((low[0], high[0], float(scores[1])))
        else:
            self._pending += [(low[i], high[i], float(scores[i])) for i in range(2)]
        return self._recall(shown, scores)

    def _recall(self, shown: Positions, scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Remember scored windows for both players; return which of them are new."""
        keys = [tuple(start) for start in shown.tolist()]
        new = np.array([key not in self._visited for key in keys])  # both, where both come at once
        self._visited.update(keys)
        if self.rules.memory:
            first = np.array([axis[0] for axis in self.lattice.axes])
            x, y, z = ((shown - first) // self.rules.step).T
            self.recalled[:, x, y, z] = scores
            self.seen[:, x, y, z] = True
        return new

    def _rendered(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Draw what is not yet drawn; nobody pays for a map that nobody reads."""
        if self._maps is None:
            self._maps = np.zeros(self.rules.grid), np.zeros(self.rules.grid, np.int32)
        total, count = self._maps
        for low, high, score in self._pending:
            box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            total[box] += score
            count[box] += 1
        self._pending = []
        return self._maps
