"""Label maps against scikit-learn and against sets of pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as oracle
from sklearn.metrics import f1_score, precision_score, recall_score

from medshared.metrics.segmentation import confusion_matrix, dice_from_confusion, lesion_recall, overlap

labels = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).integers(0, 4, (2, 9, 7)))


@settings(max_examples=30, deadline=None)
@given(labels, labels)
def test_equals_scikit_learn(prediction, truth):
    found = confusion_matrix(prediction, truth, 5)
    np.testing.assert_array_equal(found, oracle(truth.ravel(), prediction.ravel(), labels=range(5)))
    dice = dice_from_confusion(found)
    expected = f1_score(
        truth.ravel(), prediction.ravel(), labels=range(4), average=None, zero_division=np.nan
    )
    np.testing.assert_allclose(dice[:4], expected)
    assert np.isnan(dice[4])  # neither there nor predicted


@settings(max_examples=20, deadline=None)
@given(labels, labels)
def test_images_add_up_and_ignored_pixels_do_not_count(prediction, truth):
    parts = sum(confusion_matrix(p, t, 4) for p, t in zip(prediction, truth, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(prediction, truth, 4))
    ignored = confusion_matrix(prediction, truth, 4, ignore=2)
    assert ignored.sum() == (truth != 2).sum()
    assert ignored[2].sum() == 0


def test_predictions_on_ignored_pixels_may_be_anything():
    assert confusion_matrix([77, 1], [250, 1], 2, ignore=250).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([0, 3], [0, 1], r"prediction must hold labels 0–1, found \[3\]"),
        ([0, 1], [0, -1], r"truth must hold labels 0–1, found \[-1\]"),
        ([0], [0, 1], r"one shape, found \[1\] and \[2\]"),
        ([0.5], [0], "prediction must hold whole numbers, found float64"),
    ],
)
def test_bad_labels_are_named(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction, truth, 2)


def test_a_confusion_matrix_is_square():
    with pytest.raises(ValueError, match="square"):
        dice_from_confusion([[1, 2, 3]])


masks = st.tuples(st.integers(0, 10**6), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[0]).uniform(size=(2, 5, 6, 4)) < drawn[1]
)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_overlap_equals_scikit_learn(both):
    p, t = both
    found = overlap(p, t)
    _, fp, fn, tp = oracle(t.ravel(), p.ravel(), labels=[False, True]).ravel()
    assert found[3:] == (tp, fp, fn, tp + fp, tp + fn)
    for value, function in zip(found[:3], (f1_score, precision_score, recall_score), strict=True):
        np.testing.assert_allclose(
            value, function(t.ravel(), p.ravel(), zero_division=1.0 if function is f1_score else np.nan)
        )
    assert overlap(t, p).dice == found.dice


def test_empty_masks():
    none, one = np.zeros(4, bool), np.array([0, 1, 0, 0])
    assert overlap(none, none).dice == 1
    assert overlap(none, none, empty_value=0.25).dice == 0.25
    assert overlap(none, one).dice == overlap(one, none).dice == 0
    assert np.isnan(overlap(none, one).precision)
    assert np.isnan(overlap(one, none).recall)
    with pytest.raises(ValueError, match=r"one shape, found \[4\] and \[3\]"):
        overlap(none, one[:3])
    with pytest.raises(ValueError, match="truth must hold only 0 and 1"):
        overlap(none, 2 * one)


def flood(mask: np.ndarray, corners: bool) -> list[set]:
    """Connected components by walking from voxel to voxel."""
    left, found = {tuple(v) for v in np.argwhere(mask).tolist()}, []
    steps = [
        s for s in itertools.product((-1, 0, 1), repeat=3) if any(s) and (corners or sum(map(abs, s)) == 1)
    ]
    while left:
        todo, component = [left.pop()], set()
        while todo:
            here = todo.pop()
            component.add(here)
            near = {tuple(a + b for a, b in zip(here, step, strict=True)) for step in steps} & left
            left -= near
            todo += near
        found.append(component)
    return found


@settings(max_examples=30, deadline=None)
@given(masks, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans())
def test_lesions_equal_a_flood_fill(both, share, corners):
    p, t = both
    lesions = flood(t, corners)
    hits = [sum(bool(p[voxel]) for voxel in lesion) for lesion in lesions]
    expected = sum(hit > 0 and hit >= share * len(lesion) for hit, lesion in zip(hits, lesions, strict=True))
    found = lesion_recall(p, t, share, 26 if corners else 6)
    assert found[:2] == (len(lesions), expected)
    np.testing.assert_equal(found.recall, expected / len(lesions) if lesions else np.nan)


def test_lesions_that_touch_at_a_corner():
    truth = np.zeros((4, 4, 4), bool)
    truth[0, 0, 0] = truth[1, 1, 1] = truth[3, 3, 3] = True
    prediction = np.zeros_like(truth)
    prediction[1, 1, 1] = True
    assert lesion_recall(prediction, truth) == (2, 1, 0.5)
    assert lesion_recall(prediction, truth, connectivity=6) == (3, 1, 1 / 3)
    assert lesion_recall(prediction, truth, min_overlap=0.6) == (2, 0, 0.0)
    with pytest.raises(ValueError, match="connectivity must be 6 or 26"):
        lesion_recall(prediction, truth, connectivity=18)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="three axes"):
        lesion_recall(prediction[0], truth[0])
