"""The drawn raters differ as they are meant to."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.synthetic_drawing import draw_arrays, draw_sample


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_majority_is_the_standard_rater_and_its_dice_is_the_published_level():
    arrays = draw_arrays(64, 64, seed=2)
    masks = arrays.masks.astype(bool)
    majority = arrays.masks.mean(axis=1) > 0.5
    assert np.array_equal(majority, masks[:, 1])
    per_rater = [float(np.mean([dice(m, masks[i, r]) for i, m in enumerate(majority)])) for r in range(3)]
    assert per_rater == pytest.approx([0.587, 1.0, 0.900], abs=0.005)
    assert np.mean(per_rater) == pytest.approx(0.829, abs=0.003)


def test_styles_lie_within_each_other_and_are_seen_in_the_image():
    drawn = draw_sample(np.random.default_rng(0), 96)
    core, rim, liberal, shifted = drawn.masks
    assert not (core & ~rim).any()
    assert not (rim & ~liberal).any()
    assert np.array_equal(liberal & ~rim, drawn.satellite)
    assert np.array_equal(shifted[:, 1:], rim[:, :-1])
    assert not shifted[:, 0].any()
    means = [drawn.image[m].mean() for m in (core, rim & ~core, drawn.satellite, ~liberal)]
    assert means == pytest.approx([0.75, 0.5, 0.45, 0.25], abs=0.01)
    assert drawn.image.dtype == np.float32
    assert drawn.image.std() > 0.05


def test_drawing_depends_on_the_seed_and_not_on_the_number():
    few, many, other = draw_arrays(3, 32, 5), draw_arrays(6, 32, 5), draw_arrays(3, 32, 6)
    assert np.array_equal(few.images, many.images[:3])
    assert np.array_equal(few.masks, many.masks[:3])
    assert not np.array_equal(few.images, other.images)
    assert few.patients == ("patient-0000", "patient-0000", "patient-0001")
    assert draw_arrays(2, 32, 5, raters=4).rater_ids == ("conservative", "standard", "liberal", "shifted")
