"""Synthetic CT: what the recipe says, and the same anatomy in every geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.files import read_json
from medshared.gpu import derive_seed
from medshared.tables import Column, read_table
from medshared.volumes import read_volume, to_canonical
from spars.errors import DataError
from spars.synthetic import SIZE, TUMOUR_VOXELS, draw_case, write_synthetic


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_recipe_holds(seed, tumour):
    image, label = draw_case(np.random.default_rng(seed), tumour=tumour)
    assert image.shape == label.shape == SIZE
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert (np.count_nonzero(label == 2) >= TUMOUR_VOXELS) == tumour
    for value, hu in ((1, 100), (2, 10)):
        found = image[label == value]
        if found.size:
            assert abs(found.mean() - hu) < 5
            assert abs(found.std() - 15) < 3
    assert abs(image[0, 0].mean() + 1000) < 10  # air
    body = image[(label == 0) & (image > -500)]
    assert abs(np.median(body) - 60) < 3
    again, _ = draw_case(np.random.default_rng(seed), tumour=tumour)
    np.testing.assert_array_equal(again, image)


def test_the_anatomy_scales_with_the_volume():
    shares = [
        np.bincount(draw_case(np.random.default_rng(3), size)[1].ravel(), minlength=3) / np.prod(size)
        for size in (SIZE, (96, 96, 64), (60, 40, 20))
    ]
    for share in shares[1:]:
        np.testing.assert_allclose(share, shares[0], rtol=0.05)
    with pytest.raises(DataError, match="at least 8 voxels along each axis, found 48×48×4"):
        draw_case(np.random.default_rng(0), (48, 48, 4))


def test_written_volumes_bring_the_recipe_back_through_their_affines(tmp_path):
    found = write_synthetic(tmp_path, 8, 2, 2, seed=5)
    assert list(found.splits) == ["train", "val", "test"]
    assert read_json(tmp_path / "splits.json") == {**found.splits, "seed": 5}
    table = read_table(tmp_path / "labels.csv", [Column("case"), Column("label", "int")])
    assert dict(zip(table["case"], table["label"], strict=True)) == found.labels
    assert len(read_json(tmp_path / "dataset.json")["training"]) == 12
    shapes, spacings, turned = set(), set(), 0
    for k, name in enumerate(found.labels):
        image = read_volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
        label = read_volume(tmp_path / "labelsTr" / f"{name}.nii.gz")
        np.testing.assert_array_equal(image.affine, label.affine)
        canonical, orientation = to_canonical(image)
        rng = np.random.default_rng(derive_seed(5, "synthetic", k))
        expected, truth = draw_case(rng, canonical.shape, bool(found.labels[name]))
        np.testing.assert_array_equal(canonical.array, expected)
        np.testing.assert_array_equal(to_canonical(label)[0].array, truth)
        np.testing.assert_allclose(np.multiply(canonical.shape, canonical.spacing), SIZE, rtol=1e-5)
        assert np.any(truth == 2) == bool(found.labels[name])
        assert np.count_nonzero(np.abs(canonical.affine[:3, :3]) > 1e-3) > 3  # oblique
        shapes.add(image.shape)
        spacings.add(tuple(np.round(canonical.spacing, 3).tolist()))
        turned += orientation.tolist() != [[0, 1], [1, 1], [2, 1]]
    assert len(spacings) == 4
    assert len(shapes) > 4
    assert turned > 6
    # Voxel size tells nothing about the tumour.
    without = [k for k, name in enumerate(found.labels) if not found.labels[name]]
    assert without == [3, 7]


def test_seeds_and_plain_geometry(tmp_path):
    write_synthetic(tmp_path / "a", 2, 1, 0, seed=1, geometry="plain")
    write_synthetic(tmp_path / "b", 2, 1, 0, seed=1, geometry="plain")
    write_synthetic(tmp_path / "c", 2, 1, 0, seed=2, geometry="plain")
    a, b, c = ((tmp_path / name / "imagesTr" / "liver_1.nii.gz").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    volume = read_volume(tmp_path / "a" / "imagesTr" / "liver_1.nii.gz")
    assert volume.shape == SIZE
    np.testing.assert_array_equal(volume.affine, np.eye(4))
