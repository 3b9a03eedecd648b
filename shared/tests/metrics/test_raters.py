"""Metrics over several raters: goldens, brute force, and what must hold for any sets."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc

from medshared.metrics.raters import (
    area_under_rounds,
    defined_mean,
    dice_follow,
    interactions_to_reach,
    rater_scores,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SET_NAMES = ("ged", "dice_max", "dice_match", "dice_soft", "dice_personal_mean")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "rater_metrics.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="module")
def edge() -> dict:
    return json.loads((GOLDEN / "rater_metrics_edge.json").read_text())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def seven(predictions, raters, valid, follow, **options) -> np.ndarray:
    """All seven values of an image in the golden's order, ``[B, 7]``."""
    scores = rater_scores(predictions, raters, valid, **options)
    followed = dice_follow(np.asarray(predictions)[:, -1], raters, follow, valid)
    columns = [getattr(scores, name) for name in SET_NAMES]
    return np.stack([*columns, followed, followed - scores.dice_neutral], axis=1)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("default", {}),
        ("symmetric", {"symmetric": True}),
        ("norm_max", {"match_norm": "max"}),
        ("norm_match", {"match_norm": "match"}),
        ("single_only", {}),
    ],
)
def test_golden_values(case, options, golden):
    p = sigmoid(golden["pred_set_logits"])
    found = seven(
        p[:, -1:] if case == "single_only" else p,
        golden["raters"],
        golden["valid"],
        golden["follow"],
        **options,
    )
    np.testing.assert_allclose(found, golden[f"corrected_{case}"], atol=1e-6)


def test_golden_options(golden):
    p, raters, valid = sigmoid(golden["pred_set_logits"]), golden["raters"], golden["valid"]
    by_iou = rater_scores(p, raters, valid, distance="iou").ged
    np.testing.assert_allclose(by_iou, golden["corrected_ged_iou_distance"], atol=1e-6)
    five = rater_scores(p, raters, valid, soft="five_thresholds").dice_soft
    np.testing.assert_allclose(five, golden["dice_soft_five_thresholds"], atol=1e-6)


@pytest.mark.parametrize(
    "case",
    [
        "all_empty",
        "prediction_empty",
        "one_rater_empty_all_valid",
        "one_rater_empty_marked_invalid",
        "logits_inside_unit_interval",
        "no_valid_rater",
        "binary_input",
    ],
)
def test_golden_edge_cases(case, edge):
    spec = edge[case]
    single = np.array(spec["single"])[None, None]
    p = single if case == "binary_input" else sigmoid(single)  # nothing guesses from the range
    found = seven(p, np.array([spec["raters"]]), np.array([spec["valid"]]), [0])
    expected = [np.nan if value is None else value for value in spec["corrected"].values()]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def case_of(seed: int, b: int = 3, m: int = 3, r: int = 4, pixels: int = 40):
    """Random sets with empty masks, absent raters and an image without any."""
    rng = np.random.default_rng(seed)
    p = rng.random((b, m, pixels)) * (rng.random((b, m, 1)) > 0.15)
    raters = (rng.random((b, r, pixels)) < 0.5) & (rng.random((b, r, 1)) > 0.15)
    return p, raters, rng.random((b, r)) < 0.7


def dice_of(a: np.ndarray, b: np.ndarray) -> float:
    size = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / size if size else 1.0


