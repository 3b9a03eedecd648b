"""Start weights: bounds and spread of every parameter against the original's."""

from __future__ import annotations

import pytest
import torch

from advmil.config import Config
from advmil.models.build import build_backbone, build_generator
from advmil.models.initialisation import initialise_narrow, initialise_xavier

STARTS = {"init_weights": initialise_xavier, "general_init_weight": initialise_narrow}


@pytest.mark.parametrize("name", list(STARTS))
def test_start_weights_have_the_originals_bounds(name, golden_json):
    stats = golden_json("init_stats")["stats"][name]
    torch.manual_seed(0)
    net = build_generator(Config())
    STARTS[name](net)
    assert [key for key, _ in net.named_parameters()] == list(stats)
    for key, p in net.named_parameters():
        largest, spread = stats[key]
        if p.numel() < 100:  # too few draws for a statistic: only the same bound as the layer's weight
            assert p.abs().max().item() <= max(largest, stats[key.replace("bias", "weight")][0]) * 1.05
            continue
        assert p.abs().max().item() == pytest.approx(largest, rel=0.05), key
        assert p.std().item() == pytest.approx(spread, rel=0.12), key


@pytest.mark.parametrize(
    ("mode", "dims", "message"),
    [
        (
            "patch",
            (32, 16, 8),
            "expected hidden and embedding width equal and a multiple of 8, found 16 and 8",
        ),
        ("patch", (32, 12, 12), "multiple of 8"),
        ("cluster", (32, 16, 8), "hidden and embedding width equal, found 16 and 8"),
        ("abmil", (32, 16), "three widths, input-hidden-embedding, found 2"),
        ("transmil", (32, 16, 16), "expected one of patch, abmil, cluster, graph, found 'transmil'"),
    ],
)
def test_impossible_backbones_are_named(mode, dims, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(mode, dims)


def test_what_a_backbone_needs_is_named():
    x = torch.randn(1, 17, 32)
    with pytest.raises(ValueError, match="17 patches cannot be cut into regions of 16"):
        build_backbone("patch", (32, 16, 16))(x)
    with pytest.raises(ValueError, match="needs the cluster id of every patch"):
        build_backbone("cluster", (32, 16, 16))(x)
    with pytest.raises(ValueError, match="5 cluster ids for 17 patches"):
        build_backbone("cluster", (32, 16, 16))(x, torch.zeros(5))
    with pytest.raises(ValueError, match="needs the edges"):
        build_backbone("graph", (32, 16, 16))(x)
    with pytest.raises(ValueError, match="gen_dims: expected 384-<outputs>"):
        build_generator(Config(gen_dims="128-1"))
