"""What the machine and the installation can do."""

from __future__ import annotations

import logging

from aespa import doctor


def test_it_names_packages_extras_and_weights(caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert doctor.diagnose() == 0
    for name in (*doctor.PACKAGES, *doctor.EXTRAS):
        assert name in caplog.text
    assert f"weights of MedSAM ({doctor.MEDSAM}): absent" in caplog.text
    doctor.MEDSAM.parent.mkdir()
    doctor.MEDSAM.touch()
    with caplog.at_level(logging.INFO):
        doctor.diagnose()
    assert f"weights of MedSAM ({doctor.MEDSAM}): on disk" in caplog.text
