"""Peaks against the greedy definition, written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from til_mtl import peaks
from til_mtl.peaks import StripPeaks, find_peaks, keep_in_order, suppress


def greedy(probability, threshold, distance):
    height, width = probability.shape
    pixels = [(-probability[y, x], y, x) for y in range(height) for x in range(width)]
    kept: list[tuple[int, int, float]] = []
    for p, y, x in sorted(pixel for pixel in pixels if -pixel[0] >= threshold):
        if all(np.sqrt((x - a) ** 2 + (y - b) ** 2) > distance for a, b, _ in kept):
            kept.append((x, y, -p))
    return np.asarray(kept, float).reshape(-1, 3)


maps = st.builds(
    lambda seed, height, width, levels: (
        np.random.default_rng(seed).integers(0, levels, (height, width)) / levels
    ),
    st.integers(0, 10**6),
    st.integers(1, 30),
    st.integers(1, 20),
    st.sampled_from([2, 5, 1000]),
)
distances = st.sampled_from([0, 1, 1.5, 3, 4.3, 12, 40])


@settings(max_examples=60, deadline=None)
@given(maps, distances, st.sampled_from([0.0, 0.3, 0.9]))
def test_equals_the_greedy_definition(probability, distance, threshold):
    np.testing.assert_array_equal(
        find_peaks(probability, threshold, distance), greedy(probability, threshold, distance)
    )


@settings(max_examples=60, deadline=None)
@given(maps, distances, st.lists(st.integers(1, 9), min_size=1, max_size=6), st.booleans())
def test_strips_give_what_the_whole_map_gives(probability, distance, heights, smooth):
    if smooth:  # long slopes: the fate of a pixel hangs on pixels far away
        probability = (np.cumsum(probability, axis=0) + np.arange(probability.shape[1]) / 97) / 50
    values = np.arange(probability.size).reshape(probability.shape).astype(np.uint8)
    strips = StripPeaks(probability.shape[1], 0.1, distance)
    found, row = [], 0
    while row < len(probability):
        height = heights[len(found) % len(heights)]
        found.append(strips.add(probability[row : row + height], values[row : row + height]))
        row += height
    found.append(strips.finish())
    together = [(x, y, p) for part in found for x, y, p, _ in zip(*part, strict=True)]
    assert sorted(together) == sorted(map(tuple, find_peaks(probability, 0.1, distance)))
    for part in found:
        np.testing.assert_array_equal(part.value, values[part.y, part.x])


def test_rows_without_candidates_settle_what_waits():
    strips = StripPeaks(8, 0.5, 4)
    strip = np.zeros((4, 8))
    strip[3, 5] = 0.9
    assert len(strips.add(strip).x) == 0  # a better pixel may follow
    settled = strips.skip(10)
    assert (settled.x.tolist(), settled.y.tolist()) == ([5], [3])
    assert len(strips.finish().x) == 0


def test_a_map_that_rises_without_end_needs_no_endless_memory(monkeypatch, caplog):
    monkeypatch.setattr(peaks, "_MOST_WAITING", 50)
    strips = StripPeaks(6, 0.0, 3)
    found = []
    for k in range(20):
        rows = (np.arange(4 * k, 4 * k + 4)[:, None] * 6 + np.arange(6)) / 1000
        found.append(strips.add(rows))
    found.append(strips.finish())
    points = np.array([(x, y) for part in found for x, y in zip(part.x, part.y, strict=True)])
    assert "rises without end" in caplog.text
    gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    assert gaps[~np.eye(len(points), dtype=bool)].min() > 3  # no cell twice
    assert points[:, 1].max() >= 76


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), distances)
def test_suppression_of_points(seed, n, distance):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.integers(0, 40, (n, 2)), rng.integers(0, 9, n) / 9])
    ranked = sorted(points.tolist(), key=lambda each: (-each[2], each[1], each[0]))
    kept: list[list[float]] = []
    for point in ranked:
        if all(np.hypot(point[0] - a, point[1] - b) > distance for a, b, _ in kept):
            kept.append(point)
    np.testing.assert_array_equal(suppress(points, distance), np.reshape(kept, (-1, 3)))


def test_points_are_gone_through_in_the_order_given():
    points = np.array([[0.0, 0], [3, 0], [6, 0]])
    assert keep_in_order(points, 3).tolist() == [0, 2]
    assert keep_in_order(points[[1, 0, 2]], 3).tolist() == [0]
    assert keep_in_order(np.empty((0, 2)), 3).tolist() == []


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="must not be negative, found -1"):
        find_peaks(np.zeros((2, 2)), 0.1, -1)
    with pytest.raises(ValueError, match=r"shape \[H, W\], found \[2\]"):
        find_peaks(np.zeros(2), 0.1, 1)
    with pytest.raises(ValueError, match="rows of 3 pixels"):
        StripPeaks(3, 0.1, 1).add(np.zeros((2, 2)))


def test_not_a_number_is_no_peak():
    assert find_peaks(np.array([[np.nan, 0.5]]), 0.1, 5).tolist() == [[1.0, 0.0, 0.5]]
