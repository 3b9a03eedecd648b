"""Overlap of all pairs of masks against sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.metrics.pairwise import pairwise_overlap


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(1, 6), st.integers(1, 200))
def test_equals_sets_of_pixels(seed, b, n, pixels):
    masks = np.random.default_rng(seed).random((b, n, pixels)) < 0.3
    found = pairwise_overlap(masks)
    dice, iou = found.dice(), found.iou()
    assert found.intersections.shape == (b, n, n)
    for image in range(b):
        sets = [set(np.flatnonzero(mask)) for mask in masks[image]]
        for i, left in enumerate(sets):
            assert found.sizes[image, i] == len(left)
            for j, right in enumerate(sets):
                both, either = len(left & right), len(left | right)
                assert found.intersections[image, i, j] == both
                assert dice[image, i, j] == (2 * both / (len(left) + len(right)) if either else 1)
                assert iou[image, i, j] == (both / either if either else 1)


def test_pixels_may_have_any_axes_and_whole_numbers_count_as_masks():
    masks = np.random.default_rng(0).random((2, 3, 5, 7)) < 0.5
    expected = pairwise_overlap(masks.reshape(2, 3, -1)).intersections
    np.testing.assert_array_equal(pairwise_overlap(masks).intersections, expected)
    np.testing.assert_array_equal(pairwise_overlap(masks.astype(np.uint8)).intersections, expected)
    np.testing.assert_array_equal(pairwise_overlap(masks.astype(float)).intersections, expected)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((2, 3)), r"\[B, n, \.\.\.\]"),
        (np.full((1, 1, 2), 2), "only 0 and 1"),
        (np.array([[["a"]]]), "booleans"),
    ],
)
def test_what_is_no_mask_is_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        pairwise_overlap(masks)
