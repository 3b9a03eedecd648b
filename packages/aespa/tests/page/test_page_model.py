"""The network behind the page."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from aespa.errors import CheckpointError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import save_network
from aespa.page import model as module
from aespa.page.model import DEMONSTRATION, load_page_model
from aespa.page.options import PageOptions


@pytest.fixture(scope="module")
def network():
    return build_network(Architecture(encoder="tiny", image_size=32, n_components=4)).eval()


def test_without_weights_it_is_the_small_network(small_checkpoint, monkeypatch, caplog):
    monkeypatch.setattr("aespa.page.small_model.small_model", lambda: small_checkpoint)
    with caplog.at_level(logging.WARNING):
        found = load_page_model(PageOptions(device="cpu", seed=3))
    assert found.note == DEMONSTRATION
    assert DEMONSTRATION in caplog.text
    assert found.mode == "AESPA"
    predictor = found.predictor()
    assert predictor.seed == 3
    assert predictor.network is found.network
    assert found.predictor() is not predictor


@pytest.mark.parametrize(
    ("extra", "flag", "wanted"),
    [
        ({"config": {"mode": "SPA"}}, None, "SPA"),
        ({"config": {"mode": "SPA"}}, "AESPA", "AESPA"),
        ({}, None, "AESPA"),
        ({"config": {"mode": "unknown"}}, None, "AESPA"),
    ],
)
def test_the_mode_is_the_checkpoints_unless_told(network, extra, flag, wanted, tmp_path):
    path = save_network(tmp_path / "own.pt", network, **extra)
    found = load_page_model(PageOptions(weights=path, mode=flag, device="cpu"))
    assert (found.mode, found.note) == (wanted, "")
    assert found.predictor().mode == wanted
    assert found.name == f"own.pt, {wanted}, 32 px"


def test_another_image_size(network, tmp_path):
    path = save_network(tmp_path / "own.pt", network)
    found = load_page_model(PageOptions(weights=path, image_size=48, device="cpu"))
    assert found.network.architecture.image_size == 48
    predictor = found.predictor()
    predictor.set_image(np.zeros((20, 30), np.uint8))
    assert predictor.predict().mask.shape == (20, 30)
    with pytest.raises(CheckpointError, match=r"own\.pt: image_size must be a multiple of 8"):
        load_page_model(PageOptions(weights=path, image_size=50, device="cpu"))


def test_weights_that_cannot_be_used(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        load_page_model(PageOptions(weights=tmp_path / "none.pt"))
    path = tmp_path / "cut.pt"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        load_page_model(PageOptions(weights=path))


def test_sam_alone_is_shown_without_preferences(monkeypatch, tmp_path):
    asked = []

    def plain(path, image_size):
        asked.append((path, image_size))
        return build_network(Architecture(encoder="tiny", image_size=32, preferences=False))

    monkeypatch.setattr(module, "_plain_sam", plain)
    path = tmp_path / "medsam_vit_b.pth"
    found = load_page_model(PageOptions(sam_ckpt=path, device="cpu"))
    assert asked == [(path, 1024)]
    assert found.mode == "SAM"
    assert "medsam_vit_b.pth" in found.name
    predictor = found.predictor()
    predictor.set_image(np.zeros((20, 30), np.uint8))
    assert len(predictor.proposals(4)) == 1
    assert isinstance(predictor.network.initial_responsibilities, torch.Tensor)


def test_weights_of_sam_are_not_needed_beside_a_whole_checkpoint(network, tmp_path, caplog):
    path = save_network(tmp_path / "own.pt", network)
    with caplog.at_level(logging.INFO):
        load_page_model(PageOptions(weights=path, sam_ckpt=tmp_path / "sam.pth", device="cpu"))
    assert "not needed" in caplog.text
