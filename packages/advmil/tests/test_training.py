"""Runs from start to end: files, modes, resume."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from advmil.config import Config
from advmil.config_rules import with_task_format
from advmil.errors import TrainingError
from advmil.outputs import read_metrics_text
from advmil.predictions import from_arrays
from advmil.run_data import load_run_data
from advmil.test_mode import run_test_mode
from advmil.trainer import Trainer
from advmil.training import train_run as train_and_report
from medshared.command_line import RunInterruptedError
from medshared.runs import RunDirectory, StopSignal

train_run = partial(train_and_report, report=False)  # the pictures have tests of their own
DISCRETE = {"task": "disc_gansurv", "time_format": "quantile", "gen_dims": "8-4", "disc_nety_in_dim": 4}


def make(settings, **changes) -> Config:
    return Config.model_validate(settings(**changes))


def text(results) -> str:
    """Compare by text: an undefined metric is NaN, which does not equal itself."""
    return json.dumps(results["sets"])


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_writes_the_original_files_and_those_of_the_house(tiny_run, golden_json):
    names = file_names(tiny_run)
    assert set(golden_json("outputs")["adv"]["files"]) <= names
    house = {"config.yaml", "environment.json", "log.txt", "metrics.csv", "predictions.csv", "results.json"}
    assert house <= names
    results = json.loads((tiny_run / "results.json").read_text())
    golden = golden_json("outputs")["adv"]["wandb_keys"]
    for name in ("train", "validation", "test"):
        expected = {key.rsplit("/", 1)[1] for key in golden if key.startswith(f"bestckpt/train/{name}/")}
        assert expected <= set(results["sets"][name])


def test_checkpoints_have_the_original_structure(tiny_run, golden_json):
    golden = golden_json("outputs")["checkpoint"]
    for letter in "GD":
        state = torch.load(tiny_run / f"train_model{letter}-best.pth", weights_only=True)
        assert sorted(state) == golden["keys"]
        assert sorted(state["optimizer"]) == golden["optimizer_keys"]
    state = torch.load(tiny_run / "train_modelG-best.pth", weights_only=True)
    assert len(state["optimizer"]["param_groups"]) == golden["n_groups"]
    assert state["optimizer"]["param_groups"][0]["weight_decay"] == 0


def test_predictions_and_metrics_agree(tiny_run):
    shown = read_metrics_text(tiny_run / "train_metrics-best.txt")
    table = pd.read_csv(tiny_run / "train_best_pred_test.csv", dtype={"patient_id": str})
    with np.load(tiny_run / "train_best_pred_test_dist.npz", allow_pickle=False) as file:
        assert (file["patient_id"] == table["patient_id"]).all()
        assert np.allclose(np.median(file["pred_dist"], axis=1), table["pred_t"], atol=1e-6)
        assert file["pred_dist"].std(axis=1).min() > 0
    late = table["t"] - table["pred_t"]
    loss = np.where(table["e"] == 1, late.abs(), late.clip(lower=0)).mean()
    assert shown["test"]["loss"] == pytest.approx(loss, rel=1e-5)
    with np.load(tiny_run / "predictions_test.npz", allow_pickle=False) as file:
        arrays = from_arrays(dict(file))
    assert np.allclose(arrays.point_days, table["pred_t"] * arrays.unit_days, rtol=1e-5)


def test_the_training_table_is_in_the_shuffled_order(tiny_run, tiny_cohort):
    table = pd.read_csv(tiny_run / "train_best_pred_train.csv", dtype={"patient_id": str})
    with np.load(tiny_cohort.splits.replace("{}", "0"), allow_pickle=False) as split:
        patients = split["train_patients"].tolist()
    assert sorted(table["patient_id"]) == sorted(patients)
    assert table["patient_id"].tolist() != patients


@pytest.mark.parametrize("backbone", ["patch", "cluster", "graph"])
def test_every_backbone_trains(backbone, tiny_settings, tmp_path):
    results = train_run(
        make(tiny_settings, bcb_mode=backbone, epochs=2, es_warmup=0), "adv", tmp_path / "run"
    )
    assert all(
        math.isfinite(results["sets"]["test"][key]) for key in ("c_index", "loss_recon_org", "avg_fake")
    )


@pytest.mark.parametrize(
    ("handler", "changes"),
    [
        ("adv", DISCRETE),
        ("base", {"task": "surv_reg"}),
        ("base", {"task": "surv_cox"}),
        ("base", {"task": "surv_nll", "pdh_dims": "8-4"}),
        ("adv", {"gen_noi_noise": "0-0", "times_test_sample": 1}),
        (
            "adv",
            {"time_format": "origin", "gen_out_scale": "exp", "loss_recon_gamma": 1.0, "opt_netG": "radam"},
        ),
        ("adv", {"loss_rank_coef": 0.1, "gen_updates": 2, "loss_gan_coef": 0.0}),
        ("adv", {"monitor_metrics": "ci", "val_noise": "mean", "eval_test_each_epoch": True}),
    ],
)
def test_every_task_trains(handler, changes, tiny_settings, tmp_path, golden_json):
    config = with_task_format(
        make(tiny_settings, bcb_mode="abmil", epochs=2, es_warmup=0, **changes), handler
    )
    results = train_run(config, handler, tmp_path / "run")
    assert math.isfinite(results["sets"]["test"]["c_index"])
    if handler == "base":
        golden = golden_json("outputs")[{"surv_nll": "nll"}.get(config.task, "cox")]["files"]
        assert set(golden) <= file_names(tmp_path / "run")


@pytest.mark.parametrize(("mode", "key"), [("UD+LD", "semi_both"), ("LD", "semi_ld"), ("UD", "semi_ud")])
def test_semi_supervised_runs(mode, key, tiny_settings, tmp_path, golden_json):
    keys = {
        "semi_training": True,
        "semi_training_mode": mode,
        "ssl_epochs": 4,
        "ssl_kfold": 2,
        "ssl_num_labeled": 0.5,
    }
    results = train_run(make(tiny_settings, bcb_mode="abmil", **keys), "adv", tmp_path / "run")
    golden = golden_json("outputs")[key]
    assert set(golden["files"]) <= file_names(tmp_path / "run")
    assert set(results["sets"]) == set(golden["metrics"])


def test_hidden_labels_are_never_used(tiny_settings, tmp_path):
    keys = {
        "semi_training": True,
        "ssl_epochs": 2,
        "ssl_kfold": 2,
        "ssl_num_labeled": 0.5,
        "bcb_mode": "abmil",
    }
    config = make(tiny_settings, **keys).resolved()
    outcomes = []
    for number in range(2):
        data = load_run_data(config)
        if number:  # other labels for the unlabelled patients
            hidden = data.rows(data.sets["unlabeled_train"])
            data.labels.t[hidden] = 0.123
            data.labels.e[hidden] = 1 - data.labels.e[hidden]
        run = RunDirectory(tmp_path / f"run{number}").create({})
        trainer = Trainer(config, "adv", data, run)
        groups = trainer.groups(0)
        for patients in groups:
            bags = [bag for _, bag in data.source.iterate(patients)]
            trainer.train_group(patients, bags)
        outcomes.append({name: value.clone() for name, value in trainer.network.state_dict().items()})
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])


def test_test_mode_masks_regions(tiny_run, tiny_settings, tmp_path):
    keys = {
        "bcb_mode": "abmil",
        "test": True,
        "test_load_path": str(tiny_run),
        "test_save_path": "unused",
        "test_mask_ratio": 0.5,
        "test_zero_noise": True,
    }
    results = run_test_mode(make(tiny_settings, **keys), tmp_path / "test")
    names = file_names(tmp_path / "test")
    assert {"test_mode_best_pred_exec-test.csv", "test_mode_metrics-best.txt", "print_config.txt"} <= names
    assert all(4 <= kept <= 12 for kept in results["regions_kept"].values())
    plain = run_test_mode(make(tiny_settings, **(keys | {"test_mask_ratio": 0.0})), tmp_path / "plain")
    assert text(plain) != text(results)
    again = run_test_mode(make(tiny_settings, **keys), tmp_path / "again")
    assert text(again) == text(results)


def stop_after(groups: int, monkeypatch) -> None:
    """Ask a run to stop after so many groups."""
    count = {"n": 0}
    original = Trainer.train_group

    def counted(self, *arguments):
        count["n"] += 1
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "train_group", counted)
    monkeypatch.setattr(
        StopSignal,
        "requested",
        property(lambda self: count["n"] == groups, lambda self, value: None),
        raising=False,
    )
    monkeypatch.setattr(
        StopSignal, "name", property(lambda self: "SIGTERM", lambda self, value: None), raising=False
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Train a run that nothing stops, once for each backbone; return its folder and results."""
    known = {}

    def run(config):
        if config.bcb_mode not in known:
            folder = tmp_path_factory.mktemp("whole") / "run"
            known[config.bcb_mode] = folder, train_run(config, "adv", folder)
        return known[config.bcb_mode]

    return run


