"""The original's metrics: every golden value and edge case."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aespa.original.metrics import compute_metrics, eval_seg

NAMES = (
    "GED",
    "Dice_max",
    "Dice_match",
    "Dice_soft",
    "Dice_personal_mean",
    "Dice_follow",
    "Delta_follow_vs_neutral",
)


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("metrics")


@pytest.fixture(scope="module")
def edge(golden_json):
    return golden_json("metrics_edge")


CASES = {
    "default": {},
    "symmetric": {"dice_max_symmetric": True},
    "norm_max": {"dice_match_norm": "max"},
    "norm_match": {"dice_match_norm": "match"},
    "no_follow": {"follow_idx": None},
    "single_only": {"pred_set": None},
    "no_valid_argument": {"valid_raters": None},
    "all_valid": {"valid_raters": np.ones((3, 4), bool)},
}


@pytest.mark.parametrize("case", CASES)
def test_golden_values(case, golden):
    logits = torch.from_numpy(golden["pred_set_logits"])
    arguments = {
        "valid_raters": torch.from_numpy(golden["valid"]),
        "pred_set": logits,
        "follow_idx": torch.from_numpy(golden["follow"]),
    } | CASES[case]
    found = compute_metrics(logits[:, -1], torch.from_numpy(golden["raters"]), **arguments)
    assert tuple(found) == NAMES == tuple(golden["names"])
    np.testing.assert_allclose(list(found.values()), golden[f"original_{case}"], atol=1e-5)


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
    raters = np.array(spec["raters"])[None, :, None]
    for masks in (raters, raters[:, :, 0]):  # both layouts
        found = compute_metrics(single, masks, [spec["valid"]], single[:, None], [0])
        assert found == pytest.approx(spec["original"], abs=1e-6)


def test_golden_only_the_first_channel_of_several_is_read(edge):
    square = np.zeros((6, 6))
    square[:3, :3] = 1
    raters = np.stack([1 - square, square, *np.zeros((4, 6, 6))])[None, None].repeat(2, axis=1)
    logits = np.where(square > 0, 9.0, -9.0)[None, None]
    found = compute_metrics(logits, raters, [[True, True]], logits[:, None], [0])
    assert found == pytest.approx(edge["six_channel_raters_use_channel_0"]["original"], abs=1e-6)


def test_golden_errors_and_the_key_of_the_round(edge, golden):
    logits, raters = golden["pred_set_logits"], golden["raters"]
    message = edge["errors"]["pred_set_four_dims"].removeprefix("ValueError: ").split("; got")[0]
    with pytest.raises(ValueError) as caught:
        compute_metrics(logits[:, 0], raters, pred_set=logits[:, :, 0])
    assert str(caught.value).startswith(message)
    with pytest.raises(ValueError) as caught:
        compute_metrics(logits[:, 0], raters, dice_match_norm="mean")
    assert f"ValueError: {caught.value}" == edge["errors"]["unknown_norm"]
    assert compute_metrics(logits[:, 0], raters, run=edge["run_key"])["run"] == edge["run_key"]


def test_golden_overlap_at_thresholds(golden):
    p, t = golden["eval_prob"], golden["raters"][:, 0].astype(np.float32)
    np.testing.assert_allclose(eval_seg(p, t), golden["eval_c1"], atol=1e-5)
    soft = golden["raters"].mean(axis=1, dtype=np.float32)
    np.testing.assert_allclose(
        eval_seg(torch.from_numpy(p), torch.from_numpy(soft)), golden["eval_c1_soft_truth"], atol=1e-5
    )
    two = np.concatenate([p, 1 - p], axis=1), np.concatenate([t, 1 - t], axis=1)
    np.testing.assert_allclose(eval_seg(*two), golden["eval_c2"], atol=1e-5)
    np.testing.assert_allclose(eval_seg(*two), golden["eval_float64_c2"], atol=1e-6)
    four = np.concatenate([p, 1 - p, p**2, 0 * p], axis=1), np.concatenate([t, 1 - t, t, 0 * t], axis=1)
    np.testing.assert_allclose(eval_seg(*four, (0.5,)), golden["eval_c4_single_threshold"], atol=1e-5)
    np.testing.assert_allclose(
        eval_seg(*four), golden["eval_float64_c4"], atol=1e-6
    )  # where the original fails


def test_golden_overlap_of_empty_masks(golden):
    empty = np.zeros((1, 1, 6, 6))
    pixel = empty.copy()
    pixel[0, 0, 2, 3] = 1
    np.testing.assert_allclose(eval_seg(empty, empty), golden["eval_empty_vs_empty"], atol=1e-9)
    one = eval_seg(empty, pixel)
    assert one == pytest.approx((1e-6, 1e-4), rel=1e-3)
    mixed = eval_seg(np.concatenate([empty, empty]), np.concatenate([empty, pixel]))
    assert mixed == pytest.approx(golden["eval_empty_vs_one_pixel"], abs=1e-6)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"\[2, 1, 4, 4\] and \[2, 4, 4\]"):
        eval_seg(np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="at least one"):
        eval_seg(np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4)), ())
