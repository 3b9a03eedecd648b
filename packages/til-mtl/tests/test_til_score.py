"""Scores against an independent reference and against arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from til_mtl.til_score import SCORE_NAMES, count_on, score_map, til_score


@pytest.mark.parametrize(
    ("name", "changes", "repeat"),
    [
        ("default", {}, 1),
        ("cell_4um", {"cell_um": 4.0}, 1),
        ("mpp_0.25", {"mpp": 0.25}, 1),
        ("clipped", {}, 20),
        ("unclipped", {"variant": "organisers"}, 20),
        ("no_points", {}, 0),
    ],
)
def test_equals_the_reference(golden_json, golden_npz, name, changes, repeat):
    expected, arrays = golden_json("tiger")["til"][name], golden_npz("tiger")
    points = np.tile(arrays["til.points_xy"], (repeat, 1))
    found = score_map(arrays["til.seg"], points, **{"mpp": 0.5, **changes})
    assert found.n == expected["n"]
    assert int((arrays["til.seg"] == 2).sum()) == expected["stroma_px"]
    assert found.score == pytest.approx(expected["score"], rel=1e-12)
    assert found.density_per_mm2 == pytest.approx(expected["density"], rel=1e-12)


def test_without_stroma_there_is_no_score(golden_json, golden_npz):
    expected = golden_json("tiger")["til"]["no_stroma"]
    arrays = golden_npz("tiger")
    found = score_map(np.minimum(arrays["til.seg"], 1), arrays["til.points_xy"], 0.5)
    assert (found.n, expected["score"]) == (expected["n"], None)
    assert math.isnan(found.score)
    assert math.isnan(found.density_per_mm2)
    for variant in SCORE_NAMES:
        assert math.isnan(til_score(3, 0, 0.5, variant=variant).score)


@pytest.mark.parametrize(
    ("variant", "n", "expected"),
    [
        ("default", 38, 100 * 38 * 64 / (9956 / 4)),
        ("default", 76, 100.0),
        ("organisers", 76, 100 * 76 * 64 / (9956 / 4)),
        ("tiager", 38, 97.0),
        ("tiager", 76, 100.0),
        ("didsr", 38, 98.0),
        ("didsr", 76, 195.0),
        ("tiager-torch", 38, 100 * 38 * 25 / 9956),
        ("tiager-torch", 0, 1.0),
        ("tiager-torch", 9956, 99.0),
    ],
)
def test_variants(variant, n, expected):
    assert til_score(n, 9956, 0.5, variant=variant).score == pytest.approx(expected)


def test_a_cell_belongs_to_the_pixel_that_it_lies_in():
    segmentation = np.array([[1, 2], [2, 1]], np.uint8)
    points = np.array([[1.99, 0.0], [1.0, 0.99], [0.5, 1.5], [0.99, 0.99], [-0.1, 1.0], [2.0, 0.0]])
    assert count_on(segmentation, points) == 3
    region = np.array([[True, True], [False, True]])
    assert count_on(segmentation, points, region=region) == 2
    assert score_map(segmentation, points, 0.5, region=region).stroma_area_mm2 == pytest.approx(0.25e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"score must be one of default, .* found 'mine'"):
        til_score(1, 1, 0.5, variant="mine")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="mpp must be a positive number"):
        til_score(1, 1, 0.0)
