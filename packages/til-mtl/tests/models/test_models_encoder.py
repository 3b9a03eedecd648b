"""Encoders: ResNet-50 in the original's parts, networks of timm, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from til_mtl.errors import DataError
from til_mtl.models.deeplab import SingleTaskDeepLabv3Plus
from til_mtl.models.encoder import build_encoder

SMALL = "mobilenetv3_small_050"


def test_resnet50_is_cut_into_the_originals_parts(golden_json):
    with torch.device("meta"):
        parts = build_encoder("resnet50")
    assert list(parts.modules) == ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"]
    assert parts.channels == (512, 1024)
    published = golden_json("state_dict_encoder_pretrained")
    keys = {f"{name}.{key}" for name, module in parts.modules.items() for key in module.state_dict()}
    plain = {key for key in published if not key.startswith("layer4.")}
    assert {key.replace(".0.", ".", 1) for key in keys} == plain


@pytest.mark.parametrize("name", ["resnet18", SMALL])
def test_a_timm_encoder_trains_and_freezes(name):
    torch.manual_seed(0)
    network = SingleTaskDeepLabv3Plus(2, "det", encoder=name)
    logits = network.train()(torch.rand(2, 3, 32, 48))
    assert logits.shape == (2, 2, 32, 48)
    logits.sum().backward()
    encoder = network.get_submodule("encoder")
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_norms_that_replace_frozen_ones_stay_frozen():
    network = SingleTaskDeepLabv3Plus(2, "det", encoder="resnet18")
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network).train()
    norms = [m for m in converted.get_submodule("encoder").modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(module.training for module in norms)
    assert converted.get_submodule("decoder_bn1").training


@pytest.mark.parametrize("name", ["resnet18", SMALL, "convnext_atto"])
def test_stages_of_timm_encoders_are_consecutive_parts(name):
    parts = build_encoder(name)
    names = {id(parameter): key for key, parameter in parts.modules["encoder"].named_parameters()}
    sizes = {
        stage: sum(p.numel() for module in modules for p in module.parameters(recurse=False))
        for stage, modules in parts.stages.items()
    }
    held = [id(p) for modules in parts.stages.values() for m in modules for p in m.parameters(recurse=False)]
    assert len(held) == len(set(held))
    assert set(held) == set(names)
    assert sizes["layer3"] > 0
    assert sizes["layer2"] > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", r"timm knows no network 'resnet5O'; similar names: resnet50"),
        ("vit_tiny_patch16_224", "gives no maps of strides 8 and 16"),
    ],
)
def test_encoders_that_do_not_fit(name, message):
    with pytest.raises(DataError, match=message):
        build_encoder(name)
