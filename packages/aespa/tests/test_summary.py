"""Means over images, intervals over patients."""

from __future__ import annotations

import math

import pytest

from aespa.summary import image_table, late, rounds_of, summarise


def pair(image: str, rater: str, dice: list[float], **more):
    row = {"image": image, "patient": image[0], "rater": rater, "majority_dice": 0.5, "clicks": 2}
    return row | {f"dice_r{i}": v for i, v in enumerate(dice)} | more


def test_rounds_are_read_in_order_until_one_is_missing():
    row = {"dice_r0": 0.1, "dice_r1": 0.2, "dice_r3": 0.4}
    assert rounds_of(row, "dice") == [0.1, 0.2]
    assert rounds_of(row, "iou") == []


@pytest.mark.parametrize(
    ("values", "mean"), [([0, 0, 0, 1, 2, 3], 2.0), ([1.0], 1.0), ([0.0, 1.0, 2.0], 1.5)]
)
def test_late_rounds_are_the_second_half(values, mean):
    assert late(values) == mean


def test_raters_count_within_their_image():
    pairs = [
        pair("a1", "0", [0.2, 0.9]),
        pair("a1", "1", [0.4, 0.7]),
        pair("b1", "0", [1.0, 1.0]),
    ]
    images = [{"image": "a1", "patient": "a", "n_raters": 2}, {"image": "b1", "patient": "b", "n_raters": 1}]
    table = image_table(pairs, images, first=0)
    assert table[0]["dice_r0"] == pytest.approx(0.3)
    assert table[0]["dice_late"] == pytest.approx(0.8)
    assert table[1]["dice_r0"] == 1.0
    # 0.85 is reached after one click by the first rater, never by the second.
    assert table[0]["interactions_to_0_85"] == pytest.approx((1 + 10) / 2)
    assert image_table(pairs, images, first=1)[1]["interactions_to_0_85"] == 1.0
    summary = summarise(table)
    assert summary["dice_r0"]["mean"] == pytest.approx(0.65)  # of two images, not of three pairs
    assert summary["dice_r0"]["n"] == 2
    assert summary["dice_r0"]["low"] <= 0.65 <= summary["dice_r0"]["high"]
    assert "n_raters" not in summary


def test_undefined_values_are_left_out_and_counted():
    pairs = [pair("a1", "0", [0.2]), pair("b1", "0", [0.4])]
    images = [
        {"image": "a1", "patient": "a", "ged_r0": math.nan},
        {"image": "b1", "patient": "b", "ged_r0": 0.25},
    ]
    found = summarise(image_table(pairs, images, first=0))["ged_r0"]
    assert (found["mean"], found["n"]) == (0.25, 1)


def test_classes_of_one_image_are_images_of_their_own():
    pairs = [pair("a1", "0", [0.2], **{"class": 1}), pair("a1", "0", [0.6], **{"class": 2})]
    images = [{"image": "a1", "patient": "a", "class": c} for c in (1, 2)]
    assert [row["dice_r0"] for row in image_table(pairs, images, first=0)] == [0.2, 0.6]
