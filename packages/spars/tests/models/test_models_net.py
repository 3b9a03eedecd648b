"""The original's network: its names, its sizes, and its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spars.errors import DataError
from spars.models.net import Net, last_map


def test_names_and_shapes_are_the_originals(golden_json):
    with torch.device("meta"):
        net = Net()
    found = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert found == golden_json("state_dict_net")
    assert sum(p.numel() for p in net.parameters()) == 3_570_738


def test_accepted_sizes(golden_json):
    golden = golden_json("classifier_sizes")
    for axis, key in ((0, "first_two_axes_accept"), (2, "last_axis_accepts")):
        low, high = golden[key]
        fits = [n for n in range(100, 400) if last_map((n, n, n))[axis] == last_map((256, 256, 180))[axis]]
        assert (fits[0], fits[-1], len(fits)) == (low, high, high - low + 1)


@pytest.fixture(scope="module")
def net(fill_golden_weights):
    network = fill_golden_weights(Net(), 0).eval()
    with torch.no_grad():
        network.fc5.weight /= 8
    return network.to(memory_format=torch.channels_last_3d)  # faster on a CPU


@torch.no_grad()
def test_smallest_accepted_input_gives_the_originals_logits(net, golden_json):
    case = golden_json("classifier_sizes")["cases"][0]
    x = np.random.RandomState(3).randint(-100, 200, case["shape"]).astype(np.float32)
    logits = net(torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(logits[0], case["logits_f32"], atol=1e-3)


@pytest.mark.parametrize(
    "shape", [(1, 235, 256, 180), (1, 256, 300, 180), (1, 180, 256, 256), (2, 256, 256, 180)]
)
def test_other_inputs_are_refused(net, shape):
    with pytest.raises(DataError, match=r"built for input \[n, 1, 256, 256, 180\], found"):
        net(torch.empty(1, *shape))


def test_the_linear_width_follows_the_input():
    assert Net((108, 172, 108)).fc1.in_features == 64 * 1 * 2 * 1


@pytest.mark.parametrize("shape", [(107, 256, 180), (48, 48, 24), (1, 1, 1)])
def test_too_small_inputs_are_refused(shape):
    with pytest.raises(DataError, match=r"at least 108×108×108 voxels, found in_shape \d+×"):
        Net(shape)
