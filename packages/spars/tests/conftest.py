"""Fixtures of the spars suite."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs():
    """One thread for tensors this small, and the list of installed packages read once and not by every run."""
    from medshared import environment

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("installed_packages", "git_state"):
            patched.setattr(environment, name, cache(getattr(environment, name)))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_volumes():
    """The module that draws the volumes of the goldens: ``golden_volume(shape, seed)``, ``sample_indices``."""
    spec = importlib.util.spec_from_file_location("golden_volume", GOLDEN / "golden_volume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