@pytest.mark.parametrize("backbone", ["abmil", "patch"])
@pytest.mark.parametrize("groups", [1, 4, 7])
def test_a_stopped_run_goes_on_bit_for_bit(backbone, groups, tiny_settings, tmp_path, monkeypatch, whole_run):
    config = make(tiny_settings, bcb_mode=backbone, epochs=3)
    folder, whole = whole_run(config)
    with monkeypatch.context() as patched:
        stop_after(groups, patched)
        with pytest.raises(RunInterruptedError, match="--resume continues"):
            train_run(config, "adv", tmp_path / "cut")
    resumed = train_run(config, "adv", tmp_path / "cut", resume=True)
    assert text(resumed) == text(whole)
    for name in ("train_modelG-best.pth", "train_modelD-last.pth"):
        a, b = (torch.load(run / name, weights_only=True)["model"] for run in (folder, tmp_path / "cut"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    metrics = [(run / "metrics.csv").read_text() for run in (folder, tmp_path / "cut")]
    assert metrics[0] == metrics[1]


def test_resume_refuses_another_configuration(tiny_settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        with pytest.raises(RunInterruptedError):
            train_run(make(tiny_settings, bcb_mode="abmil"), "adv", tmp_path / "run")
    with pytest.raises(TrainingError, match="opt_netG_lr differ"):
        train_run(
            make(tiny_settings, bcb_mode="abmil", opt_netG_lr=0.1), "adv", tmp_path / "run", resume=True
        )


def test_the_last_group_is_kept_unless_faithful(tiny_settings, tmp_path):
    config = make(tiny_settings, bcb_mode="abmil", bp_every_batch=5).resolved()
    data = load_run_data(config)
    run = RunDirectory(tmp_path / "run").create({})
    n = len(data.sets["train"])
    assert n % 5
    assert sum(len(group) for group in Trainer(config, "adv", data, run).groups(0)) == n
    faithful = config.model_copy(update={"drop_last_group": True})
    assert sum(len(group) for group in Trainer(faithful, "adv", data, run).groups(0)) == n - n % 5


def test_faithful_with_too_few_bags_says_so(tiny_settings, tmp_path):
    config = make(tiny_settings, bcb_mode="abmil", bp_every_batch=64, faithful=True)
    with pytest.raises(
        TrainingError, match="drop_last_group leaves no group: 16 training patients, bp_every_batch 64"
    ):
        train_run(config, "adv", tmp_path / "run")


def test_warm_up_longer_than_the_run_falls_back_to_the_last_epoch(tiny_settings, tmp_path):
    results = train_run(make(tiny_settings, bcb_mode="abmil", epochs=2, es_warmup=9), "adv", tmp_path / "run")
    assert results["best_epoch"] == 2
    results = train_run(
        make(tiny_settings, bcb_mode="abmil", epochs=2, es_patience=None), "adv", tmp_path / "free"
    )
    assert results["best_epoch"] == 2


def test_the_same_seed_gives_the_same_numbers(tiny_settings, tmp_path):
    config = make(tiny_settings, bcb_mode="abmil", epochs=2)
    first = train_run(config, "adv", tmp_path / "a")
    second = train_run(config.model_copy(update={"num_workers": 2}), "adv", tmp_path / "b")
    assert text(first) == text(second)
    third = train_run(config.model_copy(update={"seed": 7}), "adv", tmp_path / "c")
    assert text(third) != text(first)
