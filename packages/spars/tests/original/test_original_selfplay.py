from __future__ import annotations

import csv
import json
import os
import signal
from typing import cast

import numpy as np
import pytest
import stable_baselines3
import torch

from medshared.checkpoints import load_checkpoint
from spars.config import GameConfig
from spars.errors import DataError, TrainingError
from spars.game.scorers import StubScorer
from spars.models.compact_policy import CompactPolicy
from spars.original.selfplay import SelfPlay, train_faithful

GRID, WINDOW = (20, 20, 16), (6, 6, 4)


@pytest.fixture(scope="module")
def golden(golden_json, golden_npz) -> tuple[dict, dict]:
    return golden_json("selfplay"), golden_npz("selfplay")


@pytest.fixture(scope="module")
def volume(golden_volumes, golden) -> tuple[np.ndarray, np.ndarray]:
    return golden_volumes.golden_volume(GRID, golden[0]["volume_seed"])


def config(mode="faithful", **keys) -> GameConfig:
    return GameConfig(
        mode=mode,
        full_image_size=GRID,
        window_size=WINDOW,
        device="cpu",
        # The whole policy of the original would take 24 GB.
        **({"target_size": GRID} | {"termination_threshold": 0.6, "iterations": 3} | keys),
    )


@pytest.fixture
def golden_play(golden, volume, fill_golden_weights, request) -> SelfPlay:
    """The golden run with the original's policy, or with the compact one where a test asks for it."""
    facts = golden[0]
    scorer = StubScorer(facts["stub_a"], facts["stub_b"], GRID)
    play = SelfPlay(config(), *volume, scorer, policy="mlp")
    full = fill_golden_weights(play.model.policy, facts["weight_seed"]).state_dict()
    if getattr(request, "param", "mlp") == "compact":
        play = SelfPlay(config(), *volume, scorer, policy="compact")
        cast(CompactPolicy, play.model.policy).load_full_state(full)
    torch.manual_seed(facts["torch_seed"])
    np.random.seed(facts["numpy_seed"])  # noqa: NPY002
    return play


class Recorded:
    """A learner's policy whose moves, and the competitor's, are those of the golden run."""

    def __init__(self, play: SelfPlay, learner: np.ndarray, competitor: np.ndarray, monkeypatch) -> None:
        self.learner, self.competitor = iter(learner), iter(competitor)
        policy = play.model.policy
        forward = policy.forward

        def forced(obs: torch.Tensor, deterministic: bool = False):
            _, values, _ = forward(obs, deterministic)
            action = torch.tensor([int(next(self.learner))])
            return action, values, policy.get_distribution(obs).log_prob(action)

        monkeypatch.setattr(policy, "forward", forced)

    def predict(self, observation: np.ndarray):
        return next(self.competitor), None


def second_moves(positions: np.ndarray, dones: list[bool], start: np.ndarray) -> np.ndarray:
    """Work out which move led from position to position."""
    moves = [[0, 0, 4], [0, 0, -4], [0, 4, 0], [0, -4, 0], [4, 0, 0], [-4, 0, 0]]
    before = np.concatenate([start[None], positions[:-1]])
    before[1:][np.array(dones[:-1])] = start
    return np.array([moves.index(step.tolist()) for step in positions - before])


