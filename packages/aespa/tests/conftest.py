"""Fixtures of the aespa suite."""

from __future__ import annotations

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs(quick_runs):
    """Every test of this suite trains small networks in small runs."""


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN
