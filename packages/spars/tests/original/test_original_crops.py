"""Training crops: the original's draws and numbers bit for bit, and what is corrected."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.errors import DataError
from spars.original.crops import NRandomCrop, _Voxels, centred_start, clipped_start, crop_classes, dilate

DRAWN = ("mixed", "no_tumour", "corner_lesion", "single_voxel", "crop_larger_than_volume", "odd_crop_no")
STRETCHED = (
    "mixed",
    "corner_lesion",
    "fractional_label",
)  # cases whose stretched crops are compared, 0.2 s a crop


@pytest.fixture(scope="module")
def golden(golden_json, golden_npz):
    return golden_json("random_crop"), golden_npz("random_crop")


@pytest.fixture(scope="module")
def volume(golden, golden_volumes):
    facts, _ = golden
    image, label = golden_volumes.golden_volume(facts["volume_shape"], facts["volume_seed"])
    assert golden_volumes.sha256(image) == facts["volume_sha256"]
    assert golden_volumes.sha256(label) == facts["label_sha256"]
    return image, label


def _label(name: str, label: np.ndarray) -> np.ndarray:
    """The label volume of a golden case, as float64 like the files'."""
    label = label.astype(np.float64)
    if name == "all_tumour":
        return np.full_like(label, 2)
    if name in ("no_tumour", "corner_lesion", "single_voxel", "fractional_label"):
        label[label == 2] = 1
    if name == "corner_lesion":
        label[-4:, -6:, -5:] = 2
    if name in ("single_voxel", "fractional_label"):
        label[tuple(n // 2 for n in label.shape)] = 2
    return label


def _boxes(starts, size):
    return [tuple(slice(s, s + c) for s, c in zip(start, size, strict=True)) for start in starts]


@pytest.mark.parametrize("name", DRAWN)
def test_golden_draws(name, golden, volume):
    case = golden[0]["cases"][name]
    label = _label(name, volume[1])
    dilated = dilate(label == 2)
    crop = NRandomCrop(case["crop_size"], case["crop_no"], faithful=True)
    random.seed(case["seed"])
    starts = crop.corners(dilated)
    assert [list(start) for start in starts] == case["starts"]
    boxes = _boxes(starts, case["crop_size"])
    assert [list(dilated[box].shape) for box in boxes] == case["original_crop_shapes"]
    assert [int(dilated[box].any()) for box in boxes] == case["any_dilated_voxel_in_original_crop"]


@pytest.mark.parametrize("name", STRETCHED)
def test_golden_crops(name, golden, volume, monkeypatch):
    facts, arrays = golden
    case = facts["cases"][name]
    label = _label(name, volume[1])
    crop = NRandomCrop(case["crop_size"], case["crop_no"], faithful=True)
    if name == "fractional_label":  # where the golden's starts are forced
        monkeypatch.setattr(crop, "corners", lambda _mask: [tuple(start) for start in case["starts"]])
    random.seed(case["seed"])
    images, masks = crop(volume[0].astype(np.float64), label)
    assert list(images.shape) == list(masks.shape) == case["output_shape"]
    assert str(images.dtype) == str(masks.dtype) == case["output_dtype"]
    index = arrays[f"{name}_idx"]
    for kind, found, tolerance in (("image", images, 1e-2), ("label", masks, 1e-5)):
        rows = found.reshape(len(found), -1)
        np.testing.assert_allclose(rows[:, index], arrays[f"{name}_{kind}_samples"], atol=tolerance)
        np.testing.assert_allclose(rows.sum(1, dtype=np.float64), arrays[f"{name}_{kind}_sums"], rtol=1e-6)
    np.testing.assert_allclose(masks.reshape(len(masks), -1).max(1), case["label_amax"], atol=1e-6)
    assert crop_classes(torch.from_numpy(masks), faithful=True).tolist() == case["original_class"]
    assert np.unique(label).tolist() == case["labels_mutated_unique"]
    expected = [1 if largest > 0 else 0 for largest in case["label_amax"]]
    assert crop_classes(torch.from_numpy(masks)).tolist() == expected


@pytest.mark.parametrize("name", [*DRAWN, "fractional_label"])
def test_golden_corrected_places(name, golden, volume):
    case = golden[0]["cases"][name]
    tumour = _label(name, volume[1]) == 2
    size, shape = case["crop_size"], tumour.shape
    for kind, place in (("corner", clipped_start), ("centred", centred_start)):
        starts = [place(start, size, shape) for start in case["starts"]]
        assert [list(start) for start in starts] == case[f"corrected_{kind}_start"]
        found = [int(tumour[box].any()) for box in _boxes(starts, size)]
        assert found == case[f"corrected_{kind}_class"]


def test_golden_masks(golden, volume):
    _, arrays = golden
    tumour = volume[1] == 2
    np.testing.assert_array_equal(np.packbits(tumour), arrays["tumour_packbits"])
    np.testing.assert_array_equal(np.packbits(dilate(tumour)), arrays["dilated_packbits"])


def test_golden_error_of_a_volume_that_is_all_tumour(golden, volume):
    case = golden[0]["cases"]["all_tumour"]
    crop = NRandomCrop(case["crop_size"], case["crop_no"], faithful=True)
    with pytest.raises(IndexError) as error:
        crop(volume[0], _label("all_tumour", volume[1]))
    assert f"IndexError: {error.value}" == case["original_error"]


def test_too_few_voxels_for_the_crops_is_the_originals_error():
    with pytest.raises(ValueError, match="need at least one array to concatenate"):
        NRandomCrop((2, 2, 2), 100, faithful=True)(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)))


