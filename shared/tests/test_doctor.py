"""What a machine can do, line by line."""

from __future__ import annotations

import importlib.util
from importlib import metadata

import pytest

from medshared import doctor


@pytest.mark.parametrize("present", [False, True])
def test_versions_extras_weights_and_space(monkeypatch, tmp_path, present):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if present else None)
    file = tmp_path / "weights.pth"
    if present:
        file.touch()
    lines = doctor.describe_machine(["numpy", "no-such-package"], {"geo": "tool[geo]"}, {"weights": file})
    assert f"numpy {metadata.version('numpy')}" in lines
    assert "no-such-package: absent" in lines
    assert ("geo: installed" if present else 'geo: absent (pip install "tool[geo]")') in lines
    assert (f"weights: on disk ({file})" if present else "weights: absent: --download fetches them") in lines
    assert any("GiB free in" in line for line in lines)
    assert any("CUDA" in line or line.startswith("cuda:") for line in lines)


def test_a_tiny_slide_is_read_through_the_fast_path():
    lines, works = doctor.describe_slides()
    assert works
    assert any(line.startswith("OpenSlide library 4.") for line in lines)
    assert any(line.startswith("libvips library 8.") for line in lines)
    assert lines[-1] == "fast path: works, 2 levels read through libvips with OpenSlide's pixels"


def test_a_slide_that_cannot_be_read_is_said(monkeypatch):
    def broken() -> tuple[str, bool]:
        raise RuntimeError("no codec")

    monkeypatch.setattr(doctor, "_try_slide", broken)
    lines, works = doctor.describe_slides()
    assert not works
    assert lines[-1] == "a slide written for the test cannot be read: no codec"
