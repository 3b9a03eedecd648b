"""What a machine can do."""

from __future__ import annotations

import logging

import pytest
import torch

from til_mtl import cli, doctor


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: caplog.text


def test_packages_and_slides_are_listed(said):
    assert cli.main(["doctor"]) == 0
    for name in ("til-mtl", "torch", "openslide", "ImageNet weights of resnet50"):
        assert name in said()


def test_without_slides_the_exit_code_tells(said, monkeypatch):
    monkeypatch.setattr(doctor, "describe_slides", lambda: (["openslide: cannot be loaded"], False))
    assert cli.main(["doctor"]) == 1
    assert "openslide: cannot be loaded" in said()


@pytest.mark.parametrize("there", [True, False])
def test_weights_in_the_cache_are_seen(there, monkeypatch, tmp_path, said):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = doctor.imagenet_file()
    assert file.parent == tmp_path / "checkpoints"
    assert file.name.startswith("resnet50-")
    if there:
        file.parent.mkdir()
        file.write_bytes(b"weights")
    doctor.diagnose()
    (line,) = [line for line in said().splitlines() if "ImageNet weights" in line]
    assert ("absent: --download fetches them" in line) != there
