"""Pictures for inspection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.slides import Contour, draw_contours, open_slide, stitch
from medshared.slides.preview import covered_area


def test_contours_are_green_and_holes_blue() -> None:
    square = np.array([[40, 40], [360, 40], [360, 280], [40, 280]], np.int32)
    hole = np.array([[120, 120], [200, 120], [200, 200], [120, 200]], np.int32)
    thumbnail = np.full((80, 100, 3), 255, np.uint8)
    found = draw_contours(thumbnail, [Contour(square, (hole,))], 4.0, line_thickness=4)
    assert (thumbnail == 255).all()
    assert found[10, 50].tolist() == found[40, 90].tolist() == [0, 255, 0]
    assert found[30, 40].tolist() == [0, 0, 255]
    assert found[20, 20].tolist() == [255, 255, 255]
    assert ((found == [0, 255, 0]).all(-1)).sum() == 2 * (80 + 60)
    assert np.array_equal(draw_contours(thumbnail, [], (4.0, 4.0)), thumbnail)
    thick = draw_contours(thumbnail, [Contour(square)], 4.0, line_thickness=20)
    assert thick[12, 50].tolist() == [0, 255, 0]


def test_stitched_patches(aperio: Path) -> None:
    coordinates = np.array([[0, 0], [512, 256], [960, 704]])
    with open_slide(aperio) as slide:
        found = stitch(slide, coordinates, 128, max_px=256)
        whole = slide.thumbnail(256)
        assert not stitch(slide, [], 128, max_px=256).any()
    assert found.shape == (192, 256, 3)
    shown = np.zeros((192, 256), bool)
    shown[0:32, 0:32] = shown[64:96, 128:160] = shown[176:, 240:] = True
    assert np.array_equal(found[shown], whole[shown])
    assert not found[~shown].any()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-20, 60), st.integers(-20, 60)), max_size=8),
    st.integers(1, 30),
)
def test_cover_equals_painting(corners: list[tuple[int, int]], size: int) -> None:
    expected = np.zeros((40, 50), bool)
    for x, y in corners:
        expected[max(0, y) : max(0, y + size), max(0, x) : max(0, x + size)] = True
    assert np.array_equal(covered_area(corners, size, (40, 50), (1.0, 1.0)), expected)
