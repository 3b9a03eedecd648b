"""One training from start to end: what it writes, that it learns, and that it goes on exactly where it was."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from medshared.command_line import RunInterruptedError
from medshared.files import read_json
from medshared.metrics.classification import roc_auc
from spars import classifier_training
from spars.classifier_data import load_classifier_data, score_in_batches
from spars.classifier_metrics import window_metrics
from spars.classifier_training import demo_classifier_keys, train_classifier
from spars.config import ClassifierConfig
from spars.crops import cut, window_counts
from spars.data.grid import load_grid_cases
from spars.data.layout import find_cases
from spars.data.splits import choose_cases
from spars.errors import CheckpointError, DataError, TrainingError
from spars.lattice import Lattice
from spars.models.build import load_classifier
from spars.synthetic import SIZE, WINDOW, write_synthetic

SMALL = (24, 24, 16)


class StopAfter:
    """Asks to stop at the n-th look."""

    name = "SIGTERM"

    def __init__(self, n: int) -> None:
        self.left = n

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


NEVER = StopAfter(10**9)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_synthetic(folder, 8, 3, 0, size=SMALL)
    # A validation case without tumour, for trainings that look at volumes only.
    table = (folder / "labels.csv").read_text().replace("liver_10,1", "liver_10,0")
    (folder / "labels.csv").write_text(table)
    return folder


def config(folder: Path, **keys) -> ClassifierConfig:
    sizes = {"data_dir": folder, "full_image_size": SMALL, "crop_size": (6, 6, 4), "hu_window": (-60, 160)}
    quick = {"batch_size": 2, "crop_no": 4, "epochs": 3, "mil_crops": 8, "width": 4, "device": "cpu"}
    return ClassifierConfig(**{**sizes, **quick, **keys})


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_whole_directory(small, tmp_path):
    results = train_classifier(config(small), tmp_path / "run", stop=NEVER)
    run = tmp_path / "run"
    for name in ("config.yaml", "environment.json", "log.txt", "checkpoints/last.pt", "ex4_24in_weights.pth"):
        assert (run / name).is_file(), name
    assert read_json(run / "results.json") == results
    logged = rows(run)
    assert [row["epoch"] for row in logged] == ["0", "1", "2"]
    assert [row["step"] for row in logged] == ["4", "8", "12"]
    best = max(logged, key=lambda row: (float(row["val_auc"]), -float(row["val_loss"])))
    assert results["best_epoch"] == int(best["epoch"])
    assert results["metrics"]["val_auc"] == float(best["val_auc"])
    assert results["cases"]["val"] == ["liver_8", "liver_9", "liver_10"]
    # The kept weights are those that were measured.
    network, meta = load_classifier(run / "ex4_24in_weights.pth")
    assert (meta.window, meta.hu_window) == ((6, 6, 4), (-60, 160))
    resolved = config(small).resolved()
    task = classifier_training.CropTask(load_classifier_data(resolved), resolved)
    assert task.validate(network)["auc"] == pytest.approx(results["metrics"]["val_auc"], abs=1e-12)
    with pytest.raises(FileExistsError, match="finished run"):
        train_classifier(config(small), run, stop=NEVER)


def test_paper_mode_sees_raw_hu_at_the_size_of_the_game(small, tmp_path):
    keys = {
        "mode": "paper",
        "architecture": "window",
        "target_size": (8, 8, 8),
        "hu_window": None,
        "epochs": 1,
    }
    found = train_classifier(config(small, **keys), tmp_path, stop=NEVER)
    assert found["mode"] == "paper"
    network, meta = load_classifier(tmp_path / found["weights"])
    assert (meta.target_size, meta.hu_window) == ((8, 8, 8), None)
    assert network.stages[0][1].running_mean.abs().max() > 1  # type: ignore[index]


@pytest.mark.parametrize(("source", "looks"), [("mask", 2), ("mask", 5), ("csv", 6)])
def test_a_stopped_run_goes_on_bit_for_bit(small, tmp_path, source, looks):
    wanted = config(small, label_source=source)
    whole = train_classifier(wanted, tmp_path / "whole", stop=NEVER)
    with pytest.raises(RunInterruptedError, match=r"stopped by SIGTERM .*--resume continues"):
        train_classifier(wanted, tmp_path / "run", stop=StopAfter(looks))
    assert not (tmp_path / "run" / "results.json").exists()
    resumed = train_classifier(wanted, tmp_path / "run", resume=True, stop=NEVER)
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    assert resumed | {"seconds": 0} == whole | {"seconds": 0}
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)
        for name in ("run", "whole")
    ]
    for key, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][key]), key
    for index, moments in states[0]["adam"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, states[1]["adam"]["state"][index][name])
    weights = [(tmp_path / name / "ex4_24in_weights.pth").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


def test_resuming_needs_the_same_settings(small, tmp_path):
    with pytest.raises(RunInterruptedError):
        train_classifier(config(small), tmp_path, stop=StopAfter(1))
    with pytest.raises(
        CheckpointError, match=r"last\.pt: cannot resume under other settings \(lr: 0\.001 then, 0\.1 now"
    ):
        train_classifier(config(small, lr=0.1), tmp_path, resume=True, stop=NEVER)
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match=r"last\.pt: the checkpoint is cut off"):
        train_classifier(config(small), tmp_path, resume=True, stop=NEVER)
    # A longer run may follow, and one without a checkpoint starts at its beginning.
    found = train_classifier(config(small, epochs=1), tmp_path / "new", resume=True, stop=NEVER)
    assert found["epochs"] == 1
    assert train_classifier(config(small, epochs=2), tmp_path / "new", resume=True, stop=NEVER)["epochs"] == 2


class Scripted:
    """A task whose validation follows a script."""

    n_batches = 1

    def __init__(self, values):
        self.values = iter(values)

    def loss(self, network, epoch, index, device):
        return sum(p.square().sum() for p in network.parameters()), 1, 2

    def validate(self, network):
        auc, loss = next(self.values)
        return {"loss": loss, "auc": auc}


@pytest.mark.parametrize(
    ("values", "keys", "best", "epochs"),
    [
        ([(0.6, 1.0), (0.8, 0.9), (0.7, 0.5), (0.8, 0.8), (0.5, 0.1)], {}, 3, 5),
        ([(0.6, 1.0), (0.8, 0.9), (0.7, 0.5), (0.8, 0.95), (0.5, 0.1)], {"patience": 2}, 1, 4),
        ([(0.6, 1.0), (0.8, 0.9), (0.7, 0.5)], {"patience": 1, "select": "last"}, 2, 3),
        ([(None, 0.2), (None, 0.1), (None, 0.3), (None, 0.3), (None, 0.3)], {"patience": 1}, 4, 5),
    ],
)
def test_the_kept_epoch_and_the_end(small, tmp_path, monkeypatch, values, keys, best, epochs):
    monkeypatch.setattr(classifier_training, "_build_task", lambda *_: Scripted(values))
    wanted = config(small, epochs=5, **keys)
    data = classifier_training.ClassifierData([], [])
    found = train_classifier(wanted, tmp_path, data=data, stop=NEVER)
    assert (found["best_epoch"], found["epochs"]) == (best, epochs)
    last = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["network"]
    kept = torch.load(tmp_path / "ex4_24in_weights.pth", weights_only=True)
    assert all(torch.equal(kept[key], last[key]) for key in last) == (best == epochs - 1)


def test_a_loss_that_is_no_number_ends_the_run(small, tmp_path, monkeypatch):
    task = Scripted([])
    task.loss = lambda network, *_: (next(network.parameters()).sum() * float("nan"), 0, 1)  # type: ignore[method-assign]
    monkeypatch.setattr(classifier_training, "_build_task", lambda *_: task)
    with pytest.raises(TrainingError, match="the loss of epoch 0, batch 0 is nan; lower lr"):
        train_classifier(config(small), tmp_path, data=classifier_training.ClassifierData([], []), stop=NEVER)
    assert not (tmp_path / "results.json").exists()


def test_image_labels_need_a_table(small, tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: no table of image-level labels"):
        train_classifier(config(small, label_source="csv", label_csv=tmp_path / "gone.csv"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def learning(tmp_path_factory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("learning")
    write_synthetic(folder, 32, 4, 6, seed=0)
    keys = demo_classifier_keys()
    wanted = ClassifierConfig(data_dir=folder, device="cpu", **keys).resolved()
    return folder, load_grid_cases(choose_cases(wanted, find_cases(folder))["test"], wanted)


@pytest.mark.parametrize(
    ("source", "epochs"), [("mask", 15), pytest.param("csv", 30, marks=pytest.mark.slow)]
)
def test_it_learns(learning, tmp_path, source, epochs):
    """Window AUC on test volumes, against the naive score: darker windows hold tumour."""
    folder, test = learning
    keys = demo_classifier_keys() | {"epochs": epochs, "label_source": source}
    found = train_classifier(ClassifierConfig(data_dir=folder, device="cpu", **keys), tmp_path, stop=NEVER)
    network, _ = load_classifier(tmp_path / found["weights"])
    lattice = Lattice(SIZE, WINDOW, 4)
    windows = np.concatenate([cut(case.image, lattice.all_starts(), WINDOW) for case in test])
    voxels = np.concatenate([window_counts(case.label, lattice).ravel() for case in test])
    score = score_in_batches(network, windows, "native", 128).softmax(1)[:, 1].numpy()  # type: ignore[arg-type]
    measured = window_metrics(score, voxels)
    naive = max(roc_auc(sign * windows.mean((1, 2, 3)), voxels > 0) for sign in (-1, 1))
    assert measured["window_auc"] > 0.8
    assert measured["window_auc_50_voxels"] > 0.9
    assert measured["window_auc"] > naive + 0.1
    assert source == "csv" or measured["score_gap"] > 0.3
