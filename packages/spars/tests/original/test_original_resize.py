"""Both resizes against the original's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spars.errors import DataError
from spars.original.resize import nearest_sources, resize_image, stretch_nearest

CROPS = ("crop0", "crop1", "crop2")


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("resize")


def test_nearest_sources(golden):
    keys = [key for key in golden if key.startswith("nearest_")]
    assert len(keys) == 41
    for key in keys:
        _, n, _, target = key.split("_")
        np.testing.assert_array_equal(nearest_sources(int(n), int(target)), golden[key], err_msg=key)


@pytest.mark.parametrize("name", CROPS)
def test_nearest(golden, name):
    found = stretch_nearest(golden[name])
    assert (found.shape, found.dtype) == ((256, 256, 180), np.float32)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found.ravel()[golden[f"{name}_idx"]], golden[f"{name}_nearest"])
    assert found.sum(dtype=np.float64) == golden[f"{name}_nearest_sum"]


@pytest.mark.parametrize("name", CROPS)
def test_trilinear(golden, name):
    found = resize_image(golden[name])
    assert (tuple(found.shape), found.dtype) == ((1, 1, 256, 256, 180), torch.float32)
    np.testing.assert_allclose(found.flatten()[golden[f"{name}_idx"]], golden[f"{name}_trilinear"], atol=1e-2)
    assert found.sum(dtype=torch.float64).item() == pytest.approx(
        float(golden[f"{name}_trilinear_sum"]), rel=1e-6
    )


def test_trilinear_in_double_precision(golden):
    found = resize_image(golden["crop1"], dtype=torch.float64)
    np.testing.assert_allclose(found.flatten()[golden["crop1_idx"]], golden["crop1_trilinear_f64"], atol=1e-9)
    assert found.sum().item() == pytest.approx(float(golden["crop1_trilinear_f64_sum"]), rel=1e-12)


def test_a_mask(golden):
    mask, index = golden["mask"], golden["mask_idx"]
    nearest = stretch_nearest(mask)
    np.testing.assert_array_equal(nearest.ravel()[index], golden["mask_nearest"])
    assert nearest.sum() == golden["mask_nearest_sum"]
    trilinear = resize_image(mask)
    np.testing.assert_allclose(trilinear.flatten()[index], golden["mask_trilinear"], atol=1e-6)
    assert trilinear.sum(dtype=torch.float64).item() == pytest.approx(
        float(golden["mask_trilinear_sum"]), rel=1e-6
    )


def test_several_volumes_at_once():
    stack = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    found = stretch_nearest(stack, (7, 4, 11), dtype=np.float64)
    np.testing.assert_array_equal(found[1], stretch_nearest(stack[1], (7, 4, 11), dtype=np.float64))
    np.testing.assert_array_equal(found[0, 0, :, 0], stack[0, 0, :, 0])


@pytest.mark.parametrize("resize", [resize_image, stretch_nearest])
def test_empty_crops_are_refused(resize):
    with pytest.raises(
        DataError, match=r"\(4, 0, 3\) cannot be stretched: input and output sizes should be greater"
    ):
        resize(np.zeros((4, 0, 3)))
    with pytest.raises(DataError, match="three axes"):
        resize(np.zeros((4, 3)))
