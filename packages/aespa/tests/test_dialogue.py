"""Steps of a user: the same as in training and evaluation, and taken back without a trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aespa.dialogue import Dialogue
from aespa.draws import ItemDraws
from aespa.errors import DataError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.proposing import after_pick, latent_draws, pick
from aespa.rounds import answer, learn, no_knowledge
from medshared.gpu import derive_seed

S = 32
CLICKS = [(3, 9, 1), (30, 4, 0), (17, 16, 1)]


@pytest.fixture(scope="module")
def network():
    return build_network(Architecture(encoder="tiny", image_size=S, n_components=4)).eval()


@pytest.fixture(scope="module")
def plain():
    return build_network(Architecture(encoder="tiny", image_size=S, preferences=False)).eval()


@pytest.fixture(scope="module")
def features(network):
    with torch.no_grad():
        return network.encode(torch.rand(1, 3, S, S, generator=torch.Generator().manual_seed(0)))


def equal(left, right) -> bool:
    pairs = [(left.logits, right.logits), *zip(left.mixture, right.mixture, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_clicks_are_the_rounds_of_the_evaluation(network, features):
    dialogue = Dialogue(network, features, "AESPA", 6, 0)
    with torch.no_grad():
        knowledge = no_knowledge(network, 1)
        for x, y, label in CLICKS:
            said = answer(network, features, knowledge)
            assert equal(dialogue.said(), said)
            found = network.responsibilities(torch.sigmoid(said.mean.float()).flatten(1), said.mixture)
            knowledge = learn(knowledge, said, found)
            knowledge = knowledge.clicked(torch.tensor([[float(x), float(y)]]), torch.tensor([label]))
            dialogue.click(x, y, label, (x, y, label))
        assert equal(dialogue.said(), answer(network, features, knowledge))
    assert dialogue.actions == CLICKS
    assert not equal(dialogue.said(), Dialogue(network, features, "AESPA", 6, 0).said())


def test_clicks_without_looking_in_between_give_the_same(network, features):
    looked, blind = (Dialogue(network, features, "AESPA", 6, 0) for _ in range(2))
    for click in CLICKS:
        looked.said()
        looked.samples()
        for dialogue in (looked, blind):
            dialogue.click(*click, click)
    assert equal(looked.said(), blind.said())


def test_proposals_are_the_rounds_of_spa(network, features):
    wanted = torch.zeros(1, S, S)
    wanted[0, 8:20, 5:25] = 1
    dialogue = Dialogue(network, features, "SPA", 6, 3)
    dialogue.click(*CLICKS[0], "first")
    with torch.no_grad():
        x, y, label = CLICKS[0]
        knowledge = no_knowledge(network, 1).clicked(
            torch.tensor([[float(x), float(y)]]), torch.tensor([label])
        )
        said = answer(network, features, knowledge, n_samples=6, draws=chance(3, 1))
        assert equal(dialogue.said(), said)
        picked = pick(network, said, wanted, 2, 20, torch.tensor([0.4]))
        groups = dialogue.groups(2)
        chosen = [group for group in groups if torch.allclose(group.logits, picked.logits, atol=1e-6)]
        assert len(chosen) == 1
        dialogue.choose(chosen[0], "chosen")
        # What is shown after a choice is the proposal, and does not count as a round.
        assert torch.equal(dialogue.said().mean, chosen[0].logits)
        x, y = picked.clicks.coords[0].tolist()
        dialogue.click(x, y, int(picked.clicks.labels), "second")
        knowledge = after_pick(network, knowledge, said, picked)
        again = answer(network, features, knowledge, n_samples=6, draws=chance(3, 3))
    np.testing.assert_allclose(dialogue.said().logits, again.logits, atol=1e-5)


def chance(seed: int, step: int):
    return latent_draws(ItemDraws([derive_seed(seed, "latents", step)]), 6, "cpu")


@pytest.mark.parametrize("mode", ["AESPA", "SPA", "SAM"])
def test_what_is_taken_back_leaves_no_trace(mode, network, plain, features):
    net = plain if mode == "SAM" else network
    dialogue, never = Dialogue(net, features, mode, 5, 0), Dialogue(net, features, mode, 5, 0)
    for each in (dialogue, never):
        each.click(*CLICKS[0], 0)
    before = dialogue.step
    dialogue.click(*CLICKS[1], 1)
    dialogue.choose(dialogue.groups(2)[-1], 2)
    dialogue.draw_box((3.0, 3.0, 20.0, 25.0), 3)
    wrong = dialogue.said()
    assert [dialogue.undo() for _ in range(3)] == [True] * 3
    assert dialogue.step is before
    assert equal(dialogue.said(), never.said())
    assert equal(dialogue.samples(), never.samples())
    assert [dialogue.redo() for _ in range(4)] == [True] * 3 + [False]
    assert equal(dialogue.said(), wrong)
    for _ in range(3):
        dialogue.undo()
    for each in (dialogue, never):
        each.click(*CLICKS[2], 4)
    assert not dialogue.can_redo  # another way was taken
    assert equal(dialogue.said(), never.said())
    assert dialogue.actions == never.actions == [0, 4]
    dialogue.reset()
    assert dialogue.actions == []
    assert not dialogue.can_undo
    assert not dialogue.undo()
    assert equal(dialogue.said(), Dialogue(net, features, mode, 5, 0).said())


def test_choice_is_the_next_mask_prompt_and_keeps_the_clicks(network, features):
    dialogue = Dialogue(network, features, "AESPA", 8, 0)
    dialogue.click(*CLICKS[0], 0)
    groups = dialogue.groups(3)
    with torch.no_grad():
        expected = network.responsibilities(groups[1].probability, dialogue.samples().mixture)
    dialogue.choose(groups[1], 1)
    known = dialogue.step.knowledge
    assert torch.equal(known.previous, groups[1].logits)
    assert torch.equal(known.responsibilities, expected)
    assert known.coords.tolist() == [[[3.0, 9.0]]]
    dialogue.click(*CLICKS[1], 2)
    assert torch.equal(dialogue.step.knowledge.previous, groups[1].logits)  # as in training: not its answer
    dialogue.click(*CLICKS[2], 3)
    assert not torch.equal(dialogue.step.knowledge.previous, groups[1].logits)


def test_groups_are_means_of_the_samples(network, features):
    dialogue = Dialogue(network, features, "SPA", 9, 0)
    logits = dialogue.samples().logits[:, 0]
    groups = dialogue.groups(3)
    shares = [group.share for group in groups]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    total = sum(group.logits * group.share for group in groups)
    np.testing.assert_allclose(total, logits.mean(dim=0, keepdim=True), atol=1e-5)
    assert len(dialogue.groups(9)) == 9
    for k in (0, 10):
        with pytest.raises(DataError, match=f"number of samples, 9; found {k}"):
            dialogue.groups(k)


def test_plain_network_has_one_proposal_and_no_responsibilities(plain, features):
    dialogue = Dialogue(plain, features, "SAM", 9, 0)
    assert [group.share for group in dialogue.groups(4)] == [1.0]
    before = dialogue.step.knowledge.responsibilities
    dialogue.click(*CLICKS[0], 0)
    assert torch.equal(dialogue.step.knowledge.responsibilities, before)
    dialogue.choose(dialogue.groups(4)[0], 1)
    assert torch.equal(dialogue.step.knowledge.responsibilities, before)


def test_box_is_given_to_the_network(network, features):
    dialogue = Dialogue(network, features, "AESPA", 5, 0)
    without = dialogue.said()
    dialogue.draw_box((2.0, 3.0, 20.0, 25.0), 0)
    known = dialogue.step.knowledge
    with torch.no_grad():
        prompts = network.prompts(
            known.coords, known.labels, known.previous, torch.tensor([[2.0, 3.0, 20.0, 25.0]])
        )
        mixture = network.mixture(prompts.sparse, known.responsibilities)
        expected = network.decode(features, network.latents(mixture, 1), prompts)
    assert torch.equal(dialogue.said().logits, expected)
    assert torch.equal(known.previous, without.logits[0])
    dialogue.click(*CLICKS[0], 1)
    assert dialogue.step.box is not None  # a click keeps the box
    assert len(dialogue.samples().logits) == 5
