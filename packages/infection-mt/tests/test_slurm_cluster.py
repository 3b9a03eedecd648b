"""Every wrapper on a real cluster: disturbed and divided jobs end with the numbers of quiet, single ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
EPOCHS = 8
CLUSTER_DATA = {
    "split_ratios": [0.5, 0.25, 0.25],
    "batch_size": 8,
    "num_workers": 0,
    "transforms": {"image_size": 32, "random_rotation": False},
    "frames": {
        "frames_per_hour": 0.125,
        "infected_window_hours": [8, 48],
        "uninfected_window_hours": [0, 48],
    },
}


@pytest.fixture(scope="module")
def user(slurm_testing, tmp_path_factory):
    return slurm_testing.SlurmUser(tmp_path_factory.mktemp("infection") / "home", ROOT)


@pytest.fixture(scope="module")
def config(user, tiny_data):
    """Write a configuration of so many epochs; returns the file."""

    def write(epochs: int) -> Path:
        folders = {
            "infected_dir": str(tiny_data.infected_dir),
            "uninfected_dir": str(tiny_data.uninfected_dir),
        }
        settings: dict[str, Any] = {
            "experiment_name": "tiny",
            "seed": 3,
            "multitask": {"infection_onset_hour": 1.0},
            "data": CLUSTER_DATA | folders,
            "model": {"name": "resnet10", "pretrained": False, "hidden_dim": 16},
            "training": {"epochs": epochs, "grad_clip": 1.0},
            "scheduler": {"eta_min": 1e-5},
            "metrics": {"bootstrap_resamples": 20},
        }
        path = user.home / f"{epochs}.json"
        path.write_text(json.dumps(settings))
        return path

    return write


@pytest.fixture(scope="module")
def jobs(user, config) -> dict[str, Any]:
    """All that needs no other's results, submitted at once."""
    train = {"SCRIPT": "train_multitask.py", "CONFIG": config(EPOCHS)}
    folds = {"CONFIG": config(1), "FOLDS": 2}
    (user.home / "runs/broken").mkdir(parents=True)
    (user.home / "runs/broken/fold_2").write_text("no folder")
    return {
        "quiet": user.serial("slurm/train.sh", **train, OUTPUT="runs/quiet"),
        # WARNING as long as that: the limit is set once the run is under way.
        "limited": user.submit("slurm/train.sh", **train, OUTPUT="runs/limited", WARNING=90),
        "disturbed": user.submit("slurm/train.sh", **train, OUTPUT="runs/disturbed"),
        "folds": user.submit("slurm/folds_array.sh", **folds, OUTPUT="runs/folds"),
        "broken": user.submit("slurm/folds_array.sh", **folds, OUTPUT="runs/broken"),
        "serial": user.serial("slurm/folds_array.sh", **folds, OUTPUT="runs/serial"),
        "sweep": user.submit("slurm/sweep_array.sh", CONFIG=config(1), HOURS="24 48", OUTPUT="runs/sweep"),
    }


def last(user, run: str) -> Path:
    return user.home / "runs" / run / "checkpoints" / "last.pt"


def test_trainings_that_are_cut_short_have_the_weights_of_a_quiet_one(user, jobs, slurm_testing):
    """One reaches its time limit, is warned, saves its state and is queued again; one is killed and queued again."""
    (limited,), (disturbed,) = jobs["limited"], jobs["disturbed"]
    user.wait_for(last(user, "limited").exists, user.logs)
    user.limit(limited, user.home / f"slurm_LOG/infection-train_{limited}.err")
    user.wait_for(last(user, "disturbed").exists, user.logs)
    user.kill(disturbed)
    user.wait_for(lambda: user.codes("infection-train", limited)[0] is not None, user.logs)
    user.command("scontrol", "update", f"JobId={limited}", "TimeLimit=10")
    assert user.wait(limited, disturbed) == {limited: "COMPLETED", disturbed: "COMPLETED"}
    assert user.codes("infection-train", limited) == [75, 0]
    assert user.codes("infection-train", disturbed) == [None, 0]
    slurm_testing.finished(jobs["quiet"])
    for run in ("limited", "disturbed"):
        for name in ("best.pt", "last.pt"):
            files = [user.home / "runs" / each / "checkpoints" / name for each in (run, "quiet")]
            assert slurm_testing.same_weights(*files), (run, name)


