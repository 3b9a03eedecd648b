"""Grad-CAM against finite differences, and its pictures."""

import numpy as np
import pytest
import torch

from infection_mt.config import ModelConfig
from infection_mt.explain import denormalise, grad_cam, heatmap, overlay, score_of
from infection_mt.models.base import Outputs
from infection_mt.models.checkpoint import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return build_model(ModelConfig(name="resnet10", pretrained=False, hidden_dim=8), "multitask").eval()


X = torch.linspace(-1.5, 1.5, 2 * 64 * 64).reshape(2, 1, 64, 64).sin()


@pytest.mark.parametrize("score", ["infected", "difference", "time"])
def test_weights_are_the_gradient_of_the_pooled_activations(model, score):
    """The head sees the mean of each channel, so its gradient there is the spatial mean of the map's gradient."""
    kept = []
    handle = model.backbone.layer4[-1].register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    model.outputs(X)
    handle.remove()
    features = kept[0].mean(dim=(2, 3)).requires_grad_(True)
    logits = model.classifier(features)
    outputs = Outputs(logits, model.regressor(features))
    (gradient,) = torch.autograd.grad(score_of(outputs, score).sum(), features)
    raw = torch.relu((gradient[:, :, None, None] * kept[0]).sum(dim=1, keepdim=True))
    raw = torch.nn.functional.interpolate(raw, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    low, high = raw.amin(dim=(1, 2), keepdim=True), raw.amax(dim=(1, 2), keepdim=True)
    found = grad_cam(model, X, score)
    # The spatial mean of dS/dA is (dS/dmean) / (h·w): a factor that the scaling to [0, 1] removes.
    torch.testing.assert_close(found, (raw - low) / (high - low + 1e-8), atol=2e-4, rtol=0)
    assert found.amax(dim=(1, 2)).max() > 0.99, "a map of zeros would prove nothing"
    assert found.min() >= 0
    assert found.max() <= 1
    assert all(p.grad is None for p in model.parameters())


def test_a_frozen_backbone_can_be_explained():
    model = build_model(
        ModelConfig(name="resnet10", pretrained=False, hidden_dim=8, train_backbone=False), "multitask"
    ).eval()
    assert grad_cam(model, X).shape == (2, 64, 64)


@pytest.mark.parametrize(
    ("outputs", "score", "words"),
    [
        (Outputs(torch.zeros(1, 2), None), "time", "no time output"),
        (Outputs(None, torch.zeros(1, 1)), "infected", "no class output"),
        (Outputs(torch.zeros(1, 3), None), "difference", "exactly two classes"),
    ],
)
def test_scores_that_are_not_there(outputs, score, words):
    with pytest.raises(ValueError, match=words):
        score_of(outputs, score)
    assert score_of(Outputs(torch.tensor([[7.0]]), None), "infected").tolist() == [7.0]


def test_pictures_are_truncated_like_the_original():
    x = np.array([[[-2.0, 0.0, 2.0, 9.0]]] * 3, np.float32)
    shown = denormalise(x, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert shown[0, :, 0].tolist() == [0, 127, 255, 255]
    heat = heatmap(np.array([[0.0, 1.0]], np.float32))
    assert heat.tolist() == [[[0, 0, 127], [127, 0, 0]]]
    assert overlay(np.full((1, 2, 3), 101, np.uint8), heat)[0, 0].tolist() == [50, 50, 114]
