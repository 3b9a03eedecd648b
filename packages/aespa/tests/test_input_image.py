"""Images that can be segmented, and messages about those that cannot."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.errors import DataError
from aespa.input_image import MAX_PIXELS, as_input_image

grey = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_grey_images_get_equal_channels():
    for image in (grey, grey[..., None], grey.tolist() and np.asfortranarray(grey)):
        found = as_input_image(image)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        for channel in range(3):
            np.testing.assert_array_equal(found[..., channel], grey)


def test_colours_stay_and_an_opaque_alpha_is_dropped():
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(as_input_image(colours), colours)
    opaque = np.concatenate([colours, np.full((3, 4, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(as_input_image(opaque), colours)
    opaque[1, 2, 3] = 254
    with pytest.raises(DataError, match="partly transparent"):
        as_input_image(opaque)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (grey.astype(np.uint16), "found uint16.*window"),
        (grey.astype(float), "found float64"),
        (grey > 3, "found bool"),
        (np.zeros((2, 3, 4, 3), np.uint8), r"found \[2, 3, 4, 3\]; of a volume"),
        (np.zeros((3, 4, 2), np.uint8), r"found \[3, 4, 2\]"),
        (np.zeros(4, np.uint8), r"found \[4\]"),
        (np.zeros((0, 4), np.uint8), "empty: 4 x 0"),
        (np.broadcast_to(np.uint8(0), (5000, 10000)), "10000 x 5000 pixels .50 megapixels.*crop"),
    ],
)
def test_what_cannot_be_segmented_is_refused_with_the_mend(image, message):
    with pytest.raises(DataError, match=message):
        as_input_image(image)


def test_just_below_the_limit_is_fine():
    assert as_input_image(np.broadcast_to(np.uint8(7), (1, 300_000))).shape == (1, 300_000, 3)
    assert MAX_PIXELS == 40_000_000