def iou_of(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["dice", "iou"]),
    st.sampled_from(["gt", "max", "match"]),
    st.booleans(),
)
def test_equals_brute_force(seed, distance, norm, symmetric):
    p, raters, valid = case_of(seed)
    scores = rater_scores(p, raters, valid, distance=distance, match_norm=norm, symmetric=symmetric)
    like = dice_of if distance == "dice" else iou_of
    for i in range(len(p)):
        g = [mask for mask, known in zip(raters[i], valid[i], strict=True) if known]
        if not g:
            assert all(np.isnan(getattr(scores, name)[i]) for name in (*SET_NAMES, "dice_neutral"))
            assert np.isnan(scores.dice_per_rater[i]).all()
            continue
        q = [each > 0.5 for each in p[i]]

        def apart(left, right) -> float:
            return float(np.mean([1 - like(a, b) for a in left for b in right]))

        assert scores.ged[i] == pytest.approx(2 * apart(q, g) - apart(q, q) - apart(g, g))
        best = np.mean([max(dice_of(a, b) for a in q) for b in g])
        reverse = np.mean([max(dice_of(a, b) for b in g) for a in q])
        assert scores.dice_max[i] == pytest.approx((best + reverse) / 2 if symmetric else best)
        few, many = sorted((q, g), key=len)
        sums = [
            sum(dice_of(a, b) for a, b in zip(few, order, strict=True))
            for order in itertools.permutations(many, len(few))
        ]
        divisor = {"gt": len(g), "max": len(many), "match": len(few)}[norm]
        assert scores.dice_match[i] == pytest.approx(max(sums) / divisor)
        share = np.mean(g, axis=0)
        soft = (
            2 * (p[i, -1] * share).sum() / (p[i, -1].sum() + share.sum())
            if p[i, -1].sum() + share.sum()
            else 1
        )
        assert scores.dice_soft[i] == pytest.approx(soft, abs=1e-6)
        assert scores.dice_personal_mean[i] == pytest.approx(np.mean([dice_of(q[-1], b) for b in g]))
        assert scores.dice_neutral[i] == pytest.approx(dice_of(q[-1], share > 0.5))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_raters_and_predictions_does_not_matter(seed):
    p, raters, valid = case_of(seed)
    rng = np.random.default_rng(seed)
    by_rater, by_prediction = rng.permutation(4), rng.permutation(3)
    single = p[:, 0]
    left = rater_scores(p, raters, valid, single=single)
    right = rater_scores(p[:, by_prediction], raters[:, by_rater], valid[:, by_rater], single=single)
    for name in (*SET_NAMES, "dice_neutral"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), atol=1e-6)
    np.testing.assert_allclose(left.dice_per_rater[:, by_rater], right.dice_per_rater)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_bounds_and_what_equal_sets_reach(seed):
    p, raters, valid = case_of(seed)
    scores = rater_scores(p, raters, valid)
    known = valid.any(axis=1)
    for name in SET_NAMES[1:]:
        values = getattr(scores, name)[known]
        assert ((values >= 0) & (values <= 1 + 1e-6)).all()
    assert (scores.ged[known] <= 2).all()
    assert (scores.dice_max >= scores.dice_match - 1e-12)[
        known
    ].all()  # the best of all is at least a partner's
    same = rater_scores(raters, raters)
    np.testing.assert_allclose(same.ged, 0, atol=1e-12)
    np.testing.assert_allclose(same.dice_max, 1)
    np.testing.assert_allclose(same.dice_match, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_raters_that_are_not_valid_count_nowhere(seed):
    p, raters, valid = case_of(seed)
    valid[:, 0] = True
    everything = rater_scores(p, raters, valid)
    for i in range(len(p)):
        alone = rater_scores(p[i : i + 1], raters[i : i + 1, valid[i]])
        for name in SET_NAMES:
            assert getattr(everything, name)[i] == pytest.approx(getattr(alone, name)[0], abs=1e-6)


def test_the_energy_distance_is_lower_for_predictions_that_vary_as_the_raters_do():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    raters = np.stack([np.hypot(y - 16, x - 16) < radius for radius in (4, 8, 12)])[None]
    varied = np.stack([np.hypot(y - 16, x - 16) < rng.choice([4, 8, 12]) for _ in range(30)])[None]
    middle = np.repeat(raters[:, 1:2], 30, axis=1)
    assert rater_scores(varied, raters).ged[0] < rater_scores(middle, raters).ged[0] - 0.1


def test_large_sets_are_compared_in_blocks():
    rng = np.random.default_rng(0)
    p, raters = rng.random((5, 2, 260, 260), dtype=np.float32), rng.random((5, 3, 260, 260)) < 0.5
    whole = rater_scores(p, raters)  # 67,600 pixels: two blocks and more
    for i in range(5):
        part = rater_scores(p[i : i + 1], raters[i : i + 1])
        for left, right in zip(whole, part, strict=True):
            np.testing.assert_allclose(left[i], right[0], atol=1e-7)
    assert len(rater_scores(p[:0], raters[:0]).ged) == 0


def test_means_leave_out_what_is_undefined():
    p, raters, valid = case_of(0)
    valid[1] = False
    scores = rater_scores(p, raters, valid)
    means = scores.means()
    assert "dice_per_rater" not in means
    assert means["ged"] == pytest.approx(scores.ged[[0, 2]].mean())
    assert np.isnan(rater_scores(p, raters, valid & False).means()["dice_soft"])
    assert np.isnan(defined_mean([]))


def test_followed_rater():
    raters = np.array([[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]] * 4)
    valid = np.array([[True, True, True], [False, True, True], [True, True, True], [False, False, False]])
    found = dice_follow(np.array([[1, 1, 0, 0]] * 4), raters, [2, 0, -1, 1], valid)
    np.testing.assert_allclose(
        found, [2 / 3, 1, np.nan, np.nan]
    )  # rater 0 of image 1 is not valid: the first who is
    for wrong in ([3, 0, 0, 0], [-2, 0, 0, 0], [0, 0], [0.0, 0, 0, 0]):
        with pytest.raises(ValueError, match="followed"):
            dice_follow(np.ones((4, 4)), raters, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": np.full((1, 2, 4), 3.0)}, r"predictions must lie in \[0, 1\].*sigmoid"),
        ({"predictions": np.full((1, 2, 4), np.nan)}, "predictions must lie"),
        ({"predictions": np.zeros((1, 0, 4))}, "at least one"),
        ({"predictions": np.zeros((1, 2, 5))}, "1 of 5 and 1 of 4"),
        ({"predictions": np.zeros((2, 2, 4))}, "2 of 4 and 1 of 4"),
        ({"raters": np.full((1, 3, 4), 0.5)}, "raters must hold only 0 and 1"),
        ({"valid": np.ones((1, 2), bool)}, r"valid must be bool \[1, 3\]"),
        ({"valid": np.ones((1, 3))}, "valid must be bool"),
        ({"single": np.zeros((1, 5))}, "single must have the 4 pixels"),
        ({"distance": "hamming"}, "distance must be one of dice, iou"),
        ({"soft": "x"}, "soft must be one of mean, five_thresholds"),
        ({"match_norm": "x"}, "match_norm must be one of gt, max, match"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    arguments = {"predictions": np.zeros((1, 2, 4)), "raters": np.zeros((1, 3, 4))} | change
    with pytest.raises(ValueError, match=message):
        rater_scores(**arguments)


def test_interactions_until_a_level():
    dice = [[0.5, 0.7, 0.9], [0.9, 0.1, 0.1], [0.1, 0.2, 0.3], [np.nan, 0.2, 0.85]]
    assert interactions_to_reach(dice, 0.85).tolist() == [2, 0, 10, 2]
    assert interactions_to_reach(dice, 0.85, first=1).tolist() == [3, 1, 10, 3]
    assert interactions_to_reach(dice, 0.85, never=6).tolist() == [2, 0, 6, 2]
    assert interactions_to_reach(np.reshape(dice, (2, 2, 3)), 0.85).shape == (2, 2)
    assert interactions_to_reach([0.1, 0.9], 0.9).item() == 1


def test_area_under_rounds_equals_scikit_learn():
    dice = np.random.default_rng(0).random((4, 6))
    expected = [auc(np.arange(6), row) / 5 for row in dice]
    np.testing.assert_allclose(area_under_rounds(dice), expected)
    assert area_under_rounds([[0.3], [0.4]]).tolist() == [0.3, 0.4]
    assert np.isnan(area_under_rounds([0.1, np.nan, 0.2]))
    for nothing in (0.5, np.zeros((2, 0))):
        with pytest.raises(ValueError, match="at least one round"):
            area_under_rounds(nothing)
