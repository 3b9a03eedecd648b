"""An arena as a vector environment of the learner, for stable-baselines3 and for Gymnasium.

The learner moves player 0 of every game; an opponent moves player 1 of all games in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from medshared.gpu import derive_seed
from spars.game.arena import Arena, Observations, Outcome
from spars.game.rules import N_ACTIONS

# Observations of all games → actions of all games, int64 ``[games]``.
Mover = Callable[[Observations], NDArray[np.int64]]


class RandomMover:
    """An opponent that draws every action with the same probability.

    Args:
        rng: What it draws from.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, observations: Observations) -> NDArray[np.int64]:
        """Return a move for each observation, int64 ``[n]``."""
        return self.rng.integers(0, N_ACTIONS, len(observations["position"]))

    def reseed(self, seed: int) -> None:
        """Make all that follows repeatable."""
        self.rng = np.random.default_rng(seed)


def random_mover(rng: np.random.Generator) -> Mover:
    """Return an opponent that draws every action with the same probability."""
    return RandomMover(rng)


@dataclass
class Record:
    """What happened since `ArenaVecEnv.begin_record`.

    Attributes:
        moves: Moves of all games.
        score_sum: Sum of the scores of player 0 and of player 1.
        found_sum: Sum of the scores of windows when they were first scored, both players.
        balances: What player 0 earned beyond player 1 in each game that ended.
        length_sum: Moves of those games.
        last_reward: Mean reward of player 0 in the last step.
    """

    moves: int = 0
    score_sum: list[float] = field(default_factory=lambda: [0.0, 0.0])
    found_sum: float = 0.0
    balances: list[float] = field(default_factory=list)
    length_sum: int = 0
    last_reward: float = 0.0


class ArenaVecEnv(VecEnv):
    """The learner's side of an arena for stable-baselines3: games that are over begin anew at once.

    Args:
        arena: The games.
        opponent: Moves player 1; a random one by default.

    Attributes:
        balance: What player 0 has earned beyond player 1 in each game under way, float64 ``[games]``.
        record: What happened since `begin_record`.
    """

    def __init__(self, arena: Arena, opponent: Mover | None = None) -> None:
        super().__init__(arena.n_games, arena.observation_space, spaces.Discrete(N_ACTIONS))
        self.arena = arena
        self.opponent = opponent or random_mover(np.random.default_rng(0))
        self.balance = np.zeros(arena.n_games)
        self.record = Record()
        self._actions = np.zeros(arena.n_games, np.int64)

    def reset(self) -> Observations:  # type: ignore[override]
        """Begin all games anew and return what the learner sees; a seed of `seed` counts once, for the games."""
        if self._seeds[0] is not None:
            self.arena.rng = np.random.default_rng(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.arena.reset()
        self.balance[:] = 0
        return self.arena.observe(0)

    def begin_record(self) -> None:
        """Forget what happened so far."""
        self.record = Record()

    def _note(self, outcome: Outcome, over: NDArray[np.bool_]) -> None:
        record = self.record
        record.moves += self.num_envs
        for player in range(2):
            record.score_sum[player] += float(outcome.scores[:, player].sum())
        record.found_sum += float((outcome.scores * outcome.first_visit).sum())
        record.last_reward = float(outcome.rewards[:, 0].mean())
        self.balance += outcome.rewards[:, 0] - outcome.rewards[:, 1]
        record.balances += self.balance[over].tolist()
        record.length_sum += int(self.arena.steps[over].sum())
        self.balance[over] = 0

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the learner's actions ``[games]``."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> Any:
        """Move both players; return observations, rewards, dones and infos as stable-baselines3 has them."""
        both = np.stack([self._actions, self.opponent(self.arena.observe(1))], axis=1)
        outcome = self.arena.step(both)
        over = outcome.terminated | outcome.truncated
        self._note(outcome, over)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if over.any():
            final = self.arena.observe(0)
            for game in np.flatnonzero(over):
                infos[game] = {
                    "TimeLimit.truncated": bool(outcome.truncated[game]),
                    "terminal_observation": {name: values[game] for name, values in final.items()},
                }
            self.arena.reset(np.flatnonzero(over))
        return self.arena.observe(0), outcome.rewards[:, 0].astype(np.float32), over, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the arena once for each game.

        Raises:
            AttributeError: The arena has none of that name.
        """
        value = None if attr_name == "render_mode" else getattr(self.arena, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: games share one state."""
        raise AttributeError(f"games of an arena share one state: set {attr_name!r} on the arena itself")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: games share one state."""
        raise AttributeError(f"games of an arena share one state: call {method_name!r} on the arena itself")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        """Return that no game is wrapped."""
        return [False for _ in self._get_indices(indices)]


class ArenaVectorEnv(VectorEnv[Observations, NDArray[Any], NDArray[Any]]):
    """The learner's side of an arena for Gymnasium: a game that is over begins anew in the same step.

    Args:
        arena: The games.
        opponent: Moves player 1; a random one by default.
    """

    def __init__(self, arena: Arena, opponent: Mover | None = None) -> None:
        self.arena = arena
        self.num_envs = arena.n_games
        self.opponent = opponent or random_mover(np.random.default_rng(0))
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = arena.observation_space
        self.single_action_space = spaces.Discrete(N_ACTIONS)
        self.observation_space = gymnasium.vector.utils.batch_space(
            self.single_observation_space, self.num_envs
        )
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin all games anew.

        Args:
            seed: Makes all that follows repeatable, also what the opponent draws if it has ``reseed(seed)``; of
                several the first one counts, since all games draw from one generator.
            options: None are known.
        """
        first = seed[0] if isinstance(seed, Sequence) else seed
        if first is not None:
            self.arena.rng = np.random.default_rng(int(first))
            reseed = getattr(self.opponent, "reseed", None)
            if reseed is not None:
                reseed(derive_seed(int(first), "opponent"))
        self.arena.reset()
        return self.arena.observe(0), self._told(board=self.arena.board.copy())

    def _told(self, **values: NDArray[Any]) -> dict[str, Any]:
        """Return an info as Gymnasium has it: values of all games, and which games have them."""
        everyone = np.ones(self.num_envs, np.bool_)
        return values | {f"_{name}": everyone.copy() for name in values}

    def step(self, actions: NDArray[Any]) -> tuple[Observations, Any, Any, Any, dict[str, Any]]:
        """Move both players of every game."""
        both = np.stack([np.asarray(actions), self.opponent(self.arena.observe(1))], axis=1)
        outcome = self.arena.step(both)
        info = self._told(score=outcome.scores[:, 0], score_opponent=outcome.scores[:, 1])
        over = outcome.terminated | outcome.truncated
        if over.any():
            # What the ended games told last; the scores of the others are in it too, under a false mask.
            last = {name: over.copy() if name.startswith("_") else value for name, value in info.items()}
            info |= {"final_info": last, "_final_info": over.copy()}
            info |= {"final_obs": self.arena.observe(0), "_final_obs": over.copy()}
            self.arena.reset(np.flatnonzero(over))
        return self.arena.observe(0), outcome.rewards[:, 0], outcome.terminated, outcome.truncated, info
