"""Lesions of a segmentation, against a flood fill by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spars.errors import DataError
from spars.postprocessing import find_lesions, postprocess, voxel_volume_ml

masks = arrays(np.bool_, st.tuples(*[st.integers(1, 5)] * 3))


def components(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Flood fill over faces, edges and corners."""
    left = {tuple(int(i) for i in place) for place in np.argwhere(mask)}
    found = []
    while left:
        lesion, front = set(), [min(left)]
        while front:
            place = front.pop()
            if place not in left:
                continue
            left.remove(place)
            lesion.add(place)
            front += [
                tuple(p + d for p, d in zip(place, move, strict=True))
                for move in itertools.product((-1, 0, 1), repeat=3)
            ]
        found.append(lesion)
    return found


def voxels(mask: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(i) for i in place) for place in np.argwhere(mask)}


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(0, 6))
def test_small_lesions_go_and_the_others_stay_whole(mask, smallest):
    kept = postprocess(mask, 0.1, min_volume_ml=smallest * 0.1)
    expected = set().union(*[lesion for lesion in components(mask) if len(lesion) >= smallest])
    assert voxels(kept) == expected


@settings(max_examples=60, deadline=None)
@given(masks)
def test_one_largest_lesion_is_left(mask):
    kept = postprocess(mask, 1.0, largest_component=True)
    sizes = [len(lesion) for lesion in components(mask)]
    assert voxels(kept) in ([set()] if not sizes else components(mask))
    assert kept.sum() == max(sizes, default=0)
    assert np.array_equal(postprocess(kept, 1.0, largest_component=True), kept)


def test_the_largest_goes_too_when_it_is_too_small():
    mask = np.zeros((6, 4, 4), np.bool_)
    mask[:2, 0, 0] = True
    mask[4, 3, 3] = True
    assert not postprocess(mask, 0.5, largest_component=True, min_volume_ml=1.01).any()
    assert postprocess(mask, 0.5, largest_component=True, min_volume_ml=1.0).sum() == 2


def test_nothing_asked_for_is_nothing_done():
    mask = np.random.default_rng(0).random((5, 5, 5)) < 0.3
    assert postprocess(mask, 1.0) is mask


def test_lesions_hang_together_over_corners():
    mask = np.zeros((3, 3, 3), np.bool_)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert find_lesions(mask).voxels.tolist() == [2]


@pytest.mark.parametrize("smallest", [-1.0, float("nan")])
def test_a_volume_must_be_one(smallest):
    with pytest.raises(DataError, match="min_volume_ml must be at least 0"):
        postprocess(np.ones((1, 1, 1), np.bool_), 1.0, min_volume_ml=smallest)


def test_voxel_volume_of_a_flipped_oblique_affine():
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.8, 0.8, 2.5])
    assert voxel_volume_ml(affine) == pytest.approx(0.8 * 0.8 * 2.5 / 1000)
