"""The small network: any window from 8 voxels, nothing lost at its edges, and it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from spars.errors import DataError
from spars.models.window_net import WindowNet


@pytest.mark.parametrize(
    ("window", "stages"),
    [((8, 8, 8), 2), ((12, 12, 8), 2), ((16, 16, 8), 2), ((32, 32, 16), 3), ((48, 48, 24), 3), ((64, 64, 32), 4), ((128, 96, 96), 4)],
)  # fmt: skip
def test_shipped_windows(window, stages):
    net = WindowNet(window, width=2).eval()
    assert len(net.stages) == stages
    features = net.features(torch.zeros(1, 1, *window))
    assert features.shape == (1, 2 * 2 ** (stages - 1), *(n // 2**stages for n in window))
    assert net(torch.zeros(2, 1, *window)).shape == (2, 2)


def test_a_uniform_window_looks_the_same_everywhere():
    torch.manual_seed(0)
    net = WindowNet((8, 8, 8)).eval()
    features = net.features(torch.full((1, 1, 8, 8, 8), 0.7))
    first = features[:, :, :1, :1, :1].expand_as(features)
    torch.testing.assert_close(features, first, rtol=1e-5, atol=1e-6)


def test_windows_do_not_influence_each_other():
    torch.manual_seed(0)
    net = WindowNet((8, 8, 8)).eval()
    x = torch.rand(5, 1, 8, 8, 8)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 12, 12, 9), (2, 12, 12, 8), (2, 3, 12, 12, 8)])
def test_other_windows_are_refused(shape):
    with pytest.raises(DataError, match=r"built for windows \[n, 1, 12, 12, 8\], found \["):
        WindowNet((12, 12, 8))(torch.zeros(shape))


def test_too_small_windows_are_refused():
    with pytest.raises(DataError, match="at least 4 voxels along every axis, found 8×8×3"):
        WindowNet((8, 8, 3))


def _windows(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise around a level of each window's own; every second one holds a darker block, perhaps cut by its edge."""
    level = rng.uniform(0.4, 0.8, (n, 1, 1, 1))
    x = rng.normal(level, 0.07, (n, 12, 12, 8)).astype(np.float32)
    labels = np.arange(n) % 2
    for window in x[1::2]:
        corner = rng.integers(-2, (11, 11, 7))
        box = tuple(slice(max(0, c), c + 4) for c in corner)
        window[box] -= 0.35
    return torch.from_numpy(x)[:, None], torch.from_numpy(labels)


def test_learns_within_seconds():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = WindowNet((12, 12, 8))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(40):
        x, y = _windows(rng, 32)
        loss = functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = _windows(rng, 400)
    with torch.no_grad():
        scores = net.eval()(x).softmax(1)[:, 1]
    brightness = roc_auc_score(y, -x.mean((1, 2, 3, 4)))
    assert roc_auc_score(y, scores) > max(0.9, brightness + 0.15)
