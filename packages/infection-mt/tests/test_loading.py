"""Batches gathered in the background come in order; normalisation is the original's."""

import threading

import numpy as np
import pytest
import torch

from infection_mt.config import TransformsConfig
from infection_mt.data.loading import evaluation_batches, iterate_batches, normalise


class Store:
    """Answers with the sample numbers, and notes how many batches were asked for."""

    def __init__(self, fail_at=None):
        self.asked, self.fail_at, self.lock = [], fail_at, threading.Lock()

    def batch(self, table, indices):
        with self.lock:
            self.asked.append(indices.tolist())
        if self.fail_at in indices:
            raise ValueError(f"frame {self.fail_at} is broken")
        return torch.from_numpy(np.asarray(indices))


@pytest.mark.parametrize("workers", [1, 3])
def test_order_and_look_ahead(workers):
    store = Store()
    batches = evaluation_batches(23, 4)
    assert np.concatenate(batches).tolist() == list(range(23))
    stream = iterate_batches(store, None, batches, workers=workers)
    first, _ = next(stream)
    assert first.tolist() == [0, 1, 2, 3]
    assert len(store.asked) <= workers + 1
    rest = [(indices.tolist(), frames.tolist()) for indices, frames in stream]
    assert all(a == b for a, b in rest)
    assert [i for a, _ in rest for i in a] == list(range(4, 23))


def test_an_error_arrives_at_its_batch():
    stream = iterate_batches(Store(fail_at=6), None, evaluation_batches(20, 4))
    assert next(stream)[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="frame 6 is broken"):
        next(stream)
    assert list(iterate_batches(Store(), None, [])) == []


@pytest.mark.parametrize(
    ("channels", "mean", "expected"),
    [(1, (0.5, 0.5, 0.5), 1), (1, (0.5, 0.4, 0.5), 3), (3, (0.5, 0.5, 0.5), 3)],
)
def test_normalisation(channels, mean, expected):
    frames = torch.randint(
        0, 256, (2, channels, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    kept = frames.clone()
    transforms = TransformsConfig(mean=mean, std=(0.25, 0.25, 0.25))
    found = normalise(frames, transforms)
    assert found.shape == (2, expected, 4, 4)
    for channel in range(expected):
        source = frames[:, min(channel, channels - 1)].double() / 255
        torch.testing.assert_close(
            found[:, channel].double(), (source - mean[channel]) / 0.25, atol=1e-6, rtol=0
        )
    assert torch.equal(frames, kept), "cached frames must not change"
