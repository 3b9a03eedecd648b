"""Groups of raters and their first click: golden frequencies, and what holds for every draw."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aespa.first_click import draw_group, draw_groups, first_click


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("click_spa")


def test_golden_groups_their_masks_and_frequencies(golden):
    raters = golden["raters"][:, 0]
    masks = dict(zip(golden["selection"], golden["masks"][:, 0].astype(bool), strict=True))
    rng = np.random.default_rng(0)
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(3000):
        group = draw_group(raters, None, rng)
        name = "".join(str(int(each)) for each in group.selected)
        counts[name] += 1
        np.testing.assert_array_equal(group.mask, masks[name])
        assert (raters[group.selected, group.y, group.x] == group.label).all()
        assert (raters[~group.selected, group.y, group.x] != group.label).all()
    frequency = [counts[name] / 3000 for name in golden["selection"]]
    assert sum(counts.values()) == sum(counts[name] for name in golden["selection"])
    np.testing.assert_allclose(frequency, golden["probability_analytic"], atol=0.03)


def test_golden_seeded_outputs_are_possible_draws(golden, golden_json):
    masks = dict(zip(golden["selection"], golden["masks"], strict=True))
    for case in golden_json("click_spa")["seeded"]:
        name = "".join(str(each) for each in case["selected"])
        assert masks[name].sum() == case["mask_sum"]


def test_golden_unanimous_first_clicks(golden):
    raters = golden["raters"][:, 0]
    rng = np.random.default_rng(0)
    group = draw_group(raters, None, rng)
    found = {first_click(raters, None, group, rng, "unanimous") for _ in range(60)}
    assert found == {(int(x), int(y), 1) for y, x in golden["first_click_candidates"]}
    assert first_click(raters, None, group, rng) == (group.x, group.y, group.label)


def test_golden_edge_cases(golden_json):
    edge = golden_json("click_spa")["edge"]
    rng = np.random.default_rng(0)
    halves = np.zeros((2, 4, 4), bool)
    halves[0, :, 0], halves[1, :, 1] = True, True  # nobody's marks meet
    for _ in range(20):
        x, y, label = first_click(halves, None, draw_group(halves, None, rng), rng, "unanimous")
        assert label == edge["no_unanimous_foreground"]["label"]
        assert not halves[:, y, x].any()
    opposite = np.stack([np.eye(4, dtype=bool), ~np.eye(4, dtype=bool)])
    assert edge["no_unanimous_pixel"] == "ValueError"
    with pytest.raises(ValueError, match="agree on no pixel"):
        first_click(opposite, None, draw_group(opposite, None, rng), rng, "unanimous")
    empty = draw_group(np.zeros((4, 4, 4)), None, rng)
    assert empty.label == edge["all_empty"]["label"]
    assert empty.selected.tolist() == [bool(each) for each in edge["all_empty"]["selected"]]
    assert empty.mask.sum() == edge["all_empty"]["mask_sum"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_raters_that_are_not_valid_are_no_part_of_any_group(seed):
    rng = np.random.default_rng(seed)
    raters, valid = rng.random((4, 6, 6)) < 0.5, rng.random(4) < 0.6
    group = draw_group(raters, valid, rng)
    counted = valid if valid.any() else np.ones(4, bool)
    assert not (group.selected & ~counted).any()
    assert group.selected.any()
    np.testing.assert_array_equal(group.mask, raters[group.selected].mean(axis=0) >= 0.5)
    alone = draw_group(raters[counted], None, np.random.default_rng(seed + 1))
    same = draw_group(raters, valid, np.random.default_rng(seed + 1))
    assert (alone.x, alone.y, alone.label) == (same.x, same.y, same.label)


def test_batches_draw_as_their_images_do():
    rng = np.random.default_rng(0)
    raters = torch.from_numpy(rng.random((3, 4, 8, 8)) < 0.5).float()
    valid = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
    batch = draw_groups(raters, valid, [np.random.default_rng(i) for i in range(3)])
    assert batch.coords.dtype == batch.mask.dtype == torch.float32
    for i in range(3):
        group = draw_group(raters[i].numpy(), valid[i].numpy(), np.random.default_rng(i))
        assert batch.coords[i].tolist() == [group.x, group.y]
        assert batch.labels[i] == group.label
        assert batch.selected[i].tolist() == group.selected.tolist()
        assert batch.mask[i].bool().tolist() == group.mask.tolist()
        assert batch.mask[i, group.y, group.x] == group.label or group.selected.sum() > 1
    for nothing in (draw_groups(raters[:0], valid[:0], []), draw_groups(raters[:0], valid[:0], rng)):
        assert nothing.coords.shape == (0, 2)
        assert nothing.mask.shape == (0, 8, 8)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\[R, S, S\]"):
        draw_group(np.zeros((4, 4)), None, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"\[2\]"):
        draw_group(np.zeros((3, 4, 4)), [True, True], np.random.default_rng(0))
