"""Grad-CAM against its formula on networks whose gradients are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spars.cam import grad_cam, window_cam
from spars.lattice import Lattice
from spars.models.window_net import WindowNet


class Linear(nn.Module):
    """Two maps, x and its square; the tumour logit is a·mean(first) + b·mean(second)."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([a, b]))

    def features(self, x):
        return torch.cat([x, x**2], dim=1)

    def classify(self, features):
        logit = features.mean(dim=(2, 3, 4)) @ self.factors
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


VOLUME = np.random.default_rng(0).random((6, 5, 4), np.float32)


def test_maps_weighted_by_their_gradient() -> None:
    found = grad_cam(Linear(1.0, -2.0), VOLUME)  # type: ignore[arg-type]
    expected = np.maximum(VOLUME - 2 * VOLUME**2, 0)
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-6)
    assert found.dtype == np.float32
    assert found.max() == 1


def test_nothing_speaks_for_a_tumour() -> None:
    assert (grad_cam(Linear(-1.0, 0.0), VOLUME) == 0).all()  # type: ignore[arg-type]


def test_a_trained_network_by_finite_differences() -> None:
    torch.manual_seed(0)
    network = WindowNet((8, 8, 8), width=3).double().eval()
    with torch.no_grad():  # every map speaks for a tumour, the more the more there is of it
        for layer in (network.hidden, network.logits):
            layer.weight.abs_()
        network.logits.weight[0] = 0
    volume = np.random.default_rng(1).random((12, 8, 16), np.float32)
    x = torch.from_numpy(volume).double()[None, None]
    with torch.no_grad():
        features = network.features(x)
        weights = torch.zeros(features.shape[1], dtype=torch.float64)
        for k in range(features.shape[1]):
            total = 0.0
            for place in np.ndindex(*features.shape[2:]):
                ends = []
                for step in (1e-6, -1e-6):
                    moved = features.clone()
                    moved[(0, k, *place)] += step
                    ends.append(network.classify(moved)[0, 1])
                total += float(ends[0] - ends[1]) / 2e-6
            weights[k] = total / np.prod(features.shape[2:])
        heat = torch.relu((weights[:, None, None, None] * features[0]).sum(0))[None, None]
        heat = functional.interpolate(heat, size=volume.shape, mode="trilinear", align_corners=False)[0, 0]
    found = grad_cam(network.float(), volume)
    assert found.max() == 1
    np.testing.assert_allclose(found, (heat / heat.max()).numpy(), atol=1e-3)
    assert all(p.grad is None for p in network.parameters())


def test_a_network_for_stretched_windows_and_the_place_of_a_window() -> None:
    lattice = Lattice((12, 12, 12), (4, 4, 4), 4)
    volume = np.random.default_rng(2).random(lattice.grid, np.float32)
    found = window_cam(Linear(1.0, 0.0), volume, lattice, 5, target_size=(8, 8, 8))  # type: ignore[arg-type]
    x, y, z = lattice.starts(lattice.unflat(np.array(5)))
    assert (x, y, z) == (0, 4, 8)
    box = (slice(x, x + 4), slice(y, y + 4), slice(z, z + 4))
    assert found[box].max() == 1
    outside = found.copy()
    outside[box] = 0
    assert (outside == 0).all()
    np.testing.assert_array_equal(found[box], grad_cam(Linear(1.0, 0.0), volume[box], (8, 8, 8)))  # type: ignore[arg-type]


def test_it_works_inside_no_grad() -> None:
    with torch.no_grad():
        assert grad_cam(Linear(1.0, 0.0), VOLUME).max() == 1  # type: ignore[arg-type]
