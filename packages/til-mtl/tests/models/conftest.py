"""The three golden networks, filled once a session: 40 million numbers each take seconds to draw."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from til_mtl.models.deeplab import MultiTaskDeepLabv3Plus, SingleTaskDeepLabv3Plus, TilNetwork

BUILDERS: dict[str, Callable[..., TilNetwork]] = {
    "mtl": MultiTaskDeepLabv3Plus,
    "stl_seg": lambda **options: SingleTaskDeepLabv3Plus(3, "seg", **options),
    "stl_det": lambda **options: SingleTaskDeepLabv3Plus(2, "det", **options),
}


@pytest.fixture(scope="session")
def golden_state(fill_golden_weights) -> Callable[[str], dict[str, torch.Tensor]]:
    """Return the golden state dictionary of a network in float32; treat it as read-only."""
    drawn: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}
    states: dict[str, dict[str, torch.Tensor]] = {}

    def state(name: str) -> dict[str, torch.Tensor]:
        if name not in states:
            with torch.device("meta"):
                keys = {key: tuple(value.shape) for key, value in BUILDERS[name]().state_dict().items()}
            fresh = {}
            for key, shape in keys.items():
                if (key, shape) not in drawn:
                    kind = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
                    drawn[key, shape] = fresh[key] = torch.zeros(shape, dtype=kind)
            fill_golden_weights(SimpleNamespace(state_dict=lambda: fresh), 0)  # type: ignore[arg-type]
            states[name] = {key: drawn[key, shape] for key, shape in keys.items()}
        return states[name]

    return state


@pytest.fixture(scope="session")
def build_golden(golden_state) -> Callable[..., TilNetwork]:
    """Build a network with golden weights of its own, in evaluation mode: ``build("mtl", torch.float64)``."""

    def build(name: str, dtype: torch.dtype = torch.float32, **options) -> TilNetwork:
        with torch.device("meta"):
            network = BUILDERS[name](**options)
        network.load_state_dict(
            {
                key: value.to(dtype, copy=True) if value.is_floating_point() else value.clone()
                for key, value in golden_state(name).items()
            },
            assign=True,
        )
        return network.eval()

    return build


@pytest.fixture(scope="session")
def golden_network(build_golden) -> Callable[..., TilNetwork]:
    """Return a shared golden network in evaluation mode; tests must not change it."""
    built: dict[tuple[str, torch.dtype], TilNetwork] = {}

    def network(name: str, dtype: torch.dtype = torch.float64) -> TilNetwork:
        if (name, dtype) not in built:
            built[name, dtype] = build_golden(name, dtype)
        return built[name, dtype]

    return network
