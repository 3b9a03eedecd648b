"""One game shows what an arena shows, so that trained agents can play it."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from spars.agent import Agent, AgentMeta, build_policy
from spars.errors import DataError
from spars.game.arena import Arena, Sight
from spars.game.boards import Board
from spars.game.parallel_env import WindowDuel
from spars.game.rules import Rules
from spars.game.score_table import ScoreTable
from spars.game.sight import Lookout
from spars.game.single_env import WindowGame
from spars.lattice import Lattice

LATTICE = Lattice((12, 12, 10), (4, 4, 4), 2)
SIGHT = Sight(2, 3)


def rules(memory: int = 1, **keys) -> Rules:
    keys = {"start": "random", "max_steps": 8, "reward": "finds", "memory": memory, **keys}
    return Rules("standard", LATTICE.grid, LATTICE.window, LATTICE.step, **keys)


def board(seed: int = 0) -> Board:
    rng = np.random.default_rng(seed)
    table = ScoreTable(LATTICE, rng.random(LATTICE.shape, np.float32))
    return Board(f"case_{seed}", rng.random(LATTICE.grid, np.float32), table)


def agent(memory: int = 1) -> Agent:
    meta = AgentMeta("mlp", LATTICE.grid, LATTICE.window, LATTICE.step, 2, 3, memory)
    return Agent(build_policy(meta), meta, seed=4)


@pytest.mark.parametrize("memory", [0, 2])
def test_both_players_see_what_the_arena_shows(memory) -> None:
    made, one = rules(memory), board()
    arena = Arena([one], made, 1, seed=2, sight=SIGHT)
    arena.reset()
    env = WindowDuel([one], made, sight=SIGHT)
    seen, _ = env.reset(options={"start": LATTICE.starts(arena.index[0, 0])})
    rng = np.random.default_rng(0)
    for _ in range(8):
        for player, name in enumerate(env.possible_agents):
            expected = arena.observe(player)
            assert seen[name].keys() == expected.keys()
            assert env.observation_space(name).contains(seen[name])
            for key in expected:
                np.testing.assert_array_equal(seen[name][key], expected[key][0], err_msg=key)
        actions = rng.integers(0, 6, 2)
        outcome = arena.step(actions[None])
        seen, rewards, *_ = env.step(dict(zip(env.possible_agents, actions.tolist(), strict=True)))
        assert list(rewards.values()) == pytest.approx(outcome.rewards[0].tolist())


def test_an_agent_plays_both_sides_of_one_game() -> None:
    learner, opponent = agent(), agent()
    env = WindowGame([board(0), board(1)], rules(), opponent, sight=SIGHT)

    def played(seed: int) -> list:
        learner.reseed(1)
        seen, _ = env.reset(seed=seed)
        path, over = [], False
        while not over:
            action, state = learner.predict(seen)
            assert state is None
            seen, reward, terminated, truncated, info = env.step(action)
            path.append((int(action), reward, info["score"], info["score_opponent"]))
            over = terminated or truncated
        return path

    first = played(3)
    assert len(first) == 8
    assert played(3) == first  # the opponent's choices are repeated too
    assert played(4) != first


def test_the_checkers() -> None:
    env = WindowGame([board()], rules(), sight=SIGHT)
    check_env(env, skip_render_check=True)
    sb3_check_env(env, warn=False)
    parallel_api_test(WindowDuel([board()], rules(), sight=SIGHT), num_cycles=20)


def test_an_agent_in_one_game_moves_as_in_the_arena() -> None:
    made, one, player = rules(), board(), agent()
    arena = Arena([one], made, 1, seed=6, sight=SIGHT)
    arena.reset()
    env = WindowDuel([one], made, sight=SIGHT)
    seen, _ = env.reset(options={"start": LATTICE.starts(arena.index[0, 0])})
    for _ in range(8):
        player.reseed(9)
        ours = [int(player.predict(seen[name])[0]) for name in env.possible_agents]
        player.reseed(9)
        theirs = [int(player(arena.observe(i))[0]) for i in range(2)]
        assert ours == theirs
        arena.step(np.array([ours]))
        seen, *_ = env.step(dict(zip(env.possible_agents, ours, strict=True)))


def test_other_modes_have_no_sight() -> None:
    with pytest.raises(DataError, match="sight is of mode standard, found paper with start centre"):
        Lookout(Rules("paper", LATTICE.grid, LATTICE.window, 2), SIGHT)
