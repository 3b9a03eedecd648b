"""Stage B from start to end, in the three modes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from medshared.checkpoints import load_checkpoint
from medshared.command_line import RunInterruptedError
from medshared.files import read_json
from spars.agent import load_agent
from spars.config import GameConfig
from spars.errors import DataError
from spars.models.build import ClassifierMeta, save_classifier
from spars.models.window_net import WindowNet
from spars.readout import RULES, THRESHOLDS, Reading
from spars.synthetic import write_synthetic
from spars.training import load_reading, train_game

GRID, WINDOW, HU = (16, 16, 12), (8, 8, 4), (-60.0, 160.0)


class Stop:
    def __init__(self, looks: int = 10**9) -> None:
        self.name, self.left = "SIGTERM", looks

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_synthetic(folder / "data", 3, 2, 1, size=GRID)
    torch.manual_seed(0)
    for name, target, hu in (("w.pth", "native", HU), ("whole.pth", GRID, None)):
        network = WindowNet(WINDOW if target == "native" else GRID, 2).eval()
        save_classifier(folder / name, network, ClassifierMeta("window", WINDOW, target, hu, 2))
    return folder


def config(home: Path, **keys) -> GameConfig:
    sizes = {"full_image_size": GRID, "window_size": WINDOW, "device": "cpu", "data_dir": home / "data"}
    standard = {"hu_window": HU, "classifier_weights": home / "w.pth", "n_games": 4, "memory": 1}
    other = {"classifier_weights": home / "whole.pth", "case": "liver_1", "batch_size": 8}
    quick = {"iterations": 2, "n_steps": 8, "budget": 0.3, "candidates": 4, "max_steps": 4, "save_every": 1}
    rest = standard if keys.get("mode", "standard") == "standard" else other
    return GameConfig(**{**sizes, **rest, **quick, **keys})


def train(made: GameConfig, folder: Path, looks: int = 10**9, **keys) -> dict:
    return train_game(made, folder, stop=Stop(looks), **keys)  # type: ignore[arg-type]


def test_a_run_of_the_split_protocol(home, tmp_path) -> None:
    results = train(config(home, train_cases=2), tmp_path)
    assert results["boards"] == 2
    reading = load_reading(tmp_path / "reading.json")
    assert reading.rule in RULES
    assert reading.threshold in THRESHOLDS
    assert load_agent(tmp_path / "agent.pt").meta.cases == ("liver_0", "liver_1")
    before = (tmp_path / "agent.pt").stat().st_mtime_ns
    assert train(config(home, train_cases=2), tmp_path, resume=True) == results  # finished already
    assert (tmp_path / "agent.pt").stat().st_mtime_ns == before
    for name in ("reading.json", "results.json"):  # killed between the last iteration and the choice
        (tmp_path / name).unlink()
    assert train(config(home, train_cases=2), tmp_path, resume=True)["iterations"] == 2
    assert load_reading(tmp_path / "reading.json") == reading


def test_a_stopped_run_is_told_from_a_finished_one(home, tmp_path) -> None:
    with pytest.raises(RunInterruptedError, match="after iteration 1; --resume continues"):
        train(config(home), tmp_path, looks=0)
    assert not (tmp_path / "reading.json").exists()
    assert train(config(home), tmp_path, resume=True)["iterations"] == 2


@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), (0.0, 0.0), (0.3, 0.3)])
def test_one_volume_without_validation(home, tmp_path, given, expected) -> None:
    made = config(home, protocol="per_image", case="liver_2", iterations=1, segmentation_threshold=given)
    assert train(made, tmp_path)["boards"] == 1
    assert load_reading(tmp_path / "reading.json") == Reading("smoothed", expected)
    assert load_agent(tmp_path / "agent.pt").meta.cases == ("liver_2",)


def test_the_labels_of_test_volumes_are_never_read(home, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(home / "data", data)
    (data / "imagesTr" / "liver_5.nii.gz").write_bytes(b"unreadable")
    (data / "labelsTr" / "liver_5.nii.gz").write_bytes(b"unreadable")
    assert train(config(home, data_dir=data, iterations=1), tmp_path / "run")["boards"] == 3


@pytest.mark.parametrize("mode", ["paper", "faithful"])
def test_the_original_loops(home, tmp_path, mode) -> None:
    results = train(config(home, mode=mode), tmp_path / "whole")
    assert results["iterations"] == 2
    assert (tmp_path / "whole" / "curve.csv").is_file()
    # Stopped and resumed it is the same run.
    with pytest.raises(RunInterruptedError, match="stopped after iteration 1; --resume continues"):
        train(config(home, mode=mode), tmp_path / "parts", looks=0)
    assert train(config(home, mode=mode), tmp_path / "parts", resume=True) == results
    whole, parts = (load_checkpoint(tmp_path / name / "policy.pt") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    environment = read_json(tmp_path / "whole" / "environment.json")
    assert "command" in environment


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "paper", "policy": "cnn"}, "policy cnn plays mode standard only"),
        ({"mode": "faithful", "protocol": "split"}, "protocol split is of mode standard"),
        ({"case": "liver_9", "protocol": "per_image"}, "liver_9"),
        ({"classifier_weights": Path("nowhere.pth")}, "nowhere.pth"),
    ],
)
def test_what_cannot_be_trained(home, tmp_path, keys, message) -> None:
    with pytest.raises(DataError, match=message):
        train(config(home, **keys), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"rule": "visits"}', '{"rule": "visits", "threshold": "high"}'])
def test_a_reading_that_cannot_be_used(tmp_path, text) -> None:
    path = tmp_path / "reading.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"reading.json: cannot be used as reading rule and threshold"):
        load_reading(path)
    with pytest.raises(DataError, match="cannot be used"):
        load_reading(tmp_path / "none.json")
