"""The picture of a slide: its size, tissues in colour, rings where the cells are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medshared.slides import open_slide, write_pyramid
from til_mtl.peaks import Candidates, no_candidates
from til_mtl.slides.overlay import RING, draw_cells, write_overlay
from til_mtl.slides.strips import Strip
from til_mtl.slides.tallies import Tallies
from til_mtl.til_score import TUMOR


def cells_at(*places: tuple[int, int]) -> Candidates:
    x, y = np.array(places, np.int64).T
    return Candidates(x, y, np.ones(len(x)), np.ones(len(x), np.uint8))


def drawn(tmp_path, size, mpp, cells, level0_px=1.0):
    """Return the picture of a grey slide whose left half is tumour."""
    slide = write_pyramid(
        tmp_path / "s.tif", np.full((size[1], size[0], 3), 200, np.uint8), mpp, "generic", downsamples=(1, 4)
    )
    map_size = tuple(round(each / level0_px) for each in size)
    labels = np.zeros(map_size[::-1], np.uint8)
    labels[:, : map_size[0] // 2] = TUMOR
    tallies = Tallies(map_size)
    tallies.add(Strip(0, map_size[1], labels))
    with open_slide(slide) as opened:
        write_overlay(tmp_path / "overlay.png", opened, tallies, cells, level0_px)
    return np.array(Image.open(tmp_path / "overlay.png")).astype(int)


@pytest.mark.parametrize(
    ("size", "shown"), [((200, 120), (1000, 600)), ((1200, 300), (1200, 300)), ((3200, 400), (1600, 200))]
)
def test_small_slides_are_enlarged_and_large_ones_reduced(tmp_path, size, shown):
    picture = drawn(tmp_path, size, 0.5, no_candidates())
    assert picture.shape == (shown[1], shown[0], 3)
    quarter = shown[0] // 4
    assert np.abs(picture[10, quarter] - (200, 130, 130)).max() <= 2
    assert np.abs(picture[10, 3 * quarter] - 200).max() <= 2


@pytest.mark.parametrize(("mpp", "level0_px"), [(0.5, 1.0), (0.25, 2.0)])
def test_cells_have_rings_of_four_micrometres(tmp_path, mpp, level0_px):
    picture = drawn(tmp_path, (200, 120), mpp, cells_at((24, 30), (70, 10)), level0_px)
    ring = np.abs(picture - RING).max(axis=2) < 40
    radius = 4 / (mpp / 5)
    for x, y in ((24, 30), (70, 10)):
        centre = np.array([x, y]) * level0_px * 5 + 2.5 * level0_px
        rows, columns = np.nonzero(ring)
        distance = np.hypot(columns + 0.5 - centre[0], rows + 0.5 - centre[1])
        near = distance[distance < 1.5 * radius]
        assert near.min() > 0.8 * radius
        assert near.mean() == pytest.approx(radius, rel=0.03)


def test_rings_never_shrink_to_specks(tmp_path):
    picture = drawn(tmp_path, (3200, 400), 2.0, cells_at((800, 200)))  # 4 µm are one pixel of the picture
    rows, columns = np.nonzero(np.abs(picture - RING).max(axis=2) < 40)
    assert np.ptp(columns) >= 7
    assert np.ptp(rows) >= 7


def test_crowded_cells_are_dots():
    picture = np.zeros((50, 60, 3), np.uint8)
    centres = np.array([[0.0, 0.0], [10.9, 20.2], [60.0, 50.0]])
    dots = (draw_cells(picture, centres, 4.0, 250) == RING).all(axis=2)
    assert sorted(zip(*np.nonzero(dots), strict=True)) == [(0, 0), (20, 10), (49, 59)]
    assert not picture.any()
    rings = np.abs(draw_cells(picture, centres, 4.0, 3000).astype(int) - RING).max(axis=2) < 60
    assert rings.sum() > 20
