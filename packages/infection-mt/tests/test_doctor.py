"""What the machine can do, line by line."""

import importlib.util
import logging
from importlib import metadata

import pytest
import torch

from infection_mt import cli
from infection_mt.doctor import PACKAGES, describe_machine


def test_every_package_is_listed_with_its_version():
    lines = describe_machine()
    for name in PACKAGES:
        assert f"{name} {metadata.version(name)}" in lines
    assert lines[0].startswith("Python 3.")
    assert any("GiB free in" in line for line in lines)
    assert any("CUDA" in line or line.startswith("cuda:") for line in lines)


@pytest.mark.parametrize("present", [False, True])
def test_extras_and_weights(monkeypatch, tmp_path, present):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if present else None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    if present:
        (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    lines = describe_machine()
    optuna = next(line for line in lines if line.startswith("optuna"))
    assert optuna == "optuna: installed" if present else 'pip install "infection-mt[search]"' in optuna
    weights = next(line for line in lines if "resnet18" in line)
    assert ("on disk" in weights) == present
    assert any("resnet50" in line and "absent: --download" in line for line in lines)


def test_the_command(caplog):
    with caplog.at_level(logging.INFO):
        assert cli.main(["doctor"]) == 0
    assert "torch" in caplog.text
