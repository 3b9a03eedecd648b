"""Crops: inside the volume, of the class they claim; counts against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spars.crops import CropSource, body_level, bounding_box, cut, draw_crops, integral, padded, window_counts
from spars.errors import DataError
from spars.lattice import Lattice


def coded(shape: tuple[int, int, int]) -> np.ndarray:
    """An image whose voxels say where they are."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


seeds = st.integers(0, 10**6)
shapes = st.tuples(*[st.integers(3, 12)] * 3)


@settings(max_examples=40, deadline=None)
@given(shapes, st.tuples(*[st.integers(1, 6)] * 3), seeds, st.integers(1, 2))
def test_every_crop_is_a_window_of_its_class(shape, size, seed, at_least):
    rng = np.random.default_rng(seed)
    assume(all(s < n for s, n in zip(size, shape, strict=True)))
    label = np.zeros(shape, np.uint8)
    label[0, 0, : min(2, size[2])] = 2  # in the very corner
    assume((label == 2).sum() >= at_least)
    crops, classes = draw_crops(
        coded(shape), label, size, 9, rng, min_tumour_voxels=at_least, negative_region="volume"
    )
    assert crops.shape == (9, *size)
    assert classes.tolist() == [1] * 4 + [0] * 5
    for crop, positive in zip(crops, classes, strict=True):
        start = np.array(np.unravel_index(int(crop[0, 0, 0]), shape))
        assert (start + size <= shape).all()
        box = tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))
        np.testing.assert_array_equal(crop, coded(shape)[box])
        n = np.count_nonzero(label[box] == 2)
        assert n >= at_least if positive else n == 0


def test_the_tumour_lies_anywhere_in_a_crop():
    """The original has it in one corner."""
    label = np.zeros((21, 21, 21), np.uint8)
    label[10, 10, 10] = 2
    image = (label == 2).astype(np.float32)
    crops, classes = draw_crops(
        image, label, (4, 4, 4), 400, np.random.default_rng(0), negative_region="volume"
    )
    where = np.argwhere(crops[classes == 1])[:, 1:]
    assert len(where) == 200
    for axis in range(3):
        assert np.bincount(where[:, axis], minlength=4).min() > 25  # of 50 expected


def test_negatives_come_from_the_region():
    image, label = np.full((30, 30, 30), -1000, np.float32), np.zeros((30, 30, 30), np.uint8)
    image[10:20, 5:15, 20:28] = 50
    image[12:15, 6:9, 21:25], label[12:15, 6:9, 21:25] = 100, 1
    image[13, 7, 22], label[13, 7, 22] = 10, 2
    values = {}
    for region in ("liver", "body", "volume"):
        crops, classes = draw_crops(
            image, label, (1, 1, 1), 200, np.random.default_rng(0), negative_region=region
        )
        values[region] = crops[classes == 0].ravel()
        assert (crops[classes == 1] == 10).all()
    assert set(values["liver"]) == {100}
    assert set(values["body"]) == {50, 100}
    assert (values["volume"] == -1000).mean() > 0.9
    # In larger crops the voxel of the region lies at any place.
    crops, classes = draw_crops(
        image, label, (3, 3, 3), 200, np.random.default_rng(0), negative_region="liver"
    )
    assert (crops[classes == 0] == 100).any(axis=(1, 2, 3)).all()


def test_no_tumour_all_negative_and_thresholds():
    image, label = coded((6, 6, 6)), np.zeros((6, 6, 6), np.uint8)
    _, classes = draw_crops(image, label, (2, 2, 2), 5, np.random.default_rng(0), negative_region="volume")
    assert classes.tolist() == [0] * 5
    label[2, 2, 2] = 2
    _, classes = draw_crops(
        image, label, (2, 2, 2), 5, np.random.default_rng(0), min_tumour_voxels=2, negative_region="volume"
    )
    assert classes.tolist() == [0] * 5  # too small a tumour makes no positive crop


def test_small_volumes_are_padded_with_their_lowest_value():
    image, label = coded((4, 6, 3)) - 50, np.ones((4, 6, 3), np.uint8)
    wide, marked = padded(image, label, (7, 5, 4))
    assert wide.shape == marked.shape == (7, 6, 4)
    assert (wide[0] == -50).all()
    assert (marked == 0).sum() == 7 * 6 * 4 - 4 * 6 * 3
    np.testing.assert_array_equal(wide[1:5, :, :3], image)
    label[1, 1, 1] = 2
    crops, _ = draw_crops(image, label[:, :, :], (4, 6, 3), 1, np.random.default_rng(0), positive_share=1)
    np.testing.assert_array_equal(crops[0], image)
    with pytest.raises(DataError, match="must be alike"):
        padded(image, label[:2], (7, 5, 4))


def test_impossible_classes_are_errors():
    image, label = coded((4, 4, 4)), np.full((4, 4, 4), 2, np.uint8)
    with pytest.raises(DataError, match="in the volume is free of tumour"):
        draw_crops(image, label, (2, 2, 2), 4, np.random.default_rng(0), negative_region="volume")
    label[:] = 0
    label[0, 0, 0] = label[3, 3, 3] = 2
    with pytest.raises(DataError, match="2×2×2 voxels holds 2 of the 2 tumour voxels"):
        draw_crops(image, label, (2, 2, 2), 4, np.random.default_rng(0), min_tumour_voxels=2)


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(1, 3), seeds)
def test_counts_of_all_windows(grid, step, seed):
    rng = np.random.default_rng(seed)
    window = tuple(int(rng.integers(1, n + 1)) for n in grid)
    label = rng.integers(0, 3, grid).astype(np.uint8)
    lattice = Lattice(grid, window, step)
    found = window_counts(label, lattice)
    assert found.shape == lattice.shape
    windows = cut((label == 2).astype(np.float32), lattice.all_starts(), window)
    np.testing.assert_array_equal(found.ravel(), windows.sum(axis=(1, 2, 3)))
    assert integral(label == 2)[-1, -1, -1] == (label == 2).sum()
    with pytest.raises(DataError, match="on a lattice over"):
        window_counts(label[1:], lattice)


def test_boxes_and_levels():
    mask = np.zeros((5, 6, 7), bool)
    assert [each.tolist() for each in bounding_box(mask)] == [[0, 0, 0], [5, 6, 7]]
    mask[1:3, 2, 4:7] = True
    assert [each.tolist() for each in bounding_box(mask)] == [[1, 2, 4], [3, 3, 7]]
    assert body_level(None) == -300
    assert body_level((-500, 300)) == 0.25
    assert body_level((-100, 300)) == 0


def test_windows_without_labels():
    image = np.full((12, 12, 12), -1000, np.float32)
    image[4:9, 4:9, 4:9] = 1 + np.arange(125).reshape(5, 5, 5)
    source = CropSource(image, None, (1, 1, 1))
    assert not source.has_positives
    windows = source.draw_windows(300, np.random.default_rng(0))
    assert windows.min() > 0  # of the body
    assert len(np.unique(windows)) > 90
    again = source.draw_windows(300, np.random.default_rng(0))
    np.testing.assert_array_equal(again, windows)
    assert (
        CropSource(image, None, (1, 1, 1), negative_region="liver")
        .draw_windows(50, np.random.default_rng(0))
        .min()
        > 0
    )
