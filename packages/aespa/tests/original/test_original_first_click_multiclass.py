"""Groups of raters with several classes: golden frequencies and masks."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from aespa.original.first_click_multiclass import draw_class_group


@pytest.fixture(scope="module")
def golden(golden_json):
    return golden_json("click_multiclass")


@pytest.fixture(scope="module")
def one_hot(golden):
    maps = np.array(golden["label_maps"])
    return np.moveaxis(np.eye(golden["n_classes"], dtype=bool)[maps], -1, 1)


def test_golden_frequencies(golden, one_hot):
    rng = np.random.default_rng(0)
    maps = np.array(golden["label_maps"])
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(3000):
        group = draw_class_group(one_hot, None, rng)
        assert (maps[group.selected, group.y, group.x] == group.label).all()
        assert (maps[~group.selected, group.y, group.x] != group.label).all()
        counts[f"{group.label}:{''.join(str(int(each)) for each in group.selected)}"] += 1
    assert counts.keys() == golden["frequency_4000"].keys()
    for name, expected in golden["frequency_4000"].items():
        assert counts[name] / 3000 == pytest.approx(expected, abs=0.03)


def test_golden_masks_of_the_groups(golden, one_hot):
    by_group = {tuple(case["selected"]): case["mask_class_sums"] for case in golden["seeded"]}
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(100):
        group = draw_class_group(one_hot, None, rng)
        key = tuple(int(each) for each in group.selected)
        if key in by_group:
            seen.add(key)
            assert np.bincount(group.mask.ravel(), minlength=6).tolist() == by_group[key]
    assert seen == by_group.keys()


def test_only_valid_raters_count(one_hot):
    rng = np.random.default_rng(0)
    for _ in range(30):
        group = draw_class_group(one_hot, [False, True, False], rng)
        assert group.selected.tolist() == [False, True, False]
        assert group.label == 4
    assert draw_class_group(one_hot, [False] * 3, rng).selected.any()  # nobody valid: all count


def test_without_any_class_the_background_is_all_there_is():
    nothing = np.zeros((2, 3, 4, 4), bool)
    nothing[:, 0] = True
    group = draw_class_group(nothing, None, np.random.default_rng(0))
    assert (group.label, group.selected.tolist(), int(group.mask.sum())) == (0, [True, True], 0)


def test_a_class_that_nobody_disputes_is_drawn_all_the_same():
    agreed = np.zeros((2, 3, 4, 4), bool)
    agreed[:, 0] = True
    agreed[:, 0, 1, 2], agreed[:, 2, 1, 2] = False, True
    group = draw_class_group(agreed, None, np.random.default_rng(0))
    assert (group.x, group.y, group.label) == (2, 1, 2)
    with pytest.raises(ValueError, match=r"\[R, C, S, S\]"):
        draw_class_group(agreed[0], None, np.random.default_rng(0))
