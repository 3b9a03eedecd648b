"""Self-play: the same numbers for a seed, a stopped run that goes on bit for bit, and players that learn."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medshared.checkpoints import load_checkpoint
from medshared.command_line import RunInterruptedError
from medshared.files import read_json
from medshared.runs import RunDirectory
from spars.agent import Agent, load_agent
from spars.config import GameConfig
from spars.errors import CheckpointError, DataError
from spars.game.boards import Board
from spars.game.score_table import ScoreTable
from spars.lattice import Lattice
from spars.selfplay import SelfPlay, train_agent

GRID, WINDOW, STEP = (12, 12, 10), (4, 4, 4), 2


class StopAfter:
    """Asks to stop once ``n`` iterations are done; it is looked at one to three times in each."""

    name = "SIGTERM"

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n

    @property
    def requested(self) -> bool:
        path = self.folder / "metrics.csv"
        return path.is_file() and len(path.read_text().splitlines()) > self.n


class Never:
    name, requested = "", False


NEVER = Never()


def boards(n: int = 2) -> list[Board]:
    lattice = Lattice(GRID, WINDOW, STEP)
    found = []
    for i in range(n):
        rng = np.random.default_rng(i)
        table = ScoreTable(lattice, rng.random(lattice.shape, np.float32))
        found.append(Board(f"case_{i}", rng.random(GRID, np.float32), table))
    return found


def config(**keys) -> GameConfig:
    sizes = {"full_image_size": GRID, "window_size": WINDOW, "step_size": STEP, "device": "cpu"}
    quick = {"n_games": 4, "n_steps": 8, "batch_size": 16, "n_epochs": 2, "iterations": 6, "max_steps": 5}
    rest = {
        "competitor_update_frequency": 16,
        "pool_size": 2,
        "memory": 1,
        "save_every": 2,
        "log_interval": 3,
    }
    return GameConfig(**{**sizes, **quick, **rest, **keys})


def rows(folder: Path, name: str = "curve.csv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def equal(first, second) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return first == second


def last(folder: Path) -> dict:
    state = load_checkpoint(folder / "checkpoints" / "last.pt")
    del state["seconds"], state["config"]["iterations"]
    return state


def test_what_a_run_leaves(tmp_path) -> None:
    agent = train_agent(config(), boards(), tmp_path, stop=NEVER)  # type: ignore[arg-type]
    results = read_json(tmp_path / "results.json")
    assert results["iterations"] == 6
    assert results["env_steps"] == 6 * 8 * 4
    curve = rows(tmp_path)
    assert [row["iteration"] for row in curve] == list("123456")
    for row in curve:
        assert 0 <= float(row["mean_score1"]) <= 1
        assert 0 <= float(row["found_per_step"]) <= 2
        assert 0 <= float(row["win_rate"]) <= 1
    # A copy every 16 steps = 2 iterations, of which two stay.
    assert [row["iteration"] for row in rows(tmp_path, "opponents.csv")] == ["4", "6"]
    loaded = load_agent(tmp_path / "agent.pt")
    assert loaded.meta.cases == ("case_0", "case_1")
    assert equal(dict(loaded.policy.state_dict()), dict(agent.policy.state_dict()))
    assert equal(dict(agent.policy.state_dict()), dict(last(tmp_path)["policy"]))


@pytest.mark.parametrize("k", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, k) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    made = config(carry=0.5, flips=True)
    train_agent(made, boards(), whole, stop=NEVER)  # type: ignore[arg-type]
    with pytest.raises(
        RunInterruptedError, match=f"stopped by SIGTERM after iteration {k}; --resume continues"
    ):
        train_agent(made, boards(), parts, stop=StopAfter(parts, k))  # type: ignore[arg-type]
    assert not (parts / "results.json").exists()
    assert len(rows(parts)) == k
    np.random.seed(0)  # noqa: NPY002 - what another process would have left there
    torch.manual_seed(99)
    train_agent(made, boards(), parts, resume=True, stop=NEVER)  # type: ignore[arg-type]
    assert rows(parts) == rows(whole)
    assert rows(parts, "opponents.csv") == rows(whole, "opponents.csv")
    assert equal(last(parts), last(whole))


def test_resuming_a_finished_run_changes_nothing(tmp_path) -> None:
    train_agent(config(iterations=2), boards(), tmp_path, stop=NEVER)  # type: ignore[arg-type]
    before, state = rows(tmp_path), last(tmp_path)
    train_agent(config(iterations=2), boards(), tmp_path, resume=True, stop=NEVER)  # type: ignore[arg-type]
    assert rows(tmp_path) == before
    assert equal(last(tmp_path), state)
    train_agent(config(iterations=3), boards(), tmp_path, resume=True, stop=NEVER)  # type: ignore[arg-type]
    assert rows(tmp_path)[:2] == before  # more iterations may be asked for
    assert len(rows(tmp_path)) == 3


def test_one_seed_one_run(tmp_path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train_agent(config(seed=seed, iterations=2), boards(), tmp_path / name, stop=NEVER)  # type: ignore[arg-type]
    assert equal(last(tmp_path / "a"), last(tmp_path / "b"))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert rows(tmp_path / "a") != rows(tmp_path / "c")


@pytest.mark.parametrize("policy", ["mlp", "cnn", "table"])
def test_every_policy_trains_and_is_read_back(tmp_path, policy) -> None:
    made = config(policy=policy, iterations=1, termination=True, termination_threshold=0.8)
    agent = train_agent(made, boards(1), tmp_path, stop=NEVER)  # type: ignore[arg-type]
    loaded = load_agent(tmp_path / "agent.pt")
    seen = {name: np.stack([part.sample()] * 5) for name, part in agent.meta.space().spaces.items()}
    np.testing.assert_array_equal(loaded.value(seen), agent.value(seen))
    assert float(rows(tmp_path)[0]["mean_episode_length"]) <= 5


def test_a_table_of_places_is_not_trained_on_mirrored_games(tmp_path) -> None:
    play = SelfPlay(config(policy="table", flips=True).resolved(), boards(), RunDirectory(tmp_path))
    assert not play.arena.sight.flips
    assert SelfPlay(config(flips=True).resolved(), boards(), RunDirectory(tmp_path)).arena.sight.flips


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"opponent": "live", "competitor_update_frequency": 1000}, [0, 1, 2, 3]),
        ({"opponent": "latest"}, [0, 0, 2, 2]),
        ({"opponent": "latest", "competitor_update_frequency": 8}, [0, 1, 2, 3]),
        ({"opponent": "latest", "competitor_update_frequency": 12}, [0, 0, 2, 3]),
        ({"opponent": "latest", "competitor_update_frequency": 1000}, [0, 0, 0, 0]),
    ],
)
def test_who_plays_the_learner(tmp_path, keys, expected) -> None:
    train_agent(config(iterations=4, **keys), boards(), tmp_path, stop=NEVER)  # type: ignore[arg-type]
    assert [int(row["opponent"]) for row in rows(tmp_path)] == expected


def test_other_settings_and_other_volumes_are_refused(tmp_path) -> None:
    train_agent(config(iterations=1), boards(), tmp_path, stop=NEVER)  # type: ignore[arg-type]
    with pytest.raises(
        CheckpointError, match=r"cannot resume under other settings \(gamma: [0-9.]+ then, 0.5 now\)"
    ):
        train_agent(config(gamma=0.5), boards(), tmp_path, resume=True, stop=NEVER)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"was trained on other volumes .*case_0, case_1; now case_0"):
        train_agent(config(), boards(1), tmp_path, resume=True, stop=NEVER)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="mode standard, found mode paper"):
        train_agent(config(mode="paper", memory=None), boards(), tmp_path)
    with pytest.raises(DataError, match="at least one board"):
        train_agent(config(), [], tmp_path)


KILLED = """
import sys, pathlib, logging
sys.path.insert(0, sys.argv[2])
import importlib.util
spec = importlib.util.spec_from_file_location("made", sys.argv[2])
made = importlib.util.module_from_spec(spec); spec.loader.exec_module(made)
made.train_agent(made.config(iterations=100000, save_every=1), made.boards(), pathlib.Path(sys.argv[1]))
"""


def test_a_killed_run_leaves_a_checkpoint_that_can_be_read(tmp_path) -> None:
    folder = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), __file__], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        while not (folder / "checkpoints" / "last.pt").exists():
            assert child.poll() is None
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = last(folder)["iteration"]
    assert done >= 1
    train_agent(config(iterations=done + 1), boards(), folder, resume=True, stop=NEVER)  # type: ignore[arg-type]
    assert [int(row["iteration"]) for row in rows(folder)] == list(range(1, done + 2))


# ---------------------------------------------------------------------- learning


def hill(seed: int = 0) -> tuple[Board, np.ndarray]:
    """A volume whose windows score by how near their centre is to that of a tumour, and the 8 nearest windows."""
    grid, window = (48, 48, 32), (12, 12, 8)
    lattice = Lattice(grid, window, 4)
    centre = np.array([30.0, 18.0, 20.0])
    places = np.stack(np.meshgrid(*[np.arange(n) for n in grid], indexing="ij"), axis=-1) + 0.5
    rng = np.random.default_rng(seed)
    # Tissue that grows brighter towards the tumour: what is seen tells where it is.
    volume = 1 - np.linalg.norm(places - centre, axis=-1) / 50 + rng.normal(0, 0.05, grid)
    away = np.linalg.norm(lattice.all_starts() + np.array(window) / 2 - centre, axis=1)
    scores = (1 - away / away.max()).astype(np.float32)
    nearest = np.argsort(away)[:8]
    board = Board(
        "hill", volume.clip(0, 1).astype(np.float32), ScoreTable(lattice, scores.reshape(lattice.shape))
    )
    return board, nearest


def reached(mover, arena, nearest: np.ndarray, steps: int) -> float:
    """Share of games in which player 0 is at one of the windows within ``steps`` moves."""
    arena.reset()
    there = np.isin(arena.lattice.flat(arena.index[:, 0]), nearest)
    for _ in range(steps):
        actions = mover(arena.observe(0))
        arena.step(np.stack([actions, actions], axis=1))
        there |= np.isin(arena.lattice.flat(arena.index[:, 0]), nearest)
    return float(there.mean())


@pytest.mark.slow
def test_self_play_learns_the_way_up_a_hill(tmp_path) -> None:
    board, nearest = hill()
    made = config(
        **{"full_image_size": (48, 48, 32), "window_size": (12, 12, 8), "step_size": 4, "view_stride": 4},
        **{"reward": "sign", "tie": 0, "memory": 0, "context": 0, "flips": False, "carry": 0.0},
        **{"opponent": "latest", "competitor_update_frequency": 32, "pool_size": 1},
        **{"n_games": 32, "n_steps": 32, "max_steps": 32, "batch_size": 256, "n_epochs": 4},
        **{"learning_rate": 3e-3, "ent_coef": 0.01, "gamma": 0.9, "iterations": 60, "save_every": 60},
    )
    agent: Agent = train_agent(made, [board], tmp_path, stop=NEVER)  # type: ignore[arg-type]
    from spars.game.arena import Arena
    from spars.game.arena_envs import random_mover
    from spars.game.rules import rules_of

    arena = Arena([board], rules_of(made), 400, seed=5, sight=agent.meta.sight())
    walk = reached(random_mover(np.random.default_rng(0)), arena, nearest, 20)
    ours = reached(agent, arena, nearest, 20)
    assert walk <= 0.2
    assert ours >= 0.7
