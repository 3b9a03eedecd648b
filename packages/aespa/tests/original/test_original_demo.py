"""The original page's functions: every golden value and image."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.clicks import suggest
from aespa.original.demo import (
    best_rater,
    dice_iou,
    draw_overlay,
    neutral_mask,
    suggest_original,
    suggest_raster_first,
    validity,
)


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("demo")


def test_golden_validity_and_neutral_mask(golden):
    valid = validity(golden["raters"])
    np.testing.assert_array_equal(valid, golden["valid"])
    np.testing.assert_array_equal(neutral_mask(golden["raters"], valid), golden["neutral"])
    two = np.array([[[1, 1, 0]], [[1, 0, 0]]])
    assert neutral_mask(two, [True, True]).tolist() == [[1, 0, 0]]  # a tie is empty
    assert neutral_mask(two, [False, False]).sum() == 0


def test_golden_overlap_and_best_rater(golden):
    pred, empty, raters = golden["pred"], np.zeros((20, 20)), golden["raters"]
    pairs = ((pred, raters[0]), (empty, empty), (empty, pred), (pred, pred))
    np.testing.assert_allclose([dice_iou(*pair) for pair in pairs], golden["dice_iou"], atol=1e-6)
    assert best_rater(pred, raters, golden["valid"]) == pytest.approx(tuple(golden["best_rater"]), abs=1e-6)
    assert best_rater(pred, raters, [False] * 4) == tuple(golden["best_rater_none_valid"])
    assert best_rater(raters[0], raters[[1, 0, 0]], [True] * 3) == (1, 1.0)  # the first of equals


@pytest.mark.parametrize("number", range(4))
def test_golden_suggestions(number, golden):
    name = golden["suggest_names"][number]
    rater = golden["raters"][0]
    pred = {
        "mixed": golden["pred"],
        "false_positive_only": golden["pred_false_positive"],
        "false_negative_only": golden["pred_false_negative"],
        "equal": rater,
    }[name]
    nothing = (-1, -1)
    assert (suggest_original(pred, rater) or nothing) == tuple(golden["suggest_original"][number])
    assert (suggest_raster_first(pred, rater) or nothing) == tuple(golden["suggest_raster_first"][number])
    corrected = suggest(pred, rater)
    assert (corrected is None) == (name == "equal")
    if corrected is not None:
        x, y, label = corrected
        assert (pred[y, x], rater[y, x]) == (1 - label, label)


def test_golden_overlays(golden):
    image, pred = golden["image"], golden["pred"]
    before = image.copy()
    clicks = [tuple(int(each) for each in click) for click in golden["clicks"]]
    np.testing.assert_array_equal(draw_overlay(image, pred, clicks), golden["overlay"])
    np.testing.assert_array_equal(draw_overlay(image, pred, suggestion=(7, 9)), golden["overlay_suggestion"])
    np.testing.assert_array_equal(image, before)
