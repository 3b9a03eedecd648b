"""SPA: picking a proposal and clicking where it differs from the others."""

from __future__ import annotations

import pytest
import torch

from aespa.draws import ItemDraws
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.em import Mixture
from aespa.proposing import after_pick, latent_draws, pick
from aespa.rounds import Answer, no_knowledge


@pytest.fixture(scope="module")
def network():
    return build_network(Architecture(encoder="tiny", image_size=32, n_components=4)).eval()


@pytest.fixture
def said():
    """Six samples of two images: three mark the left half, three the right one."""
    logits = torch.full((6, 2, 1, 16, 16), -4.0)
    logits[:3, ..., :8] = 4.0
    logits[3:, ..., 8:] = 4.0
    logits += 0.01 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    even = torch.full((2, 4), 0.25)
    return Answer(logits, Mixture(even, torch.linspace(0, 1, 4).expand(2, 4), torch.full((2, 4), 0.05)))


def wanted_sides() -> torch.Tensor:
    """The first image's user wants the left half, the second one's the right half."""
    wanted = torch.zeros(2, 32, 32)
    wanted[0, :, :16], wanted[1, :, 16:] = 1, 1
    return wanted


def test_each_user_picks_the_proposal_that_is_nearest(network, said):
    picked = pick(network, said, wanted_sides(), 2, 20, torch.tensor([0.1, 0.9]))
    assert picked.choice.members.tolist() == [[True] * 3 + [False] * 3, [False] * 3 + [True] * 3]
    assert (picked.logits[0] - said.logits[:3, 0].mean(dim=0)).abs().max() < 1e-5
    for image, ((x, y), label) in enumerate(
        zip(picked.clicks.coords.long().tolist(), picked.clicks.labels.tolist(), strict=True)
    ):
        assert label == int(wanted_sides()[image, y, x])


def test_nothing_to_choose_is_no_click(network, said):
    same = Answer(said.logits[:1].expand(6, -1, -1, -1, -1), said.mixture)
    picked = pick(network, same, wanted_sides(), 1, 20, torch.tensor([0.1, 0.9]))
    assert picked.clicks.labels.tolist() == [-1, -1]


def test_the_next_round_knows_the_mean_and_what_was_picked(network, said):
    picked = pick(network, said, wanted_sides(), 2, 20, torch.tensor([0.1, 0.9]))
    known = after_pick(network, no_knowledge(network, 2), said, picked)
    assert known.previous is not None
    assert (known.previous - said.mean).abs().max() == 0
    expected = network.responsibilities(picked.choice.select, said.mixture)
    assert torch.equal(known.responsibilities, expected)
    assert known.labels.shape == (2, 1)


def test_chance_of_latents_belongs_to_the_image():
    both, one = latent_draws(ItemDraws([4, 8]), 3, "cpu"), latent_draws(ItemDraws([8]), 3, "cpu")
    assert both.noise.shape == (3, 2, 64)
    assert torch.equal(both.noise[:, 1], one.noise[:, 0])
    assert torch.equal(both.uniform[:, 1], one.uniform[:, 0])
