"""Preparation, training and prediction, killed at any moment, end with the files of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.crash
thorough = pytest.mark.crash(thorough=True)


# ------------------------------------------------------------------ preparation


@pytest.fixture(scope="module")
def preparing(crashes, tmp_path_factory):
    from crash_testing import Job
    from medshared.volumes import write_volume

    raw = tmp_path_factory.mktemp("killed") / "raw"
    affine = np.diag([-0.5, 0.5, 5.0, 1.0])
    for split, name in (("train", "one"), ("train", "two"), ("test", "three")):
        labels = np.zeros((6, 5, 4), np.int16)
        labels[2, 3, 1:3] = 4
        image = np.arange(120).reshape(6, 5, 4).astype(np.int16)
        write_volume(raw / split / name / "image.nii.gz", image, affine)
        for rater in (1, 2):
            write_volume(raw / split / name / f"label_{rater}.nii.gz", labels, affine)

    def arguments(output: Path) -> list[str]:
        return ["prepare", "mbhseg", "-in", str(raw), "-out", str(output)]

    unlike = ("process_mbhseg.json",)
    return crashes.reference(Job("aespa.cli:main", arguments, unlike=unlike), "aespa-prepare")


def test_preparation(crashes, preparing):
    crashes.kill_loop(preparing)


@thorough
def test_preparation_beside_another_one(crashes, preparing):
    crashes.kill_one_of_two(preparing, kills=max(1, crashes.kills // 5))


@thorough
def test_preparation_on_a_full_disk(crashes, preparing):
    crashes.faults(preparing, preparing.spread(crashes.kills))
    crashes.read_only(preparing)


# ------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def training(crashes, tmp_path_factory):
    from aespa.synthetic import make_demo_data
    from crash_testing import Job

    data = make_demo_data(tmp_path_factory.mktemp("killed") / "data", "folders", 6, 2, 0)
    small = {
        "encoder": "tiny", "image_size": 32, "runs": 2, "num_samples": 3, "n_clusters": 2, "n_components": 4, "b": 2,
        "epochs": 3, "val_freq": 1, "lr": 1e-3, "device": "cpu", "progress": False, "dataset": "folders", "w": 1,
        "val_fraction": 0.34, "data_path": data,
    }  # fmt: skip

    def arguments(output: Path) -> list[str]:
        keys = [word for key, value in small.items() for word in (f"-{key}", str(value))]
        return ["train", *keys, "-output", str(output), "-resume"]

    return crashes.reference(Job("aespa.cli:main", arguments), "aespa-train")


def test_training(crashes, training):
    crashes.kill_loop(training)


@thorough
def test_training_on_a_full_disk(crashes, training):
    crashes.full_disk(training, 0.5)
    crashes.faults(training, training.spread(crashes.kills))
    crashes.read_only(training)


# ------------------------------------------------------------------ prediction


@pytest.fixture(scope="module")
def predicting(crashes, tmp_path_factory):
    import torch
    from PIL import Image

    from aespa.models.architecture import Architecture
    from aespa.models.build import build_network
    from aespa.models.checkpoint import save_network
    from crash_testing import Job
    from medshared.volumes import write_volume

    home = tmp_path_factory.mktemp("killed")
    generator = torch.Generator().manual_seed(0)
    network = build_network(
        Architecture(encoder="tiny", image_size=32, n_components=4, upsample="nearest"), generator=generator
    )
    weights = save_network(home / "best.pt", network, config={"mode": "AESPA"})
    rng = np.random.default_rng(0)
    (home / "in").mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(home / "in" / name)
    for name in ("three.nii.gz", "four.nii.gz"):
        write_volume(home / "in" / name, rng.normal(40, 30, (24, 20, 3)).astype(np.float32), np.eye(4))

    def arguments(output: Path) -> list[str]:
        flags = ["-weights", str(weights), "-num_samples", "3", "-device", "cpu"]
        return ["predict", str(home / "in"), *flags, "-output", str(output)]

    unlike = ("*report*.json",)
    return crashes.reference(Job("aespa.cli:main", arguments, unlike=unlike), "aespa-predict")


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
