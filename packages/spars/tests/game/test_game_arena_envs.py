"""The arena as a vector environment, as stable-baselines3 and Gymnasium have them."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from spars.game.arena import Arena, Sight
from spars.game.arena_envs import ArenaVecEnv, ArenaVectorEnv, random_mover
from spars.game.boards import Board
from spars.game.rules import Rules
from spars.game.score_table import ScoreTable
from spars.lattice import Lattice

LATTICE = Lattice((12, 12, 10), (4, 4, 4), 2)


def arena(games: int = 4, seed: int = 0, carry: float = 0.5, **keys) -> Arena:
    keys = {"start": "random", "memory": 1, "max_steps": 5, "reward": "finds", **keys}
    boards = []
    for i in range(3):
        rng = np.random.default_rng(i)
        table = ScoreTable(LATTICE, rng.random(LATTICE.shape, np.float32))
        boards.append(Board(f"case_{i}", rng.random(LATTICE.grid, np.float32), table))
    rules = Rules("standard", LATTICE.grid, LATTICE.window, LATTICE.step, **keys)
    return Arena(boards, rules, games, seed, Sight(1, 3, flips=True, carry=carry))


def same(first, second) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return bool(np.array_equal(first, second))


def play(env: ArenaVectorEnv, seed: int | None, steps: int = 12) -> list:
    told = [env.reset(seed=seed)]
    rng = np.random.default_rng(7)
    for _ in range(steps):
        told.append(env.step(rng.integers(0, 6, env.num_envs)))
    return told


@pytest.mark.parametrize("seed", [3, np.int64(3), [3, 4, 5, 6]])
def test_a_seed_repeats_everything_whatever_was_played_before(seed) -> None:
    env = ArenaVectorEnv(arena())
    first = play(env, seed)
    play(env, None, 3)
    second = play(env, seed)
    other = play(ArenaVectorEnv(arena(seed=99)), seed)
    for a, b, c in zip(first, second, other, strict=True):
        for x, y, z in zip(a, b, c, strict=True):
            assert same(x, y)
            assert same(x, z)
    assert not all(same(a[0], b[0]) for a, b in zip(first, play(env, 4), strict=True))


def test_spaces_shapes_and_types() -> None:
    env = ArenaVectorEnv(arena())
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    seen, info = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert info["_board"].all()
    for _ in range(7):
        seen, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(seen)
        assert rewards.shape == terminated.shape == truncated.shape == (4,)
        assert terminated.dtype == truncated.dtype == np.bool_
    env.close()


def test_a_game_that_ends_tells_its_last_observation_in_the_same_step() -> None:
    env = ArenaVectorEnv(arena(carry=0.0))
    env.reset(seed=1)
    twin = arena(carry=0.0)
    twin.rng = np.random.default_rng(1)
    twin.reset()
    for step in range(1, 6):
        actions = np.zeros(4, np.int64)
        reply = np.full(4, 3)
        env.opponent = lambda seen, reply=reply: reply
        outcome = twin.step(np.stack([actions, reply], axis=1))
        seen, _, _, truncated, info = env.step(actions)
        assert truncated.tolist() == [step == 5] * 4
        if step < 5:
            assert "final_obs" not in info
    assert info["_final_obs"].all()
    assert info["_final_info"].all()
    assert same(info["final_obs"], twin.observe(0))
    np.testing.assert_array_equal(info["final_info"]["score"], outcome.scores[:, 0])
    assert info["final_info"]["_score"].all()
    twin.reset(np.arange(4))
    assert same(seen, twin.observe(0))
    assert (env.arena.steps == 0).all()


def test_only_the_games_that_ended_begin_anew() -> None:
    env = ArenaVectorEnv(arena(games=30, threshold=0.8))
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step(np.zeros(30, np.int64))
    assert 0 < terminated.sum() < 30
    assert not truncated.any()
    assert info["_final_obs"].tolist() == terminated.tolist()
    assert (env.arena.steps == np.where(terminated, 0, 1)).all()
    ended = np.maximum(info["score"], info["score_opponent"]) > 0.8
    assert ended.tolist() == terminated.tolist()


def test_statistics_wrapped_around_it() -> None:
    env = RecordEpisodeStatistics(ArenaVectorEnv(arena()))
    env.reset(seed=0)
    total = np.zeros(4)
    for _ in range(5):
        _, rewards, _, _, info = env.step(env.action_space.sample())
        total += rewards
    assert info["_episode"].all()
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)
    assert info["episode"]["l"].tolist() == [5] * 4


def test_the_opponent_moves_player_two_on_what_it_sees() -> None:
    env = ArenaVecEnv(arena())
    env.reset()
    shown = []

    def opponent(seen):
        shown.append(seen)
        return np.full(4, 2)

    env.opponent = opponent
    before = env.arena.observe(1)
    env.step(np.zeros(4, np.int64))
    assert same(shown[0], before)


def test_infos_of_stable_baselines3() -> None:
    env = ArenaVecEnv(arena(), random_mover(np.random.default_rng(1)))
    env.reset()
    for _ in range(5):
        seen, rewards, over, infos = env.step(np.zeros(4, np.int64))
    assert over.all()
    assert rewards.dtype == np.float32
    for game, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert env.observation_space.contains(info["terminal_observation"])
        assert not same(info["terminal_observation"], {name: v[game] for name, v in seen.items()})


def test_the_record_counts_what_happened() -> None:
    env = ArenaVecEnv(arena(carry=0.0, reward="sign"))
    env.reset()
    env.begin_record()
    sums, found, balance = np.zeros(2), 0.0, np.zeros(4)
    inner = env.arena.step

    def step(actions):
        nonlocal found, balance
        outcome = inner(actions)
        sums[:] += outcome.scores.sum(axis=0)
        found += float((outcome.scores * outcome.first_visit).sum())
        balance = balance + outcome.rewards[:, 0] - outcome.rewards[:, 1]
        return outcome

    env.arena.step = step  # type: ignore[method-assign]
    for _ in range(5):
        _, rewards, _, _ = env.step(np.random.default_rng(0).integers(0, 6, 4))
    record = env.record
    assert record.moves == 20
    np.testing.assert_allclose(record.score_sum, sums, rtol=1e-5)
    assert record.found_sum == pytest.approx(found, rel=1e-5)
    assert record.balances == pytest.approx(balance.tolist())
    assert record.length_sum == 20
    assert record.last_reward == pytest.approx(float(rewards.mean()))
    assert (env.balance == 0).all()


def test_a_seed_given_to_stable_baselines3_counts_once() -> None:
    first, second = ArenaVecEnv(arena(seed=0)), ArenaVecEnv(arena(seed=8))
    for env in (first, second):
        env.seed(5)
    assert same(first.reset(), second.reset())
    assert not same(first.reset(), ArenaVecEnv(arena(seed=5)).reset())  # the second reset goes on


def test_stable_baselines3_learns_in_it_and_can_wrap_it() -> None:
    env = VecMonitor(ArenaVecEnv(arena()))
    assert env.has_attr("lattice")
    assert not env.has_attr("action_masks")
    assert env.get_attr("n_games") == [4] * 4
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, n_epochs=1, device="cpu")
    model.learn(64)
    assert model.num_timesteps == 64
    with pytest.raises(AttributeError, match="games of an arena share one state: set 'steps'"):
        env.set_attr("steps", 3)
    with pytest.raises(AttributeError, match="call 'reset'"):
        env.env_method("reset")
