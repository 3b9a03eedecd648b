"""What needs no learning."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from til_mtl.baselines import (
    darkness,
    darkness_scores,
    majority_dice,
    median_mae,
    random_scores,
    slide_darkness,
)
from til_mtl.config import IGNORE_INDEX, Config
from til_mtl.data.folders import find_run_patches
from til_mtl.data.store import PatchStore
from til_mtl.patch_scores import PatchScores


def read(patch_root) -> PatchStore:
    config = Config(data_dir=patch_root, img_size=(16, 16), num_workers=0)
    return PatchStore(find_run_patches(config)["val"], config)


@pytest.fixture
def store(patch_root) -> PatchStore:
    return read(patch_root)


@pytest.fixture
def scores(store) -> PatchScores:
    """Empty results on the store, with its truth."""
    n = len(store)
    return PatchScores(
        names=tuple(store.names), slides=tuple(store.slides), tasks=store.tasks,
        confusion=np.zeros((n, 3, 3), np.int64), detections=tuple(np.zeros((0, 3)) for _ in range(n)),
        truth=tuple(store.points(i) for i in range(n)), area_mm2=0.000064, radius_px=4.0,
    )  # fmt: skip


def test_dark_places_are_found_at_their_middle():
    image = np.full((21, 21, 3), 250, np.uint8)
    image[8:13, 3:8] = 20
    found = darkness(image, 1.0)
    assert found.shape == (21, 21)
    assert np.unravel_index(found.argmax(), found.shape) == (10, 5)
    assert 0 <= found.min() < found.max() <= 1


@pytest.mark.parametrize(("value", "dark"), [(0, 1.0), (255, 0.0), (51, 0.8)])
def test_an_even_picture_is_evenly_dark(value, dark):
    np.testing.assert_allclose(darkness(np.full((9, 9, 3), value, np.uint8), 2.0), dark, atol=1e-6)


def test_dark_cells_on_bright_ground_are_all_found(store, scores):
    found = darkness_scores(store, scores, sigma_px=1.0, distance_px=5.0)
    for task, points, truth in zip(store.tasks, found.detections, scores.truth, strict=True):
        if task == 0:
            assert len(points) == 0
        else:  # the drawn cell is the darkest thing of its patch
            assert np.hypot(*(points[0, :2] - truth[0])) < 2
    assert found.froc() > 0
    assert found.truth is scores.truth


def test_dots_lie_in_the_patch_and_follow_from_the_seed(store, scores):
    a, b, c = (random_scores(store, scores, seed=seed, per_patch=7) for seed in (1, 1, 2))
    for task, points in zip(store.tasks, a.detections, strict=True):
        assert points.shape == ((7 if task else 0), 3)
        assert ((points >= 0) & (points <= (16, 16, 1))).all()
    assert all(np.array_equal(x, y) for x, y in zip(a.detections, b.detections, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(a.detections, c.detections, strict=True))
    assert 0 <= a.froc() <= 1
    assert replace(a, detections=scores.detections).froc() == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_one_class_for_all_pixels(store, patch_root, ignored):
    """Against Dice computed from the definition for each class that one may paint."""
    if ignored:
        Image.new("L", (16, 16), IGNORE_INDEX).save(store.files[0].mask)
        store = read(patch_root)
    masks = store.masks(np.flatnonzero(store.tasks == 0))
    known = masks[masks != IGNORE_INDEX]
    best = 0.0
    for painted in range(3):
        dice = []
        for tissue in (1, 2):
            truth, guess = known == tissue, np.full(known.shape, painted == tissue)
            dice.append(2 * (truth & guess).sum() / (truth.sum() + guess.sum()))
        best = max(best, float(np.mean(dice)))
    assert majority_dice(store, 3) == pytest.approx(best)


def test_darkness_of_a_slide_is_that_of_its_tissue():
    image = np.full((4, 4, 3), 255, np.uint8)
    image[:2] = 51
    tissue = np.zeros((4, 4), bool)
    tissue[:2] = True
    assert slide_darkness(image, tissue) == pytest.approx(0.8)
    assert slide_darkness(image, np.ones((4, 4), bool)) == pytest.approx(0.4)
    assert math.isnan(slide_darkness(image, np.zeros((4, 4), bool)))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_no_constant_is_better_than_the_median(values):
    found = median_mae(values)
    assert found == pytest.approx(sum(abs(v - median(values)) for v in values) / len(values))
    for other in (0.0, 27.0, sum(values) / len(values)):
        assert found <= sum(abs(v - other) for v in values) / len(values) + 1e-9
