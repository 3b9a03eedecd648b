"""Every wrapper on a real cluster: disturbed and divided jobs end with the numbers of quiet, single ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medshared.configuration import dump_yaml

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
# A number added to all scores before a softmax changes nothing: its gradient is rounding, which Adam enlarges.
BEFORE_SOFTMAX = ("attention_c.bias", "pool.fc2.bias")
PREPARE = ["--steps", "segment", "patch", "--patch-size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def user(slurm_testing, tmp_path_factory):
    return slurm_testing.SlurmUser(tmp_path_factory.mktemp("advmil") / "home", ROOT)


@pytest.fixture(scope="module")
def config(user, tiny_cohort):
    """Write a configuration; returns the file."""

    def write(name: str, **changes: Any) -> Path:
        keys = tiny_cohort.config() | {
            "bcb_mode": "abmil",
            "bcb_dims": "16-8-8",
            "gen_dims": "8-1",
            "disc_netx_out_dim": 4,
            "disc_nety_hid_dims": "3-4",
            "bp_every_batch": 4,
            "es_warmup": 0,
            "times_test_sample": 5,
            "device": "cpu",
        }
        path = user.home / f"{name}.yaml"
        path.write_text(dump_yaml(keys | changes))
        return path

    return write


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    """Six slides with a square of tissue."""
    from medshared.slides import write_pyramid

    folder = tmp_path_factory.mktemp("slides")
    for seed in range(6):
        rng = np.random.default_rng(seed)
        picture = np.full((1024, 1024, 3), 255, np.uint8)
        cells = rng.integers(-20, 21, (48, 48, 3)).repeat(16, 0).repeat(16, 1)
        picture[128:896, 128:896] = np.clip(np.array([190, 110, 170]) + cells, 0, 255)
        write_pyramid(folder / f"s{seed}.svs", picture, 0.5, tile_px=64)
    return folder


@pytest.fixture(scope="module")
def jobs(user, config, slides) -> dict[str, Any]:
    """Everything, submitted at once."""
    long, short = config("long", epochs=40), config("short", epochs=1)
    grid = config("grid", epochs=1, data_split_seed=[0, 1], save_path="runs/grid")
    groups = {"epochs": 2, "bp_every_batch": 5, "opt_netG_lr": 1e-3}
    pair, alone = config("pair", **groups), config("alone", **groups, draws="bag")
    # A file lies where the second fold needs a folder.
    (user.home / "runs").mkdir()
    (user.home / "runs/array-data_split_seed_1").write_text("no folder")
    prepare = {"SLIDES": slides, "OUTPUT": "tiles", "SHARDS": 2}
    return {
        "quiet": user.serial("slurm/train.sh", "--output", "runs/quiet", CONFIG=long),
        "broken": user.submit("slurm/folds_array.sh", CONFIG=short, OUTPUT="runs/array", FOLDS=2),
        "serial": user.serial("slurm/folds_array.sh", CONFIG=short, OUTPUT="runs/serial", FOLDS=2),
        "pair": user.submit("slurm/train.sh", "--output", "runs/pair", CONFIG=pair, TASKS=2),
        "alone": user.serial("slurm/train.sh", "--output", "runs/alone", CONFIG=alone),
        "grid": user.submit("slurm/grid_array.sh", CONFIG=grid),
        "prepare": [user.submit("slurm/prepare_array.sh", *PREPARE, **prepare) for _ in range(2)],
        "folds": {"CONFIG": short, "OUTPUT": "runs/array", "FOLDS": 2},
        # The last, so that it still runs when the first test looks.
        "disturbed": user.submit("slurm/train.sh", "--output", "runs/disturbed", CONFIG=long),
    }


def test_a_training_that_is_warned_and_killed_has_the_weights_of_a_quiet_one(user, jobs, slurm_testing):
    """The warning saves, the kill does not; each time the job is queued again and goes on."""
    (job,) = jobs["disturbed"]
    run = user.home / "runs/disturbed"
    user.disturb("advmil-train", job, run / "checkpoints/last.pt")
    assert user.wait(job) == {job: "COMPLETED"}, user.logs()
    assert user.codes("advmil-train", job) == [75, None, 0]
    slurm_testing.finished(jobs["quiet"])
    for name in (
        "train_modelG-best.pth",
        "train_modelD-best.pth",
        "train_modelG-last.pth",
        "train_modelD-last.pth",
    ):
        assert slurm_testing.same_weights(run / name, user.home / "runs/quiet" / name), name


def test_two_processes_of_srun_train_what_one_trains(user, jobs, slurm_testing):
    (job,) = jobs["pair"]
    assert user.wait(job) == {job: "COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["alone"])
    pair, alone = user.home / "runs/pair", user.home / "runs/alone"
    # One by one is the default of processes that know of each other, and one of them tells of an epoch.
    assert "draws: bag" in (pair / "config.yaml").read_text()
    assert (user.home / f"slurm_LOG/advmil-train_{job}.err").read_text().count("epoch 1/2") == 1
    for name in ("train_modelG-last.pth", "train_modelD-last.pth"):
        two, one = slurm_testing.tensors(pair / name), slurm_testing.tensors(alone / name)
        assert two.keys() == one.keys()
        for key in one:
            if not key.endswith(BEFORE_SOFTMAX):
                torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=1e-6)
    two, one = (np.genfromtxt(run / "metrics.csv", delimiter=",", names=True) for run in (pair, alone))
    assert two.dtype.names == one.dtype.names
    for name in one.dtype.names:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, err_msg=name)


def test_an_array_with_a_failing_fold_averages_nothing_and_given_again_equals_the_serial_run(
    user, jobs, slurm_testing
):
    array, collecting = jobs["broken"]
    states = user.wait(array, collecting)
    assert states == {f"{array}_0": "COMPLETED", f"{array}_1": "FAILED", collecting: "FAILED"}
    told = (user.home / f"slurm_LOG/advmil-fold-collect_{collecting}.err").read_text()
    assert "task 1: failed with exit code 1" in told
    assert f"advmil-fold_{array}_1.err" in told
    assert not (user.home / "runs/array").exists()

    (user.home / "runs/array-data_split_seed_1").unlink()
    again = user.submit("slurm/folds_array.sh", **jobs["folds"])
    assert set(user.wait(*again).values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["serial"])
    for fold in (0, 1):
        one, other = (user.home / f"runs/{run}-data_split_seed_{fold}" for run in ("array", "serial"))
        assert slurm_testing.results(one) == slurm_testing.results(other)
        assert (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text()
    # Files and columns bear the names of the runs.
    tables = [
        {
            file.name.replace(run, "RUN"): file.read_text().replace(run, "RUN")
            for file in (user.home / "runs" / run).glob("*.csv")
        }
        for run in ("array", "serial")
    ]
    assert tables[0] == tables[1] != {}


def test_a_grid(user, jobs):
    assert set(user.wait(*jobs["grid"]).values()) == {"COMPLETED"}, user.logs()
    summary = json.loads((user.home / "runs/grid/summary.json").read_text())
    assert summary["groups"][0]["folds"] == 2


def test_two_arrays_over_one_folder_prepare_each_slide_once(user, jobs, slides):
    one, other = jobs["prepare"]
    assert set(user.wait(*one, *other).values()) == {"COMPLETED"}, user.logs()
    assert user.done("advmil-prepare") == {"segment": 6, "patch": 6}
    assert len(list((user.home / "tiles").rglob("patches/*.h5"))) == 6
    assert not list((user.home / "tiles").rglob("*.lock"))
