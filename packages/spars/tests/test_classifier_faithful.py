"""The original's training, with a small network in place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medshared.command_line import RunInterruptedError
from spars.classifier_training import train_classifier
from spars.config import ClassifierConfig
from spars.errors import CheckpointError, DataError
from spars.synthetic import write_synthetic


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
def volumes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    write_synthetic(folder, 4, 2, 0, size=(24, 24, 16), geometry="plain")
    return folder


def config(folder: Path | None, **keys) -> ClassifierConfig:
    sizes = {"crop_size": (8, 8, 6), "target_size": (12, 12, 8), "architecture": "window", "width": 2}
    ranges = {"train_end": 4, "val_start": 4, "val_end": 6, "val_batches": 2}
    quick = {
        "mode": "faithful",
        "data_dir": folder,
        "batch_size": 2,
        "crop_no": 4,
        "epochs": 3,
        "device": "cpu",
    }
    return ClassifierConfig(**{**sizes, **ranges, **quick, **keys})


def test_its_lines_its_last_weights_and_its_ranges(volumes, tmp_path):
    found = train_classifier(config(volumes), tmp_path, stop=NEVER)
    log = (tmp_path / "log.txt").read_text()
    for line in (
        "Found 6 training files and 6 label files.",
        "epoch: 3",
        "Evaluating the network",
        "Accuracy: ",
    ):
        assert line in log
    assert found["best_epoch"] == 2  # the last one, whatever it is worth
    assert found["steps"] == 6
    assert found["cases"] == {"train": [0, 4], "val": [4, 6]}
    last = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["network"]
    kept = torch.load(tmp_path / "ex4_24in_weights.pth", weights_only=True)
    assert all(torch.equal(kept[key], last[key]) for key in last)
    best = train_classifier(config(volumes, select="best"), tmp_path / "best", stop=NEVER)
    rows = (tmp_path / "best" / "metrics.csv").read_text().splitlines()
    accuracy = [float(row.split(",")[rows[0].split(",").index("val_accuracy")]) for row in rows[1:]]
    assert best["best_epoch"] == accuracy.index(max(accuracy))


def test_a_stopped_run_goes_on_bit_for_bit(volumes, tmp_path):
    whole = train_classifier(config(volumes), tmp_path / "whole", stop=NEVER)
    with pytest.raises(RunInterruptedError, match="stopped by SIGTERM within an epoch"):
        train_classifier(config(volumes), tmp_path / "run", stop=StopAfter(6))
    found = train_classifier(config(volumes), tmp_path / "run", resume=True, stop=NEVER)
    assert found | {"seconds": 0} == whole | {"seconds": 0}
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "run")]
    assert tables[0] == tables[1]
    weights = [(tmp_path / name / "ex4_24in_weights.pth").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot continue this run"):
        train_classifier(config(volumes, width=3), tmp_path / "run", resume=True, stop=NEVER)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data_dir": None}, "data_dir is not set"),
        ({"data_dir": Path("gone")}, "gone/labelsTr: no such folder"),
        ({"label_source": "csv"}, "mode: faithful chooses its crops by voxel labels"),
        ({"splits": Path("s.json")}, r"takes index ranges \(train_start, …\), not splits \(s\.json\)"),
    ],
)
def test_what_it_has_no_counterpart_of(volumes, tmp_path, keys, message):
    with pytest.raises(DataError, match=message):
        train_classifier(config(volumes, **keys), tmp_path / "run")
    assert not (tmp_path / "run").exists()