def test_an_array_of_folds_equals_the_serial_run(user, jobs, slurm_testing):
    array, collecting = jobs["folds"]
    assert set(user.wait(array, collecting).values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["serial"])
    found = []
    for run in ("folds", "serial"):
        folder = user.home / "runs" / run
        files = sorted(folder.rglob("test_predictions.npz"))
        arrays = {str(file.relative_to(folder)): dict(np.load(file, allow_pickle=False)) for file in files}
        found.append((arrays, steady(json.loads((folder / "cv_summary.json").read_text()))))
    (one, summary), (other, serial_summary) = found
    assert {"fold_1/test_predictions.npz", "fold_2/test_predictions.npz"} <= set(one)
    np.testing.assert_equal(one, other)
    assert summary == serial_summary


def steady(found: Any) -> Any:
    """Return results without times and folders."""
    if isinstance(found, dict):
        keys = {key for key in found if not any(word in key for word in ("seconds", "path", "dir", "memory"))}
        return {key: steady(found[key]) for key in sorted(keys)}
    if isinstance(found, list):
        return [steady(item) for item in found]
    return "nan" if isinstance(found, float) and math.isnan(found) else found


def test_one_failing_fold_is_named_and_nothing_is_averaged(user, jobs):
    array, collecting = jobs["broken"]
    states = user.wait(array, collecting)
    assert states == {f"{array}_0": "COMPLETED", f"{array}_1": "FAILED", collecting: "FAILED"}
    told = (user.home / "slurm_LOG" / f"infection-fold-collect_{collecting}.err").read_text()
    log = f"infection-fold_{array}_1.err"
    assert "task 1: failed with exit code 1" in told
    assert log in told
    assert "fold_2" in (user.home / "slurm_LOG" / log).read_text()
    assert not (user.home / "runs/broken/cv_summary.json").exists()


def test_a_sweep(user, jobs):
    array, collecting = jobs["sweep"]
    assert set(user.wait(array, collecting).values()) == {"COMPLETED"}, user.logs()
    found = json.loads((user.home / "runs/sweep/interval_sweep_data.json").read_text())
    assert found["hours"] == [24.0, 48.0]


def test_two_arrays_over_one_folder_predict_each_stack_once(user, jobs, tiny_data, slurm_testing):
    user.wait(*jobs["folds"])
    plate = {"MODEL_DIR": "runs/folds", "DATA_DIR": tiny_data.infected_dir, "SHARDS": 2}
    flags = ["--max-positions", "0", "--stride", "1", "--device", "cpu"]
    serial = user.serial("slurm/predict_array.sh", *flags, **plate, OUTPUT="runs/serial-plate")
    pairs = [user.submit("slurm/predict_array.sh", *flags, **plate, OUTPUT="runs/plate") for _ in range(2)]
    states = user.wait(*pairs[0], *pairs[1])
    assert set(states.values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(serial)
    records = list((user.home / "runs/plate/stacks").glob("*.done.json"))
    assert len(records) == 8
    one, other = (
        pd.read_csv(user.home / "runs" / run / "predictions.csv") for run in ("plate", "serial-plate")
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert user.done("infection-predict") == {"predict": 8}


def test_the_script_of_the_original_is_a_job_by_itself(user, config):
    """As its README said: sbatch, with the script's own header; here on fewer cores and no GPU."""
    (user.home / "slurm_LOG").mkdir(exist_ok=True)
    small = ["--parsable", "--cpus-per-task=1", "--mem=1G", "--gres=none", f"--chdir={user.home}"]
    user.variables |= {"CONFIG": str(config(1)), "OUTPUT": "runs/original"}
    job = user.command("sbatch", *small, f"--output={user.home}/slurm_LOG/multitask_%j.out",
                       str(ROOT / "shells/train_multitask.sh")).strip()  # fmt: skip
    assert user.wait(job) == {job: "COMPLETED"}, user.logs()
    assert (
        user.command("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%j").strip()
        == "multitask_cell"
    )
    assert (user.home / "runs/original/results.json").is_file()
