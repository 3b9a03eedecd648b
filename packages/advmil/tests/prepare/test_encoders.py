"""Encoders and their weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advmil.prepare.encoders import TruncatedResNet50, load_encoder
from medshared.checkpoints import WeightsError


@pytest.fixture(scope="module")
def resnet(fill_golden_weights) -> nn.Module:
    return fill_golden_weights(TruncatedResNet50(), 11).eval()


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getvalue())
    return path


def test_keys_and_shapes(resnet, golden_json):
    shapes = {key: list(value.shape) for key, value in resnet.state_dict().items()}
    assert shapes == golden_json("state_dict_resnet50_trunc")


def test_golden_features(resnet, golden_npz, tmp_path: Path):
    """A whole ResNet-50's file is loaded without its last stage, and gives the golden features."""
    golden = golden_npz("resnet50_trunc")
    whole = resnet.state_dict() | {"fc.weight": torch.zeros(3, 4), "layer4.0.conv1.weight": torch.zeros(1)}
    encoder = load_encoder("resnet50_trunc", weights=saved(whole, tmp_path / "resnet.pth"))
    images = torch.from_numpy(golden["images_uint8"]).permute(0, 2, 3, 1)
    with torch.inference_mode():
        features = encoder.network(encoder.normalise(images)).numpy()
    np.testing.assert_allclose(features, golden["features"], rtol=1e-4, atol=1e-5)
    assert encoder.width == 1024
    assert encoder.weights.startswith("resnet.pth sha256:")


def test_random_weights_are_seeded_and_leave_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (load_encoder("resnet50_trunc", source="random") for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert first.weights == "random"
    assert not first.network.training
    pairs = zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_no_weights_says_what_to_do(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match="no ImageNet weights of ResNet-50 in the cache; give --weights FILE, --down"
    ):
        load_encoder("resnet50_trunc")
    with pytest.raises(ValueError, match=r"absent\.pth: no such file of weights"):
        load_encoder("resnet50_trunc", weights=tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="encoder 'synthetic' needs --weights"):
        load_encoder("synthetic")
    with pytest.raises(ValueError, match="'uni_v1': its weights are given out by their authors only"):
        load_encoder("uni_v1")
    with pytest.raises(ValueError, match="'conch_v1': this network is not in timm"):
        load_encoder("conch_v1")


def test_weights_of_another_network(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"missing|unexpected"):
        load_encoder("resnet50_trunc", weights=saved({"conv9.weight": torch.zeros(1)}, tmp_path / "a.pth"))


def test_timm_model_brings_its_normalisation_and_size(tmp_path: Path):
    """A transformer of fixed size; its file holds a classifier, which is left out, and norms, which are not."""
    import timm

    encoder = load_encoder("vit_tiny_patch16_224", source="random")
    assert (encoder.width, encoder.input_px, encoder.mean) == (192, 224, (0.5, 0.5, 0.5))
    whole = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    loaded = load_encoder("vit_tiny_patch16_224", weights=saved(whole.state_dict(), tmp_path / "vit.pth"))
    assert torch.equal(loaded.network.state_dict()["norm.weight"], whole.state_dict()["norm.weight"])
    assert load_encoder("resnet18", source="random").input_px is None


def test_timm_model_without_cache_stays_off_the_network(tmp_path: Path, monkeypatch):
    """No socket is opened: the message comes from the caches alone."""
    import socket

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ValueError, match="encoder 'resnet18': its weights cannot be had"):
        load_encoder("resnet18")
    with pytest.raises(
        ValueError, match=r"encoder 'resnett18': expected resnet50_trunc, uni_v1, synthetic or"
    ):
        load_encoder("resnett18")
