"""Checkpoints of the original load strictly, in both spellings of the graph convolution."""

from __future__ import annotations

import pytest
import torch

from advmil.config import Config
from advmil.models.build import build_baseline, build_discriminator, build_generator
from advmil.models.checkpoint import load_network, save_network
from advmil.optimisers import build_optimizer
from medshared.weights import WeightsError

SMALL = {"bcb_dims": "32-16-16", "gen_dims": "16-1", "pdh_dims": "16-1", "disc_netx_in_dim": 32}


def small(mode):
    return build_generator(Config(**SMALL, bcb_mode=mode))


@pytest.mark.parametrize("mode", ["patch", "abmil", "cluster", "graph"])
def test_original_form_loads_strictly(mode, tmp_path, fill_golden_weights):
    source, target = fill_golden_weights(small(mode), 3), small(mode)
    optimizer = build_optimizer("adam", source, 1e-3, 1e-3)
    loss = sum(p.sum() for p in source.parameters())
    loss.backward()
    optimizer.step()
    path = save_network(tmp_path / "train_modelG-best.pth", source, 7, optimizer)
    raw = torch.load(path, weights_only=True)
    assert sorted(raw) == ["epoch", "model", "optimizer"]
    assert len(raw["optimizer"]["param_groups"]) == 2
    loaded = load_network(path, target)
    assert loaded.epoch == 7
    assert loaded.report.ok
    assert loaded.notes == ()
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    build_optimizer("adam", target, 1e-3, 1e-3).load_state_dict(loaded.optimizer)


def test_current_spelling_of_the_graph_convolution(tmp_path, fill_golden_weights):
    source = fill_golden_weights(small("graph"), 3)
    state = {k.replace("conv.t", "conv.aggr_module.t"): v for k, v in source.state_dict().items()}
    state = {
        k: v
        for k, v in state.items()
        if ".conv.mlp." not in k or k.split(".")[-2] == "1" or k.endswith("weight")
    }
    torch.save({"epoch": 1, "model": state, "optimizer": None}, tmp_path / "g.pth")
    target = small("graph")
    loaded = load_network(tmp_path / "g.pth", target)
    conv = target.backbone.layers[0].conv
    assert torch.equal(conv.t, source.backbone.layers[0].conv.t)
    assert torch.equal(conv.mlp[4].bias, torch.zeros(16))
    assert len(loaded.notes) == 3
    assert any("aggr_module.t is read as" in note for note in loaded.notes)


def test_graph_convolution_equals_the_library(fill_golden_weights):
    geometric = pytest.importorskip("torch_geometric.nn")
    ours = fill_golden_weights(small("graph").backbone.layers[0].conv, 3).double()
    library = geometric.GENConv(16, 16, aggr="softmax", t=1.0, learn_t=True, num_layers=2, norm="layer", bias=True).double()  # fmt: skip
    state = {k.replace("t", "aggr_module.t") if k == "t" else k: v for k, v in ours.state_dict().items()}
    library.load_state_dict(state)
    x, edges = torch.randn(30, 16, dtype=torch.float64), torch.randint(0, 30, (2, 100))
    torch.testing.assert_close(ours(x, edges), library(x, edges), rtol=0, atol=1e-12)


def test_another_network_is_refused_with_a_table(tmp_path):
    save_network(tmp_path / "d.pth", build_discriminator(Config(**SMALL)), 1)
    target = small("patch")
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(WeightsError, match=r"d\.pth: the weights do not fit Generator"):
        load_network(tmp_path / "d.pth", target)
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))


def test_a_bare_state_dictionary_loads(tmp_path):
    net = build_baseline(Config(**SMALL, task="surv_cox"))
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    loaded = load_network(tmp_path / "bare.pth", build_baseline(Config(**SMALL, task="surv_cox")))
    assert loaded.epoch is None
    assert loaded.optimizer is None
