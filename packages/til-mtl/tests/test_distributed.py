"""Two processes train what one trains, from the start or where one stopped, and one goes on where two stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medshared.command_line import STOPPED
from til_mtl.scripts import main_mtl
from til_mtl.trainer import Trainer

PROGRAM = """
import importlib.util, json, os, signal, sys
import til_mtl.trainer
from til_mtl.scripts import main_mtl
from til_mtl.trainer import Trainer
from medshared.distributed import process_rank

spec = importlib.util.spec_from_file_location("til_conftest", sys.argv[2])
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
til_mtl.trainer.build_network = lambda config, allow_download=False: toys.ToyNetwork(config.task)
plain = Trainer._step
for arguments, code, stop_at in json.loads(sys.argv[1]):
    steps = 0
    def step(self, *given):
        global steps
        steps += 1
        if steps == stop_at and process_rank() == 1:  # one of them is told, both stop
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)
    Trainer._step = step
    found = main_mtl(arguments)
    assert found == code, f"exit code {found}"
"""


@pytest.fixture
def settings(toy_network, toy_keys: dict[str, Any]) -> dict[str, Any]:
    """Batches of 5, 5 and 2 patches of both tasks, of which a process may have one task alone."""
    toy_keys |= {"batch_size": 5, "max_epochs": 2, "img_size": list(toy_keys["img_size"])}
    toy_keys |= {"balancing": "uncertainty", "det_dice": 0.5, "gradient_clip_val": 1.0}
    return toy_keys


def test_two_processes_equal_one(
    settings: dict[str, Any], tmp_path: Path, together, quick_figures, monkeypatch
):
    original = {**settings, "faithful": True, "balancing": "fixed", "accumulate_grad_batches": 2}
    for name, keys in (("now", settings), ("original", original)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(keys))

    def arguments(config: str, name: str, *more: str) -> list[str]:
        return ["--config", str(tmp_path / f"{config}.yaml"), "--output", str(tmp_path / name), *more]

    assert main_mtl(arguments("now", "one")) == 0
    assert main_mtl(arguments("original", "original-one")) == 0
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        assert main_mtl(arguments("now", "one-then-two")) == STOPPED
    calls = [
        (arguments("original", "original-two"), 0, None),
        (arguments("now", "two-then-one"), STOPPED, 4),
        (arguments("now", "one-then-two", "--resume"), 0, None),
    ]
    together(PROGRAM, json.dumps(calls), Path(__file__).with_name("conftest.py"))
    assert main_mtl(arguments("now", "two-then-one", "--resume")) == 0
    compare(tmp_path / "original-one", tmp_path / "original-two")
    for name in ("two-then-one", "one-then-two"):
        compare(tmp_path / "one", tmp_path / name)


def stop_at(patched: pytest.MonkeyPatch, number: int) -> None:
    plain, steps = Trainer._step, []

    def step(self: Trainer, *given: Any) -> None:
        steps.append(1)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGUSR1)
        plain(self, *given)

    patched.setattr(Trainer, "_step", step)


def compare(one: Path, other: Path) -> None:
    """Compare weights, logged numbers and scores of two finished runs."""
    weights = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (one, other)]
    for key, value in weights[0]["state_dict"].items():
        torch.testing.assert_close(weights[1]["state_dict"][key], value, rtol=1e-5, atol=1e-6)
    assert torch.equal(weights[0]["rng"]["torch"], weights[1]["rng"]["torch"])
    rows = [np.genfromtxt(run / "metrics.csv", delimiter=",", names=True) for run in (one, other)]
    assert rows[0].dtype.names == rows[1].dtype.names
    for name in rows[0].dtype.names:
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=1e-5, err_msg=f"{other.name}: {name}")
    found = [json.loads((run / "results.json").read_text())["metrics"] for run in (one, other)]
    for name, values in found[0].items():
        assert found[1][name] == pytest.approx(values, rel=1e-5), name
