"""Preparation, classifiers, self-play and prediction, killed at any moment, end with the files of an undisturbed run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medshared.configuration import dump_yaml
from medshared.files import to_plain

pytestmark = pytest.mark.crash
thorough = pytest.mark.crash(thorough=True)

SIZE, WINDOW = (24, 24, 16), (6, 6, 4)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    from spars.synthetic import write_synthetic

    folder = tmp_path_factory.mktemp("killed") / "data"
    write_synthetic(folder, 4, 2, 2, size=SIZE, geometry="plain")
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory, drawn):
    """Make a training job from a verb and its keys."""
    from crash_testing import Job

    home = tmp_path_factory.mktemp("keys")

    def make(name: str, verb: str, **keys):
        file = home / f"{name}.yaml"
        file.write_text(dump_yaml(to_plain({"data_dir": drawn, "seed": 0, "device": "cpu", **keys})))
        return Job(
            "spars.cli:main",
            lambda output: [verb, "--config", str(file), "--output", str(output), "--resume"],
        )

    return make


# ------------------------------------------------------------------ preparation


@pytest.fixture(scope="module")
def preparing(crashes, drawn):
    from crash_testing import Job

    def fill(output: Path) -> None:
        shutil.copytree(drawn, output, dirs_exist_ok=True)
        for name in ("splits.json", "labels.csv"):
            (output / name).unlink()

    def arguments(output: Path) -> list[str]:
        flags = ["--folds", "3", "--labels-from-voxels", "--cache_dir", str(output / "cache")]
        return ["prepare", "--data_dir", str(output), *flags]

    return crashes.reference(Job("spars.cli:main", arguments, prepare=fill), "spars-prepare")


def test_preparation(crashes, preparing):
    crashes.kill_loop(preparing)


@thorough
def test_preparation_on_a_full_disk(crashes, preparing):
    crashes.faults(preparing, preparing.spread(crashes.kills))
    crashes.read_only(preparing)


# ------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def classifier(crashes, job):
    quick = {"crop_size": WINDOW, "batch_size": 2, "crop_no": 4, "epochs": 3, "width": 2}
    keys = {**quick, "full_image_size": SIZE, "hu_window": (-60, 160), "weights_out": "classifier.pth"}
    return crashes.reference(job("spars-classifier", "train-classifier", **keys), "spars-classifier")


def test_classifier(crashes, classifier):
    crashes.kill_loop(classifier)


@thorough
def test_classifier_on_a_full_disk(crashes, classifier):
    crashes.full_disk(classifier, 0.5)
    crashes.faults(classifier, classifier.spread(crashes.kills))
    crashes.read_only(classifier)


@thorough
def test_faithful_classifier(crashes, job):
    sizes = {"crop_size": (8, 8, 6), "target_size": (12, 12, 8), "architecture": "window", "width": 2}
    ranges = {"train_end": 4, "val_start": 4, "val_end": 6, "val_batches": 2}
    quick = {"mode": "faithful", "batch_size": 2, "crop_no": 4, "epochs": 3}
    faithful = job("spars-faithful", "train-classifier", **sizes, **ranges, **quick)
    crashes.kill_loop(crashes.reference(faithful, "spars-classifier-faithful"))


@thorough
def test_self_play(crashes, job, tiny_runs):
    keys = {**tiny_runs.keys, "iterations": 4, "save_every": 1, "select_every": 2, "log_interval": 1}
    crashes.kill_loop(crashes.reference(job("spars-game", "train", **keys), "spars-game"))


def play_as_original(arguments: list[str]) -> int:
    """One volume with a rule in place of the classifier, which the original scores windows with."""
    import numpy as np

    from spars.config import GameConfig
    from spars.game.scorers import StubScorer
    from spars.original.selfplay import train_faithful

    grid = (20, 20, 16)
    rng = np.random.default_rng(0)
    image = rng.normal(60, 40, grid).astype(np.float32)
    label = np.zeros(grid, np.uint8)
    label[8:14, 8:14, 5:10] = 2
    config = GameConfig(
        mode="faithful", full_image_size=grid, window_size=WINDOW, device="cpu", target_size=grid, iterations=4,
        save_every=1, termination_threshold=0.99, max_steps=40, table="off",
    )  # fmt: skip
    results = train_faithful(config, Path(arguments[0]), image, label, StubScorer(40, 85), resume=True)
    return 0 if results["iterations"] == 4 else 1


@thorough
def test_self_play_of_the_original(crashes):
    from crash_testing import Job

    unlike = ("final_predictions_3d.html",)  # plotly gives its picture another number every time
    playing = Job(f"{__file__}:play_as_original", lambda output: [str(output)], unlike=unlike)
    crashes.kill_loop(crashes.reference(playing, "spars-game-faithful"))


# ------------------------------------------------------------------ prediction


@pytest.fixture(scope="module")
def predicting(crashes, tiny_runs):
    from crash_testing import Job
    from spars.data.layout import find_cases

    images = [str(case.image) for case in find_cases(tiny_runs.data)[-3:]]

    def arguments(output: Path) -> list[str]:
        weights = ["--agent", str(tiny_runs.agent), "--classifier_weights", str(tiny_runs.weights)]
        return ["predict", *images, *weights, "--device", "cpu", "--output", str(output)]

    unlike = ("predict-report.json",)
    return crashes.reference(Job("spars.cli:main", arguments, unlike=unlike), "spars-predict")


def test_prediction(crashes, predicting):
    crashes.kill_loop(predicting)


@thorough
def test_prediction_beside_another_one(crashes, predicting):
    crashes.kill_one_of_two(predicting, kills=max(1, crashes.kills // 5))


@thorough
def test_prediction_on_a_full_disk(crashes, predicting):
    crashes.full_disk(predicting, 0.5)
    crashes.faults(predicting, predicting.spread(crashes.kills))
    crashes.read_only(predicting)
