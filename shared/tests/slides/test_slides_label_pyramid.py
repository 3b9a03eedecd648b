"""Label pyramids written here, as OpenSlide and tifffile see them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from medshared.slides import open_slide, write_label_pyramid


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (333, 470)).astype(np.uint8)


@pytest.mark.parametrize("compression", ["zlib", "lzw"])
def test_openslide_reads_labels_levels_and_spacing(tmp_path: Path, labels: np.ndarray, compression) -> None:
    path = write_label_pyramid(tmp_path / "l.tif", labels, 0.4567, tile_px=64, compression=compression)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((470, 333), (117, 83), (29, 20))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.4567, rel=1e-6)
        level0 = np.asarray(slide.read_region((0, 0), 0, (470, 333)))[..., 0]
        level1 = np.asarray(slide.read_region((0, 0), 1, (117, 83)))[..., 0]
    np.testing.assert_array_equal(level0, labels)
    np.testing.assert_array_equal(level1, labels[2::4, 2::4][:83, :117])
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.pages[2].asarray(), labels[10::16, 10::16][:20, :29])
        assert file.pages[0].dtype == np.uint8
        assert file.pages[0].photometric.name == "MINISBLACK"
    with open_slide(path) as slide:  # both ways of reading
        np.testing.assert_array_equal(
            slide.read_level((64, 32), 0, (200, 100))[..., 0], labels[32:132, 64:264]
        )


def test_rows_on_demand_give_the_same_file(tmp_path: Path, labels: np.ndarray) -> None:
    asked = []

    def rows(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return labels[start:stop]

    whole = write_label_pyramid(tmp_path / "a.tif", labels, 0.5, tile_px=48, downsamples=(1, 3, 6))
    streamed = write_label_pyramid(
        tmp_path / "b.tif", rows, 0.5, size_px=(470, 333), tile_px=48, downsamples=(1, 3, 6)
    )
    assert whole.read_bytes() == streamed.read_bytes()
    assert asked == [(y, min(y + 48, 333)) for y in range(0, 333, 48)]
    with tifffile.TiffFile(whole) as file:
        np.testing.assert_array_equal(file.pages[1].asarray(), labels[1::3, 1::3][:, :156])


def test_memory_stays_at_a_few_rows_of_tiles(tmp_path: Path) -> None:
    block = np.zeros((64, 6000), np.uint8)
    tracemalloc.start()
    write_label_pyramid(
        tmp_path / "a.tif", lambda a, b: block[: b - a], 0.5, size_px=(6000, 6000), tile_px=64, workers=1
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000 / 4


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), {}, r"must be uint8 \[height, width\], found uint8 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), {"tile_px": 40}, "multiple of 16"),
        (np.zeros((4, 4), np.uint8), {"downsamples": (1, 8)}, "too few for a downsample of 8"),
        (lambda a, b: np.zeros((b - a, 4), np.uint8), {}, "size_px"),
        (lambda a, b: np.zeros((b - a, 5), np.uint8), {"size_px": (4, 4)}, "must have shape"),
    ],
)
def test_bad_arguments_are_named_and_leave_nothing(tmp_path: Path, labels, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        write_label_pyramid(tmp_path / "a.tif", labels, 0.5, **options)
    assert list(tmp_path.iterdir()) == []
