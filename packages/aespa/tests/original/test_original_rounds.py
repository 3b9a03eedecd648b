"""A step in the original's order follows from its draws and teaches the parts that it should."""

from __future__ import annotations

import pytest
import torch

from aespa.config import Config
from aespa.data.arrays import Batch
from aespa.draws import ItemDraws
from aespa.errors import TrainingError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.network import AespaNetwork
from aespa.original.rounds import alternating_step

PARTS = {"EM_mean_variance", "EM_weights", "image_encoder", "mask_decoder", "prompt_encoder"}


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
    assert taught == PARTS - ({"EM_mean_variance"} if mode == "AESPA" else set())


@pytest.mark.parametrize("mode", ["AESPA", "SPA"])
def test_half_precision_gives_nearly_the_same_losses(mode):
    found = []
    for amp in ("32", "bf16"):
        network, config = _tiny(mode, amp=amp)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        found.append(alternating_step(network, optimizer, _batch(), draws=ItemDraws([1, 2]), config=config))
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=0.05)
    assert found[1] != found[0]


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [("AESPA", {"amp": "16"}, "use -amp 32 or -amp bf16"), ("SAM", {}, "use -update per_batch for SAM")],
)
def test_what_has_no_such_order_is_named(mode, changes, message):
    network, config = _tiny(mode, **changes)
    optimizer = torch.optim.Adam(network.parameters())
    with pytest.raises(TrainingError, match=message):
        alternating_step(network, optimizer, _batch(), draws=ItemDraws([1, 2]), config=config)
