"""Keys, values and gradients of every network against the original's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advmil.config import Config
from advmil.models.build import build_backbone, build_discriminator, build_generator
from advmil.models.discriminator import Discriminator
from advmil.models.generator import Generator
from advmil.models.layers import GAPool, GatedAttention, RegionEmbedding, gated, position_code
from advmil.models.patchgcn import PatchGCN
from advmil.models.survival_net import SurvivalNet
from advmil.noise import FixedNoise

DIMS = (32, 16, 16)
BACKBONES = ("patch", "abmil", "cluster", "graph", "graph_3layers", "patch_with_coord")
DISCRIMINATORS = {
    "prj_x_instance": {},
    "prj_x_bag": {"product": "bag"},
    "prj_y_instance": {"path": "y"},
    "prj_none_instance": {"path": "none"},
    "prj_none_bag": {"path": "none", "product": "bag"},
    "prj_x_instance_gapool": {"pool": "gapool"},
    "prj_x_instance_k3": {"kernel": 3},
    "prj_x_bag_gapool_k3": {"pool": "gapool", "kernel": 3, "product": "bag"},
    "prj_x_instance_ynorm": {"time_norm": True},
    "prj_x_instance_vec4": {"time_dim": 4},
    "cat": {"kind": "cat"},
    "cat_gapool": {"kind": "cat", "pool": "gapool"},
}
LAYERS = {
    "gapool": lambda: GAPool(32, 16),
    "attn_gated": lambda: GatedAttention(32, 16),
    "avgemb_k1": lambda: RegionEmbedding(32, 8, 1),
    "avgemb_k3": lambda: RegionEmbedding(32, 8, 3),
    "avgemb_k3_s2": lambda: RegionEmbedding(32, 8, 3, stride=2),
    "gaemb_k1": lambda: RegionEmbedding(32, 8, 1, "gapool"),
    "gaemb_k3": lambda: RegionEmbedding(32, 8, 3, "gapool"),
}


def shapes(module):
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def small_backbone(name):
    if name == "graph_3layers":
        return PatchGCN(DIMS, n_layers=3)
    return build_backbone(name.removesuffix("_with_coord"), DIMS)


def small_discriminator(name):
    return Discriminator(32, 8, **{"time_widths": (4, 8), **DISCRIMINATORS[name]})


def extra_of(name, arrays):
    if name.startswith("cluster"):
        return torch.from_numpy(arrays["cluster_id"])
    if name.startswith("graph"):
        return torch.from_numpy(arrays["edge_index"])
    return torch.from_numpy(arrays["coord"]) if name == "patch_with_coord" else None


def draws(seed, sizes, dtype=np.float32):
    return FixedNoise(
        torch.from_numpy(np.random.RandomState(seed + 50 + k).uniform(size=size).astype(dtype))
        for k, size in enumerate(sizes)
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_equals_the_original(name, golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("backbones_small"), golden_json("backbones_small")
    net = small_backbone(name).eval()
    assert shapes(net) == golden_json("state_dicts_small")[f"backbone_{name}"]
    fill_golden_weights(net, facts["seed"])
    x, extra = torch.from_numpy(arrays["x"]), extra_of(name, arrays)
    loose = name == "patch_with_coord"  # its position code is computed in float32
    with torch.no_grad():
        np.testing.assert_allclose(net(x, extra).numpy(), arrays[f"{name}_H_f32"], atol=2e-6, rtol=1e-5)
    net.double()
    x = x.double().requires_grad_()
    out = net(x, extra)
    atol = 1e-6 if loose else 1e-10
    np.testing.assert_allclose(out.detach().numpy(), arrays[f"{name}_H_f64"], atol=atol)
    weight = torch.from_numpy(np.random.RandomState(facts["seed"] + 1).standard_normal(tuple(out.shape)))
    (out * weight).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), arrays[f"{name}_gradx"], atol=atol)
    norms = {key: 0.0 if p.grad is None else float(p.grad.norm()) for key, p in net.named_parameters()}
    assert norms == pytest.approx(facts["grad_norms"][name], abs=5e-6 if loose else 1e-10, rel=1e-9)


@pytest.mark.parametrize("name", BACKBONES[:-1])
def test_known_first_layer_gives_the_same_gradients(name, golden_npz, fill_golden_weights):
    arrays = golden_npz("backbones_small")
    net = fill_golden_weights(small_backbone(name), 3).double().eval()
    x, extra = torch.from_numpy(arrays["x"]).double().requires_grad_(), extra_of(name, arrays)
    results = []
    with torch.no_grad():
        known = net.first_layer(x)
        net.encode(known, extra)  # may rectify what it got; encoding again must not differ
    for given in (None, known):
        net.zero_grad()
        x.grad = None
        out = net(x, extra, given)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in net.parameters() if p.grad is not None)])
    for plain, reused in zip(*results, strict=True):
        torch.testing.assert_close(reused, plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["patch", "abmil", "cluster", "graph"])
def test_attention_is_a_weight_a_patch(name, golden_npz, fill_golden_weights):
    arrays = golden_npz("backbones_small")
    net = fill_golden_weights(small_backbone(name), 3).eval()
    x, extra = torch.from_numpy(arrays["x"]), extra_of(name, arrays)
    with torch.no_grad():
        weights = net.attention(x, extra)
    assert weights.shape == (48,)
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert weights.min().item() >= 0
    if name == "abmil":
        hidden = net.attention_net[:3](x)
        torch.testing.assert_close(net.rho((weights[None, None] @ hidden)[:, 0]), net(x))


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_equals_the_original(name, golden_npz, golden_json, fill_golden_weights):
    arrays = golden_npz("layers_small")
    layer = LAYERS[name]()
    expected = golden_json("state_dicts_small")[f"layer_{name}"]
    if name in ("gapool", "attn_gated"):
        hidden = expected[next(iter(expected))][0]
        layer = type(layer)(32, hidden)
    assert shapes(layer) == expected
    fill_golden_weights(layer, 11).double().eval()
    out = layer(torch.from_numpy(arrays["x"]).double())
    np.testing.assert_allclose(out.detach().numpy(), arrays[name], atol=1e-10)


def test_one_mask_for_both_gates_keeps_mean_and_variance():
    torch.manual_seed(0)
    layer = GatedAttention(4, 3, dropout=0.25).train()
    x = torch.randn(1, 4).expand(40_000, 4)
    with torch.no_grad():
        one = gated(x, layer.attention_a, layer.attention_b)
        two = layer.attention_a(x) * layer.attention_b(x)
        layer.eval()
        whole = gated(x[:1], layer.attention_a, layer.attention_b)
    torch.testing.assert_close(one.mean(0), whole[0], rtol=0.03, atol=1e-3)
    torch.testing.assert_close(one.std(0), two.std(0), rtol=0.03, atol=1e-3)
    assert (one != 0).float().mean().item() == pytest.approx(0.75**2, abs=0.01)


def test_position_code_equals_the_original(golden_npz):
    arrays = golden_npz("layers_small")
    code = position_code(torch.from_numpy(arrays["pe_coord"]), 16)
    np.testing.assert_allclose(code.numpy(), arrays["pe"], atol=2e-6)


def test_generators_equal_the_original(golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("generators_small"), golden_json("generators_small")
    seed = facts["seed"]
    for name, case in facts["cases"].items():
        net = Generator(
            build_backbone("abmil", DIMS), (16, case["dim_out"]), noise=tuple(case["noise"]), hops=case["hops"],
            norm=case["norm"], dropout=case["dropout"], out_scale=case["out_scale"],
        ).eval()  # fmt: skip
        assert shapes(net) == golden_json("state_dicts_small")[f"G_{name}"]
        assert next(iter(net.state_dict())).startswith("MLPs")
        fill_golden_weights(net, seed)
        sizes = [(1, width) for width in net.noise_widths if width]
        x = torch.from_numpy(arrays["x"])
        with torch.no_grad():
            for dtype, numpy_type, atol in (("f32", np.float32, 2e-6), ("f64", np.float64, 1e-10)):
                if dtype == "f64":
                    net.double()
                    x = x.double()
                drawn = net(x, noise=draws(seed, sizes, numpy_type))
                zero = net(x, noise=draws(seed, sizes), zero_noise=True)
                np.testing.assert_allclose(drawn.numpy(), arrays[f"{name}_{dtype}"], atol=atol, rtol=0)
                np.testing.assert_allclose(zero.numpy(), arrays[f"{name}_zero_{dtype}"], atol=atol, rtol=0)


@pytest.mark.parametrize("backbone", ["patch", "abmil", "cluster", "graph"])
def test_full_size_generators_equal_the_original(backbone, golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("networks_full"), golden_json("generators_full")
    seed = facts["seed"]
    x = np.random.RandomState(seed + 2).standard_normal((1, facts["N"], 1024)).astype(np.float32)
    x = torch.from_numpy(x)
    extra = {"cluster": "cluster_id", "graph": "edge_index_graph"}.get(backbone)
    extra = None if extra is None else torch.from_numpy(arrays[extra])
    width = 128 if backbone == "graph" else 384
    for noise in ("0-0", "0-1", "1-0", "1-1"):
        config = Config(
            bcb_mode=backbone, bcb_dims=f"1024-{width}-{width}", gen_dims=f"{width}-1", gen_noi_noise=noise
        )
        net = build_generator(config).eval()
        assert shapes(net) == golden_json(f"state_dict_G_{backbone}_{noise}")
        fill_golden_weights(net, seed)
        case = facts["cases"][f"{backbone}_{noise}"]
        sizes = [(1, width) for width in net.noise_widths if width]
        assert [list(size) for size in sizes] == case["noise_draw_sizes"]
        with torch.no_grad():
            if noise == "0-1":
                np.testing.assert_allclose(fill_golden_weights(net.backbone, seed)(x, extra).numpy(), arrays[f"{backbone}_H_f32"], atol=5e-6)  # fmt: skip
                fill_golden_weights(net, seed)
            assert float(net(x, extra, noise=draws(seed, sizes))) == pytest.approx(case["noise"], abs=5e-6)
            assert float(net(x, extra)) == pytest.approx(case["zero"], abs=5e-6)


def test_parameter_counts_are_those_of_the_paper():
    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert count(build_generator(Config())) == 1_653_314
    assert count(build_generator(Config(bcb_mode="abmil"))) == 911_810
    assert count(build_discriminator(Config())) == 206_338
    assert count(build_discriminator(Config(disc_type="cat"))) == 206_466


@pytest.mark.parametrize("name", list(DISCRIMINATORS))
def test_discriminator_equals_the_original(name, golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("discriminators_small"), golden_json("discriminators")
    net = small_discriminator(name).eval()
    assert shapes(net) == golden_json("state_dicts_small")[f"D_{name}"]
    fill_golden_weights(net, facts["seed"])
    x, t = (torch.from_numpy(arrays[key]) for key in ("x", "t_vec4" if name.endswith("vec4") else "t"))
    np.testing.assert_allclose(net(x, t).detach().numpy(), arrays[f"{name}_f32"], atol=2e-6)
    net.double()
    x, t = x.double().requires_grad_(), t.double().requires_grad_()
    out = net(x, t)
    np.testing.assert_allclose(out.detach().numpy(), arrays[f"{name}_f64"], atol=1e-10)
    out.sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), arrays[f"{name}_gradt"], atol=1e-10)
    small = facts["small"][name]
    assert float(x.grad.norm()) == pytest.approx(small["gradx_norm"], abs=1e-10)
    norms = {key: 0.0 if p.grad is None else float(p.grad.norm()) for key, p in net.named_parameters()}
    assert norms == pytest.approx(small["grad_norms"], abs=1e-10)


def test_discriminator_scores_batches_row_by_row(golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("discriminators_small"), golden_json("discriminators")
    x, t = (torch.from_numpy(arrays[key]).double() for key in ("x_batch3", "t_batch3"))
    for product, golden in (
        ("bag", "batch3_bag_original_f64"),
        ("instance", "batch3_instance_corrected_f64"),
    ):
        net = fill_golden_weights(small_discriminator(f"prj_x_{product}"), facts["seed"]).double().eval()
        np.testing.assert_allclose(net(x, t).detach().numpy(), arrays[golden], atol=1e-10)


@pytest.mark.parametrize("name", ["prj_x_instance", "prj_x_bag", "cat"])
def test_one_bag_is_scored_against_several_times(name, golden_npz, fill_golden_weights):
    arrays = golden_npz("discriminators_small")
    net = fill_golden_weights(small_discriminator(name), 5).double().eval()
    x, t = torch.from_numpy(arrays["x"]).double(), torch.from_numpy(arrays["t_batch3"]).double()
    together = net.score(net.embed_x(x), t)
    torch.testing.assert_close(together, torch.cat([net(x, row[None]) for row in t]), rtol=0, atol=1e-12)


def test_full_size_discriminators_equal_the_original(golden_npz, golden_json, fill_golden_weights):
    facts = golden_json("discriminators")
    x = np.random.RandomState(facts["seed"] + 2).standard_normal((1, 64, 1024)).astype(np.float32)
    t = torch.from_numpy(golden_npz("discriminators_small")["t"])
    for name, keys in (
        ("prj_x_instance", {}),
        ("prj_x_bag", {"disc_prj_iprd": "bag"}),
        ("cat", {"disc_type": "cat"}),
    ):
        net = build_discriminator(Config(**keys)).eval()
        assert shapes(net) == golden_json(f"state_dict_D_{name}")
        fill_golden_weights(net, facts["seed"])
        assert net(torch.from_numpy(x), t).item() == pytest.approx(facts["full_size_value"][name], abs=5e-6)


@pytest.mark.parametrize("backbone", ["patch", "abmil", "cluster", "graph"])
def test_baseline_nets_equal_the_original(backbone, golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("survnet_small"), golden_json("survnet_small")
    for name, case in facts["cases"].items():
        net = SurvivalNet(
            build_backbone(backbone, DIMS), (16, case["dim_out"]), hops=case["hops"], norm=case["norm"],
            out_scale=case["out_scale"],
        ).eval()  # fmt: skip
        if backbone == "abmil":
            assert shapes(net) == golden_json("state_dicts_small")[f"SurvNet_{name}_abmil"]
        fill_golden_weights(net, facts["seed"])
        out = net(torch.from_numpy(arrays["x"]), extra_of(backbone, arrays))
        np.testing.assert_allclose(out.detach().numpy(), arrays[f"{name}_{backbone}_f32"], atol=2e-6, rtol=1e-5)  # fmt: skip