def test_rows_are_clipped_where_the_original_clips_them():
    """A crop larger than the volume: the first three voxels of the table become negative corners."""
    crop = NRandomCrop((7, 4, 4), 2, size=(4, 4, 4), faithful=True)
    table = _Voxels(np.ones((5, 4, 6), bool))
    for axis, (size, length) in enumerate(zip((5, 4, 6), crop.crop_size, strict=True)):
        table.clip_row(axis, size - length - 1)
    assert [table[k] for k in range(4)] == [(-3, -3, -3), (-1, -1, -1), (0, 0, 1), (0, 0, 3)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0, 1), shape=st.tuples(*[st.integers(1, 6)] * 3))
def test_voxels_are_the_rows_of_argwhere(seed, density, shape):
    mask = np.random.default_rng(seed).random(shape) < density
    table = np.argwhere(mask)
    voxels = _Voxels(mask)
    assert len(voxels) == len(table)
    assert [list(voxels[k]) for k in range(len(table))] == table.tolist()
    with pytest.raises(IndexError):
        voxels[len(table)]


@pytest.mark.parametrize("crop_no", [4, 5])
def test_corrected_crops(volume, crop_no):
    image, label = volume
    before = label.copy()
    tumour = label == 2
    crop = NRandomCrop((12, 12, 8), crop_no, size=(12, 12, 8), rng=random.Random(0))
    offsets = []
    for _ in range(20):
        starts = crop.starts(image, tumour)
        assert all(
            0 <= s <= n - c
            for start in starts
            for s, n, c in zip(start, image.shape, (12, 12, 8), strict=True)
        )
        classes = [bool(tumour[box].any()) for box in _boxes(starts, (12, 12, 8))]
        assert classes == [True] * (crop_no // 2) + [False] * (crop_no - crop_no // 2)
        offsets.append(np.argwhere(tumour[_boxes(starts, (12, 12, 8))[0]]).mean(0))
    assert np.ptp(offsets, axis=0).min() > 2  # tumour lies anywhere in the crop, not at one corner
    images, masks = crop(image, label)
    assert crop_classes(torch.from_numpy(masks)).tolist() == [1] * (crop_no // 2) + [0] * (
        crop_no - crop_no // 2
    )
    assert images.shape == (crop_no, 1, 12, 12, 8)
    np.testing.assert_array_equal(label, before)


def test_corrected_crops_of_a_volume_smaller_than_the_crop(volume):
    image, label = volume
    crop = NRandomCrop((12, 12, 40), 2, size=(12, 12, 40), rng=random.Random(1))
    label = label.copy()
    label[20:] = 0
    images, masks = crop(image, label)
    np.testing.assert_array_equal(images[..., 28:], float(image.min()))
    np.testing.assert_array_equal(masks[..., 28:], 0)


def test_corrected_refusals(volume):
    image, label = volume
    with pytest.raises(DataError, match="no crop of 12×12×8 voxels without tumour"):
        NRandomCrop((12, 12, 8), 2)(image, np.full_like(label, 2))
    with pytest.raises(DataError, match=r"found \(40, 36, 28\), \(40, 36, 27\)"):
        NRandomCrop((12, 12, 8), 2)(image, label[..., 1:])
