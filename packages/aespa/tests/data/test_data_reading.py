"""Files are decoded and resized as the original did; what a file holds is never guessed."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aespa.data.reading import (
    image_shape,
    read_image,
    read_mask,
    resize_image_uint8,
    resize_mask,
    resize_nearest,
)
from aespa.errors import DataError


def test_resizing_is_the_originals(golden_npz):
    golden = golden_npz("resize")
    size = golden["image"].shape[0]
    resized = resize_image_uint8(golden["image_uint8"], size)
    assert np.abs(resized / np.float32(255) - golden["image"]).max() <= 1e-6
    assert np.array_equal(resize_mask(golden["mask_uint8"], size), golden["mask"])
    assert np.array_equal(
        resize_nearest(golden["nearest_in"], len(golden["nearest_out"])), golden["nearest_out"]
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 40), st.integers(0, 2**16))
def test_nearest_takes_pixel_floor(height, width, size, seed):
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    found = resize_nearest(mask, size)
    for y, x in [(0, 0), (size - 1, size - 1), (size // 2, size // 3)]:
        assert found[y, x] == mask[y * height // size, x * width // size]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**16))
def test_shrinking_by_a_whole_factor_keeps_constant_areas(side, factor, seed):
    small = np.random.default_rng(seed).integers(0, 2, 4).astype(bool).reshape(2, 2)
    mask = small.repeat(side * factor, axis=0).repeat(side * factor, axis=1)
    resized = resize_mask(mask, 2 * side)
    # Away from the borders of the four areas nothing else is mixed in.
    assert resized[0, 0] == small[0, 0]
    assert resized[-1, -1] == small[1, 1]
    assert resized[0, -1] == small[0, 1]


def test_bool_and_byte_masks_resize_alike():
    mask = np.random.default_rng(0).random((37, 53)) > 0.6
    assert np.array_equal(resize_mask(mask, 16), resize_mask(mask * np.uint8(255), 16))
    assert not resize_mask(np.zeros((9, 9), bool), 4).any()
    assert resize_mask(np.ones((9, 5), bool), 4).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "CMYK", "LA", "RGBA"])
def test_colour_models_become_three_channels(tmp_path, mode):
    grey = Image.fromarray(np.tile(np.array([[0, 255], [255, 255]], np.uint8), (8, 8)))
    image = grey.convert("RGB").convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    found = read_image(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(grey.convert("RGB")))
    assert image_shape(path) == (16, 16)


def test_deep_images_can_be_stretched_on_request(tmp_path):
    values = np.array([[100, 1100], [600, 100]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = read_image(tmp_path / "deep.png", stretch=True)
    assert found[..., 0].tolist() == [[0, 255], [128, 0]]
    Image.fromarray(np.full((2, 2), 7, np.uint16)).save(tmp_path / "flat.png")
    assert not read_image(tmp_path / "flat.png", stretch=True).any()


def test_colours_of_16_bits_are_not_taken_for_8_bits(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + struct.pack(">6H", *row) for row in ([100, 0, 0, 0, 0, 0], [0, 25_700, 0, 0, 0, 51_300])
    )
    header = struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read_image(path)
    with pytest.raises(DataError, match="expected a mask with 8 bits"):
        read_mask(path)
    assert read_image(path, stretch=True)[1].tolist() == [[0, 128, 0], [0, 0, 255]]


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_masks_of_one_and_of_255_are_the_same(tmp_path, high, suffix):
    mask = (np.arange(64).reshape(8, 8) % 3 == 0).astype(np.uint8)
    path = tmp_path / f"m{suffix}"
    np.save(path, mask * high) if suffix == ".npy" else Image.fromarray(mask * np.uint8(high)).save(path)
    assert np.array_equal(read_mask(path), mask * 255)


def test_arrays_are_images_too(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.save(tmp_path / "a.npy", grey)
    assert np.array_equal(read_image(tmp_path / "a.npy"), np.repeat(grey[..., None], 3, axis=2))
    assert image_shape(tmp_path / "a.npy") == (3, 4)
