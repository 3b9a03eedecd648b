"""Measures of an evaluation, against their definitions."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from aespa.config import Config
from aespa.evaluation import chunk_size, dice_of, evaluate, iou_of, majority_masks, write_tables
from aespa.following import pairs_of
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.playing_proposals import play_proposing
from aespa.round_scores import scores_of
from aespa.synthetic_drawing import draw_arrays


def config_of(mode: str) -> Config:
    keys = {
        "encoder": "tiny",
        "image_size": 32,
        "runs": 2,
        "num_samples": 4,
        "n_clusters": 2,
        "n_components": 4,
    }
    return Config(mode=mode, **keys).resolved()


@pytest.fixture(scope="module")
def arrays():
    return draw_arrays(3, 32, 0)


@pytest.fixture(scope="module")
def tables(arrays):
    found = {}
    plain = build_network(Architecture.from_config(config_of("SAM"))).eval()
    for mode in ("AESPA", "SPA"):
        network = build_network(Architecture.from_config(config_of(mode))).eval()
        found[mode] = evaluate(network, arrays, config_of(mode), plain=plain if mode == "AESPA" else None)
    return found


def test_dice_and_iou_of_masks():
    masks = np.zeros((2, 4, 4), bool)
    truth = np.zeros((2, 4, 4), bool)
    masks[0, :2], truth[0, 1:3] = True, True
    assert dice_of(masks, truth).tolist() == [0.5, 1.0]
    assert iou_of(masks, truth).tolist() == [pytest.approx(1 / 3), 1.0]


def test_the_majority_is_of_valid_raters(arrays):
    from dataclasses import replace

    both = majority_masks(arrays, np.arange(3))
    assert np.array_equal(both, arrays.masks.sum(axis=1) > 1.5)
    valid = arrays.valid.copy()
    valid[0, 1:] = False
    assert np.array_equal(
        majority_masks(replace(arrays, valid=valid), np.array([0]))[0], arrays.masks[0, 0] > 0
    )


def test_every_rater_is_followed_once(tables, arrays):
    rows = tables["AESPA"].pairs
    assert [(row["image"], row["rater"]) for row in rows] == [
        (name, rater) for name in arrays.names for rater in arrays.rater_ids
    ]
    # The drawn images' own resolution is the network's, so that both measures agree.
    for row in rows:
        assert row["native_dice_r1"] == pytest.approx(row["dice_r1"], abs=1e-9)
        assert 0 <= row["random_click_dice_r1"] <= 1
        assert row["plain_sam_dice_r0"] == row["plain_sam_own_clicks_dice_r0"]
    assert rows[1]["majority_dice"] == 1.0  # the standard rater is the majority


def test_the_round_before_any_click_is_the_same_for_all_raters(tables):
    for image in tables["AESPA"].images:
        rows = [row for row in tables["AESPA"].pairs if row["image"] == image["image"]]
        mean = np.mean([row["dice_r0"] for row in rows])
        assert image["dice_personal_r0"] == pytest.approx(mean)
        assert image["dice_max_r0"] == pytest.approx(mean)
        assert image["dice_follow_r0"] == pytest.approx(mean)
        assert image["dice_neutral_r0"] == pytest.approx(rows[1]["dice_r0"])


def test_spa_has_samples_and_proposals_and_no_random_clicks(tables):
    image, pair = tables["SPA"].images[0], tables["SPA"].pairs[0]
    assert {"ged_samples", "ged_mean_mask"} <= image.keys()
    assert "proposal_dice_r1" in pair
    assert "random_click_dice_r0" not in pair
    assert "ged_samples" not in tables["AESPA"].images[0]


def test_a_plain_sam_is_given_the_click_that_spa_starts_with(arrays):
    plain = build_network(Architecture.from_config(config_of("SAM"))).eval()
    network = build_network(Architecture.from_config(config_of("SPA"))).eval()
    seen = []
    prompts = plain.prompts

    def watched(coords, labels, previous, boxes=None):
        seen.append((coords, labels))
        return prompts(coords, labels, previous, boxes)

    plain.prompts = watched  # type: ignore[method-assign]
    config = config_of("SPA")
    evaluate(network, arrays, config, plain=plain, native=False)
    played = play_proposing(network, arrays, pairs_of(arrays), config)
    coords, labels = played.first_clicks
    assert torch.equal(seen[0][0][:, 0], coords)
    assert torch.equal(seen[0][1][:, 0], labels)
    assert torch.equal(seen[1][0][:, 1], played.coords[0])
    assert seen[config.runs][0].shape[1] == 0  # its own game starts from nothing


def test_users_do_not_change_each_others_answers(arrays):
    """Also not of a network that averages the mixture over its batch, as the original's checkpoints."""
    config = config_of("AESPA")
    network = build_network(Architecture.from_config(config.model_copy(update={"mixture": "batch"}))).eval()
    together = evaluate(network, arrays, config, control=False).pairs
    alone = evaluate(network, arrays.subset([1]), config, control=False).pairs
    assert [row for row in together if row["image"] == arrays.names[1]] == alone
    assert network.architecture.mixture == "batch"


@pytest.mark.parametrize(("samples", "pairs"), [(48, 16), (6, 96), (1, 96), (200, 8)])
def test_samples_take_room(samples, pairs):
    assert chunk_size(config_of("SPA").model_copy(update={"num_samples": samples})) == pairs


def test_tables_are_written(tables, tmp_path):
    summary = write_tables(tmp_path, tables["SPA"], config_of("SPA"))
    with (tmp_path / "predictions.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 9
    with (tmp_path / "images.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 3
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["dice_r0"]["mean"] == summary["dice_r0"]["mean"]
    assert 1 <= summary["interactions_to_0_85"]["mean"] <= 10  # SPA starts from a click


def test_the_names_of_the_originals_log(tables):
    scores = scores_of(tables["AESPA"])
    assert [each["run"] for each in scores.rounds] == [0, 1]
    assert list(scores.rounds[0]) == [
        "run", "GED", "Dice_max", "Dice_match", "Dice_soft", "Dice_personal_mean", "Dice_follow",
        "Delta_follow_vs_neutral",
    ]  # fmt: skip
    assert scores.dice[1] == pytest.approx(np.mean([row["dice_r1"] for row in tables["AESPA"].pairs]))
