"""The working grid, and the way of a prediction back to the file."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from medshared.gpu import derive_seed
from medshared.volumes import Volume, read_volume, to_canonical
from spars.config import ClassifierConfig
from spars.data.cases import CaseVolume, load_case
from spars.data.grid import from_grid, load_grid_case, load_grid_cases, to_grid, to_raw
from spars.data.layout import find_cases
from spars.synthetic import HU_WINDOW, SIZE, draw_case, write_synthetic


def drawn_case(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[CaseVolume, np.ndarray]:
    """Return a case in a far-rotated, flipped frame, and the label as its file would have it."""
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    canonical, orientation = to_canonical(Volume(label, affine))
    image = (canonical.array * 100).astype(np.int16)
    return CaseVolume("a", image, canonical.array, canonical.affine, orientation, affine), label


shapes = st.tuples(*[st.integers(2, 7)] * 3)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 3), st.integers(0, 10**6))
def test_a_mask_comes_back_to_its_file(shape, factor, seed):
    case, label = drawn_case(np.random.default_rng(seed), shape)
    grid = tuple(factor * n for n in case.shape)
    found = to_grid(case, grid)
    back = from_grid(found.label, found, "nearest-exact")
    np.testing.assert_array_equal(back, label)
    np.testing.assert_array_equal(found.source.affine, case.source_affine)
    np.testing.assert_allclose(np.multiply(found.spacing, factor), case.spacing)


@settings(max_examples=40, deadline=None)
@given(shapes, shapes, st.integers(0, 10**6), st.booleans())
def test_a_place_in_space_comes_back_to_itself(shape, grid, seed, spaced):
    """A map of millimetres on the grid is one in the file, wherever nothing was clamped or cut."""
    case, label = drawn_case(np.random.default_rng(seed), shape)
    direction = np.random.default_rng(seed).standard_normal(3)

    def ramp(of_shape, affine):
        return apply_affine(affine, np.moveaxis(np.indices(of_shape), 0, -1)) @ direction

    case = CaseVolume(
        "a", ramp(case.shape, case.affine), None, case.affine, case.orientation, case.source_affine
    )
    spacing = tuple(each / 2 for each in case.spacing) if spaced else None
    found = to_grid(case, (20, 20, 20) if spaced else grid, spacing=spacing)
    back = from_grid(found.image, found)
    expected = ramp(label.shape, case.source_affine)
    # Through 1 voxel, every place is the middle; through n, the outer half voxels are clamped.
    step = np.abs(np.diff(expected, axis=0)).max(initial=0) + np.abs(np.diff(expected, axis=1)).max(initial=0)
    step += np.abs(np.diff(expected, axis=2)).max(initial=0)
    shrunk = 1 if spaced else max(1, max(n / g for n, g in zip(case.shape, grid, strict=True)))
    assert back.shape == label.shape
    assert np.abs(back - expected).max() <= step * shrunk + 1e-3


def test_synthetic_files_of_all_geometries_are_one_recipe_on_the_grid(tmp_path):
    write_synthetic(tmp_path, 8, 0, 0, seed=3)
    for k, case in enumerate(find_cases(tmp_path)):
        _, truth = draw_case(np.random.default_rng(derive_seed(3, "synthetic", k)), tumour=k % 4 != 3)
        found = to_grid(load_case(case, ClassifierConfig()), SIZE, HU_WINDOW)
        assert found.image.shape == SIZE
        assert found.image.dtype == np.float32
        assert 0 <= found.image.min() < found.image.max() <= 1
        overlap = 2 * ((found.label > 0) & (truth > 0)).sum() / ((found.label > 0).sum() + (truth > 0).sum())
        assert overlap > 0.95, case.name
        for value, hu in ((1, 100), (2, 10)):
            if (truth == value).any():
                inside = found.image[(found.label == value) & (truth == value)]
                assert abs(inside.mean() - (hu + 60) / 220) < 0.04
        np.testing.assert_allclose(found.spacing, 1, rtol=1e-5)


def test_a_voxel_size_cuts_and_pads_about_the_middle(caplog):
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1000, (10, 8, 6)).astype(np.int16)
    label = np.zeros(image.shape, np.uint8)
    label[4, 4, 3] = label[0, 0, 0] = 2
    case = CaseVolume(
        "a", image, label, np.diag([2.0, 1, 1, 1]), np.array([[0, 1], [1, 1], [2, 1]]), np.eye(4)
    )
    with caplog.at_level(logging.WARNING):
        found = to_grid(case, (12, 4, 8), spacing=(2.0, 1.0, 1.0))
    np.testing.assert_array_equal(found.image[1:11, :, 1:7], image[:, 2:6])
    assert (found.image[0] == -1024).all()
    assert "a: 1 tumour voxels lie outside the grid of 12×4×8 voxels" in caplog.text
    back = from_grid(found.label, found, "nearest-exact")
    assert back.shape == image.shape
    assert np.argwhere(back == 2).tolist() == [[4, 4, 3]]
    assert to_grid(case, (12, 4, 8), (-100, 300), (2.0, 1.0, 1.0)).image[0].max() == 0
    assert to_grid(case, (20, 8, 6), spacing=(1.0, 1.0, 1.0)).spacing == (1, 1, 1)


def test_the_originals_frame(tmp_path):
    write_synthetic(tmp_path, 5, 0, 0, size=(24, 24, 16))
    case = find_cases(tmp_path)[4]  # with exchanged axes
    stored, label = read_volume(case.image).array, read_volume(case.label).array
    config = ClassifierConfig(mode="faithful", full_image_size=(12, 30, 10)).resolved()
    found = load_grid_case(case, config)
    np.testing.assert_array_equal(found.image, stored)
    index = np.ix_(*[np.arange(n) * s // n for n, s in zip((12, 30, 10), label.shape, strict=True)])
    np.testing.assert_array_equal(found.label, label[index])
    # Voxel (i, j, k) of the map is that of the file, cut or filled where the sizes differ.
    back = from_grid(np.ones((12, 30, 10)), found)
    assert back.shape == stored.shape
    assert back[:12, :30, :10].all()
    assert back.sum() == np.prod(np.minimum(stored.shape, (12, 30, 10)))
    assert to_raw(load_case(case, config), (12, 30, 10)).source.orientation is None


@pytest.mark.parametrize("workers", [0, 2])
def test_many_cases_in_order(tmp_path, workers):
    write_synthetic(tmp_path, 4, 0, 0, size=(16, 16, 12))
    config = ClassifierConfig(full_image_size=(8, 8, 8)).resolved()
    found = load_grid_cases(find_cases(tmp_path), config, workers)
    assert [case.name for case in found] == ["liver_0", "liver_1", "liver_2", "liver_3"]
    assert all(case.image.shape == case.label.shape == (8, 8, 8) for case in found)
    assert found[0].tumour.any()
    assert not found[3].tumour.any()
    assert max(case.image.max() for case in found) <= 1
