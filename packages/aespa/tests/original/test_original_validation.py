"""Validation repeats the rounds and the scores of the original, and keeps its two ways of averaging apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from aespa.clicks import Clicks
from aespa.config import Config
from aespa.data.arrays import RaterArrays
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.network import AespaNetwork, upsample
from aespa.original.validation import (
    RoundScores,
    aespa_chain,
    average,
    score_aespa,
    score_spa,
    spa_chain,
    validate_as_original,
)
from aespa.rounds import LatentDraws, answer, no_knowledge


@pytest.fixture
def started(golden_network):
    """The golden network with the starting responsibilities of a golden."""
    kept = golden_network.initial_responsibilities.clone()

    def start(golden):
        golden_network.initial_responsibilities.copy_(torch.from_numpy(golden["init_weights"]))
        return golden_network

    yield start
    golden_network.initial_responsibilities.copy_(kept)


def _xy(rows_columns):
    return torch.from_numpy(np.ascontiguousarray(rows_columns[..., ::-1])).float()


def _close(found, expected, atol):
    torch.testing.assert_close(found, torch.from_numpy(expected).to(found.dtype), rtol=0, atol=atol)


def _scripted_clicks(golden):
    rounds = iter(range(6))

    def click(probabilities, followed):
        index = next(rounds)
        return Clicks(
            _xy(golden["clicks_yx"][index]),
            torch.from_numpy(golden["click_labels"][index]),
            probabilities,
            torch.from_numpy(golden["click_raters"][index]),
        )

    return click


@torch.no_grad()
def test_golden_rounds_of_aespa(started, golden_npz):
    golden = golden_npz("chain_aespa")
    network: AespaNetwork = started(golden)
    features = network.encode(torch.from_numpy(golden["x_uint8"]).float() / 255)
    chain = list(aespa_chain(network, features, _scripted_clicks(golden), 6))
    for index, said in enumerate(chain):
        _close(said.answer.mean, golden["logits"][index], 5e-4)
        for name, values in zip(("mixture_weights", "means", "variances"), said.answer.mixture, strict=True):
            _close(values, np.broadcast_to(golden[name][index], (2, 16)).copy(), 5e-4)
        _close(said.knowledge.responsibilities, golden["em_weights_in"][index], 5e-4)
        quarter = torch.sigmoid(network.upsample(said.answer.mean))[..., ::4, ::4]
        _close(quarter, golden["prob_quarter"][index], 5e-4)
    raters = torch.from_numpy(golden["raters"]).float()[:, :, 0]
    valid = torch.from_numpy(golden["valid"])
    scores = list(score_aespa(network, iter(chain), raters, valid))
    np.testing.assert_allclose([s.loss for s in scores], golden["loss"], atol=1e-3)
    np.testing.assert_allclose([s.iou for s in scores], golden["iou"], atol=1e-3)
    np.testing.assert_allclose([s.dice for s in scores], golden["dice"], atol=1e-3)
    names = golden["metric_names"].tolist()
    np.testing.assert_allclose([[s.metrics[n] for n in names] for s in scores], golden["metrics"], atol=1e-3)
    assert [s.metrics["run"] for s in scores] == list(range(6))


@torch.no_grad()
def test_golden_rounds_of_aespa_image_by_image(started, golden_npz, monkeypatch):
    golden = golden_npz("chain_aespa")
    network = started(golden)
    monkeypatch.setattr(network, "architecture", dataclasses.replace(network.architecture, mixture="image"))
    features = network.encode(torch.from_numpy(golden["x_uint8"]).float() / 255)
    chain = list(aespa_chain(network, features, _scripted_clicks(golden), 6))
    _close(torch.stack([said.answer.mean for said in chain]), golden["per_image_logits"], 5e-4)


@torch.no_grad()
def test_golden_rounds_of_the_originals_page(started, golden_npz):
    """There no mask is a prompt, and probabilities are enlarged bilinearly."""
    golden = golden_npz("chain_aespa")
    network = started(golden)
    features = network.encode(torch.from_numpy(golden["x_uint8"]).float() / 255)
    knowledge, click = no_knowledge(network, 2), _scripted_clicks(golden)
    for expected in golden["demo_logits"]:
        said = answer(network, features, knowledge)
        _close(said.mean, expected, 5e-4)
        probabilities = torch.sigmoid(upsample(said.mean, 128, "bilinear"))
        found = network.responsibilities(probabilities.flatten(1), said.mixture)
        clicks = click(probabilities, None)
        knowledge = dataclasses.replace(knowledge, responsibilities=found).clicked(
            clicks.coords, clicks.labels
        )


@torch.no_grad()
def test_golden_rounds_of_spa(started, golden_npz):
    golden = golden_npz("chain_spa")
    network = started(golden)
    batches, logits, samples = [], [], []
    for item in range(2):
        raters = torch.from_numpy(golden["raters"][item]).float()[:, :, 0]
        noise = iter(torch.from_numpy(golden["noise"][item]))
        rounds = iter(range(2))

        def select(probabilities, item=item, rounds=rounds):
            index = next(rounds)
            members = golden["kmeans_labels"][item][index] == golden["kmeans_target"][item][index]
            coords = _xy(golden["clicks_yx"][item])[index + 1][None]
            labels = torch.from_numpy(golden["click_labels"][item]).long()[index + 1][None]
            return probabilities[:, torch.from_numpy(members)].mean(dim=1), Clicks(
                coords, labels, coords, labels
            )

        chain = list(
            spa_chain(
                network,
                network.encode(torch.from_numpy(golden["x_uint8"][item]).float() / 255),
                (
                    _xy(golden["clicks_yx"][item])[:1],
                    torch.from_numpy(golden["click_labels"][item]).long()[:1],
                ),
                lambda noise=noise: LatentDraws(next(noise), torch.zeros(6, 1)),
                select,
                n_samples=6,
                runs=2,
            )
        )
        logits.append(torch.stack([said.answer.mean for said in chain]))
        samples.append(chain[0].answer.logits[..., ::2, ::2])
        valid = torch.ones(1, 3, dtype=torch.bool)
        batches.append(list(score_spa(network, iter(chain), raters[:, 0], raters, valid)))
    _close(torch.stack(logits), golden["mean_logits"], 5e-4)
    _close(torch.stack(samples), golden["sample_logits_first_run"], 5e-4)
    scores = average(batches, twice=True)
    np.testing.assert_allclose(scores.loss, golden["loss_original"], atol=5e-4)
    np.testing.assert_allclose(scores.iou, golden["iou_original"], atol=5e-4)
    np.testing.assert_allclose(scores.dice, golden["dice_original"], atol=5e-4)
    names = ["GED", "Dice_max", "Dice_match", "Dice_soft", "Dice_personal_mean", "Dice_follow"]
    for item, rounds in enumerate(batches):
        found = [[s.metrics[name] for name in (*names, "Delta_follow_vs_neutral")] for s in rounds]
        np.testing.assert_allclose(found, golden["metrics"][item], atol=1e-3)


def test_averages_over_batches():
    batches = [
        [RoundScores(1.0, 0.2, 0.4, {"run": 0, "GED": -1.0})],
        [RoundScores(3.0, 0.4, 0.8, {"run": 0, "GED": -2.0})],
    ]
    once, twice = average(batches, twice=False), average(batches, twice=True)
    assert (once.loss, once.iou, once.dice) == ([2.0], [pytest.approx(0.3)], [pytest.approx(0.6)])
    assert (twice.loss, twice.iou, twice.dice) == ([1.0], [pytest.approx(0.15)], [pytest.approx(0.3)])
    assert once.metrics == twice.metrics == [{"run": 0, "GED": -1.5}]
    assert once.batches == 2


@pytest.fixture
def arrays():
    """Three images of two circles; the second rater's is larger."""
    y, x = np.mgrid[:64, :64]
    far = (x - 32) ** 2 + (y - 30) ** 2
    masks = np.stack([far < 100, far < 200]).astype(np.uint8)
    image = (50 + 60 * masks.sum(axis=0)).astype(np.uint8)
    return RaterArrays(
        images=np.repeat(image[None, None], 3, axis=1).repeat(3, axis=0),
        masks=masks[None].repeat(3, axis=0),
        valid=np.ones((3, 2), bool),
        present=np.ones((3, 2), bool),
        names=("a", "b", "c"),
        patients=("a", "b", "c"),
        rater_ids=("0", "1"),
        classes=(None, None, None),
    )


def _tiny(mode, *, faithful):
    small = {"encoder": "tiny", "image_size": 64, "runs": 2, "b": 2, "num_samples": 4, "n_clusters": 2}
    config = Config(mode=mode, faithful=faithful, n_components=4, **small).resolved()
    return build_network(Architecture.from_config(config)).eval(), config


@pytest.mark.parametrize("mode", ["AESPA", "SPA"])
@pytest.mark.parametrize("faithful", [True, False])
def test_scores_follow_from_the_seed(mode, faithful, arrays):
    network, config = _tiny(mode, faithful=faithful)
    same, again, other = (
        validate_as_original(network, arrays, config.model_copy(update={"seed": seed})) for seed in (1, 1, 2)
    )
    assert same == again
    assert same != other
    assert same.batches == 2
    assert [len(each) for each in (same.loss, same.iou, same.dice, same.metrics)] == [2] * 4
    assert np.isfinite(same.loss).all()


def test_the_original_has_no_plain_sam(arrays):
    network, config = _tiny("AESPA", faithful=True)
    with pytest.raises(ValueError, match="not SAM"):
        validate_as_original(network, arrays, config.model_copy(update={"mode": "SAM"}))
