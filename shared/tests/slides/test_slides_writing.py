"""Pyramids written here, as OpenSlide and tifffile see them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from medshared.slides import write_pyramid


@pytest.mark.parametrize("flavour", ["aperio", "generic"])
def test_openslide_detects_flavour_levels_and_spacing(
    request: pytest.FixtureRequest, picture: np.ndarray, flavour: str
) -> None:
    path = request.getfixturevalue(flavour)
    with openslide.OpenSlide(path) as slide:
        properties = dict(slide.properties)
        assert slide.level_dimensions == ((1024, 768), (256, 192), (64, 48))
        level0 = np.asarray(slide.read_region((0, 0), 0, (1024, 768)).convert("RGB")).astype(int)
        level2 = np.asarray(slide.read_region((0, 0), 2, (64, 48)).convert("RGB")).astype(int)
    assert properties["openslide.vendor"] == {"aperio": "aperio", "generic": "generic-tiff"}[flavour]
    assert float(properties["openslide.mpp-x"]) == {"aperio": 0.25, "generic": 0.5}[flavour]
    assert properties.get("openslide.objective-power") == {"aperio": "40", "generic": None}[flavour]
    assert np.abs(level0 - picture).mean() < 4  # JPEG
    means = picture.reshape(48, 16, 64, 16, 3).mean((1, 3))
    assert np.abs(level2 - means).mean() < 4


def test_levels_are_area_means(tmp_path: Path) -> None:
    # Blocks of 4 × 4 equal pixels: every level is exact but for JPEG.
    colours = np.random.default_rng(0).integers(0, 255, (24, 32, 1)).repeat(3, 2).astype(np.uint8)
    image = colours.repeat(4, 0).repeat(4, 1)
    path = write_pyramid(
        tmp_path / "a.tiff", image, 1.0, "generic", tile_px=16, downsamples=(1, 2, 4), quality=100
    )
    with tifffile.TiffFile(path) as file:
        assert [page.shape for page in file.pages] == [(96, 128, 3), (48, 64, 3), (24, 32, 3)]
        assert np.abs(file.pages[2].asarray().astype(int) - colours).max() <= 3


def test_rows_on_demand_give_the_same_file(tmp_path: Path, picture: np.ndarray) -> None:
    asked = []

    def rows(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return picture[start:stop]

    whole = write_pyramid(tmp_path / "a.svs", picture, 0.25, tile_px=64)
    streamed = write_pyramid(tmp_path / "b.svs", rows, 0.25, size_px=(1024, 768), tile_px=64)
    assert whole.read_bytes() == streamed.read_bytes()
    assert asked == [(y, y + 64) for y in range(0, 768, 64)]


def test_memory_stays_at_a_few_rows_of_tiles(tmp_path: Path) -> None:
    block = np.zeros((64, 3000, 3), np.uint8)
    tracemalloc.start()
    write_pyramid(
        tmp_path / "a.tiff",
        lambda start, stop: block[: stop - start],
        0.5,
        "generic",
        size_px=(3000, 3000),
        tile_px=64,
        workers=1,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9e6  # the picture has 27 MB, a row of tiles 0.6 MB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((64, 64), np.uint8)}, "uint8 \\[height, width, 3\\]"),
        ({"image": np.zeros((64, 64, 3), float)}, "float64"),
        ({"tile_px": 100}, "multiple of 16"),
        ({"downsamples": (1, 3, 4)}, "each a multiple"),
        ({"downsamples": (2, 4)}, "start with 1"),
        ({"downsamples": (1, 128)}, "too small"),
        ({"spacing_um": -1.0}, "positive"),
        ({"flavour": "leica"}, "'aperio' or 'generic'"),
        ({"size_px": (10, 10)}, "64 wide"),
        ({"image": lambda a, b: np.zeros((1, 64, 3), np.uint8), "size_px": (64, 64)}, "must have shape"),
        ({"image": lambda a, b: None}, "size_px"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(tmp_path: Path, arguments: dict, message: str) -> None:
    given = {
        "image": np.zeros((64, 64, 3), np.uint8),
        "spacing_um": 0.5,
        "tile_px": 16,
        "downsamples": (1, 4),
        **arguments,
    }
    with pytest.raises(ValueError, match=message):
        write_pyramid(tmp_path / "a.svs", **given)
    assert not list(tmp_path.iterdir())
