"""What the machine can do for this package."""

from __future__ import annotations

import logging

import pytest
import torch

from advmil import cli, doctor
from medshared import doctor as shared_doctor


@pytest.mark.parametrize("present", [False, True])
def test_versions_extras_and_weights_are_listed(monkeypatch, tmp_path, caplog, present):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    if present:
        doctor.encoder_weights_file().parent.mkdir()
        doctor.encoder_weights_file().touch()
    with caplog.at_level(logging.INFO):
        assert cli.main(["doctor"]) == 0
    for name in doctor.PACKAGES:
        assert f"{name} " in caplog.text
    assert ("on disk" in caplog.text) == present
    assert ("--download" in caplog.text) != present


def test_slides_that_cannot_be_read_fail_the_check(monkeypatch):
    monkeypatch.setattr(doctor, "describe_slides", lambda: (["broken"], False))
    assert doctor.diagnose() == 1
    assert doctor.describe_slides is not shared_doctor.describe_slides
