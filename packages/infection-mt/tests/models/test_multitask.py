"""The networks beyond the goldens: gray inputs, class-conditional time heads, frozen backbones."""

from __future__ import annotations

import pytest
import torch

from infection_mt.models.backbone import PretrainedWeightsError, build_backbone
from infection_mt.models.multitask import MultiTaskResNet


@pytest.fixture(scope="module")
def network() -> MultiTaskResNet:
    torch.manual_seed(0)
    return MultiTaskResNet("resnet10", False, hidden_dim=8, time_head="per_class").eval()


def test_one_channel_equals_three_equal_channels(network):
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        for gray, colour in zip(network(x), network(x.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(gray, colour, atol=1e-5, rtol=1e-5)


def test_one_channel_gives_the_same_gradient():
    torch.manual_seed(1)
    backbone, _ = build_backbone("resnet10")
    backbone.eval()
    x = torch.randn(2, 1, 32, 32)
    gradients = []
    for inputs in (x, x.expand(-1, 3, -1, -1)):
        backbone.zero_grad()
        backbone(inputs).square().sum().backward()
        gradients.append(backbone.conv1.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)


def test_per_class_time_is_the_true_class_in_training_and_the_expectation_in_use(network):
    x = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        logits, mixed = network(x)
        zero = network(x, torch.tensor([0, 0, 0]))[1]
        one = network(x, torch.tensor([1, 1, 1]))[1]
    p = logits.softmax(1)
    torch.testing.assert_close(mixed, p[:, :1] * zero + p[:, 1:] * one)


def test_a_per_class_head_trains_only_the_true_class(network):
    network.zero_grad()
    network(torch.randn(2, 1, 32, 32), torch.tensor([1, 1]))[1].sum().backward()
    last = network.regressor[-1].weight.grad
    assert torch.equal(last[0], torch.zeros_like(last[0]))
    assert last[1].abs().sum() > 0


def test_conditioning_trains_the_classifier_through_the_time():
    for conditioned in (False, True):
        network = MultiTaskResNet(
            "resnet10", False, hidden_dim=8, use_cls_conditioning=conditioned, dropout=0
        )
        network.eval()(torch.randn(2, 1, 32, 32))[1].sum().backward()
        gradient = network.classifier[0].weight.grad
        assert (gradient is not None and gradient.abs().sum() > 0) == conditioned


def test_unknown_backbone_and_absent_weights(monkeypatch, tmp_path):
    with pytest.raises(KeyError, match="resnet9"):
        build_backbone("resnet9")
    with pytest.raises(PretrainedWeightsError, match="no ImageNet weights for resnet10"):
        build_backbone("resnet10", pretrained=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(PretrainedWeightsError, match="--download"):
        build_backbone("resnet18", pretrained=True)


def test_per_class_time_needs_classes():
    with pytest.raises(ValueError, match="at least 2"):
        MultiTaskResNet("resnet10", False, num_classes=1, time_head="per_class")
