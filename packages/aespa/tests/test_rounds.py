"""What is known of users, and how a round changes it."""

from __future__ import annotations

import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.rounds import LatentDraws, answer, learn, low_resolution, no_knowledge


@pytest.fixture(scope="module")
def network():
    return build_network(Architecture(encoder="tiny", image_size=32, n_components=4)).eval()


@pytest.fixture(scope="module")
def features(network):
    with torch.no_grad():
        return network.encode(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_nothing_is_known_at_first(network):
    knowledge = no_knowledge(network, 3)
    assert knowledge.coords.shape == (3, 0, 2)
    assert knowledge.previous is None
    assert torch.equal(knowledge.responsibilities, network.initial_responsibilities.expand(3, -1))


def test_a_click_is_added_to_those_before(network):
    knowledge = no_knowledge(network, 2).clicked(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([1, 0]))
    knowledge = knowledge.clicked(torch.tensor([[5.0, 6], [7, 8]]), torch.tensor([-1, 1]))
    assert knowledge.coords.tolist() == [[[1, 2], [5, 6]], [[3, 4], [7, 8]]]
    assert knowledge.labels.tolist() == [[1, -1], [0, 1]]
    assert knowledge.previous is None


@torch.no_grad()
def test_the_mean_of_the_mixture_needs_no_chance(network, features):
    knowledge = no_knowledge(network, 2)
    said = answer(network, features, knowledge)
    assert said.logits.shape == (1, 2, 1, 16, 16)
    assert torch.equal(said.mean, answer(network, features, knowledge).mean)


@torch.no_grad()
def test_users_of_one_batch_do_not_change_each_other(network, features):
    coords, labels = torch.tensor([[9.0, 9], [20, 5]]), torch.tensor([1, 0])
    both = answer(network, features, no_knowledge(network, 2).clicked(coords, labels)).mean
    for i in range(2):
        row = torch.tensor([i])
        alone = answer(
            network, features[row], no_knowledge(network, 1).clicked(coords[row], labels[row])
        ).mean
        assert (both[row] - alone).abs().max() < 1e-4


@torch.no_grad()
def test_samples_follow_the_chance_that_is_given(network, features):
    draws = LatentDraws(torch.randn(5, 2, 64), torch.rand(5, 2))
    knowledge = no_knowledge(network, 2)
    said = answer(network, features, knowledge, n_samples=5, draws=draws)
    assert said.logits.shape == (5, 2, 1, 16, 16)
    assert torch.equal(said.logits, answer(network, features, knowledge, n_samples=5, draws=draws).logits)
    assert (said.mean - said.logits.mean(dim=0)).abs().max() == 0


def test_no_gradient_crosses_rounds(network, features):
    said = answer(network, features.requires_grad_(), no_knowledge(network, 2))
    assert said.mean.requires_grad
    known = learn(no_knowledge(network, 2), said, torch.rand(2, 4, requires_grad=True))
    assert known.previous is not None
    assert not known.previous.requires_grad
    assert not known.responsibilities.requires_grad


def test_low_resolution_averages_cells(network):
    masks = torch.rand(2, 32, 32)
    expected = masks.reshape(2, 16, 2, 16, 2).mean(dim=(2, 4))
    assert (low_resolution(network, masks) - expected).abs().max() < 1e-6
