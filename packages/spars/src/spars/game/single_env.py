"""The game for one learner: a Gymnasium environment with an opponent inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from medshared.gpu import derive_seed
from spars.errors import DataError
from spars.game.arena import Sight
from spars.game.boards import Board
from spars.game.duel import Duel
from spars.game.observations import Observation, observation_space, observe
from spars.game.opponents import Opponent, RandomOpponent, chosen_action
from spars.game.rendering import render_frame
from spars.game.rules import N_ACTIONS, Rules, action_masks
from spars.game.sight import Lookout


def find_board(boards: Sequence[Board], name: str | None, rng: np.random.Generator) -> Board:
    """Return the board of that name, or a drawn one when no name is given.

    Raises:
        DataError: naming the boards there are.
    """
    if name is None:
        return boards[int(rng.integers(len(boards)))] if len(boards) > 1 else boards[0]
    for board in boards:
        if board.name == name:
            return board
    shown = ", ".join(board.name for board in boards[:8])
    raise DataError(f"no case {name!r} among the {len(boards)} boards of this environment: {shown}")


class WindowGame(gymnasium.Env[Observation, np.int64]):
    """Player 1 learns, an injected opponent moves the other window. Id ``spars/WindowGame-v0``.

    ``reset`` takes ``options={"case": name, "start": corner}``; ``info`` holds what `Duel.info` says and at the end of
    an episode ``final_map`` and ``dice`` (`Duel.ending`).

    Args:
        boards: volumes to play on; one is drawn at every reset.
        rules: the rules.
        opponent: ``predict(observation)`` → action; ``None`` = moves at random.
        render_mode: ``"rgb_array"`` or ``None``.
        sight: let players see what an `Arena` of that sight shows, so that its agents can play; ``None`` = what the
            mode shows.
        segmentation_threshold: of the map for ``dice``.
        empty_value: ``dice`` when neither map nor target has a voxel.

    Raises:
        DataError: without boards.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(
        self,
        boards: Sequence[Board],
        rules: Rules,
        opponent: Opponent | None = None,
        *,
        render_mode: str | None = None,
        sight: Sight | None = None,
        segmentation_threshold: float = 0.5,
        empty_value: float = 1.0,
    ) -> None:
        if not boards:
            raise DataError("an environment needs at least one board to play on")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, found {render_mode!r}")
        self.boards = tuple(boards)
        self.rules = rules
        self.opponent: Opponent = RandomOpponent() if opponent is None else opponent
        self.render_mode = render_mode
        self.segmentation_threshold = segmentation_threshold
        self.empty_value = empty_value
        self.lookout = None if sight is None else Lookout(rules, sight)
        self.observation_space = observation_space(rules) if self.lookout is None else self.lookout.space
        self.action_space = spaces.Discrete(N_ACTIONS)
        self.duel: Duel | None = None

    def set_opponent(self, opponent: Opponent) -> None:
        """Let another opponent play from the next move on."""
        self.opponent = opponent

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of all that is drawn from now on.
            options: ``case``: name of the board; ``start``: corner in voxels, ``[3]`` or one a player, ``[2, 3]``.

        Returns:
            Observation and info.
        """
        super().reset(seed=seed)
        options = options or {}
        board = find_board(self.boards, options.get("case"), self.np_random)
        if self.duel is None or self.duel.board is not board:
            self.duel = Duel(self.rules, board)
        self.duel.reset(options.get("start"), self.np_random)
        if isinstance(self.opponent, RandomOpponent):
            self.opponent.rng = self.np_random
        elif seed is not None and hasattr(self.opponent, "reseed"):
            self.opponent.reseed(derive_seed(seed, "opponent"))  # type: ignore[attr-defined]
        return self._observe(0), self.duel.info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move both windows; the opponent decides on its own window, before the move.

        Returns:
            Observation, reward, terminated (a score exceeded the threshold), truncated (limit of moves), info.
        """
        duel = self._game()
        answer = chosen_action(self.opponent, self._observe(1))
        turn = duel.step((int(action), answer))
        info = duel.info(0, turn)
        if turn.terminated or turn.truncated:
            info |= duel.ending(self.segmentation_threshold, self.empty_value)
        return self._observe(0), float(turn.rewards[0]), turn.terminated, turn.truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which actions move the learner's window, bool ``[6]``."""
        return action_masks(self.rules, self._game().position[0])

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a frame ``[height, width, 3]``: three slices with both windows and the map."""
        return render_frame(self._game()) if self.render_mode == "rgb_array" else None

    def _observe(self, player: int) -> Observation:
        duel = self._game()
        return observe(duel, player) if self.lookout is None else self.lookout.observe(duel, player)

    def _game(self) -> Duel:
        if self.duel is None:
            raise gymnasium.error.ResetNeeded("call reset before step, render and action_masks")
        return self.duel
