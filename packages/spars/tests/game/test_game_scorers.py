from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spars.errors import DataError
from spars.game.scorers import CountingScorer, NetworkScorer, StubScorer
from spars.models.net import Net


class Pooled(nn.Module):
    """A network of a few numbers that is not symmetric in the axes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv3d(1, 3, (2, 3, 1), stride=2)
        self.norm = nn.BatchNorm3d(3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(x)).amax(dim=(2, 3, 4)))


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(14, 12, 9)).astype(np.float32)


def windows_of(volume: np.ndarray, starts: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    return np.stack([volume[x : x + size[0], y : y + size[1], z : z + size[2]] for x, y, z in starts])


@pytest.mark.parametrize("target", ["native", (13, 11, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_scores_by_its_second_class(volume: np.ndarray, target, dtype: torch.dtype) -> None:
    module = Pooled().to(dtype)
    scorer = NetworkScorer(module, target)
    windows = windows_of(volume, np.array([[0, 0, 0], [3, 2, 1], [8, 6, 5]]), (6, 5, 4))
    scores = scorer(windows)
    x = torch.from_numpy(windows).to(dtype)[:, None]
    if target != "native":
        x = nn.functional.interpolate(x, size=target, mode="nearest")
    with torch.no_grad():
        expected = torch.softmax(module.eval()(x), dim=1)[:, 1]
    assert scores.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)


def test_starts_score_as_their_windows(volume: np.ndarray) -> None:
    scorer = NetworkScorer(Pooled(), (13, 11, 10), batch=2)
    starts = np.array([[0, 0, 0], [3, 2, 1], [8, 7, 5], [1, 1, 1], [2, 2, 2]])
    by_start = scorer.score_starts(volume, starts, (6, 5, 4))
    np.testing.assert_allclose(by_start, scorer(windows_of(volume, starts, (6, 5, 4))), rtol=1e-6)
    other = volume + 1
    np.testing.assert_allclose(
        scorer.score_starts(other, starts, (6, 5, 4)),
        scorer(windows_of(other, starts, (6, 5, 4))),
        rtol=1e-6,
    )


def test_batches_make_no_difference(volume: np.ndarray) -> None:
    starts = np.array([[i, i % 3, i % 4] for i in range(7)])
    windows = windows_of(volume, starts, (6, 5, 4))
    one, many = NetworkScorer(Pooled(), batch=1), NetworkScorer(Pooled(), batch=64)
    np.testing.assert_allclose(one(windows), many(windows), rtol=1e-6)
    assert many(windows[:0]).shape == (0,)


def test_the_originals_network_is_accelerated(volume: np.ndarray) -> None:
    torch.manual_seed(0)
    size = (108, 108, 108)  # the smallest that its convolutions allow
    net = Net(size)
    starts = np.array([[0, 0, 0], [3, 2, 1]])
    plain = NetworkScorer(net, size, fast=False).score_starts(volume, starts, (6, 5, 4))
    accelerated = NetworkScorer(net, size)
    np.testing.assert_allclose(accelerated.score_starts(volume, starts, (6, 5, 4)), plain, atol=1e-5)
    np.testing.assert_allclose(accelerated(windows_of(volume, starts, (6, 5, 4))), plain, atol=1e-5)
    assert list(accelerated._accelerated) == [(6, 5, 4)]
    assert accelerated.key == NetworkScorer(net, size, fast=False).key


def test_keys_tell_scorers_apart() -> None:
    keys = {
        NetworkScorer(Pooled()).key,
        NetworkScorer(Pooled(seed=1)).key,
        NetworkScorer(Pooled(), (13, 11, 10)).key,
        NetworkScorer(Pooled().double()).key,
        StubScorer(1, 2).key,
        StubScorer(1, 3).key,
        StubScorer(1, 2, (4, 4, 4)).key,
    }
    assert len(keys) == 7
    assert NetworkScorer(Pooled()).key == NetworkScorer(Pooled()).key


def test_the_stub_weighs_voxels_by_their_copies() -> None:
    window = np.random.default_rng(1).normal(60, 40, (3, 5, 6, 4)).astype(np.float32)
    stretched = nn.functional.interpolate(torch.from_numpy(window)[:, None], size=(7, 9, 10), mode="nearest")
    means = stretched.double().mean(dim=(1, 2, 3, 4)).numpy()
    np.testing.assert_allclose(
        StubScorer(20, 60, (7, 9, 10))(window), 1 / (1 + np.exp(-(means - 60) / 20)), rtol=1e-12
    )
    plain = 1 / (1 + np.exp(-(window.astype(np.float64).mean(axis=(1, 2, 3)) - 60) / 20))
    np.testing.assert_allclose(StubScorer(20, 60)(window), plain, rtol=1e-12)


def test_the_stub_does_not_overflow() -> None:
    window = np.stack([np.full((2, 2, 2), -1e6), np.full((2, 2, 2), 1e6)]).astype(np.float32)
    assert StubScorer(1, 0)(window).tolist() == [0.0, 1.0]


def test_counting() -> None:
    scorer = CountingScorer(StubScorer(1, 0))
    windows = np.zeros((3, 2, 2, 2), np.float32)
    np.testing.assert_array_equal(scorer(windows), 0.5)
    scorer(windows[:1])
    assert (scorer.n_windows, scorer.n_calls) == (4, 2)
    assert scorer.key == StubScorer(1, 0).key


@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 4, 4, 0), (1, 1, 4, 4, 4)])
@pytest.mark.parametrize("scorer", [StubScorer(1, 0), NetworkScorer(Pooled())])
def test_windows_without_voxels_are_refused(scorer, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least one voxel"):
        scorer(np.zeros(shape, np.float32))
