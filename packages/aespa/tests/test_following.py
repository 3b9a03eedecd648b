"""The rounds that are evaluated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aespa.config import Config
from aespa.following import Pairs, in_chunks, pairs_of, play_following
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.playing_proposals import play_proposing
from aespa.synthetic_drawing import draw_arrays


@pytest.fixture(scope="module")
def arrays():
    return draw_arrays(3, 32, 0)


@pytest.fixture(scope="module")
def config():
    keys = {
        "encoder": "tiny",
        "image_size": 32,
        "runs": 3,
        "num_samples": 6,
        "n_clusters": 2,
        "n_components": 4,
    }
    return Config(**keys).resolved()


@pytest.fixture(scope="module")
def network(config):
    return build_network(Architecture.from_config(config)).eval()


PLAYERS = {"AESPA": play_following, "SPA": play_proposing}


def test_pairs_are_images_with_the_raters_who_outlined_them(arrays):
    masks = arrays.masks.copy()
    valid = arrays.valid.copy()
    valid[1, 0] = False
    from dataclasses import replace

    pairs = pairs_of(replace(arrays, masks=masks, valid=valid))
    assert list(zip(pairs.image.tolist(), pairs.rater.tolist(), strict=True)) == [
        (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "expected"), [(3, [3, 2, 3]), (5, [5, 3]), (99, [8]), (1, [3, 2, 3])])
def test_chunks_keep_the_pairs_of_an_image_together(size, expected):
    pairs = Pairs(np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 2, 1, 2, 0, 1, 2]))
    chunks = list(in_chunks(pairs, size))
    assert [len(chunk) for chunk in chunks] == expected
    assert np.concatenate([chunk.image for chunk in chunks]).tolist() == pairs.image.tolist()


@pytest.mark.parametrize("mode", PLAYERS)
def test_a_pair_plays_alike_alone_and_among_others(mode, arrays, config, network):
    """Chance belongs to the seed, the image and the rater; the mixture to the image."""
    pairs = pairs_of(arrays)
    together = PLAYERS[mode](network, arrays, pairs, config)
    place = 4
    alone = PLAYERS[mode](
        network, arrays, Pairs(pairs.image[place : place + 1], pairs.rater[place : place + 1]), config
    )
    assert torch.equal(alone.coords[:, 0], together.coords[:, place])
    assert torch.equal(alone.labels[:, 0], together.labels[:, place])
    assert (alone.logits[:, 0] - together.logits[:, place]).abs().max() < 1e-4


def test_the_first_answer_knows_nothing_of_the_rater(arrays, config, network):
    played = play_following(network, arrays, pairs_of(arrays), config)
    assert played.logits.shape == (3, 9, 16, 16)
    assert (played.logits[0, 0] - played.logits[0, 1]).abs().max() < 1e-5
    assert (played.logits[1, 0] - played.logits[1, 2]).abs().max() > 1e-4


def test_clicks_say_what_the_rater_drew(arrays, config, network):
    pairs = pairs_of(arrays)
    played = play_following(network, arrays, pairs, config)
    for place, (image, rater) in enumerate(zip(pairs.image, pairs.rater, strict=True)):
        for (x, y), label in zip(
            played.coords[:, place].long().tolist(), played.labels[:, place].tolist(), strict=True
        ):
            assert label in (-1, int(arrays.masks[image, rater, y, x]))


def test_random_clicks_do_not(arrays, config, network):
    pairs = pairs_of(arrays)
    played = play_following(network, arrays, pairs, config, clicker="random")
    right = [
        int(arrays.masks[i, r, int(y), int(x)]) == label
        for place, (i, r) in enumerate(zip(pairs.image, pairs.rater, strict=True))
        for (x, y), label in zip(
            played.coords[:, place].tolist(), played.labels[:, place].tolist(), strict=True
        )
    ]
    assert 0.2 < np.mean(right) < 0.8


def test_replayed_clicks_are_those_of_the_other_network(arrays, config, network):
    pairs = pairs_of(arrays)
    first = play_following(network, arrays, pairs, config)
    plain = Config(**{**config.model_dump(), "mode": "SAM"}).resolved()
    other = build_network(Architecture.from_config(plain), generator=torch.Generator().manual_seed(5)).eval()
    replayed = play_following(other, arrays, pairs, plain, replay=first)
    assert torch.equal(replayed.coords, first.coords)
    assert torch.equal(replayed.labels, first.labels)
    again = play_following(network, arrays, pairs, config, replay=first)
    assert torch.equal(again.logits, first.logits)


@pytest.mark.parametrize("kind", ["unanimous", "decisive"])
def test_spa_starts_from_a_click(kind, arrays, config, network):
    """Unanimous: all raters marked it, so the first answers are alike; decisive: the label is the wanted rater's."""
    pairs = pairs_of(arrays)
    played = play_proposing(network, arrays, pairs, config.model_copy(update={"first_click": kind}))
    assert played.first_samples is not None
    assert played.chosen is not None
    assert played.first_samples.shape == (6, 9, 16, 16)
    assert played.chosen.shape == (3, 9, 16, 16)
    assert (played.first_samples.mean(dim=0) - played.logits[0]).abs().max() < 1e-5
