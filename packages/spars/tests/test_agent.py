"""Agents: choices by their probabilities, files that come back whole, messages for files that do not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medshared.checkpoints import load_checkpoint
from spars.agent import Agent, AgentMeta, build_policy, load_agent
from spars.config import GameConfig
from spars.errors import CheckpointError

META = AgentMeta("mlp", (12, 12, 10), (4, 4, 4), 2, 2, 3, 1, ("liver_1", "liver_2"))


def seen(meta: AgentMeta, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random((n, *part.shape), np.float32) for name, part in meta.space().spaces.items()}


def agent(kind: str = "mlp", **keys) -> Agent:
    meta = AgentMeta(**{**META.__dict__, "policy": kind})
    torch.manual_seed(3)
    return Agent(build_policy(meta), meta, **keys)


def test_a_configuration_says_what_an_agent_is_shown() -> None:
    config = GameConfig(full_image_size=(48, 48, 32), window_size=(12, 12, 8)).resolved()
    meta = AgentMeta.of(config)
    assert (meta.policy, meta.stride, meta.context, meta.memory) == ("mlp", 2, 3, 2)
    assert meta.lattice.shape == (9, 9, 7)
    assert meta.space()["views"].shape == (2, 6, 6, 4)
    assert AgentMeta.of(config.model_copy(update={"context": 0, "memory": 0})).space().keys() == {
        "views",
        "position",
    }


def test_choices_follow_the_policy_and_its_temperature() -> None:
    one = seen(META, 1)
    many = {name: np.repeat(values, 4000, axis=0) for name, values in one.items()}
    player = agent(seed=1)
    with torch.no_grad():  # choices worth telling apart
        player.policy.action_net.bias += torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 0.0])
    logits = player.policy.get_distribution(player._tensors(one)).distribution.logits[0].detach()
    for temperature in (1.0, 0.5):
        player.temperature = temperature
        found = np.bincount(player(many), minlength=6) / 4000
        np.testing.assert_allclose(found, (logits / temperature).softmax(0).numpy(), atol=0.03)


def test_one_seed_one_sequence_of_choices() -> None:
    many, player = seen(META, 50), agent(seed=1)
    first = player(many)
    assert (player(many) != first).any()
    player.reseed(1)
    np.testing.assert_array_equal(player(many), first)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    player(many)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


def test_predict_takes_one_observation_or_many() -> None:
    many, player = seen(META, 7), agent(seed=2)
    moves, state = player.predict(many)
    assert moves.shape == (7,)
    assert state is None
    one, _ = player.predict({name: values[0] for name, values in many.items()}, deterministic=False)
    assert one.shape == ()
    assert 0 <= one < 6


@pytest.mark.parametrize("kind", ["mlp", "cnn", "table"])
def test_a_saved_agent_comes_back(tmp_path, kind) -> None:
    many, player = seen(META, 20), agent(kind, seed=5)
    player.save(tmp_path / "agent.pt")
    loaded = load_agent(tmp_path / "agent.pt", seed=5)
    assert loaded.meta == player.meta
    np.testing.assert_array_equal(loaded(many), player(many))
    np.testing.assert_array_equal(loaded.value(many), player.value(many))
    assert not loaded.policy.training
    assert set(load_checkpoint(tmp_path / "agent.pt")) == set(player.policy.state_dict())


def changed(path, **keys) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "agent.pt").unlink(), "agent.pt: no such file; `spars train` writes"),
        (lambda f: (f / "agent.json").unlink(), "agent.json: cannot be used as the description of agent.pt"),
        (lambda f: (f / "agent.json").write_text("[]"), "agent.json: cannot be used as the description"),
        (lambda f: (f / "agent.json").write_text("{"), "agent.json: cannot be used as the description"),
        (lambda f: changed(f / "agent.json", policy="rnn"), r"agent.json: cannot be used .*'rnn'"),
        (lambda f: changed(f / "agent.json", window=[14, 4, 4]), "agent.json: .*does not fit a volume"),
        (lambda f: changed(f / "agent.json", stride=0), "agent.json: cannot be used"),
        (lambda f: changed(f / "agent.json", colour=1), "agent.json: .*colour"),
        (lambda f: changed(f / "agent.json", memory=2), "agent.pt: .*"),
        (lambda f: (f / "agent.pt").write_bytes(b"PK\x03\x04"), "agent.pt: the checkpoint is cut off"),
        (lambda f: (f / "agent.pt").write_bytes(b""), "agent.pt: the file is empty"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message) -> None:
    agent().save(tmp_path / "agent.pt")
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_agent(tmp_path / "agent.pt")


def test_an_older_description_without_cases_is_read(tmp_path) -> None:
    agent().save(tmp_path / "agent.pt")
    found = json.loads((tmp_path / "agent.json").read_text())
    assert found.pop("cases") == ["liver_1", "liver_2"]
    (tmp_path / "agent.json").write_text(json.dumps(found))
    assert load_agent(tmp_path / "agent.pt").meta.cases == ()


@pytest.mark.gpu
def test_an_agent_on_a_gpu_draws_with_its_own_generator() -> None:
    many, player = seen(META, 30), agent(seed=1)
    expected, worth = player(many), player.value(many)
    player.policy.to("cuda")
    player.reseed(1)
    assert (player(many) == expected).mean() > 0.9
    np.testing.assert_allclose(player.value(many), worth, atol=1e-3)
