"""The faithful order of training repeats the original's losses, gradients and changes, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from aespa.clicks import Clicks
from aespa.config import Config
from aespa.data.arrays import Batch
from aespa.draws import ItemDraws
from aespa.errors import TrainingError
from aespa.losses import weighted_bce
from aespa.models.architecture import Architecture
from aespa.models.build import build_network, empty_network
from aespa.models.network import AespaNetwork, Mixture
from aespa.original.aespa_rounds import aespa_rounds
from aespa.original.phases import Phases, mask_loss, mask_responsibilities
from aespa.original.rounds import alternating_step
from aespa.original.spa_rounds import spa_rounds
from aespa.rounds import LatentDraws

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


def _xy(rows_columns) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows_columns[..., ::-1])).float()


@pytest.mark.slow
def test_golden_order_of_aespa(recorded):
    run = recorded("trajectory_aespa")
    golden, seen = run.golden, []

    def click(probabilities, followed):
        index = len(seen)
        seen.append(followed.tolist())
        assert probabilities.shape == (2, 128, 128)
        return Clicks(
            _xy(golden["clicks_yx"][index]),
            torch.from_numpy(golden["click_labels"][index]),
            torch.from_numpy(golden["gt_soft_after_click"][index])[:, 0],
            torch.from_numpy(golden["click_raters"][index]),
        )

    target = torch.from_numpy(golden["raters"]).float().mean(dim=1)[:, 0]
    aespa_rounds(run.phases, run.images, target, click, runs=2)
    assert seen == [[-1, -1], golden["click_raters"][0].tolist()]
    run.check()


@pytest.mark.slow
def test_golden_order_of_spa(recorded):
    run = recorded("trajectory_spa")
    golden = run.golden
    noise = iter(torch.from_numpy(golden["noise"]).flatten(0, 1))
    rounds = iter(range(2))

    def select(samples):
        index = next(rounds)
        assert samples.shape == (2, 6, 1024)
        members = torch.from_numpy(golden["kmeans_labels"][index] == golden["kmeans_target"][index])
        coords = _xy(golden[f"prompt_coords_{3 * index + 2}"])[:, -1]
        labels = torch.from_numpy(golden[f"prompt_labels_{3 * index + 2}"]).long()[:, -1]
        return samples[:, members].mean(dim=1), Clicks(coords, labels, coords, labels)

    spa_rounds(
        run.phases,
        run.images,
        torch.from_numpy(golden["mask"])[:, 0].float(),
        (_xy(golden["prompt_coords_0"])[:, 0], torch.from_numpy(golden["prompt_labels_0"]).long()[:, 0]),
        lambda: LatentDraws(next(noise), torch.zeros(6, 2)),
        select,
        n_samples=6,
        runs=2,
    )
    run.check()


def _batch() -> Batch:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    far = torch.stack([(x - 32).square() + (y - c).square() for c in (24, 40)])
    raters = torch.stack([far < 100, far < 250], dim=1).float()
    images = 0.2 + 0.4 * raters.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return Batch(images, raters, torch.ones(2, 2, dtype=torch.bool), torch.arange(2))


def _tiny(mode: str, *, faithful: bool = True, **changes) -> tuple[AespaNetwork, Config]:
    small = {"encoder": "tiny", "image_size": 64, "runs": 2, "num_samples": 4, "n_clusters": 2}
    config = Config(
        mode=mode, faithful=faithful, update="alternating", n_components=4, **small, **changes
    ).resolved()
    return build_network(Architecture.from_config(config)), config


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("mode", ["AESPA", "SPA"])
def test_a_step_follows_from_the_draws_and_teaches_its_parts(mode, faithful):
    def train(seed: int) -> tuple[dict[str, float], set[str]]:
        network, config = _tiny(mode, faithful=faithful)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-4)
        found = alternating_step(network, optimizer, _batch(), draws=ItemDraws([seed, 7]), config=config)
        after = network.state_dict()
        return found, {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}

    (first, taught), (again, _), (other, _) = train(1), train(1), train(2)
    assert first == again
    assert first != other
    assert first["loss"] == pytest.approx(first["mask"] + first["mixture"])
    assert taught == set(PARTS) - ({"EM_mean_variance"} if mode == "AESPA" else set())


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [("AESPA", {"amp": "16"}, "use -amp 32 or -amp bf16"), ("SAM", {}, "use -update per_batch for SAM")],
)
def test_what_has_no_such_order_is_named(mode, changes, message):
    network, config = _tiny(mode, **changes)
    optimizer = torch.optim.Adam(network.parameters())
    with pytest.raises(TrainingError, match=message):
        alternating_step(network, optimizer, _batch(), draws=ItemDraws([1, 2]), config=config)


def test_phases_leave_what_was_frozen_frozen():
    network, _ = _tiny("AESPA")
    network.EM_weights.fc1.weight.requires_grad_(False)
    phases = Phases(network, None)

    def fail() -> None:
        with phases.learning(network.EM_weights):
            assert network.EM_weights.fc1.weight.requires_grad
            assert not any(p.requires_grad for p in network.image_encoder.parameters())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["EM_weights.fc1.weight"]


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_the_loss_of_enlarged_logits(upsample):
    network = build_network(Architecture(encoder="tiny", image_size=64, upsample=upsample))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 32, 32, generator=generator)
    wanted = torch.randint(0, 3, (2, 64, 64), generator=generator) / 2
    expected = weighted_bce(network.upsample(logits)[:, 0], wanted, 2.0)
    torch.testing.assert_close(mask_loss(network, logits, wanted, 2.0), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 4, 5000])
def test_repeated_values_of_a_mask_are_counted(levels):
    network = build_network(Architecture(encoder="tiny", image_size=64, n_components=3))
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randint(0, levels, (2, 64, 64), generator=generator) / (levels - 1)
    mixture = Mixture(
        torch.tensor([[0.2, 0.5, 0.3]] * 2), torch.tensor([[0.1, 0.4, 1.1]] * 2), torch.full((2, 3), 0.1)
    )
    expected = network.responsibilities(wanted.flatten(1), mixture)
    torch.testing.assert_close(
        mask_responsibilities(network, wanted, mixture), expected, rtol=1e-5, atol=1e-6
    )
