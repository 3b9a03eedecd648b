"""Regions: big patches replaced by the 4 × 4 small ones they cover."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advmil.errors import DataError
from advmil.prepare.big_to_small import convert_file, small_attributes, small_coordinates
from medshared.bags import ClamAttributes, read_coordinates, write_coordinates

BIG = ClamAttributes(256, 2, (16.0, 16.0), (4000, 3000), (4000, 3000), "s", "o")


def test_golden_coordinates(golden_npz):
    golden = golden_npz("tools")
    corrected = small_coordinates(golden["b2s_in"], 256, 16.0)
    assert corrected.dtype == np.int64
    np.testing.assert_array_equal(corrected, golden["b2s_corrected"])
    original = small_coordinates(golden["b2s_in"], 256, 16.0, legacy_offsets=True)
    np.testing.assert_array_equal(original, golden["b2s_original"])


def test_golden_attributes(golden_json, golden_npz, tmp_path: Path):
    """The written file holds the golden's attributes; `save_path` is the folder of the new file."""
    golden = golden_json("tools")["b2s"]["attrs_out"]
    source = write_coordinates(tmp_path / "s.h5", golden_npz("tools")["b2s_in"], BIG)
    target = tmp_path / "o" / "patches" / "s.h5"
    assert convert_file(source, target) == 80
    with h5py.File(target) as file:
        data = file["coords"]
        assert data.dtype == np.int64
        assert data.maxshape == (None, 2)
        found = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in data.attrs.items()}
    assert found == golden | {"save_path": str(target.parent)}


@given(
    corners=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=8),
    size=st.integers(1, 512),
    scale=st.sampled_from([2, 4, 8]),
    small=st.sampled_from([1, 2, 4]),
)
def test_small_patches_tile_their_big_patch(corners, size, scale, small):
    """Row by row, consecutive small patches cover the big one without gap or overlap."""
    found = small_coordinates(corners, size, float(scale * small), scale=scale)
    expected = [
        (x + i * size * small, y + j * size * small)
        for x, y in corners
        for j in range(scale)
        for i in range(scale)
    ]
    assert [tuple(row) for row in found.tolist()] == expected


def test_downsamples_that_are_not_whole_are_rounded():
    """A level of 62,501 pixels above 1,000,003 has a downsample of 15.9998; the step is that of 16."""
    np.testing.assert_array_equal(small_coordinates([[0, 0]], 256, 15.9998)[1], [1024, 0])


def test_finest_level_has_no_smaller_patches():
    with pytest.raises(DataError, match="patch_level 0: big patches must lie at level 1 or coarser"):
        small_attributes(ClamAttributes(256, 0, (1.0, 1.0), (9, 9), (9, 9), "s", "o"), Path("o"))


def test_missing_attributes_are_named(tmp_path: Path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=np.zeros((1, 2), np.int64)).attrs["patch_size"] = 256
    with pytest.raises(DataError, match=r"a\.h5: 'coords' lacks the attributes patch_level, downsample"):
        convert_file(path, tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()


def test_level_size_comes_from_the_slide(put, tmp_path: Path):
    slide = put(a="tissue") / "a.svs"
    rounded = ClamAttributes(16, 2, (16.0, 16.0), (63, 63), (63, 63), "a", "o")
    source = write_coordinates(tmp_path / "a.h5", [[0, 0]], rounded)
    convert_file(source, tmp_path / "b.h5", slide=slide)
    assert read_coordinates(tmp_path / "b.h5").attributes["level_dim"] == [256, 256]


def test_other_ratio_of_levels_is_refused(put, tmp_path: Path):
    slide = put(a="tissue") / "a.svs"
    wrong = ClamAttributes(16, 2, (8.0, 8.0), (128, 128), (128, 128), "a", "o")
    source = write_coordinates(tmp_path / "a.h5", [[0, 0]], wrong)
    with pytest.raises(DataError, match=r"levels 2 and 1 have a ratio of 2\.000, expected 4"):
        convert_file(source, tmp_path / "b.h5", slide=slide)
