"""What a machine can do."""

from __future__ import annotations

import logging

import pytest

from spars import cli, doctor


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: caplog.text


def test_packages_volumes_and_games_are_tried(said):
    assert cli.main(["doctor"]) == 0
    for text in (
        "spars 0",
        "torch",
        "stable-baselines3",
        "NIfTI is written and read",
        "109,551 of them",
        "pydicom",
    ):
        assert text in said()


def test_what_does_not_work_is_named_and_told_by_the_exit_code(said, monkeypatch):
    def broken(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("medshared.volumes.write_volume", broken)
    assert cli.main(["doctor"]) == 1
    assert "volumes: does not work: no space left" in said()
    assert "game: windows are scored" in said()


def test_volumes_that_come_back_changed_are_noticed(monkeypatch):
    from medshared import volumes

    real = volumes.read_volume
    monkeypatch.setattr(
        volumes, "read_volume", lambda path: volumes.Volume(real(path).array + 1, real(path).affine)
    )
    with pytest.raises(RuntimeError, match="comes back changed"):
        doctor.check_volumes()
