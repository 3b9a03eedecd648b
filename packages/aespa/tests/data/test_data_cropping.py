"""Crops are square, hold what was outlined, and lie in the image where they fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aespa.data.cropping import Box, crop, square_around


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_square_holds_the_outline_and_lies_inside_where_it_fits(data):
    height, width = data.draw(st.integers(3, 40)), data.draw(st.integers(3, 40))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    margin = data.draw(st.floats(1, 3))
    outlined = np.zeros((height, width), bool)
    outlined[top : top + rows, left : left + columns] = True
    box = square_around(outlined, margin)
    assert box.side >= max(rows, columns) * margin - 1e-9
    for start, length in ((box.top, height), (box.left, width)):
        assert (0 <= start <= length - box.side) if box.side <= length else start == (length - box.side) // 2
    cut = crop(outlined.astype(np.uint8), box)
    assert cut.shape == (box.side, box.side)
    assert cut.sum() == outlined.sum()


def test_the_square_is_centred_on_the_outline():
    outlined = np.zeros((100, 100), bool)
    outlined[40:50, 60:70] = True
    assert square_around(outlined, 2) == Box(35, 55, 20)


def test_nothing_outlined_gives_the_whole_image_as_a_square():
    box = square_around(np.zeros((4, 6), bool), 1.3)
    assert box == Box(-1, 0, 6)
    image = np.arange(24, dtype=np.uint8).reshape(4, 6) + 1
    cut = crop(image, box)
    assert np.array_equal(cut[1:5], image)
    assert not cut[[0, 5]].any()


@pytest.mark.parametrize("channels", [(), (3,)])
def test_cropping_colours_and_greys(channels):
    image = np.random.default_rng(0).integers(0, 256, (9, 8, *channels), dtype=np.uint8)
    assert np.array_equal(crop(image, Box(2, 3, 4)), image[2:6, 3:7])
    assert crop(image, Box(-2, 3, 12)).shape == (12, 12, *channels)