@pytest.mark.parametrize("golden_play", ["mlp", "compact"], indirect=True)
def test_the_recorded_moves_give_the_golden_training(golden, golden_play: SelfPlay, monkeypatch) -> None:
    facts, arrays = golden
    start = np.array(GRID) // 2
    for i, expected in enumerate(facts["iterations"]):
        a = {key.removeprefix(f"iter{i}_"): v for key, v in arrays.items() if key.startswith(f"iter{i}_")}
        before = {k: v.clone() for k, v in golden_play.model.policy.state_dict().items()}
        seen: list = []
        with monkeypatch.context() as patched:
            moves = second_moves(a["pos2"], expected["dones"], start)
            recorded = Recorded(golden_play, a["action1"], moves, patched)
            patched.setattr(golden_play.env, "competitor", recorded)
            permutation = np.array(expected["minibatch_permutation"])
            patched.setattr(np.random, "permutation", lambda n, p=permutation: p)
            record_steps(golden_play, seen, patched)
            row = golden_play.iterate()
        buffer = golden_play.model.rollout_buffer
        infos = [result[4] for result in seen]
        assert [info["position"].tolist() for info in infos] == a["pos1"].tolist()
        assert [info["position_opponent"].tolist() for info in infos] == a["pos2"].tolist()
        assert [result[1] for result in seen] == a["reward"].tolist()
        assert [result[2] for result in seen] == expected["dones"]
        np.testing.assert_allclose([info["score"] for info in infos], a["score1"], atol=1e-6)
        np.testing.assert_allclose([info["score_opponent"] for info in infos], a["score2"], atol=1e-6)
        compact = golden_play.env.observation_space.shape == WINDOW
        if "learner_obs_uint8" in a and not compact:
            np.testing.assert_array_equal(buffer.observations.reshape(32, -1), a["learner_obs_uint8"])
        np.testing.assert_array_equal(buffer.episode_starts.ravel(), a["episode_starts"])
        np.testing.assert_allclose(buffer.values.ravel(), a["values"], atol=1e-4)
        np.testing.assert_allclose(buffer.log_probs.ravel(), a["log_probs"], atol=1e-4)
        np.testing.assert_allclose(buffer.advantages.ravel(), a["advantages"], atol=1e-3)
        np.testing.assert_allclose(buffer.returns.ravel(), a["returns"], atol=1e-3)
        if not compact:
            check_norms(golden_play, facts, a, before)
        after = golden_play.model.policy.state_dict()
        for key, value in a.items():
            if key.startswith("after_"):
                np.testing.assert_allclose(after[key.removeprefix("after_")], value, atol=1e-3)
        check_row(golden_play, row, expected, a)


def record_steps(play: SelfPlay, seen: list, patched) -> None:
    step = play.env.step

    def recorded(action):
        seen.append(step(action))
        return seen[-1]

    patched.setattr(play.env, "step", recorded)


def check_norms(play: SelfPlay, facts: dict, a: dict, before: dict) -> None:
    after = play.model.policy.state_dict()
    norms = [float((after[k] - before[k]).norm()) for k in facts["state_dict_order"]]
    np.testing.assert_allclose(norms, a["param_delta_norms"], rtol=1e-3, atol=1e-5)


def check_row(play: SelfPlay, row: dict, expected: dict, a: dict) -> None:
    logged = play.model.logger.name_to_value
    for key, value in expected["train_metrics"].items():
        assert logged[key] == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert row["last_reward"] == expected["last_reward"]
    assert row["dice"] == expected["final_dice"]
    assert row["episodes"] == sum(expected["dones"])
    assert row["mean_score1"] == pytest.approx(a["score1"].mean(), abs=1e-6)
    assert play.last_map is not None
    assert np.count_nonzero(play.last_map > 0.5) == expected["predicted_voxels"]
    resets = [0] + [i + 1 for i, done in enumerate(expected["dones"]) if done]
    assert resets == expected["resets_at_step"]


def test_the_sampled_moves_replay_exactly(golden, golden_play: SelfPlay) -> None:
    facts, arrays = golden
    here = (torch.__version__.split("+")[0], stable_baselines3.__version__)
    made_with = (facts["torch"].split("+")[0], facts["stable_baselines3"])
    if here != made_with:
        pytest.skip(
            f"left out: sampled moves are those of torch and stable-baselines3 {made_with}, here {here}"
        )
    for i in range(3):
        golden_play.iterate()
        actions = golden_play.model.rollout_buffer.actions.ravel()
        np.testing.assert_array_equal(actions, arrays[f"iter{i}_action1"])


