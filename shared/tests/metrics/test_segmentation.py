"""Label maps against scikit-learn and against sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as oracle
from sklearn.metrics import f1_score

from medshared.metrics.segmentation import confusion_matrix, dice_from_confusion

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
