"""A checkpoint scored again."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medshared.configuration import load_config
from til_mtl.config import Config
from til_mtl.data.folders import find_run_patches
from til_mtl.data.store import PatchStore
from til_mtl.errors import CheckpointError, DataError
from til_mtl.models.deeplab import Maps
from til_mtl.patch_scores import PatchScores
from til_mtl.rescoring import rescore, score_network

from .conftest import PATCH_PX


class Colours(nn.Module):
    """Knows the colours that the patches of the tests are drawn in."""

    def __init__(self, task: str = "mtl") -> None:
        super().__init__()
        self.task = task
        self.modes: list[bool] = []

    def maps(self, x: torch.Tensor) -> Maps:
        self.modes.append(self.training)
        classes = torch.tensor([[235, 230, 235], [170, 105, 165], [225, 160, 190]]) / 255.0
        seg = -((x[:, None] - classes[None, :, :, None, None]) ** 2).sum(2)
        # Blurred, so that the middle of a cell stands out.
        brightness = nn.functional.avg_pool2d(x.mean(1), 5, 1, 2, count_include_pad=False)
        dark = 20 * (0.35 - brightness)
        det = torch.stack([-dark, dark], 1)
        return Maps(None if self.task == "det" else seg, None if self.task == "seg" else det)


@pytest.fixture
def saved(toy_keys, monkeypatch):
    """Let a checkpoint be the network above with a configuration; gives the configuration, to be changed."""
    meta = {"config": dict(toy_keys)}

    def load(path, *, task=None):
        network = Colours(meta["config"].get("task", "mtl"))
        if task not in (None, network.task):
            raise CheckpointError(f"{path}: of another task")
        return network, meta

    monkeypatch.setattr("til_mtl.rescoring.load_network", load)
    return meta["config"]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_network_that_knows_is_told_so(saved, tmp_path, name):
    metrics = rescore(tmp_path / "best.pt", tmp_path / "out", set_name=name)
    assert metrics["dice_mean"] > 0.99
    assert metrics["cell_f1"] == 1
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (content["checkpoint"], content["set"]) == (str(tmp_path / "best.pt"), name)
    assert content["metrics"] == {k: None if math.isnan(v) else v for k, v in metrics.items()}
    again = PatchScores.read(tmp_path / "out" / f"predictions_{name}.npz").metrics()
    assert again == pytest.approx(metrics, nan_ok=True)
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(rows["set"]) == {name}
    assert len(rows) == {"train": 12, "val": 6, "test": 4}[name]


@pytest.mark.parametrize(("task", "keys"), [("seg", {"dice_mean"}), ("det", {"froc", "cell_f1"})])
def test_single_task_networks_are_scored_on_their_task(saved, tmp_path, task, keys):
    saved["task"] = task
    found = rescore(tmp_path / "best.pt", tmp_path / "out")
    assert keys <= found.keys()
    assert ("dice_mean" in found) == (task == "seg")


def test_the_network_decides_what_belongs_to_it_and_the_command_line_the_rest(
    saved, toy_keys, tmp_path, monkeypatch
):
    saved |= {"nms": 5.0, "normalize": "none"}
    used = []
    monkeypatch.setattr(
        "til_mtl.rescoring.choose_device", lambda config: used.append(config) or torch.device("cpu")
    )
    asked = load_config(
        Config, toy_keys | {"nms": 9.0, "normalize": "lunit", "batch_size": 3, "lr": 0.5}, label="t"
    )
    rescore(tmp_path / "best.pt", tmp_path / "out", config=asked)
    (found,) = used
    assert (found.nms, found.normalize, found.batch_size) == (5.0, "none", 3)


def test_a_file_of_the_original_has_no_settings_of_its_own(toy_keys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "til_mtl.rescoring.load_network", lambda path, task=None: (Colours("mtl"), {"epoch": 3})
    )
    asked = load_config(Config, toy_keys, label="test")
    assert rescore(tmp_path / "epoch=3-step=9.ckpt", tmp_path / "out", config=asked)["cell_f1"] == 1


def test_other_data_may_be_given(saved, make_patches, tmp_path):
    other = make_patches(tmp_path / "other", {"val": (1, 1), "test": (5, 1), "train": (1, 1)}, seed=4)
    rescore(tmp_path / "best.pt", tmp_path / "out", changes={"data_dir": other})
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 6


def test_a_set_that_is_not_there(saved, make_patches, tmp_path):
    saved["data_dir"] = str(make_patches(tmp_path / "other", {"val": (1, 1), "train": (1, 1)}))
    with pytest.raises(DataError, match="other: no patches in the set test"):
        rescore(tmp_path / "best.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_task_is_refused(saved, toy_keys, tmp_path):
    asked = load_config(Config, toy_keys | {"task": "det"}, label="test")
    with pytest.raises(CheckpointError, match="of another task"):
        rescore(tmp_path / "best.pt", tmp_path / "out", config=asked)


@pytest.mark.parametrize("batch_size", [1, 4, 99])
def test_batches_change_nothing_and_norms_are_fixed(toy_keys, batch_size):
    config = load_config(Config, toy_keys | {"batch_size": batch_size}, label="test").resolved()
    store = PatchStore(find_run_patches(config)["val"], config)
    network = Colours().train()
    found = score_network(network, config, store, torch.device("cpu"))
    assert network.modes
    assert not any(network.modes)
    assert found.names == tuple(store.names)
    assert found.confusion.sum() == 3 * PATCH_PX**2
    for points, truth in zip(found.detections, found.truth, strict=True):
        best = points[points[:, 2].argsort()[::-1][: len(truth)], :2]
        assert len(truth) == 0 or np.hypot(*(best - truth).T).max() < 2.5
