"""The drawing keeps its promises: classes, cells, distractors as dark as lymphocytes, and one true score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from til_mtl.synthetic import CELL_RADIUS, OTHER, STROMA, TUMOR, draw_canvas, draw_patch, til_score


@pytest.fixture(scope="module")
def patches():
    return [draw_patch(seed) for seed in range(60)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_patch_keeps_the_rules(seed):
    patch = draw_patch(seed)
    assert patch.image.shape == (64, 64, 3)
    assert patch.image.dtype == patch.classes.dtype == np.uint8
    assert len(np.unique(patch.classes)) >= 2
    assert 0 <= len(patch.centres) <= 7
    if len(patch.centres) > 1:
        assert pdist(patch.centres).min() > 1.6 * CELL_RADIUS
    again = draw_patch(seed)
    assert np.array_equal(again.image, patch.image)
    assert np.array_equal(again.centres, patch.centres)


def test_colours_tell_the_classes(patches):
    colours = [
        np.concatenate([p.image[p.classes == kind] for p in patches]) for kind in (OTHER, TUMOR, STROMA)
    ]
    other, tumor, stroma = (np.median(each, axis=0) for each in colours)
    assert tumor.sum() < stroma.sum() - 60 < other.sum() - 120


def test_lymphocytes_settle_mostly_in_stroma(patches):
    cells, area = np.zeros(3), np.zeros(3)
    for p in patches:
        cells += np.bincount(p.classes[p.centres[:, 1], p.centres[:, 0]], minlength=3)
        area += np.bincount(p.classes.ravel(), minlength=3)
    density = cells / area
    assert density[STROMA] > 2.5 * density[TUMOR] > 2.5 * density[OTHER]


def test_darkness_does_not_tell_lymphocytes_from_other_nuclei(patches):
    """About half of the dark blobs are no lymphocytes."""
    lymphocytes = others = 0
    for p in patches:
        blobs, count = ndimage.label(p.image.mean(axis=2) < 100)
        for k in range(1, count + 1):
            inside = blobs == k
            if inside.sum() < 30:
                continue
            hit = any(inside[min(63, y), min(63, x)] for x, y in p.centres)
            lymphocytes, others = lymphocytes + hit, others + (not hit)
    assert others > 0.5 * lymphocytes


def test_cells_are_dark_discs_where_the_mask_says(patches):
    for p in patches[:20]:
        mask = p.cell_mask()
        rows, columns = np.mgrid[:64, :64] + 0.5
        wanted = np.zeros((64, 64), bool)
        for x, y in p.centres:
            wanted |= (columns - x) ** 2 + (rows - y) ** 2 <= CELL_RADIUS**2
        assert np.array_equal(mask, wanted)
        for x, y in p.centres:
            assert p.image[max(0, y - 2) : y + 2, max(0, x - 2) : x + 2].mean() < 100


def test_score_is_the_formula():
    classes = np.full((100, 100), STROMA)
    classes[:, 50:] = TUMOR
    centres = np.array([[10.5, 10.0], [49.9, 3.0], [50.0, 3.0]])
    assert til_score(classes, centres) == 100 * 2 * 14**2 / 5000
    assert til_score(classes, np.empty((0, 2))) == 0
    assert til_score(classes, np.repeat(centres[:1], 50, axis=0)) == 100
    assert np.isnan(til_score(np.zeros((4, 4)), centres[:0]))


def test_more_trials_raise_the_score_up_to_the_levels_of_the_recipe():
    scores = []
    for rate in (0.5, 5, 40):
        canvas = draw_canvas(np.random.default_rng(1), 256, 256, int(16 * rate))
        scores.append(til_score(canvas.classes, canvas.centres))
    assert 0 < scores[0] < 8 < scores[1] < 30 < 60 < scores[2] < 90


def test_crops_keep_pixels_and_the_cells_inside():
    canvas = draw_canvas(np.random.default_rng(2), 128, 96, 60)
    part = canvas.crop(32, 16, 64, 48)
    assert np.array_equal(part.image, canvas.image[16:64, 32:96])
    moved = {(x + 32, y + 16) for x, y in part.centres.tolist()}
    assert moved == {(x, y) for x, y in canvas.centres.tolist() if 32 <= x < 96 and 16 <= y < 64}
