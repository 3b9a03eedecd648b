"""The first convolution on the crop equals the plain network on the stretched crop, for every kind of axis."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from spars.errors import DataError
from spars.models.fast_net import FastNet, fold_norm, plan_axis
from spars.models.net import Net
from spars.original.resize import nearest_sources, resize_image, stretch_nearest


def _fill(network: Net, fill, seed: int = 0) -> Net:
    """Golden weights; some gains are negative, which must not break taking the maximum before ReLU."""
    fill(network, seed)
    with torch.no_grad():
        network.fc5.weight /= 8
    return network.eval()


@pytest.fixture(scope="module")
def net(fill_golden_weights):
    network = _fill(Net((108, 110, 109)), fill_golden_weights)
    with torch.no_grad():
        network.bn1.weight[::2] *= -1
        network.bn3.weight[1::3] *= -1
    return network


@pytest.fixture(scope="module")
def exact(net):
    return copy.deepcopy(net).double()


def _crops(shape, n=1):
    return torch.from_numpy(np.random.RandomState(3).randint(-1000, 300, (n, *shape)).astype(np.float64))


@pytest.mark.parametrize(
    "shape",
    [(24, 20, 11), (1, 18, 1), (54, 55, 7), (40, 60, 100), (108, 3, 130)],
    ids=["patterns", "single voxels", "twofold", "patterns and stretched axes", "equal and shrunk axes"],
)
@torch.no_grad()
def test_equals_the_plain_network(exact, shape):
    crops = _crops(shape)
    plain = exact(torch.from_numpy(stretch_nearest(crops.numpy(), exact.in_shape, dtype=np.float64))[:, None])
    torch.testing.assert_close(FastNet(exact, shape)(crops), plain, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_single_precision_and_batches(net, exact):
    crops = _crops((24, 20, 11), 3)
    logits = FastNet(net, (24, 20, 11))(crops.float())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), FastNet(exact, (24, 20, 11))(crops), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[0], logits[1])
    assert FastNet(net, (24, 20, 11))(crops[:0].float()).shape == (0, 2)


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu(net):
    crops = _crops((8, 20, 60), 2).float()
    expected = FastNet(net, (8, 20, 60))(crops)
    found = FastNet(net, (8, 20, 60)).cuda()(crops.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), target=st.integers(5, 90), seed=st.integers(0, 9))
def test_an_axis_computes_convolution_and_maximum(n, target, seed):
    """The plan of one axis against a plain convolution of the stretched line."""
    rng = np.random.default_rng(seed)
    line, weights = rng.standard_normal(n), rng.standard_normal(3)
    stretched = torch.from_numpy(line[nearest_sources(n, target)])[None, None]
    expected = functional.max_pool1d(functional.conv1d(stretched, torch.from_numpy(weights)[None, None]), 2)[
        0, 0
    ]
    plan = plan_axis(n, target)
    source = line if plan.sources is None else line[plan.sources]
    assert len(source) == plan.length
    padded = np.concatenate([source, np.full(plan.taps - 1, 7.0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, plan.taps)
    responses = windows @ (plan.select * weights).sum(2).T  # [n, K]
    larger = np.maximum(
        responses[plan.even[:, 1], plan.even[:, 0]], responses[plan.odd[:, 1], plan.odd[:, 0]]
    )
    found = larger if plan.expand is None else larger[plan.expand]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("n", "target"), [(48, 256), (24, 180), (8, 256), (64, 180)])
def test_shipped_windows_have_three_patterns_of_two_taps(n, target):
    plan = plan_axis(n, target)
    assert (plan.patterns, plan.taps, plan.length, plan.sources) == (3, 2, n, None)


def test_few_different_pairs_are_computed_once():
    plan = plan_axis(8, 256)
    assert plan.expand is not None
    assert len(plan.even) < 24
    assert len(plan.expand) == 127


def test_folded_norm():
    torch.manual_seed(0)
    convolution, norm = torch.nn.Conv3d(2, 3, 3).double(), torch.nn.BatchNorm3d(3).double()
    norm(torch.randn(4, 3, 5, 5, 5, dtype=torch.float64) * 3 + 1)
    torch.nn.init.normal_(norm.weight)
    weight, bias = fold_norm(convolution, norm)
    x = torch.randn(2, 2, 6, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(functional.conv3d(x, weight, bias), norm.eval()(convolution(x)))


def test_wrong_crops_are_refused(net):
    with pytest.raises(DataError, match=r"built for crops \[n, 24, 20, 11\], found \[1, 24, 20, 12\]"):
        FastNet(net, (24, 20, 11))(torch.zeros(1, 24, 20, 12))
    with pytest.raises(DataError, match="crop_shape must be positive"):
        FastNet(net, (24, 0, 11))


@pytest.fixture(scope="module")
def golden(golden_npz, golden_volumes):
    """The golden file and its crops."""
    arrays = golden_npz("classifier_forward")
    image, _ = golden_volumes.golden_volume(arrays["volume_shape"], int(arrays["volume_seed"]))
    assert golden_volumes.sha256(image) == str(arrays["volume_sha256"])
    pairs = zip(arrays["starts"], arrays["windows"], strict=True)
    crops = [image[tuple(slice(s, s + w) for s, w in zip(*pair, strict=True))] for pair in pairs]
    return arrays, crops


@pytest.fixture(scope="module")
def full(fill_golden_weights):
    return _fill(Net(), fill_golden_weights).to(memory_format=torch.channels_last_3d)  # faster on a CPU


@pytest.mark.parametrize("case", range(7))
def test_golden_logits_by_the_fast_network(full, golden, case):
    arrays, crops = golden
    crop = torch.from_numpy(crops[case])[None]
    logits = FastNet(full, tuple(crop.shape[1:]))(crop)
    np.testing.assert_allclose(logits[0], arrays["nearest_logits_f32"][case], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits.softmax(1)[0], arrays["nearest_probs_f32"][case], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [2, 5])
def test_golden_logits_in_double_precision(full, golden, case):
    arrays, crops = golden
    crop = torch.from_numpy(crops[case])[None]
    logits = FastNet(copy.deepcopy(full).double(), tuple(crop.shape[1:]))(crop)
    np.testing.assert_allclose(logits[0], arrays["nearest_logits_f64"][case], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_golden_stages_of_the_plain_network(full, golden):
    arrays, crops = golden
    case = int(arrays["stage_case"])
    found: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _args, output: found.append(output))
        for layer in (full.pool, full.bn4, full.fc1, full.fc2, full.fc3, full.fc4)
    ]
    logits = full(torch.from_numpy(stretch_nearest(crops[case]))[None, None])
    for handle in handles:
        handle.remove()
    np.testing.assert_allclose(logits[0], arrays["nearest_logits_f32"][case], rtol=1e-4, atol=1e-4)
    names = ("pool1", "pool2", "pool3", "relu4", "fc1", "fc2", "fc3", "fc4")
    for name, output in zip(names, found, strict=True):
        value = output if name.startswith("pool") else torch.relu(output)
        assert list(value.shape) == arrays[f"stage_{name}_shape"].tolist(), name
        sampled = value.flatten()[torch.from_numpy(arrays[f"stage_{name}_idx"])]
        np.testing.assert_allclose(sampled, arrays[f"stage_{name}_val"], rtol=1e-4, atol=1e-3, err_msg=name)
        moments = value.double().mean().item(), value.double().std(correction=0).item()
        np.testing.assert_allclose(moments, arrays[f"stage_{name}_mean_std"], rtol=1e-3, err_msg=name)


@torch.no_grad()
def test_golden_logits_of_a_trilinear_crop(full, golden):
    arrays, crops = golden
    logits = full(resize_image(crops[4]))
    np.testing.assert_allclose(logits[0], arrays["trilinear_logits_f32"][4], rtol=1e-4, atol=1e-4)
