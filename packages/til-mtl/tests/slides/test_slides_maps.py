"""Networks behind the maps, with networks of a few weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from til_mtl.errors import CheckpointError
from til_mtl.slides.maps import NetworkModel


class Maps(NamedTuple):
    seg: torch.Tensor | None
    det: torch.Tensor | None


class Toy(nn.Module):
    """One convolution a task."""

    def __init__(self, task: str, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.task = task
        self.seg = nn.Conv2d(3, 3, 1) if task in ("mtl", "seg") else None
        self.det = nn.Conv2d(3, 2, 1) if task in ("mtl", "det") else None
        self.norm = nn.BatchNorm2d(3)

    def maps(self, x):
        x = self.norm(x)
        return Maps(self.seg(x) if self.seg else None, self.det(x) if self.det else None)


@pytest.fixture
def tiles():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def test_class_and_softmax_of_the_logits(tiles):
    network = Toy("mtl")
    tissue, cells = NetworkModel([network])(tiles)
    with torch.no_grad():
        network.eval()
        maps = network.maps(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255)
    np.testing.assert_array_equal(tissue, maps.seg.argmax(dim=1))
    np.testing.assert_allclose(cells, maps.det.softmax(dim=1)[:, 1], rtol=1e-5)
    assert (tissue.dtype, cells.dtype) == (np.uint8, np.float32)
    shares, _ = NetworkModel([network], keep_probabilities=True)(tiles)
    np.testing.assert_allclose(shares, maps.seg.softmax(dim=1), rtol=1e-5)


def test_two_networks_stand_for_one(tiles):
    seg, det = Toy("seg", 1), Toy("det", 2)
    tissue, cells = NetworkModel([seg, det], ["none", "imagenet"])(tiles)
    other = Toy("mtl", 3)
    other.seg, other.det = seg.seg, det.det
    np.testing.assert_array_equal(tissue, NetworkModel([other])(tiles)[0])
    np.testing.assert_array_equal(cells, NetworkModel([other], "imagenet")(tiles)[1])


@pytest.mark.parametrize(("tasks", "part"), [(["seg"], "cells"), (["det"], "tissue")])
def test_a_task_that_is_missing_is_named(tasks, part):
    with pytest.raises(CheckpointError, match=f"nothing predicts {part}; give a multi-task checkpoint"):
        NetworkModel([Toy(task) for task in tasks])
