"""Two processes train the classifier that one trains, from the start or where one stopped, and the other way round."""

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

from medshared.command_line import STOPPED
from medshared.configuration import dump_yaml
from spars import cli, mil
from spars.classifier_data import CropTask
from spars.scripts import play, train_classifier
from spars.synthetic import write_synthetic

PROGRAM = """
import json, os, signal, sys
import spars.mil
from medshared.distributed import process_rank
from spars.classifier_data import CropTask
from spars.scripts import train_classifier

spars.mil.WARM_STEPS = 3
plain = CropTask.loss
for arguments, code, stop_at in json.loads(sys.argv[1]):
    steps = 0
    def loss(self, *given):
        global steps
        steps += 1
        if steps == stop_at and process_rank() == 1:  # one of them is told, both stop
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)
    CropTask.loss = loss
    found = train_classifier("ex1_8in", arguments)
    assert found == code, f"exit code {found}"
"""
WEIGHTS = "model_weights.pth"
SIZE = (24, 24, 16)


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., list[str]]:
    """Write configurations of all three ways to train; batches have 9 windows or crops, validation's last has fewer."""
    write_synthetic(tmp_path / "data", 9, 3, 0, size=SIZE, geometry="plain")
    table = tmp_path / "data" / "labels.csv"
    table.write_text(table.read_text().replace("liver_11,1", "liver_11,0"))
    common: dict[str, Any] = {
        "data_dir": str(tmp_path / "data"),
        "device": "cpu",
        "full_image_size": SIZE,
        "crop_size": (6, 6, 4),
        "width": 4,
        "architecture": "window",
        "target_size": "native",
        "batch_size": 3,
        "crop_no": 3,
        "mil_crops": 3,
        "train_batches": 3,
        "val_batches": 3,
        "weights_out": WEIGHTS,
    }
    keys = {
        "mask": {"hu_window": (-60, 160), "epochs": 5, "patience": 1},
        "csv": {"hu_window": (-60, 160), "epochs": 2, "label_source": "csv"},
        # The intensities are raw.
        "faithful": {"mode": "faithful", "epochs": 2, "train_end": 9, "val_start": 9, "val_end": 12},
    }
    for name, own in keys.items():
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(common | own))

    def given(config: str, folder: str, *more: str) -> list[str]:
        return ["--config", str(tmp_path / f"{config}.yaml"), "--output", str(tmp_path / folder), *more]

    return given


def test_two_processes_equal_one(arguments, tmp_path: Path, together, quick_figures, monkeypatch):
    monkeypatch.setattr(mil, "WARM_STEPS", 3)
    for name in ("mask", "csv", "faithful"):
        assert train_classifier("ex1_8in", arguments(name, f"{name}-one")) == 0
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        assert train_classifier("ex1_8in", arguments("mask", "one-then-two")) == STOPPED
    calls = [
        (arguments("csv", "csv-two"), 0, None),
        (arguments("faithful", "faithful-two"), 0, None),
        (arguments("mask", "two-then-one"), STOPPED, 4),
        (arguments("mask", "one-then-two", "--resume"), 0, None),
    ]
    together(PROGRAM, json.dumps(calls))
    assert train_classifier("ex1_8in", arguments("mask", "two-then-one", "--resume")) == 0
    for name in ("csv", "faithful"):
        compare(tmp_path / f"{name}-one", tmp_path / f"{name}-two")
    for name in ("two-then-one", "one-then-two"):
        compare(tmp_path / "mask-one", tmp_path / name)


def stop_at(patched: pytest.MonkeyPatch, number: int) -> None:
    plain, steps = CropTask.loss, []

    def loss(self: CropTask, *given: Any) -> Any:
        steps.append(1)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, *given)

    patched.setattr(CropTask, "loss", loss)


def compare(one: Path, other: Path) -> None:
    """Compare last and kept weights, logged numbers and results of two finished runs."""
    states = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (one, other)]
    kept = [torch.load(run / WEIGHTS, weights_only=True) for run in (one, other)]
    for first, second in ([state["network"] for state in states], kept):
        for key, value in first.items():
            torch.testing.assert_close(
                second[key], value, rtol=1e-5, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )
    if "rng" in states[0]:
        assert torch.equal(states[0]["rng"]["torch"], states[1]["rng"]["torch"])
    rows = [np.genfromtxt(run / "metrics.csv", delimiter=",", names=True) for run in (one, other)]
    assert rows[0].dtype.names == rows[1].dtype.names
    for name in rows[0].dtype.names:
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=1e-5, err_msg=f"{other.name}: {name}")
    found = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    for key in ("epochs", "best_epoch", "steps", "cases"):
        assert found[1][key] == found[0][key], key
    assert found[1]["metrics"] == pytest.approx(found[0]["metrics"], rel=1e-5)


@pytest.mark.parametrize("command", ["play", "train"])
def test_self_play_runs_in_one_process(command, tmp_path, monkeypatch, capsys):
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
    }
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    flags = ["--data_dir", str(tmp_path), "--output", str(tmp_path / "run")]
    assert (play("best_RL", flags) if command == "play" else cli.main(["train", *flags])) == 1
    told = capsys.readouterr().err
    assert "self-play (PPO) runs in one process, slurm started 2" in told
    assert "seeds, presets and folds are divided by job arrays" in told
    assert not (tmp_path / "run").exists()
