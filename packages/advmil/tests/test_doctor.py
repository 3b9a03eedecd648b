"""What the machine can do, line by line."""

from __future__ import annotations

import importlib.util
import logging
from importlib import metadata

import pytest
import torch

from advmil import cli, doctor


def test_every_package_is_listed_with_its_version():
    lines = doctor.describe_machine()
    for name in doctor.PACKAGES:
        assert f"{name} {metadata.version(name)}" in lines
    assert any("GiB free in" in line for line in lines)
    assert any("CUDA" in line or line.startswith("cuda:") for line in lines)


@pytest.mark.parametrize("present", [False, True])
def test_extras_and_weights(monkeypatch, tmp_path, present):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if present else None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    if present:
        doctor.encoder_weights_file().parent.mkdir()
        doctor.encoder_weights_file().touch()
    lines = doctor.describe_machine()
    geometric = next(line for line in lines if line.startswith("torch_geometric"))
    assert geometric == "torch_geometric: installed" if present else "advmil[geometric]" in geometric
    weights = next(line for line in lines if "ImageNet" in line)
    assert ("on disk" in weights) == present
    assert ("--download" in weights) != present


def test_a_tiny_slide_is_read_through_the_fast_path():
    lines, works = doctor.describe_slides()
    assert works
    assert any(line.startswith("OpenSlide library 4.") for line in lines)
    assert any(line.startswith("libvips library 8.") for line in lines)
    assert lines[-1] == "fast path: works, 2 levels read through libvips with OpenSlide's pixels"


def test_slides_that_cannot_be_read_fail_the_check(monkeypatch, caplog):
    def broken() -> tuple[str, bool]:
        raise RuntimeError("no codec")

    monkeypatch.setattr(doctor, "_try_slide", broken)
    with caplog.at_level(logging.INFO):
        assert doctor.diagnose() == 1
    assert "a slide written for the test cannot be read: no codec" in caplog.text


def test_the_command(caplog):
    with caplog.at_level(logging.INFO):
        assert cli.main(["doctor"]) == 0
    assert "torch" in caplog.text
