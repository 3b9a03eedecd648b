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

from infection_mt.scripts import train_multitask
from infection_mt.trainer import Trainer
from medshared.command_line import STOPPED

PROGRAM = """
import json, os, signal, sys
from infection_mt.scripts import train_multitask
from infection_mt.trainer import Trainer
from medshared.distributed import process_rank

plain = Trainer.step
for arguments, code, stop_at in json.loads(sys.argv[1]):
    steps = 0
    def step(self, *given):
        global steps
        steps += 1
        if steps == stop_at and process_rank() == 1:  # one of them is told, both stop
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)
    Trainer.step = step
    found = train_multitask(arguments)
    assert found == code, f"exit code {found}"
"""


@pytest.fixture
def config(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Write a configuration: five batches an epoch that no two processes share evenly, dropout, learned weights."""
    tiny_settings["data"]["batch_size"] = 9
    tiny_settings["multitask"]["loss_weighting"] = "uncertainty"
    # Rounding grows through batch norm over few samples; small steps keep it small.
    tiny_settings["optimizer"] = {"name": "sgd", "lr": 1e-5}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_settings))
    return path


def test_two_processes_equal_one(
    config: Path, tmp_path: Path, together, quick_figures, quick_runs, monkeypatch
):
    def arguments(name: str, *more: str) -> list[str]:
        return ["--config", str(config), "--device", "cpu", "--output", str(tmp_path / name), *more]

    assert train_multitask(arguments("one")) == 0
    with monkeypatch.context() as patched:
        stop_at(patched, 3)
        assert train_multitask(arguments("one-then-two")) == STOPPED
    calls = [
        (arguments("two-then-one"), STOPPED, 4),
        (arguments("one-then-two", "--resume"), 0, None),
    ]
    together(PROGRAM, json.dumps(calls))
    assert train_multitask(arguments("two-then-one", "--resume")) == 0
    for name in ("two-then-one", "one-then-two"):
        compare(tmp_path / "one", tmp_path / name)


def stop_at(patched: pytest.MonkeyPatch, number: int) -> None:
    plain, steps = Trainer.step, []

    def step(self: Trainer, *given: Any) -> Any:
        steps.append(1)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)

    patched.setattr(Trainer, "step", step)


def compare(one: Path, other: Path) -> None:
    """Compare weights, logged numbers and predictions of two finished runs."""
    weights = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (one, other)]
    for key, value in weights[0]["model_state"].items():
        torch.testing.assert_close(weights[1]["model_state"][key], value, rtol=1e-5, atol=1e-6)
    assert torch.equal(weights[0]["rng"]["torch"], weights[1]["rng"]["torch"])
    rows = [np.genfromtxt(run / "metrics.csv", delimiter=",", names=True) for run in (one, other)]
    assert rows[0].dtype.names == rows[1].dtype.names
    for name in rows[0].dtype.names:
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=1e-5, err_msg=f"{other.name}: {name}")
    found = [json.loads((run / "results.json").read_text())["test_metrics"] for run in (one, other)]
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
