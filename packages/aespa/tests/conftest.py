"""Fixtures of the aespa suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from aespa.models.network import AespaNetwork

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs(quick_runs):
    """Every test of this suite trains small networks in small runs."""


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_tensors(fill_golden_weights) -> Callable[..., dict[str, Tensor]]:
    """Return tensors of the names and shapes given, with the values that the goldens were made with."""
    import torch

    def make(shapes: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
        tensors = {name: torch.empty(tuple(shape)) for name, shape in shapes.items()}
        fill_golden_weights(SimpleNamespace(state_dict=lambda: tensors), seed)
        return tensors

    return make


@pytest.fixture(scope="session")
def golden_network(fill_golden_weights) -> AespaNetwork:
    """ViT-B at 128 pixels as in the original, with golden weights; tests must leave it as it is."""
    from aespa.models.architecture import Architecture
    from aespa.models.build import empty_network

    return fill_golden_weights(empty_network(Architecture.original(128))).eval()
