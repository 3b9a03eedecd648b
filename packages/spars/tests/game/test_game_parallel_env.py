from __future__ import annotations

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from spars.errors import DataError
from spars.game.parallel_env import PLAYERS, WindowDuel, parallel_env
from spars.game.rules import Rules
from spars.game.single_env import WindowGame

GRID, WINDOW = (20, 18, 16), (8, 6, 4)
MODES = [
    pytest.param(Rules("standard", GRID, WINDOW, start="random", max_steps=9, memory=1), id="standard"),
    pytest.param(
        Rules("paper", GRID, WINDOW, threshold=0.95, tie=-1, max_steps=9, target_size=(10, 9, 8)), id="paper"
    ),
    pytest.param(Rules("faithful", GRID, WINDOW, start="corner", tie=1, max_steps=9), id="faithful"),
]


@pytest.mark.parametrize("rules", MODES)
def test_the_checkers_of_pettingzoo(boards_of, rules: Rules) -> None:
    boards = boards_of(rules)
    parallel_api_test(parallel_env(boards, rules), num_cycles=60)
    parallel_seed_test(lambda: parallel_env(boards, rules), num_cycles=60)


@pytest.mark.parametrize("rules", MODES)
def test_what_is_seen_is_what_may_be_seen(boards_of, rules: Rules) -> None:
    env = WindowDuel(boards_of(rules), rules)
    observations, _ = env.reset(seed=1)
    rng = np.random.default_rng(0)
    while env.agents:
        for name in PLAYERS:
            assert env.observation_space(name).contains(observations[name])
        observations, _, ended, cut, infos = env.step({n: int(rng.integers(6)) for n in PLAYERS})
    assert set(ended.values()) | set(cut.values()) >= {True}
    for name in PLAYERS:
        assert infos[name]["final_map"].shape == GRID
        assert 0 <= infos[name]["dice"] <= 1


@pytest.mark.parametrize("rules", MODES)
def test_the_single_game_is_one_side_of_it(boards_of, rules: Rules) -> None:
    """The same moves give the same observations, rewards and maps to player 1."""
    boards = boards_of(rules)
    second = iter([0, 3, 3, 1, 4, 5, 2, 2, 2])
    opponent = type("Script", (), {"predict": lambda self, obs: next(second)})()
    single, double = WindowGame(boards, rules, opponent), WindowDuel(boards, rules)
    options: dict = {"case": "case_b"} | ({"start": [6, 2, 2]} if rules.mode == "standard" else {})
    single.reset(options=options)
    double.reset(options=options)
    script = [4, 4, 1, 0, 2, 2, 5, 5, 5]
    for mine, other in zip(script, [0, 3, 3, 1, 4, 5, 2, 2, 2], strict=True):
        obs, reward, terminated, truncated, info = single.step(mine)
        all_obs, rewards, ended, cut, infos = double.step({"player_0": mine, "player_1": other})
        for a, b in zip(np.atleast_1d(obs), np.atleast_1d(all_obs["player_0"]), strict=True):
            if isinstance(a, dict):
                for key, value in a.items():
                    np.testing.assert_array_equal(value, b[key])
            else:
                np.testing.assert_array_equal(a, b)
        assert reward == rewards["player_0"]
        assert (terminated, truncated) == (ended["player_0"], cut["player_0"])
        assert info["score"] == infos["player_0"]["score"] == infos["player_1"]["score_opponent"]
        if terminated or truncated:
            break
    assert truncated
    np.testing.assert_array_equal(info["final_map"], infos["player_1"]["final_map"])


@pytest.mark.parametrize(
    ("mode", "tie", "expected"), [("standard", 0, [0, 0]), ("paper", -1, [-1, -1]), ("faithful", 1, [1, -1])]
)
def test_ties(boards_of, mode, tie: int, expected: list[int]) -> None:
    rules = Rules(mode, GRID, WINDOW, tie=tie)
    env = WindowDuel(boards_of(rules), rules)
    env.reset(seed=0)
    rewards = env.step({"player_0": 2, "player_1": 2})[1]
    assert list(rewards.values()) == expected


def test_an_over_game_and_a_missing_move_are_refused(boards_of) -> None:
    rules = Rules("standard", GRID, WINDOW, max_steps=1)
    with pytest.raises(DataError, match="at least one board"):
        parallel_env([], rules)
    env = parallel_env(boards_of(rules), rules)
    with pytest.raises(ValueError, match="call reset before step"):
        env.step({"player_0": 0, "player_1": 0})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="player_1 gave none"):
        env.step({"player_0": 0})
    env.step({"player_0": 0, "player_1": 0})
    assert env.agents == []
    with pytest.raises(ValueError, match="the episode is over"):
        env.step({"player_0": 0, "player_1": 0})
