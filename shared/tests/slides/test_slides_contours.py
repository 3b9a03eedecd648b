"""Polygons: points inside, areas, tracing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medshared.slides import Contour
from medshared.slides.contours import find_contours, locate_points, polygon_area, scale_border

small = st.integers(-6, 6)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=12), st.sampled_from([1, 64, 2**17]))
def test_points_as_opencv_locates_them(corners: list[tuple[int, int]], factor: int) -> None:
    polygon = np.array(corners, np.int32) * factor
    axis = np.arange(-7, 7.5, 0.5) * factor
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    expected = [
        cv2.pointPolygonTest(polygon.astype(np.float32), (float(x), float(y)), False) for x, y in points
    ]
    assert locate_points(points, polygon).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)))
def test_traced_masks(mask: np.ndarray) -> None:
    contours = [Contour(outer, tuple(holes)) for outer, holes in find_contours(mask)]
    points = np.stack(np.meshgrid(np.arange(mask.shape[1]), np.arange(mask.shape[0])), axis=-1).reshape(-1, 2)
    found = np.zeros(mask.size, bool)
    for contour in contours:
        found |= contour.contains(points)
        assert contour.box == cv2.boundingRect(contour.outer)
        assert contour.outer_area_px == cv2.contourArea(contour.outer)
    assert found[mask.ravel() > 0].all()
    # OpenCV borders of holes run through the tissue around them, so pixels of holes are never within.
    assert not found[mask.ravel() == 0].any()


def test_nothing() -> None:
    assert locate_points(np.empty((0, 2)), [[0, 0], [1, 1]]).shape == (0,)
    assert locate_points([[0, 0]], np.empty((0, 2))).tolist() == [-1]
    assert find_contours(np.zeros((5, 5), np.uint8)) == []


def test_contour_facts() -> None:
    square = np.array([[0, 0], [10, 0], [10, 20], [0, 20]], np.int32)
    hole = np.array([[2, 2], [4, 2], [4, 4], [2, 4]], np.int32)
    contour = Contour(square, (hole,))
    assert contour.box == (0, 0, 11, 21)
    assert (contour.outer_area_px, contour.area_px) == (200, 196)
    assert contour.contains([[0, 0], [3, 3], [2, 3], [11, 0]]).tolist() == [True, False, True, False]
    assert contour == Contour(square.copy(), (hole.copy(),))
    assert contour != Contour(square)
    assert contour != "contour"
    with pytest.raises(TypeError):
        hash(contour)
    assert scale_border(square, (1.99, 3.0)).tolist() == [[0, 0], [19, 0], [19, 60], [0, 60]]
    large = np.array([[0, 0], [200_000, 0], [200_000, 200_000], [0, 200_000]], np.int32)
    assert polygon_area(large) == 4e10
