"""The game for two learners: a PettingZoo environment with simultaneous moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from spars.errors import DataError
from spars.game.arena import Sight
from spars.game.boards import Board
from spars.game.duel import Duel
from spars.game.observations import Observation, observation_space, observe
from spars.game.rendering import render_frame
from spars.game.rules import N_ACTIONS, Rules
from spars.game.sight import Lookout
from spars.game.single_env import find_board

PLAYERS = ("player_0", "player_1")


class WindowDuel(ParallelEnv[str, Observation, int]):
    """Two players, ``player_0`` and ``player_1``, move at the same time.

    The sum of the rewards is zero but for ties with a reward of their own (paper: −1 for both).

    Args:
        boards: volumes to play on; one is drawn at every reset.
        rules: the rules.
        render_mode: ``"rgb_array"`` or ``None``.
        sight: let players see what an `Arena` of that sight shows, so that its agents can play; ``None`` = what the
            mode shows.
        segmentation_threshold: of the map for ``dice`` in the last info.
        empty_value: ``dice`` when neither map nor target has a voxel.

    Raises:
        DataError: without boards.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "name": "spars_window_duel_v0",
        "render_modes": ["rgb_array"],
        "render_fps": 8,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        boards: Sequence[Board],
        rules: Rules,
        *,
        render_mode: str | None = None,
        sight: Sight | None = None,
        segmentation_threshold: float = 0.5,
        empty_value: float = 1.0,
    ) -> None:
        if not boards:
            raise DataError("an environment needs at least one board to play on")
        self.boards = tuple(boards)
        self.rules = rules
        self.render_mode = render_mode
        self.segmentation_threshold = segmentation_threshold
        self.empty_value = empty_value
        self.possible_agents = list(PLAYERS)
        self.agents: list[str] = []
        self.lookout = None if sight is None else Lookout(rules, sight)
        self.observation_spaces: dict[str, spaces.Space[Any]] = {
            name: observation_space(rules, i) if self.lookout is None else self.lookout.space
            for i, name in enumerate(PLAYERS)
        }
        self.action_spaces: dict[str, spaces.Space[Any]] = {
            name: spaces.Discrete(N_ACTIONS) for name in PLAYERS
        }
        self._rng = np.random.default_rng()
        self.duel: Duel | None = None

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return what a player may see; always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the moves of a player; always the same object."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start an episode.

        Args:
            seed: of all that is drawn from now on.
            options: ``case``: name of the board; ``start``: corner in voxels, ``[3]`` or one a player, ``[2, 3]``.

        Returns:
            Observations and infos by player.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        options = options or {}
        board = find_board(self.boards, options.get("case"), self._rng)
        if self.duel is None or self.duel.board is not board:
            self.duel = Duel(self.rules, board)
        self.duel.reset(options.get("start"), self._rng)
        self.agents = list(PLAYERS)
        return self._observations(self.duel), {name: self.duel.info(i) for i, name in enumerate(PLAYERS)}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Move both windows.

        Args:
            actions: one of each player.

        Returns:
            Observations, rewards, terminations (a score exceeded the threshold), truncations (limit of moves) and
            infos by player.

        Raises:
            ValueError: when a player's action is missing, or the episode is over.
        """
        if self.duel is None or not self.agents:
            raise ValueError("the episode is over: call reset before step")
        missing = [name for name in PLAYERS if name not in actions]
        if missing:
            raise ValueError(f"step needs an action of every player, {', '.join(missing)} gave none")
        duel = self.duel
        turn = duel.step([int(actions[name]) for name in PLAYERS])
        infos = {name: duel.info(i, turn) for i, name in enumerate(PLAYERS)}
        if turn.terminated or turn.truncated:
            ending = duel.ending(self.segmentation_threshold, self.empty_value)
            infos = {name: info | ending for name, info in infos.items()}
            self.agents = []
        return (
            self._observations(duel),
            {name: float(turn.rewards[i]) for i, name in enumerate(PLAYERS)},
            dict.fromkeys(PLAYERS, turn.terminated),
            dict.fromkeys(PLAYERS, turn.truncated),
            infos,
        )

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a frame ``[height, width, 3]``: three slices with both windows and the map."""
        if self.duel is None:
            raise ValueError("call reset before render")
        return render_frame(self.duel) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free nothing: the environment holds no resource."""

    def _observations(self, duel: Duel) -> dict[str, Observation]:
        seen = observe if self.lookout is None else self.lookout.observe
        return {name: seen(duel, i) for i, name in enumerate(PLAYERS)}


def parallel_env(boards: Sequence[Board], rules: Rules, **keys: Any) -> WindowDuel:
    """Return the two-player environment; PettingZoo's name for the constructor.

    Args:
        boards: volumes to play on.
        rules: the rules.
        **keys: as for `WindowDuel`.
    """
    return WindowDuel(boards, rules, **keys)
