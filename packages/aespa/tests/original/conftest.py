"""Fixtures of the tests of the original's behaviour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.build import empty_network
from aespa.original.phases import Phases

PARTS = ("EM_mean_variance", "EM_weights", "image_encoder", "mask_decoder", "prompt_encoder")


class Recorded:
    """A copy of the golden network whose steps are recorded."""

    def __init__(self, network, golden) -> None:
        self.golden = golden
        self.before = network.state_dict()
        self.network = empty_network(Architecture.original(128))
        self.network.load_state_dict(self.before)
        self.network.initial_responsibilities.copy_(torch.from_numpy(golden["init_weights"]))
        self.images = torch.from_numpy(golden["x_uint8"]).float() / 255
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        optimizer.register_step_pre_hook(lambda *_: self.gradients.append(self._norms()))
        self.gradients: list[list[float]] = []
        self.optimizer = optimizer
        self.phases = Phases(self.network, optimizer)

    def _norms(self) -> list[float]:
        norms = []
        for part in PARTS:
            found = [p.grad for p in getattr(self.network, part).parameters() if p.grad is not None]
            norms.append(float(torch.stack([g.norm() for g in found]).norm()) if found else -1.0)
        return norms

    def check(self) -> None:
        """Compare everything that the golden holds."""
        golden = self.golden
        kinds, losses = zip(*self.phases.losses, strict=True)
        assert list(kinds) == golden["loss_kinds"].tolist()
        np.testing.assert_allclose(torch.stack(losses), golden["losses"], atol=1e-4)
        assert self.phases.summary()["loss"] == pytest.approx(float(golden["returned"]), abs=2e-4)
        assert golden["grad_top"].tolist() == list(PARTS)
        np.testing.assert_allclose(self.gradients, golden["grad_l2"], rtol=0.03)
        after = self.network.state_dict()
        deltas = {key: float((after[key] - value).norm()) for key, value in self.before.items()}
        found = [deltas[str(name)] for name in golden["delta_names"]]
        np.testing.assert_allclose(found, golden["delta_l2"], rtol=0.03)
        tops = [np.linalg.norm([d for k, d in deltas.items() if k.startswith(f"{part}.")]) for part in PARTS]
        np.testing.assert_allclose(tops, golden["changed_l2"], rtol=0.03)
        still = {key for key, delta in deltas.items() if delta == 0 and "gaussian" not in key}
        assert still == set(golden["unchanged"].tolist())
        # What never learns has no moments either: they would double the memory of the weights.
        parameters = dict(self.network.named_parameters())
        assert {name for name, p in parameters.items() if p not in self.optimizer.state} == still
        assert all(parameter.requires_grad for parameter in parameters.values())


@pytest.fixture
def recorded(golden_network, golden_npz) -> Callable[[str], Recorded]:
    return lambda name: Recorded(golden_network, golden_npz(name))


@pytest.fixture(scope="session")
def to_xy() -> Callable[[np.ndarray], torch.Tensor]:
    """Turn a golden's (row, column) into (x, y)."""
    return lambda rows_columns: torch.from_numpy(np.ascontiguousarray(rows_columns[..., ::-1])).float()
