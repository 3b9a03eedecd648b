from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import spars
from spars.errors import DataError
from spars.game.opponents import FixedOpponent
from spars.game.rules import Rules
from spars.game.single_env import WindowGame

GRID, WINDOW = (20, 18, 16), (8, 6, 4)


def rules(mode="standard", **keys) -> Rules:
    return Rules(
        mode, GRID, WINDOW, **({"max_steps": 6, "start": "random", "memory": mode == "standard"} | keys)
    )


def every_mode() -> list:
    return [
        pytest.param(rules("standard"), id="standard"),
        pytest.param(rules("paper", start="centre", threshold=0.9, target_size=(16, 12, 9)), id="paper"),
        pytest.param(rules("faithful", start="corner", target_size=(24, 21, 19)), id="faithful"),
        pytest.param(rules("faithful", start="corner", max_steps=3), id="native crops"),
    ]


@pytest.mark.parametrize("made", every_mode())
def test_the_checkers_of_gymnasium_and_stable_baselines3(boards_of, made: Rules) -> None:
    env = WindowGame(boards_of(made), made, render_mode="rgb_array")
    with warnings.catch_warnings(record=True) as caught:
        check_env(env)
        sb3_check_env(env, warn=True)
    # What is left is advice for pictures and for the networks that the checkers would choose themselves.
    advice = ("unconventional shape", "is an image", "minimal resolution", "Box observation space", "spec")
    assert [str(w.message) for w in caught if not any(each in str(w.message) for each in advice)] == []


def test_the_registered_environment(boards_of) -> None:
    spars.register_envs()
    spars.register_envs()
    made = rules()
    env = gymnasium.make(spars.ENVIRONMENT_ID, boards=boards_of(made), rules=made)
    assert isinstance(env.unwrapped, WindowGame)
    check_env(env.unwrapped, skip_render_check=True)
    obs, _ = env.reset(seed=3)
    assert env.observation_space.contains(obs)


def test_importing_the_package_registers_and_loads_nothing() -> None:
    code = "import spars, sys; print([m for m in ('torch', 'gymnasium', 'pettingzoo', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def play(env: WindowGame, seed: int, n: int = 20) -> list:
    rng = np.random.default_rng(seed)
    found: list = [env.reset(seed=seed)]
    for _ in range(n):
        result = env.step(rng.integers(0, 6))
        found.append(result)
        if result[2] or result[3]:
            found.append(env.reset())
    return found


@pytest.mark.parametrize("made", every_mode())
def test_the_same_seed_is_the_same_trajectory(boards_of, made: Rules) -> None:
    first, second, other = (play(WindowGame(boards_of(made), made), seed) for seed in (1, 1, 2))
    assert data_equivalence(first, second, exact=True)
    assert not data_equivalence(first, other, exact=True)


def test_terminated_is_a_score_and_truncated_is_the_clock(boards_of) -> None:
    made = rules(start="centre", max_steps=2, threshold=2.0)
    env = WindowGame(boards_of(made), made, FixedOpponent(0))
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    *_, terminated, truncated, info = env.step(1)
    assert (terminated, truncated) == (False, True)
    assert info["final_map"].shape == GRID
    assert 0 <= info["dice"] <= 1
    made = rules(start="centre", max_steps=2, threshold=0.0)
    env = WindowGame(boards_of(made), made, FixedOpponent(0))
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step(0)
    assert (terminated, truncated) == (True, False)
    assert "final_map" in info


def test_infos(boards_of) -> None:
    made = rules("faithful", start="corner", threshold=None, memory=0)
    env = WindowGame(boards_of(made), made, FixedOpponent(4))
    _, info = env.reset(options={"case": "case_b"})
    assert info["case"] == "case_b"
    assert info["position"].tolist() == [10, 9, 8]
    assert "score" not in info
    for _ in range(3):
        _, reward, _, _, info = env.step(0)
    assert info["position"].tolist() == [10, 9, 20]
    assert info["position_opponent"].tolist() == [22, 9, 8]
    assert info["window"].tolist() == [[10, 9, 11], [18, 15, 15]]
    assert reward == (1.0 if info["score"] >= info["score_opponent"] else -1.0)
    assert info["action_mask"].all()


def test_masks_follow_the_window(boards_of) -> None:
    made = rules(start="centre", max_steps=50)
    env = WindowGame(boards_of(made), made, FixedOpponent(0))
    env.reset(seed=0)
    assert env.action_masks().all()
    for _ in range(4):
        *_, info = env.step(4)
    assert info["action_mask"].tolist() == [True, True, True, True, False, True]
    np.testing.assert_array_equal(env.action_masks(), info["action_mask"])
    before = info["position"]
    *_, info = env.step(4)
    np.testing.assert_array_equal(info["position"], before)


def test_starts_can_be_given(boards_of) -> None:
    made = rules()
    env = WindowGame(boards_of(made), made)
    _, info = env.reset(options={"case": "case_a", "start": [[2, 2, 2], [6, 2, 2]]})
    assert info["position"].tolist() == [2, 2, 2]
    assert info["position_opponent"].tolist() == [6, 2, 2]


class Watching:
    """Answers as stable-baselines3 does and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list = []

    def predict(self, observation):
        self.seen.append(observation)
        return np.array([2]), None


def test_the_opponent_decides_on_its_own_window_before_the_move(boards_of) -> None:
    made = rules(start="centre")
    opponent = Watching()
    env = WindowGame(boards_of(made), made)
    env.set_opponent(opponent)
    first, info = env.reset(seed=0)
    env.step(0)
    *_, after = env.step(0)
    np.testing.assert_array_equal(opponent.seen[0]["window"], first["window"])
    assert (
        after["position_opponent"][1] == info["position_opponent"][1] + 4
    )  # the third axis-1 place is refused
    assert opponent.seen[1]["position"][1] > opponent.seen[0]["position"][1]


def test_what_cannot_be_played_is_refused(boards_of) -> None:
    made = rules()
    with pytest.raises(DataError, match="at least one board"):
        WindowGame([], made)
    with pytest.raises(ValueError, match="render_mode must be"):
        WindowGame(boards_of(made), made, render_mode="human")
    env = WindowGame(boards_of(made), made)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    with pytest.raises(
        DataError, match="no case 'case_z' among the 2 boards of this environment: case_a, case_b"
    ):
        env.reset(options={"case": "case_z"})
    env.reset()
    with pytest.raises(ValueError, match="from 0 to 5"):
        env.step(6)
    env.set_opponent(type("Bad", (), {"predict": lambda self, obs: [1, 2]})())
    with pytest.raises(ValueError, match="must return one action"):
        env.step(0)
