"""Pictures, by what is drawn in them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medshared.metrics.detection import Region, froc_curve
from til_mtl.config import IGNORE_INDEX
from til_mtl.figures import COLOURS, draw_froc, draw_learning, draw_patches, save_figure, tissue_overlay


def test_tissue_is_tinted_and_what_nobody_annotated_is_not():
    image = np.full((2, 2, 3), 100, np.uint8)
    classes = np.array([[0, 1], [2, IGNORE_INDEX]])
    found = tissue_overlay(image, classes, opacity=0.5)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[1, 1], [100, 100, 100])
    for place, tissue in (((0, 0), 0), ((0, 1), 1), ((1, 0), 2)):
        np.testing.assert_allclose(found[place], (100 + COLOURS[tissue].astype(float)) / 2, atol=0.5)
    np.testing.assert_array_equal(tissue_overlay(image, np.full((2, 2), 7)), image)


def patch_rows():
    image = np.zeros((8, 8, 3), np.uint8)
    tissue = {
        "name": "tissue",
        "image": image,
        "truth": np.ones((8, 8), int),
        "prediction": np.zeros((8, 8), int),
    }
    cells = {"name": "cells", "image": image, "truth": np.array([[2.5, 3.5]]), "prediction": np.zeros((0, 2))}
    return [tissue, cells]


def test_patches_stand_in_rows_and_cells_at_their_pixels():
    figure = draw_patches(patch_rows())
    axes = np.reshape(figure.axes, (2, 3))
    assert [axis.get_title() for axis in axes[0]] == ["image", "annotated", "predicted"]
    (points,) = axes[1, 1].collections
    np.testing.assert_array_equal(points.get_offsets(), [[2.0, 3.0]])
    assert len(axes[1, 2].collections[0].get_offsets()) == 0
    assert not axes[0, 1].collections


def test_eight_cells_on_an_eight_pixel_patch_are_no_class_map():
    rows = patch_rows()[1:]
    rows[0]["truth"] = np.zeros((8, 2))
    assert len(draw_patches(rows).axes[1].collections[0].get_offsets()) == 8


def test_learning_curves_have_a_point_for_each_row_with_a_value():
    rows = [{"step": 3, "train_loss": 1.0}, {"step": 6, "train_loss": 0.5, "val_loss": 0.75}]
    (axis,) = draw_learning(rows, ["loss"]).axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert curves == {"train": [[3, 1.0], [6, 0.5]], "val": [[6, 0.75]]}


@pytest.mark.parametrize("found", [np.zeros((0, 3)), np.array([[4.0, 4.0, 0.9], [40.0, 40.0, 0.8]])])
def test_froc_curves_are_staircases_within_the_targets(found):
    curve = froc_curve([Region(found[:, :2], found[:, 2], np.array([[4.0, 5.0]]))], 8.0, 0.01)
    (axis,) = draw_froc({"run": curve}).axes
    drawn = axis.lines[0].get_xydata()
    assert axis.lines[0].get_drawstyle() == "steps-post"
    assert drawn[0].tolist() == [0, 0]
    assert drawn[-1, 0] == 300
    assert drawn[-1, 1] == (1.0 if len(found) else 0.0)


def test_files_are_whole_pictures(tmp_path):
    path = save_figure(tmp_path / "a" / "figure.png", draw_learning([], ["loss"]))
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
    assert [each.name for each in path.parent.iterdir()] == ["figure.png"]
