"""Loggers: silent by default, offline unless told otherwise."""

from __future__ import annotations

import sys
import types

import pytest

from medshared.loggers import open_logger

ROW = {"loss": 0.5, "epoch": 1, "auc": float("nan"), "name": "text"}


def test_csv_needs_nothing_and_writes_nothing(tmp_path):
    logger = open_logger("csv", tmp_path, project="p")
    logger.log(ROW, 1)
    logger.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_writes_the_finite_numbers(tmp_path):
    logger = open_logger("tensorboard", tmp_path, project="p")
    logger.log(ROW, 1)
    logger.log({"loss": 0.25}, 2)
    logger.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["epoch", "loss"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def fake_wandb(calls: dict) -> types.ModuleType:
    module = types.ModuleType("wandb")

    class Run:
        def log(self, row, step):
            calls.setdefault("rows", []).append((step, row))

        def finish(self):
            calls["finished"] = True

    def init(**settings):
        calls["init"] = settings
        return Run()

    module.init = init
    return module


@pytest.mark.parametrize(("asked", "mode"), [(None, "offline"), ("online", "online")])
def test_wandb_is_offline_unless_the_user_says_otherwise(tmp_path, monkeypatch, asked, mode):
    calls: dict = {}
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(calls))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if asked:
        monkeypatch.setenv("WANDB_MODE", asked)
    logger = open_logger("wandb", tmp_path, project="p", config={"lr": 0.1})
    logger.log(ROW, 3)
    logger.close()
    assert calls["init"]["mode"] == mode
    assert calls["init"]["config"] == {"lr": 0.1}
    assert calls["rows"] == [(3, {"loss": 0.5, "epoch": 1.0})]
    assert calls["finished"]


@pytest.mark.parametrize("kind", ["wandb", "tensorboard"])
def test_an_absent_package_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=f"pip install {kind}"):
        open_logger(kind, tmp_path, project="p")
