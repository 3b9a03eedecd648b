"""Rules for all test suites: what a machine cannot run is left out by name, with the reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent


def _missing(marker: str) -> str | None:
    """Return why tests of a marker cannot run here, or None when they can."""
    if marker == "gpu":
        import torch

        return None if torch.cuda.is_available() else "no CUDA device (nox -s gpu on a machine that has one)"
    if marker == "slurm":
        return (
            None if os.environ.get("MEDPAPERS_SLURM") else "no local SLURM cluster (nox -s slurm starts one)"
        )
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return None if found else "no Chromium (install it, then nox -s browser)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, tests whose machinery is absent."""
    reasons: dict[str, str | None] = {}
    for item in items:
        for marker in ("gpu", "slurm", "browser"):
            if item.get_closest_marker(marker) is None:
                continue
            if marker not in reasons:
                reasons[marker] = _missing(marker)
            if reasons[marker] is not None:
                item.add_marker(pytest.mark.skip(reason=f"left out: {reasons[marker]}"))


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of the published reference data, which is never committed; skips the test where it is absent."""
    named = os.environ.get("MEDPAPERS_REFERENCE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("left out: no reference data (set MEDPAPERS_REFERENCE_DATA to its folder)")
    return folder
