"""Images of the page: examples and uploads."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from aespa.errors import DataError
from aespa.page.options import PageOptions
from aespa.page.samples import DRAWN, Examples, read_upload


def saved(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def huge_png(path, side):
    """Write a PNG of a claimed size without any pixels: decoding it would fail."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    return path


def test_drawn_examples_have_three_raters():
    examples = Examples(PageOptions())
    assert len(examples.names) == DRAWN
    first, again, second = (examples.read(examples.names[i]) for i in (0, 0, 1))
    assert first.image.shape == (64, 64, 3)
    assert first.raters.shape == (3, 64, 64)
    assert first.rater_names == ("conservative", "standard", "liberal")
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, second.image)


def test_files_folders_and_raters(tmp_path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:5] = 255
    one = saved(tmp_path / "one.png", grey)
    for folder in ("a", "b"):
        saved(tmp_path / folder / "same.png", grey)
    raters = (saved(tmp_path / "r1.png", mask), saved(tmp_path / "r2.png", mask // 255))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    examples = Examples(PageOptions(images=(one, tmp_path / "a", tmp_path / "b"), raters=raters))
    assert examples.names == ["one", "a/same.png", "b/same.png"]
    first = examples.read("one")
    assert np.array_equal(first.image[..., 0], grey)
    assert first.rater_names == ("r1", "r2")
    assert np.array_equal(first.raters, np.stack([mask > 0] * 2))
    assert examples.read("a/same.png").n_raters == 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda home: {"images": (home / "none.png",)}, "no such file or folder"),
        (lambda home: {"images": (home,)}, "no images here"),
    ],
)
def test_examples_that_are_not_there(make, told, tmp_path):
    with pytest.raises(DataError, match=told):
        Examples(PageOptions(**make(tmp_path)))


def test_a_rater_of_another_size(tmp_path):
    image = saved(tmp_path / "i.png", np.zeros((6, 8), np.uint8))
    rater = saved(tmp_path / "r.png", np.zeros((8, 6), np.uint8))
    examples = Examples(PageOptions(images=(image,), raters=(rater,)))
    with pytest.raises(DataError, match=r"r\.png: the mask has 6 x 8 px.*turned by 90 degrees"):
        examples.read("i")
    with pytest.raises(DataError, match="is not an example"):
        examples.read("../etc/passwd")


def test_uploads_of_many_kinds(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "palette.png")
    kinds = {
        "grey": saved(tmp_path / "grey.png", grey),
        "deep": saved(tmp_path / "deep.png", grey.astype(np.uint16) * 257),
        "rgba": saved(tmp_path / "rgba.png", np.dstack([grey, grey, grey, np.full_like(grey, 255)])),
        "palette": tmp_path / "palette.png",
    }
    for name, path in kinds.items():
        found = read_upload(path, 40)
        assert (found.shape, found.dtype) == ((8, 8, 3), np.uint8), name
    deep = read_upload(kinds["deep"], 40)[..., 0]
    assert (deep.min(), deep.max()) == (0, 255)
    assert np.array_equal(read_upload(kinds["rgba"], 40)[..., 1], grey)


def test_uploads_that_cannot_be_used(tmp_path):
    text = tmp_path / "upload.png"
    text.write_text("not an image")
    clear = saved(tmp_path / "clear.png", np.full((4, 4, 4), 9, np.uint8))
    for path, limit, told in (
        (text, 40, "not an image that can be read"),
        (clear, 40, "partly transparent"),
        (huge_png(tmp_path / "wide.png", 7100), 40, "7100 x 7100 px, at most 40 megapixels"),
        (huge_png(tmp_path / "vast.png", 40_000), 40, "too large"),
        (huge_png(tmp_path / "own.png", 2000), 3, r"2000 x 2000 px are 4\.0 megapixels, at most 3"),
    ):
        with pytest.raises(DataError, match=told) as caught:
            read_upload(path, limit)
        assert str(tmp_path) not in str(caught.value), "visitors are told no folders"
