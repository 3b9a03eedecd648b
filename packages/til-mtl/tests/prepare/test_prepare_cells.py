"""Grid, cell masks and label remap against the independent reference."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from til_mtl.data.tiger import tissue_classes
from til_mtl.errors import DataError
from til_mtl.prepare.cells import box_centres, clip_status, rasterise_cells
from til_mtl.prepare.grid import tile_starts


def test_grids_of_the_golden(golden_json):
    for key, wanted in golden_json("tiger")["prepare"]["grids"].items():
        length, tile, stride = map(int, key.split("_"))
        assert tile_starts(length, tile, stride) == wanted


@given(st.integers(1, 3000), st.integers(8, 512), st.integers(1, 512))
def test_tiles_cover_a_length_and_end_with_it(length, tile, stride):
    stride = min(stride, tile)
    starts = tile_starts(length, tile, stride)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert max(starts[-1] + tile, length) == max(length, tile)
    assert all(b - a <= stride for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", ["square", "disk"])
def test_cells_of_the_golden(golden_npz, shape):
    arrays = golden_npz("tiger")
    wanted = arrays[f"prepare.{shape}"]
    drawn = rasterise_cells(arrays["prepare.bboxes_xywh"], wanted.shape, shape)
    assert np.array_equal(drawn, wanted)


def test_a_given_diameter_replaces_that_of_the_boxes():
    mask = rasterise_cells(np.array([[2, 2, 16, 16]]), (20, 20), "disk", 4)
    rows, columns = np.mgrid[:20, :20] + 0.5
    assert np.array_equal(mask == 1, (rows - 10) ** 2 + (columns - 10) ** 2 <= 4)


def test_boxes_beyond_the_border_are_counted():
    boxes = np.array([[2, 2, 4, 4], [-2, 2, 4, 4], [8, 8, 4, 4], [-9, 2, 4, 4], [10, 0, 2, 2]])
    clipped, outside = clip_status(boxes, (10, 10))
    assert clipped == 2
    assert outside.tolist() == [3, 4]
    assert rasterise_cells(boxes, (10, 10), "square").sum() == 16 + 8 + 4
    assert box_centres(boxes)[0].tolist() == [4, 4]
    assert rasterise_cells(np.array([[-90, 2, 4, 4]]), (10, 10)).sum() == 0


def test_label_remap_of_the_golden(golden_json):
    labels = np.arange(8, dtype=np.uint8)
    wanted = golden_json("tiger")["prepare"]["tissue_remap"]
    assert tissue_classes(labels, 0).tolist() == wanted
    assert tissue_classes(labels).tolist() == [250, *wanted[1:]]
    with pytest.raises(DataError, match=r"m\.png: tissue label 9: the download has labels 0"):
        tissue_classes(np.array([9], np.uint8), path="m.png")
