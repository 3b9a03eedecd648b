"""Noise: the original's streams, and replaying."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advmil.noise import FixedNoise, RecordedNoise, torch_noise, zero_noise


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_streams_equal_the_original(distribution, golden_json):
    facts = golden_json("utilities")["noise"]
    expected = np.array(facts[distribution])
    torch.manual_seed(facts["torch_seed"])
    global_stream = torch_noise(distribution)(expected.shape)
    generator = torch.Generator().manual_seed(facts["torch_seed"])
    own_stream = torch_noise(distribution, generator)(expected.shape)
    np.testing.assert_allclose(global_stream.numpy(), expected, atol=1e-7)
    assert torch.equal(global_stream, own_stream)


def test_recorded_noise_is_replayed():
    recorded = RecordedNoise(torch_noise())
    first = [recorded((1, 3)), recorded((1, 2))]
    replay = recorded.replay()
    assert torch.equal(replay((1, 3)), first[0])
    assert torch.equal(replay((1, 2)), first[1])
    with pytest.raises(ValueError, match="no draw is left"):
        replay((1, 2))


def test_wrong_requests_are_named():
    with pytest.raises(ValueError, match=r"expected noise of size \(1, 3\), the next draw has \(1, 2\)"):
        FixedNoise([torch.zeros(1, 2)])((1, 3))
    with pytest.raises(ValueError, match="uniform or gaussian, found 'cauchy'"):
        torch_noise("cauchy")
    assert zero_noise((2, 3)).tolist() == [[0.0] * 3] * 2
