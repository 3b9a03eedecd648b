"""The three networks against goldens: keys, order, forward passes, and what stays frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from til_mtl.models.deeplab import Features, MultiTaskDeepLabv3Plus, SingleTaskDeepLabv3Plus, TilNetwork

NETWORKS = ("mtl", "stl_seg", "stl_det")


def _maps(network: TilNetwork, x: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {key: value for key, value in network.maps(x)._asdict().items() if value is not None}


@pytest.fixture(scope="module")
def small_network() -> MultiTaskDeepLabv3Plus:
    """A real network with random weights; tests must leave it as it was."""
    torch.manual_seed(0)
    return MultiTaskDeepLabv3Plus()


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_and_parameter_order(name, golden_json, golden_network):
    network, expected = golden_network(name), golden_json(f"parameters_{name}")
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden_json(f"state_dict_{name}")
    assert list(state) == expected["state_dict_order"]
    assert [[key, value.requires_grad] for key, value in network.named_parameters()] == expected["order"]
    counts = [parameter.numel() for parameter in network.parameters()]
    assert sum(counts) == expected["total"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected["trainable"]


@pytest.mark.parametrize("case", ["mtl_64", "mtl_odd", "mtl_256", "stl_seg_64", "stl_det_64"])
@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_golden_forward(case, dtype, golden_json, golden_npz, golden_network):
    about, golden = golden_json("forward")[case], golden_npz("forward")
    x = np.random.RandomState(about["x_seed"]).rand(*about["shape"]).astype(np.float32)
    kind = torch.float64 if dtype == "f64" else torch.float32
    outputs = _maps(golden_network(about["model"], kind), torch.from_numpy(x).to(kind))
    names = {"mtl": {"seg", "det"}, "stl_seg": {"seg"}, "stl_det": {"det"}}[about["model"]]
    assert set(outputs) == names
    limits = {"rtol": 1e-9, "atol": 1e-12} if dtype == "f64" else {"rtol": 0, "atol": 2e-5}
    for name, out in outputs.items():
        found = out.numpy()[:, :, :: about["stride"], :: about["stride"]]
        np.testing.assert_allclose(found, golden[f"{case}.{name}_{dtype}"], **limits)


@pytest.mark.parametrize("case", ["mtl_odd", "stl_det_64"])
def test_golden_intermediate_outputs(case, golden_json, golden_npz, golden_network):
    about, golden = golden_json("forward")[case], golden_npz("forward")
    network = golden_network(about["model"])
    found: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module: nn.Module, _inputs, output) -> None:
            for index, each in enumerate(output if isinstance(output, tuple) else [output]):
                found[f"{name}.{index}" if isinstance(output, tuple) else name] = each

        return hook

    modules = {name.removesuffix(".0").removesuffix(".1") for name in about["features"]}
    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in modules]
    _maps(network, torch.from_numpy(golden[f"{case}.x"]).double())
    for hook in hooks:
        hook.remove()
    for name, shape in about["features"].items():
        values = found[name].detach().numpy()
        assert list(values.shape) == shape
        moments = [values.mean(), values.std(), np.abs(values).max()]
        prefix = f"{case}.feat.{name}"
        np.testing.assert_allclose(moments, golden[f"{prefix}.moments"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(values.ravel()[:32], golden[f"{prefix}.head"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["original", "corrected"])
def test_golden_training_pass(mode, golden_npz, build_golden):
    golden = golden_npz("forward_train")
    network = build_golden("mtl", torch.float64, freeze_bn=mode == "corrected").train()
    with torch.no_grad():
        seg, det = network(torch.from_numpy(golden["x"]).double())
    for name, out in (("seg", seg), ("det", det)):
        expected = golden[f"{mode}.{name}_f64"]
        np.testing.assert_allclose(out.numpy()[:, :, ::2, ::2], expected, rtol=1e-9, atol=1e-12)
    state = network.state_dict()
    prefix = f"{mode}.after."
    for key in (key for key in golden if key.startswith(prefix)):
        np.testing.assert_allclose(state[key.removeprefix(prefix)].numpy(), golden[key], rtol=1e-9)
    assert state["bn1.0.num_batches_tracked"] == golden[f"{mode}.num_batches_tracked.bn1"]


def test_heads_before_the_last_upsampling_equal_heads_behind_it(build_golden):
    """The plain formulation: 256 channels enlarged to the image's size, then the 1x1 heads."""
    network = build_golden("mtl", torch.float64)
    generator = torch.Generator().manual_seed(3)
    c2 = torch.randn(2, 512, 5, 4, generator=generator, dtype=torch.float64)
    c3 = torch.randn(2, 1024, 3, 2, generator=generator, dtype=torch.float64)
    before: dict[str, torch.Tensor] = {}
    hook = network.decoder_bn2.register_forward_hook(lambda _m, _i, out: before.update(z=out))
    maps = network.decode(Features(c2, c3), (37, 29))
    hook.remove()
    enlarged = functional.interpolate(
        functional.relu(before["z"]), size=(37, 29), mode="bilinear", align_corners=True
    )
    heads = {"seg": network.final_conv_seg, "det": network.final_conv_det}
    for name, head in heads.items():
        ours, plain = getattr(maps, name), head(enlarged)
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
        upstream = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
        parameters = [head.weight, head.bias, network.decoder_conv1.weight, network.decoder_bn2.weight]
        gradients = [
            torch.autograd.grad(out, parameters, upstream, retain_graph=True) for out in (ours, plain)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("until", "stages"),
    [
        (None, ()),
        ("conv1", ("conv1",)),
        ("layer2", ("conv1", "layer1", "layer2")),
        ("layer3", ("conv1", "layer1", "layer2", "layer3")),
    ],
)
def test_frozen_stages(until, stages):
    with torch.device("meta"):
        network = MultiTaskDeepLabv3Plus(freeze_until=until)
    assert network.frozen_stages == stages
    frozen_parts = {*stages, "bn1"} if stages else set()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] not in frozen_parts)
    for name, module in network.train().named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (name.split(".")[0] not in frozen_parts)
    assert network.encoder_is_constant == (until == "layer3")
    assert not any(module.training for module in network.eval().modules())


