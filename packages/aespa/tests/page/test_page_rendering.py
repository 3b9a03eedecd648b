"""Pictures of the page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from aespa.page.rendering import (
    ORANGE,
    Frame,
    array_file,
    card_url,
    eroded,
    heat_url,
    image_url,
    mask_png,
    mask_url,
    outline_url,
    palette_css,
)


def decoded(url: str) -> np.ndarray:
    kind, content = url.split(",")
    assert kind.endswith(";base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_frame_fits_and_keeps_the_aspect(height, width):
    frame = Frame.of((height, width), 640)
    assert max(frame.shown_width, frame.shown_height) <= 640
    assert min(frame.shown_width, frame.shown_height) >= 1
    if max(height, width) <= 320:
        assert frame.shown_width % width == frame.shown_height % height == 0
        assert frame.enlarged
        assert frame.shown_width // width == frame.shown_height // height
    else:
        assert abs(frame.shown_width / 640 - width / max(height, width)) < 1 / 320


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_shown_pixel_is_the_one_that_a_click_on_it_means(height, width):
    frame = Frame.of((height, width), 64)
    rows, columns = np.mgrid[:height, :width]
    shown = frame.sampled(rows * 100 + columns)
    for v, u in ((0, 0), (frame.shown_height - 1, frame.shown_width - 1), (frame.shown_height // 2, 0)):
        y, x = int((v + 0.5) / frame.shown_height * height), int((u + 0.5) / frame.shown_width * width)
        assert shown[v, u] == 100 * y + x


def test_a_mask_and_its_outline():
    mask = np.zeros((8, 10), bool)
    mask[2:6, 3:8] = True
    frame = Frame.of((8, 10), 100)
    area, line = decoded(mask_url(mask, frame)), decoded(outline_url(mask, frame))
    assert area.shape == line.shape == (80, 100, 4)
    assert np.array_equal(area[..., 3] > 0, np.kron(mask, np.ones((10, 10), bool)))
    assert (area[area[..., 3] > 0] == (*ORANGE, 255)).all()
    inside = line[..., 3] > 0
    assert inside[20, 30]
    assert inside[21, 45]
    assert not inside[22, 45]
    assert not inside[40, 55]
    assert (area[..., 3][inside] > 0).all(), "the line is inside the mask"


@pytest.mark.parametrize("by", [1, 2])
def test_erosion_is_that_of_scipy(by):
    mask = np.random.default_rng(0).random((20, 30)) < 0.9
    side = np.ones((2 * by + 1,) * 2)
    assert np.array_equal(eroded(mask, by), ndimage.binary_erosion(mask, side))


def test_heat_maps_have_the_colours_of_their_palette():
    values = np.array([[0.0, 0.5], [1.0, 7.0]])
    found = decoded(heat_url(values, Frame.of((2, 2), 4), "viridis"))[::2, ::2, :3]
    wanted = np.rint(colormaps["viridis"](np.array([[0, 128], [255, 255]]))[..., :3] * 255)
    assert np.array_equal(found, wanted)
    assert palette_css("magma").startswith("linear-gradient(to right, rgb(0 0 4)")


def test_small_images_are_sent_as_they_are_and_large_ones_smaller():
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    assert np.array_equal(decoded(image_url(image))[..., :3], image)
    assert decoded(image_url(np.zeros((3000, 1500, 3), np.uint8))).shape[:2] == (1280, 640)


def test_cards_show_the_mask():
    image = np.full((64, 64, 3), 100, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:50, 10:50] = True
    card = decoded(card_url(image, mask, 128))[..., :3].astype(float)
    assert card.shape == (128, 128, 3)
    assert (card[5, 5] == 100).all()
    assert (card[20, 60] == ORANGE).all()
    np.testing.assert_allclose(card[60, 60], 0.55 * 100 + 0.45 * np.asarray(ORANGE), atol=0.5)


def test_files_to_save():
    mask = np.eye(5, 7, dtype=bool)
    with Image.open(io.BytesIO(mask_png(mask))) as found:
        assert (found.size, found.mode) == ((7, 5), "L")
        assert np.array_equal(np.asarray(found), mask * 255)
    values = np.random.default_rng(0).random((5, 7), np.float32)
    assert np.array_equal(np.load(io.BytesIO(array_file(values)), allow_pickle=False), values)
