"""Training steps per second of self-play, against what PPO itself costs; one JSON line a workload.

Three sides in this process, with one policy, one number of games and the same keys of stable-baselines3: an
environment that does nothing (the floor), the arena with an opponent that moves at random, and the arena with a frozen
copy as opponent, as self-play has it. Times are processor seconds of one thread. ``--quick`` for fewer iterations.
"""

# ruff: noqa: D102 - the methods are those of stable-baselines3
from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from spars.agent import Agent, AgentMeta, build_policy
from spars.config import GameConfig
from spars.game.arena import Arena
from spars.game.arena_envs import ArenaVecEnv
from spars.game.boards import Board
from spars.game.rules import rules_of
from spars.game.score_table import ScoreTable
from spars.models.agent import policy_keys

GRID, WINDOW = (48, 48, 32), (12, 12, 8)


class Nothing(VecEnv):
    """Always the same observation, no reward, a game of 32 steps: what is left is PPO."""

    def __init__(self, n_games: int, space: spaces.Dict) -> None:
        super().__init__(n_games, space, spaces.Discrete(6))
        self.seen = {k: np.zeros((n_games, *(s.shape or ())), np.float32) for k, s in space.spaces.items()}
        self.count = 0

    def reset(self) -> dict[str, NDArray[np.float32]]:  # type: ignore[override]
        return self.seen

    def step_async(self, actions: NDArray[Any]) -> None:
        self.count += 1

    def step_wait(self) -> Any:
        over = np.full(self.num_envs, self.count % 32 == 0)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        return self.seen, np.zeros(self.num_envs, np.float32), over, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


def arena_env(config: GameConfig, meta: AgentMeta, *, frozen: bool) -> ArenaVecEnv:
    """Return the arena that self-play trains on, on four volumes of noise."""
    rng = np.random.default_rng(0)
    boards = [
        Board(
            str(i),
            rng.random(GRID).astype(np.float32),
            ScoreTable(meta.lattice, rng.random(meta.lattice.shape).astype(np.float32)),
        )
        for i in range(4)
    ]
    arena = Arena(boards, rules_of(config), config.n_games or 64, 0, meta.sight(config.flips, config.carry))
    return ArenaVecEnv(arena, Agent(build_policy(meta), meta) if frozen else None)


def steps_per_second(env: VecEnv, config: GameConfig, meta: AgentMeta, iterations: int) -> float:
    """Train and return environment steps per processor second, after one iteration to warm up."""
    model = PPO(
        "MultiInputPolicy",
        env,
        n_steps=config.n_steps,
        batch_size=config.batch_size or 512,
        n_epochs=config.n_epochs or 8,
        device="cpu",
        seed=0,
        policy_kwargs=policy_keys(meta.policy, meta.lattice),
    )
    steps = config.n_steps * env.num_envs
    model.learn(steps)
    began = time.process_time()
    model.learn(steps * iterations, reset_num_timesteps=False)
    return steps * iterations / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer iterations")
    arguments, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    config = GameConfig(full_image_size=GRID, window_size=WINDOW, device="cpu").resolved()
    meta = AgentMeta.of(config)
    iterations = 3 if arguments.quick else 10
    n_games = config.n_games or 64
    floor = steps_per_second(Nothing(n_games, meta.space()), config, meta, iterations)
    for name, frozen in (("random opponent", False), ("frozen copy", True)):
        found = steps_per_second(arena_env(config, meta, frozen=frozen), config, meta, iterations)
        values = {
            "steps_per_s": round(found),
            "floor_steps_per_s": round(floor),
            "share": round(found / floor, 3),
        }
        print(json.dumps({"workload": f"PPO steps, {n_games} games, {name}", **values}), flush=True)


if __name__ == "__main__":
    main()
