"""Rectangles of label pyramids, read without reading the whole."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.slides import write_label_pyramid
from til_mtl.data.label_tiff import read_label_rectangle
from til_mtl.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 8, (150, 210)).astype(np.uint8)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    return write_label_pyramid(tmp_path_factory.mktemp("labels") / "mask.tif", LABELS, 0.5, tile_px=64)


@settings(max_examples=40, deadline=None)
@given(st.integers(-50, 230), st.integers(-50, 170), st.integers(1, 120), st.integers(1, 120))
def test_rectangles_equal_the_array(pyramid, x, y, width, height):
    padded = np.zeros((500, 600), np.uint8)
    padded[100:250, 100:310] = LABELS
    wanted = padded[100 + y : 100 + y + height, 100 + x : 100 + x + width]
    assert np.array_equal(read_label_rectangle(pyramid, x, y, width, height), wanted)


@pytest.mark.parametrize("compression", ["lzw", "none"])
def test_files_of_others(tmp_path, compression):
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, LABELS, compression=None if compression == "none" else compression)
    assert np.array_equal(read_label_rectangle(path, 10, 20, 30, 40), LABELS[20:60, 10:40])


def test_bad_files_have_their_message(pyramid, tmp_path):
    with pytest.raises(DataError, match="no such label slide"):
        read_label_rectangle(tmp_path / "none.tif", 0, 0, 4, 4)
    (tmp_path / "cut.tif").write_bytes(pyramid.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read as TIFF"):
        read_label_rectangle(tmp_path / "cut.tif", 0, 0, 4, 4)
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DataError, match="expected one channel of 8 bits"):
        read_label_rectangle(tmp_path / "rgb.tif", 0, 0, 4, 4)