def read_curve(folder) -> list[dict[str, str]]:
    with (folder / "curve.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def same_policies(a, b) -> bool:
    first, second = (load_checkpoint(folder / "policy.pt") for folder in (a, b))
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("mode", ["faithful", "paper"])
def test_a_run_and_its_files(tmp_path, volume, mode) -> None:
    results = train_faithful(config(mode), tmp_path, *volume, StubScorer(40, 85))
    rows = read_curve(tmp_path)
    assert [row["env_steps"] for row in rows] == ["32", "64", "96"]
    assert results["iterations"] == 3
    assert json.loads((tmp_path / "results.json").read_text()) == results
    with np.load(tmp_path / "map.npz") as arrays:
        assert arrays["map"].shape == GRID
        assert arrays["threshold"] == 0.5
    rewards = [float(row["last_reward"]) for row in rows]
    assert results["reward_mean"] == pytest.approx(np.mean(rewards))
    assert results["reward_sd_population"] == pytest.approx(np.std(rewards))


@pytest.mark.parametrize("mode", ["faithful", "paper"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, volume, mode) -> None:
    class Stops(StubScorer):
        """Sends the process a signal in the middle of the second iteration."""

        calls = 0

        def __call__(self, windows):
            Stops.calls += 1
            if Stops.calls == 20:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(windows)

    keys = {"iterations": 5, "save_every": 2, "termination_threshold": 0.99, "max_steps": 40, "table": "off"}
    train_faithful(config(mode, **keys), tmp_path / "whole", *volume, StubScorer(40, 85))
    halted = train_faithful(config(mode, **keys), tmp_path / "halted", *volume, Stops(40, 85))
    assert halted["iterations"] < 5
    assert not (tmp_path / "halted" / "results.json").exists()
    resumed = train_faithful(
        config(mode, **keys), tmp_path / "halted", *volume, StubScorer(40, 85), resume=True
    )
    assert resumed == json.loads((tmp_path / "whole" / "results.json").read_text())
    assert read_curve(tmp_path / "halted") == read_curve(tmp_path / "whole")
    assert same_policies(tmp_path / "halted", tmp_path / "whole")
    for name in ("whole", "halted"):
        with np.load(tmp_path / name / "map.npz") as arrays:
            assert arrays["map"].any()


@pytest.mark.parametrize("mode", ["faithful", "paper"])
def test_a_run_killed_after_its_last_iteration_is_finished(tmp_path, volume, mode, monkeypatch) -> None:
    def killed(*_arguments):
        raise KeyboardInterrupt

    keys = {"iterations": 2, "save_every": 1, "termination_threshold": 0.99, "max_steps": 20, "table": "off"}
    with monkeypatch.context() as patched:
        patched.setattr("spars.original.selfplay._finish", killed)
        with pytest.raises(KeyboardInterrupt):
            train_faithful(config(mode, **keys), tmp_path, *volume, StubScorer(40, 85))
    results = train_faithful(config(mode, **keys), tmp_path, *volume, StubScorer(40, 85), resume=True)
    assert results["iterations"] == 2
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_the_papers_loop(volume) -> None:
    """No reset between iterations, own scores, a frozen copy that changes every 64 moves only."""
    made = config(
        "paper", termination_threshold=2.0, max_steps=40, competitor_update_frequency=64, table="lazy"
    )
    play = SelfPlay(made, *volume, StubScorer(40, 85, GRID))
    weight = "action_net.weight"
    frozen = play._frozen
    assert frozen is play.env.opponent  # type: ignore[union-attr]
    assert frozen is not None
    assert not hasattr(frozen, "optimizer") or frozen.optimizer is None
    first = frozen.state_dict()[weight].clone()
    assert torch.equal(first, play.model.policy.state_dict()[weight])
    row = play.iterate()
    assert (row["episodes"], row["dice"], play.last_map) == (0, None, None)
    assert play.env.duel is not None
    assert play.env.duel.n_steps == 32
    assert torch.equal(frozen.state_dict()[weight], first)
    assert not torch.equal(play.model.policy.state_dict()[weight], first)
    row = play.iterate()
    assert play.env.duel.n_steps == 24
    assert row["episodes"] == 1
    assert row["mean_episode_length"] == 40
    assert row["dice"] is not None
    assert torch.equal(frozen.state_dict()[weight], play.model.policy.state_dict()[weight])
    assert not torch.equal(frozen.state_dict()[weight], first)
    # The map of an episode holds the scores of both players, each at its own place.
    assert play.last_map is not None
    total = play.last_map.sum() / np.prod(WINDOW)
    assert 0 < total < 80


def test_the_originals_opponents(volume) -> None:
    play = SelfPlay(config(), *volume, StubScorer(40, 85))
    assert play.env.competitor.predict(None) == 0  # type: ignore[union-attr]
    play.iterate()
    assert play.env.competitor is play.model  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["faithful", "paper"])
def test_the_compact_policy_plays_as_the_originals(volume, mode) -> None:
    """The same weights say the same of both players' views, draw the same moves and learn the same."""
    target = (40, 34, 25)
    keys = {"termination_threshold": 0.99, "target_size": target, "max_steps": 50}
    whole = SelfPlay(config(mode, **keys), *volume, StubScorer(40, 85), policy="mlp")
    compact = SelfPlay(config(mode, **keys), *volume, StubScorer(40, 85), policy="compact")
    assert compact.env.observation_space.shape == WINDOW
    full = whole.model.policy.state_dict()
    if mode == "paper":  # floats are no image to stable-baselines3, which then leaves the axes in their order
        for name in ("mlp_extractor.policy_net.0.weight", "mlp_extractor.value_net.0.weight"):
            full[name] = full[name].reshape(64, *target).permute(0, 3, 1, 2).reshape(64, -1)
    cast(CompactPolicy, compact.model.policy).load_full_state(full)
    if compact._frozen is not None:
        compact._freeze()
    for play in (whole, compact):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        play.iterate()
    first, second = whole.model.rollout_buffer, compact.model.rollout_buffer
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_allclose(first.values, second.values, atol=1e-4)
    np.testing.assert_allclose(first.log_probs, second.log_probs, atol=1e-4)
    assert whole.env.duel is not None
    assert compact.env.duel is not None
    assert whole.env.duel.actions == compact.env.duel.actions
    for name in ("action_net.weight", "value_net.weight"):
        ours, theirs = compact.model.policy.state_dict()[name], whole.model.policy.state_dict()[name]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_without_a_label_there_is_no_dice(tmp_path, volume) -> None:
    results = train_faithful(config(iterations=1), tmp_path, volume[0], None, StubScorer(40, 85))
    assert results["dice_mean"] is None
    assert read_curve(tmp_path)[0]["dice"] == ""


def test_other_modes_are_refused(volume) -> None:
    with pytest.raises(DataError, match="mode standard with opponent pool"):
        SelfPlay(config("standard"), *volume, StubScorer(40, 85))


def test_a_policy_larger_than_the_memory_is_refused(volume, monkeypatch) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 6_000_000}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    with pytest.raises(
        TrainingError, match=r"takes 24\.2 GB .* the machine has 24\.6 GB: use policy compact"
    ):
        SelfPlay(config(target_size=(256, 256, 180)), *volume, StubScorer(40, 85), policy="mlp")


def test_a_volume_smaller_than_the_grid_is_named(volume, caplog) -> None:
    image, label = (each[:, :, :14] for each in volume)
    play = SelfPlay(config(termination_threshold=2.0), image, label, StubScorer(40, 85))
    assert "the volume has [20, 20, 14] voxels, the grid [20, 20, 16]" in caplog.text
    assert play.iterate()["env_steps"] == 32  # the first competitor's window is cut off at the last slice
    assert play.env.duel is not None
    assert play.env.duel.shown[1].tolist() == [10, 10, 11]