def test_without_freeze_bn_the_norms_of_a_frozen_encoder_train():
    with torch.device("meta"):
        network = SingleTaskDeepLabv3Plus(2, "det", freeze_bn=False)
    assert network.get_submodule("layer1").training
    assert not network.encoder_is_constant
    assert not any(parameter.requires_grad for parameter in network.get_submodule("layer1").parameters())


def test_a_training_step_leaves_the_frozen_encoder_alone(small_network):
    before = {key: value.clone() for key, value in small_network.state_dict().items()}
    seg, det = small_network.train()(torch.rand(2, 3, 32, 32))
    (seg.square().mean() + det.square().mean()).backward()
    trained = {name for name, parameter in small_network.named_parameters() if parameter.grad is not None}
    assert trained == {
        name for name, parameter in small_network.named_parameters() if parameter.requires_grad
    }
    after = small_network.state_dict()
    frozen = [key for key in before if key.split(".")[0] in ("conv1", "bn1", "layer1", "layer2", "layer3")]
    assert len(frozen) == 258
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    small_network.load_state_dict(before)
    small_network.zero_grad()


def test_class_numbers_reach_the_heads():
    with torch.device("meta"):
        network = MultiTaskDeepLabv3Plus(4, 3)
    assert network.aspp.get_submodule("conv_1x1_seg").out_channels == 4
    assert network.aspp.get_submodule("conv_1x1_det").out_channels == 3
    assert network.decoder_conv1.in_channels == 4 + 3 + 48
    assert network.final_conv_seg.out_channels == 4
    assert network.final_conv_det.out_channels == 3


def test_rates_of_the_pyramid():
    with torch.device("meta"):
        network = SingleTaskDeepLabv3Plus(aspp_rates=(1, 2, 3))
    pyramid = network.aspp_seg
    assert [m.dilation[0] for m in (pyramid.conv_3x3_1, pyramid.conv_3x3_2, pyramid.conv_3x3_3)] == [1, 2, 3]


def test_a_single_task_network_needs_one_of_the_two_tasks():
    with pytest.raises(ValueError, match="expected 'seg' or 'det'"):
        SingleTaskDeepLabv3Plus(2, "mtl")
