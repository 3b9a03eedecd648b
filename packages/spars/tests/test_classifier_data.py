"""What the classifier sees: every case in turn, the same again with the same seed, at the size it expects."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from medshared.metrics.classification import roc_auc
from medshared.volumes import resize_volume
from spars.classifier_data import (
    ClassifierData,
    CropTask,
    as_input,
    load_classifier_data,
    scheduled,
    score_in_batches,
)
from spars.config import ClassifierConfig
from spars.data.cases import CaseVolume
from spars.data.grid import GridCase, to_grid
from spars.errors import DataError
from spars.synthetic import HU_WINDOW, draw_case, write_synthetic

SIZE = (24, 24, 16)
CPU = torch.device("cpu")


def grid_case(k: int, tumour: bool = True, label: bool = True) -> GridCase:
    image, drawn = draw_case(np.random.default_rng(k), SIZE, tumour)
    axes = np.array([[0, 1], [1, 1], [2, 1]])
    volume = CaseVolume(f"c_{k}", image, drawn if label else None, np.eye(4), axes, np.eye(4))
    return to_grid(volume, SIZE, HU_WINDOW)


def config(**keys) -> ClassifierConfig:
    sizes = {"full_image_size": SIZE, "crop_size": (6, 6, 4), "hu_window": HU_WINDOW}
    return ClassifierConfig(**{**sizes, "batch_size": 2, "crop_no": 4, **keys}).resolved()


class Mean(nn.Module):
    """Says what the windows' mean is."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape))
        z = self.scale * x.mean((1, 2, 3, 4))
        return torch.stack([-z, z], 1)


def test_every_case_in_turn():
    for n, wanted, batches in ((7, 3, 7), (2, 5, 4)):
        taken = [i for b in range(batches) for i in scheduled(n, wanted, 0, b, 1)]
        for start in range(0, len(taken) - n + 1, n):
            assert sorted(taken[start : start + n]) == list(range(n))
    assert scheduled(50, 50, 0, 0, 1) == scheduled(50, 50, 0, 0, 1)
    assert scheduled(50, 50, 0, 0, 1) != scheduled(50, 50, 1, 0, 1)
    assert scheduled(50, 50, 0, 0, 1) != scheduled(50, 50, 0, 0, 2)


def test_input_is_stretched_as_the_game_stretches_it():
    windows = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    found = as_input(windows, (7, 9, 6), "cpu")
    assert found.shape == (2, 1, 7, 9, 6)
    for window, stretched in zip(windows, found, strict=True):
        np.testing.assert_array_equal(stretched[0], resize_volume(window, (7, 9, 6), "nearest"))
    np.testing.assert_array_equal(as_input(windows, "native", "cpu")[:, 0], windows)


def test_batches_do_not_change_scores_and_the_mode_comes_back():
    windows = np.random.default_rng(0).standard_normal((7, 4, 4, 4)).astype(np.float32)
    network = nn.Sequential(nn.BatchNorm3d(1), Mean()).train()
    whole = score_in_batches(network, windows, "native", 7)  # type: ignore[arg-type]
    torch.testing.assert_close(score_in_batches(network, windows, "native", 3), whole)  # type: ignore[arg-type]
    assert network.training
    assert network[0].num_batches_tracked == 0


def test_training_batches_hold_both_classes_and_follow_the_seed():
    data = ClassifierData([grid_case(0), grid_case(1, tumour=False), grid_case(2)], [grid_case(3)])
    task, network = CropTask(data, config()), Mean()
    assert task.n_batches == 1
    assert CropTask(data, config(train_batches=5)).n_batches == 5
    loss, right, n = task.loss(network, 0, 0, CPU)
    assert n == 8
    assert 0 <= right <= 8
    assert network.sizes[-1] == (8, 1, 6, 6, 4)
    assert CropTask(data, config()).loss(network, 0, 0, CPU)[0] == loss
    others = [task.loss(network, 0, 1, CPU)[0], task.loss(network, 1, 0, CPU)[0]]
    others.append(CropTask(data, config(seed=1)).loss(network, 0, 0, CPU)[0])
    assert len({each.item() for each in (loss, *others)}) == 4
    loss.backward()
    assert network.scale.grad is not None
    paper = CropTask(data, config(mode="paper", target_size=(10, 9, 8)))
    paper.loss(network, 0, 0, CPU)
    assert network.sizes[-1] == (8, 1, 10, 9, 8)


def test_validation_is_one_fixed_set():
    data = ClassifierData([grid_case(0)], [grid_case(3), grid_case(4), grid_case(5)])
    task = CropTask(data, config(val_batches=3))
    assert task.windows.shape == (24, 6, 6, 4)
    assert task.classes.mean() == 0.5
    network = Mean()
    first = task.validate(network)
    task.loss(network, 0, 0, CPU)
    assert task.validate(network) == first
    scores = network(as_input(task.windows, "native", "cpu")).softmax(1)[:, 1].detach().numpy()
    assert first["auc"] == pytest.approx(roc_auc(scores, task.classes))
    assert first["loss"] == pytest.approx(
        -np.log(np.where(task.classes, scores, 1 - scores)).mean(), rel=1e-5
    )


def test_one_class_and_missing_labels(caplog):
    healthy, other = grid_case(1, tumour=False), grid_case(0)
    with pytest.raises(DataError, match="none of the 1 training cases has 1 tumour voxels"):
        CropTask(ClassifierData([healthy], [other]), config())
    with pytest.raises(DataError, match=r"c_2: no voxel labels.*set label_source: csv"):
        CropTask(ClassifierData([grid_case(2, label=False)], [other]), config())
    with caplog.at_level(logging.WARNING):
        task = CropTask(ClassifierData([other], [healthy]), config())
    assert "no positive validation crop" in caplog.text
    assert task.validate(Mean())["auc"] is None


def test_volumes_are_found_by_their_split(tmp_path):
    write_synthetic(tmp_path, 4, 2, 1, size=SIZE)
    found = load_classifier_data(config(data_dir=tmp_path))
    assert [case.name for case in found.train] == [f"liver_{k}" for k in range(4)]
    assert [case.name for case in found.val] == ["liver_4", "liver_5"]
    (tmp_path / "splits.json").write_text('{"train": ["liver_0"], "val": []}')
    with pytest.raises(DataError, match="the split has no val cases"):
        load_classifier_data(config(data_dir=tmp_path))
