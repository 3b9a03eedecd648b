"""One game of `Duel`, seen as agents that were trained in an `Arena` see theirs."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from spars.errors import DataError
from spars.game.arena import Observations, Sight, observation_space, observe_places
from spars.game.boards import Board
from spars.game.duel import Duel
from spars.game.rules import Rules
from spars.game.views import Views, view_shape


class Lookout:
    """What an arena shows, for one game: views of the window and its surroundings, position, recalled scores.

    Args:
        rules: Of mode standard; ``memory`` as the agent was trained with.
        sight: What players see; games of their own are neither mirrored nor carried on.

    Attributes:
        space: Of the observations.

    Raises:
        DataError: Rules whose windows are on no lattice.
    """

    def __init__(self, rules: Rules, sight: Sight) -> None:
        if rules.mode != "standard" or rules.start == "corner":
            raise DataError(f"sight is of mode standard, found {rules.mode} with start {rules.start}")
        self.rules, self.sight = rules, sight
        self.space: spaces.Dict = observation_space(
            view_shape(rules.window, sight.stride, sight.context), rules.memory
        )
        self._views: dict[Board, Views] = {}

    def observe(self, duel: Duel, player: int = 0) -> Observations:
        """Return what a player sees now; the arrays belong to the caller.

        Args:
            duel: The game.
            player: 0 or 1.
        """
        board, lattice = duel.board, duel.lattice
        if board not in self._views:
            self._views[board] = Views([board.volume], lattice, self.sight.stride, self.sight.context)
        index = np.array(
            [np.searchsorted(a, s) for a, s in zip(lattice.axes, duel.shown[player], strict=True)]
        )
        seen, scores = _remembered(duel, player)
        found = observe_places(
            self._views[board], np.zeros(1, np.int64), index[None], seen, scores, self.rules.memory
        )
        return {name: values[0] for name, values in found.items()}


def _remembered(duel: Duel, player: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return seen windows and their scores ``[1, len(lattice)]``; empty for players without memory."""
    if not duel.rules.memory:
        return np.zeros((1, 0), np.bool_), np.zeros((1, 0), np.float32)
    return duel.seen[player].reshape(1, -1), duel.recalled[player].reshape(1, -1)
