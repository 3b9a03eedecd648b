"""Two processes train what one trains, from the start or where one stopped, and one goes on where two stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from advmil.scripts import main_script
from advmil.trainer import Trainer
from medshared.command_line import STOPPED

# A number added to all scores before a softmax changes nothing: its gradient is rounding, which Adam enlarges.
BEFORE_SOFTMAX = ("attention_c.bias", "pool.fc2.bias")
PROGRAM = """
import json, os, signal, sys
from advmil.scripts import main_script
from advmil.trainer import Trainer
from medshared.distributed import process_rank

plain = Trainer.train_group
for arguments, code, stop_at in json.loads(sys.argv[1]):
    steps = 0
    def train_group(self, *given):
        global steps
        steps += 1
        if steps == stop_at and process_rank() == 1:  # one of them is told, both stop
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)
    Trainer.train_group = train_group
    found = main_script(arguments)
    assert found == code, f"exit code {found}"
"""


def test_two_processes_equal_one(
    tiny_settings: Callable[..., dict[str, Any]], tmp_path: Path, together, quick_figures, monkeypatch
):
    """Groups of five bags, the last one smaller; Cox compares the bags of a group, AdvMIL has two optimisers."""
    common = {"bp_every_batch": 5, "epochs": 2, "draws": "bag", "opt_netG_lr": 1e-3}
    runs = {
        "adv": ("adv", tiny_settings(bcb_mode="abmil", gen_updates=2, **common)),
        "cox": ("base", tiny_settings(bcb_mode="abmil", task="surv_cox", **common)),
    }
    for name, (_, keys) in runs.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(keys))

    def arguments(name: str, folder: str, *more: str) -> list[str]:
        config = ["--config", str(tmp_path / f"{name}.yaml"), "--handler", runs[name][0]]
        return [*config, "--output", str(tmp_path / folder), *more]

    assert main_script(arguments("adv", "one")) == 0
    assert main_script(arguments("cox", "cox-one")) == 0
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        assert main_script(arguments("adv", "one-then-two")) == STOPPED
    calls = [
        (arguments("cox", "cox-two"), 0, None),
        (arguments("adv", "two-then-one"), STOPPED, 5),
        (arguments("adv", "one-then-two", "--resume"), 0, None),
    ]
    together(PROGRAM, json.dumps(calls))
    assert main_script(arguments("adv", "two-then-one", "--resume")) == 0
    compare(tmp_path / "cox-one", tmp_path / "cox-two")
    for name in ("two-then-one", "one-then-two"):
        compare(tmp_path / "one", tmp_path / name)


def stop_at(patched: pytest.MonkeyPatch, number: int) -> None:
    plain, steps = Trainer.train_group, []

    def train_group(self: Trainer, *given: Any) -> dict[str, float]:
        steps.append(1)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)

    patched.setattr(Trainer, "train_group", train_group)


def compare(one: Path, other: Path) -> None:
    """Compare weights of all networks, logged numbers and scores of two finished runs."""
    states = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (one, other)]
    for name, network in states[0]["networks"].items():
        for key, value in network["model"].items():
            if key.endswith(BEFORE_SOFTMAX):
                continue
            torch.testing.assert_close(states[1]["networks"][name]["model"][key], value, rtol=1e-5, atol=1e-6)
    assert torch.equal(states[0]["rng"]["torch"], states[1]["rng"]["torch"])
    rows = [np.genfromtxt(run / "metrics.csv", delimiter=",", names=True) for run in (one, other)]
    assert rows[0].dtype.names == rows[1].dtype.names
    for name in rows[0].dtype.names:
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=1e-5, err_msg=f"{other.name}: {name}")
    found = [json.loads((run / "results.json").read_text())["sets"] for run in (one, other)]
    for name, values in found[0].items():
        left, right = (
            {key: np.nan if value is None else value for key, value in each.items()}
            for each in (found[1][name], values)
        )
        assert left == pytest.approx(right, rel=1e-5, nan_ok=True), name
