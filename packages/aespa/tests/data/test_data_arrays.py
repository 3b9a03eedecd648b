"""Arrays in memory become the batches that the original's loader gave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aespa.data.arrays import three_channels
from aespa.synthetic_drawing import draw_arrays


@pytest.fixture(scope="module")
def arrays():
    return draw_arrays(5, 32, seed=1)


def test_batch_scales_bytes_to_numbers_between_0_and_1(arrays):
    batch = arrays.batch([3, 0, 3])
    assert batch.images.dtype == batch.raters.dtype == torch.float32
    assert batch.images.shape == (3, 3, 32, 32)
    assert len(batch) == 3
    expected = torch.from_numpy(arrays.images[[3, 0, 3]].copy()).float().div(255)
    assert torch.equal(batch.images, expected)
    assert torch.equal(batch.raters, torch.from_numpy(arrays.masks[[3, 0, 3]]).float())
    assert batch.valid.dtype == torch.bool
    assert batch.valid.all()
    assert batch.index.tolist() == [3, 0, 3]


def test_colour_images_keep_their_channels(arrays):
    colours = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    batch = replace(arrays, images=colours).batch(np.array([4]))
    assert torch.equal((batch.images * 255).round().to(torch.uint8), torch.from_numpy(colours[[4]]))


def test_grey_images_are_stored_once(arrays):
    assert arrays.images.strides[1] == 0
    assert arrays.subset([0, 2]).images.strides[1] == 0
    assert three_channels(np.zeros((2, 3, 4, 4), np.uint8)).strides[1] != 0


def test_a_batch_does_not_share_memory_with_the_arrays(arrays):
    before = arrays.images.copy()
    batch = arrays.batch([0])
    batch.images.zero_()
    batch.raters.zero_()
    assert np.array_equal(arrays.images, before)
    assert arrays.masks[0].any()


def test_subset_picks_everything_in_the_order_given(arrays):
    picked = arrays.subset([4, 1])
    assert picked.names == ("drawn-0004", "drawn-0001")
    assert picked.patients == ("patient-0002", "patient-0000")
    assert np.array_equal(picked.masks, arrays.masks[[4, 1]])
    assert (len(picked), picked.size, picked.n_raters) == (2, 32, 3)
    assert len(arrays.subset([])) == 0


def test_drawn_images_are_their_own_native_resolution(arrays):
    sample = arrays.native(2)
    assert sample.image.shape == (32, 32, 3)
    assert np.array_equal(sample.image[..., 1], arrays.images[2, 1])
    assert np.array_equal(sample.masks, arrays.masks[2] > 0)
    assert sample.present.all()


@pytest.mark.parametrize("indices", [[5], [-1, 0]])
def test_places_that_do_not_exist_are_refused(arrays, indices):
    with pytest.raises(IndexError, match=r"\[0, 5\)"):
        arrays.batch(indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.zeros((5, 2, 32, 32), np.uint8)}, r"masks must have shape \(5, 3, 32, 32\)"),
        ({"images": np.zeros((5, 1, 32, 32), np.uint8)}, r"images must have shape \(5, 3, 32, 32\)"),
        ({"names": ("a",)}, "names must have 5 entries, found 1"),
        ({"records": ("a",)}, "records must be empty or have 5 entries"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(arrays, change, message):
    with pytest.raises(ValueError, match=message):
        replace(arrays, **change)
