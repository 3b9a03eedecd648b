"""The loop: it learns, stops, and goes on exactly where it was."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from infection_mt.config import Config
from infection_mt.data.prepare import prepare_data
from infection_mt.training import (
    RunInterruptedError,
    RunOptions,
    Trainer,
    TrainingError,
    train_run,
)
from medshared.files import read_json
from medshared.runs import RunDirectory
from medshared.tables import read_jsonl

CPU = RunOptions(device="cpu")


class StopAt:
    """Asks to stop after so many looks, as a signal would."""

    name = "SIGTERM"

    def __init__(self, looks: int | None = None) -> None:
        self.looks, self.seen = looks, 0

    @property
    def requested(self) -> bool:
        self.seen += 1
        return self.looks is not None and self.seen > self.looks


class Sink:
    def log(self, row, step):
        pass


def changed(settings: dict, **sections) -> dict:
    settings = copy.deepcopy(settings)
    for section, values in sections.items():
        if isinstance(values, dict):
            settings.setdefault(section, {}).update(values)
        else:
            settings[section] = values
    return settings


def make_trainer(settings: dict, folder: Path, *, resume: bool = False) -> Trainer:
    config = Config.model_validate(settings).resolved()
    run = RunDirectory(folder).create(config.model_dump(mode="json"), resume=resume)
    return Trainer(config, prepare_data(config), run, RunOptions(device="cpu", resume=resume))


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    state = {f"model.{k}": v.clone() for k, v in trainer.network.state_dict().items()}
    for i, values in trainer.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": torch.as_tensor(v).clone() for k, v in values.items()}
    if trainer.weighting is not None:
        state["weighting"] = trainer.weighting.log_variance.detach().clone()
    return state


@pytest.mark.parametrize(
    ("stop_after", "weighting", "warmup"), [(1, "fixed", 0), (3, "uncertainty", 0), (6, "fixed", 1)]
)
def test_a_stopped_run_ends_with_the_same_bits(tiny_settings, tmp_path, stop_after, weighting, warmup):
    settings = changed(tiny_settings, multitask={"loss_weighting": weighting}, training={"epochs": 3})
    settings["scheduler"]["warmup_epochs"] = warmup
    settings["data"]["balance_sampler"] = True
    whole = make_trainer(settings, tmp_path / "whole")
    whole.fit(StopAt(), Sink())

    first = make_trainer(settings, tmp_path / "cut")
    with pytest.raises(RunInterruptedError, match="--resume continues"):
        first.fit(StopAt(stop_after), Sink())
    torch.manual_seed(999)  # what happens in between must not matter
    np.random.seed(999)  # noqa: NPY002
    second = make_trainer(settings, tmp_path / "cut", resume=True)
    second.fit(StopAt(), Sink())

    expected, found = state_of(whole), state_of(second)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert whole.run.metrics_rows == second.run.metrics_rows
    assert whole.progress == second.progress


def test_same_seed_same_numbers_other_seed_others(tiny_settings, tmp_path):
    rows = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        trainer = make_trainer(changed(tiny_settings, seed=seed), tmp_path / name)
        trainer.fit(StopAt(), Sink())
        rows.append(trainer.run.metrics_rows)
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


@pytest.mark.parametrize("task", ["multitask", "classification", "regression"])
def test_a_run_writes_what_the_guide_promises(tiny_settings, tmp_path, task):
    folder = tmp_path / "run"
    settings = changed(tiny_settings, task={"type": task})
    results = train_run(Config.model_validate(settings), folder, CPU)
    for name in (
        "config.yaml", "environment.json", "log.txt", "metrics.csv", "history.json", "results.json", "report.html",
        "checkpoints/best.pt", "checkpoints/last.pt", "test_predictions.npz", "test_metadata.jsonl",
        "temporal_metrics.json", "training_curves.png", "training_summary.txt",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    assert (
        json.loads((folder / "results.json").read_text())["test_metrics"].keys()
        == results["test_metrics"].keys()
    )
    with np.load(folder / "test_predictions.npz", allow_pickle=False) as arrays:
        n = len(arrays["cls_targets"])
    assert n == results["frames"]["test"] == len(read_jsonl(folder / "test_metadata.jsonl"))
    best = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)
    assert {"model_state", "optimizer_state", "scaler_state", "config", "epoch", "val_metrics"} <= best.keys()
    assert all(isinstance(value, float) for value in best["val_metrics"].values())
    if task == "multitask":
        expected = [
            "total_loss",
            "cls_loss",
            "reg_loss",
            "cls_accuracy",
            "cls_precision",
            "cls_recall",
            "cls_f1",
            "cls_auc",
            "reg_mae",
            "reg_rmse",
            "reg_mse",
            "combined",
        ]
        assert list(results["test_metrics"])[:12] == expected
        assert (folder / "prediction_scatter.png").exists()
        assert (folder / "validation_metrics.png").exists()


def test_the_test_set_is_scored_with_the_best_epoch_unless_faithful(tiny_settings, tmp_path):
    settings = changed(tiny_settings, training={"epochs": 4}, optimizer={"lr": 3e-3})
    outcomes = {}
    for which in ("best", "last"):
        results = train_run(
            Config.model_validate(changed(settings, test_weights=which)), tmp_path / which, CPU
        )
        outcomes[which] = results["best_epoch"]
        rows = RunDirectory(tmp_path / which).metrics_rows
        best_epoch = max(rows, key=lambda row: row["val_combined"])["epoch"]
        assert results["best_epoch"] == (best_epoch if which == "best" else 4)
    assert Config.model_validate(changed(settings, faithful=True)).resolved().test_weights == "last"


def test_early_stopping(tiny_settings, tmp_path):
    settings = changed(
        tiny_settings, training={"epochs": 30, "early_stopping": {"patience": 2, "min_delta": 10.0}}
    )
    trainer = make_trainer(settings, tmp_path / "run")
    trainer.fit(StopAt(), Sink())
    assert len(trainer.run.metrics_rows) == 3


def test_frozen_backbone_keeps_its_statistics_unless_faithful(tiny_settings, tmp_path):
    for faithful, moves in ((False, False), (True, True)):
        settings = changed(tiny_settings, faithful=faithful, model={"train_backbone": False})
        settings["data"]["batch_size"] = 4
        trainer = make_trainer(settings, tmp_path / str(faithful))
        before = trainer.network.backbone.bn1.running_mean.clone()
        trainer.fit(StopAt(), Sink())
        assert (not torch.equal(before, trainer.network.backbone.bn1.running_mean)) == moves


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"drop_last": True, "batch_size": 500}}, "leaves no batch"),
        ({"selection": {"metric": "cls_acu"}}, "expected one of"),
        ({"optimizer": {"lr": 1e12}, "training": {"grad_clip": None, "epochs": 6}}, "not finite"),
        ({"data": {"infected_label": 7}}, "do not fit model.num_classes"),
    ],
)
def test_what_cannot_be_trained_is_said(tiny_settings, tmp_path, sections, message):
    with pytest.raises(TrainingError, match=message):
        make_trainer(changed(tiny_settings, **sections), tmp_path / "run").fit(StopAt(), Sink())


def test_resume_under_other_settings_is_refused(tiny_settings, tmp_path):
    make_trainer(tiny_settings, tmp_path / "run").fit(StopAt(), Sink())
    other = changed(tiny_settings, optimizer={"lr": 5e-4}, training={"epochs": 5})
    with pytest.raises(TrainingError, match="'optimizer' differs"):
        make_trainer(other, tmp_path / "run", resume=True).fit(StopAt(), Sink())


def test_one_class_validation_is_undefined_not_zero(tiny_settings, tmp_path):
    """With an infected-only validation side the AUC is undefined; the run says so and goes on."""
    trainer = make_trainer(changed(tiny_settings, selection={"metric": "cls_auc"}), tmp_path / "run")
    table = trainer.data.tables["val"]
    tables = {**trainer.data.tables, "val": table.subset(table.infected())}
    object.__setattr__(trainer.data, "tables", tables)
    trainer.columns["val"] = trainer._columns("val")
    trainer.fit(StopAt(), Sink())
    assert all(np.isnan(row.get("val_cls_auc", np.nan)) for row in trainer.run.metrics_rows)
    assert trainer.load_best() == 2


@pytest.mark.slow
def test_it_learns_both_tasks(tmp_path):
    """On 24 held-out-by-stack synthetic fields a class the model beats chance and the constant time by far."""
    from infection_mt.demo import demo_config
    from infection_mt.synthetic import SyntheticParams, generate

    data = generate(tmp_path / "data", SyntheticParams(seed=5, stacks_per_class=40))
    settings = demo_config(data, tmp_path, seed=5).model_dump(mode="json", exclude_unset=True)
    settings = changed(settings, training={"epochs": 8}, metrics={"bootstrap_resamples": 0})
    results = train_run(Config.model_validate(settings), tmp_path / "run", CPU)
    assert results["test_metrics"]["cls_auc"] > 0.9
    assert results["test_metrics"]["reg_mae"] < 0.75 * results["baseline"]["mean_mae"]


SCRIPT = Path(__file__).parents[1] / "train_multitask.py"


@pytest.mark.slow
def test_signals_and_kills_leave_a_run_that_ends_as_if_undisturbed(tiny_settings, tmp_path):
    """SIGUSR1 stops with code 75, SIGKILL at any moment; the resumed run equals the undisturbed one."""
    settings = changed(tiny_settings, training={"epochs": 6})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings))
    train_run(Config.model_validate(settings), tmp_path / "whole", CPU)
    command = [
        sys.executable,
        str(SCRIPT),
        "--config",
        str(config),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "cut"),
    ]
    # As many as here: sums over another number of threads round otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for kind in (signal.SIGUSR1, signal.SIGKILL):
        process = subprocess.Popen([*command, "--resume"], env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        rows = len(RunDirectory(tmp_path / "cut").metrics_rows) if (tmp_path / "cut").exists() else 0
        while time.monotonic() < deadline and process.poll() is None:
            if len(RunDirectory(tmp_path / "cut").metrics_rows) >= rows + 1:
                break
            time.sleep(0.02)
        process.send_signal(kind)
        _, stderr = process.communicate(timeout=60)
        if kind == signal.SIGUSR1:
            assert process.returncode == 75, stderr
            assert "--resume continues" in stderr
    subprocess.run([*command, "--resume"], env=environment, check=True, capture_output=True)
    expected, found = (
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["model_state"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    first, second = (read_json(tmp_path / name / "results.json") for name in ("whole", "cut"))
    assert first["test_metrics"] == second["test_metrics"]
