"""Training, folds and prediction, killed at any moment, end with the numbers of an undisturbed run."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash
thorough = pytest.mark.crash(thorough=True)


@pytest.fixture(scope="module")
def job(crashes, tiny_data, tmp_path_factory):
    """Make a training job; its frame cache lies in the output folder, where it is watched as well."""
    from crash_testing import Job
    from infection_mt.scripts import train_multitask  # noqa: F401  # what the job runs exists

    home = tmp_path_factory.mktemp("killed")

    def make(name: str, *flags: str, **sections):
        settings = {
            "experiment_name": "tiny",
            "seed": 3,
            "multitask": {"infection_onset_hour": 1.0},
            "data": {
                "infected_dir": str(tiny_data.infected_dir),
                "uninfected_dir": str(tiny_data.uninfected_dir),
                "split_ratios": [0.5, 0.25, 0.25],
                "batch_size": 8,
                "num_workers": 0,
                "cache_dir": str(crashes.folder / name / "out" / "cache"),
                "transforms": {"image_size": 32},
                "frames": {
                    "frames_per_hour": 0.125,
                    "infected_window_hours": [8, 48],
                    "uninfected_window_hours": [0, 48],
                },
            },
            "model": {"name": "resnet10", "pretrained": False, "hidden_dim": 16, "dropout": 0.1},
            "training": {"epochs": 2, "checkpoint_every_steps": 3},
            "optimizer": {"lr": 1e-3},
            "scheduler": {"eta_min": 1e-5},
            "metrics": {"bootstrap_resamples": 0},
        }
        for section, values in sections.items():
            settings[section] = copy.deepcopy(settings.get(section, {})) | values
        config = home / f"{name}.json"
        config.write_text(json.dumps(settings))

        def arguments(output: Path) -> list[str]:
            run = ["--output", str(output / "run"), "--resume"]
            return ["--config", str(config), "--device", "cpu", *run, *flags]

        return Job("infection_mt.scripts:train_multitask", arguments)

    return make


@pytest.fixture(scope="module")
def training(crashes, job):
    return crashes.reference(job("infection-train"), "infection-train")


def test_training(crashes, training):
    crashes.kill_loop(training)


@thorough
def test_folds(crashes, job):
    folds = job("infection-folds", "--num-folds", "2", training={"epochs": 1})
    crashes.kill_loop(crashes.reference(folds, "infection-folds"))


@thorough
def test_full_disk(crashes, training):
    for share in (0.3, 0.8):
        crashes.full_disk(training, share)


@thorough
def test_read_only_folder(crashes, training):
    crashes.read_only(training)


@thorough
def test_full_disk_at_any_change(crashes, training):
    crashes.faults(training, training.spread(crashes.kills))


def test_prediction(crashes, tiny_data, tiny_run):
    from crash_testing import Job

    stacks = sorted(tiny_data.infected_dir.iterdir())[:4]

    def arguments(output: Path) -> list[str]:
        weights = ["--weights", str(tiny_run / "checkpoints" / "best.pt"), "--frames-per-hour", "0.125"]
        return [
            "predict",
            *map(str, stacks),
            *weights,
            "--output",
            str(output),
            "--resume",
            "--device",
            "cpu",
        ]

    # The report tells what was done and what was found done.
    job = Job("infection_mt.cli:main", arguments, unlike=("predict-report.json",))
    predicting = crashes.reference(job, "infection-predict")
    crashes.kill_loop(predicting)
    crashes.full_disk(predicting, 0.5)
    crashes.read_only(predicting)
