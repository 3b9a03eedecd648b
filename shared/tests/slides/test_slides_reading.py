"""Slides asked for in µm, the fast path against OpenSlide, and damaged files."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from medshared.slides import (
    FaultList,
    SlideError,
    SpacingError,
    TileError,
    open_slide,
    pyramid,
    write_pyramid,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def by_openslide(path: Path, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
    """Read with OpenSlide alone, over white."""
    from PIL import Image

    with openslide.OpenSlide(path) as slide:
        image = slide.read_region(location, level, size)
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


@pytest.mark.parametrize("flavour", ["aperio", "generic"])
def test_facts(request: pytest.FixtureRequest, flavour: str) -> None:
    with open_slide(request.getfixturevalue(flavour)) as slide:
        assert slide.dimensions == (1024, 768)
        assert slide.level_downsamples == (1, 4, 16)
        assert slide.level_tile_px == ((64, 64),) * 3
        assert slide.spacing_um == {"aperio": 0.25, "generic": 0.5}[flavour]
        assert slide.level_spacing_um(1) == 4 * slide.require_spacing()
        assert slide.fast_levels == (0, 1, 2)
        assert slide.name == {"aperio": "a", "generic": "g"}[flavour]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("flavour", ["aperio", "generic"])
def test_levels_are_openslides_pixels(request: pytest.FixtureRequest, flavour: str, fast: bool) -> None:
    path = request.getfixturevalue(flavour)
    rng = np.random.default_rng(1)
    with open_slide(path, fast=fast) as slide:
        assert bool(slide.fast_levels) == fast
        for _ in range(40):
            level = int(rng.integers(3))
            location = (int(rng.integers(-50, 1024)), int(rng.integers(-50, 768)))
            size = (int(rng.integers(1, 130)), int(rng.integers(1, 130)))
            found = slide.read_level(location, level, size)
            assert found.shape == (size[1], size[0], 3)
            # Half-transparent border pixels may be rounded differently by the two ways of blending.
            difference = np.abs(found.astype(int) - by_openslide(path, location, level, size))
            assert difference.max() <= 1
            inside = location[0] >= 0 and location[1] >= 0 and location[0] % 16 == location[1] % 16 == 0
            assert difference.max() == 0 or not inside


def test_outside_is_background(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        assert (slide.read_level((5000, 5000), 0, 8) == 255).all()
        assert (slide.read_level((-64, 0), 0, (64, 8)) == 255).all()
        half = slide.read_level((1020, 0), 0, (8, 8))
        assert (half[:, 4:] == 255).all()
        assert not (half[:, :4] == 255).all()
        assert slide.read_level((0, 0), 0, (0, 5)).shape == (5, 0, 3)
    slide.background = (10, 20, 30)
    with pytest.raises(SlideError, match="closed"):
        slide.read_level((0, 0), 0, 8)


@pytest.mark.parametrize(
    ("asked", "level", "scale"),
    [
        (0.25, 0, 1.0),
        (0.272, 0, 1.0),  # 8 % off: as it is
        (0.23, 0, 1.0),
        (0.5, 0, 2.0),
        (0.92, 1, 1.0),
        (0.88, 0, 3.52),
        (1.0, 1, 1.0),
        (2.0, 1, 2.0),
        (4.2, 2, 1.0),
        (40.0, 2, 10.0),
        (0.125, 0, 0.5),
    ],
)
def test_choice_of_level(aperio: Path, asked: float, level: int, scale: float) -> None:
    with open_slide(aperio) as slide:
        choice = slide.choose_level(asked)
        assert (choice.level, choice.downsample) == (level, (1, 4, 16)[level])
        assert choice.scale == pytest.approx(scale)


def test_region_in_um_covers_the_area_asked_for(aperio: Path, picture: np.ndarray) -> None:
    with open_slide(aperio) as slide:
        found = slide.read_region((128, 64), (100, 80), spacing_um=0.5)
    window = picture[64 : 64 + 160, 128 : 128 + 200].astype(float)
    expected = window.reshape(80, 2, 100, 2, 3).mean((1, 3))
    assert found.shape == (80, 100, 3)
    assert np.abs(found - expected).mean() < 2.5


def test_finer_than_the_slide_is_interpolated_with_one_warning(
    aperio: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_slide(aperio) as slide:
        for _ in range(2):
            assert slide.read_region((0, 0), 64, spacing_um=0.1).shape == (64, 64, 3)
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{aperio}: 0.1 µm per pixel is finer than the slide's own 0.25; pixels between are interpolated"
    ]


def test_spacing_can_be_overridden_or_is_asked_for(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_pyramid(tmp_path / "a.tiff", picture, None, "generic")
    with open_slide(path) as slide:
        assert slide.spacing_um is None
        assert slide.read_level((0, 0), 0, 16).shape == (16, 16, 3)
        with pytest.raises(SpacingError, match=r"a\.tiff.*how many µm.*spacing_um"):
            slide.read_region((0, 0), 16, spacing_um=0.5)
    with open_slide(path, 0.5) as slide:
        assert slide.choose_level(2.0).level == 1
    with pytest.raises(ValueError, match="positive"):
        open_slide(path, 0.0)


@pytest.mark.parametrize(
    ("resolution", "unit", "spacing"),
    [(50800, "INCH", 0.5), (20000, "CENTIMETER", 0.5), (72, "INCH", None), (1, "NONE", None)],
)
def test_spacing_from_resolution_tags(
    tmp_path: Path, resolution: float, unit: str, spacing: float | None
) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(
        path,
        np.zeros((64, 64, 3), np.uint8),
        tile=(16, 16),
        resolution=(resolution, resolution),
        resolutionunit=unit,
    )
    with open_slide(path) as slide:
        assert slide.spacing_um == (None if spacing is None else pytest.approx(spacing))


def test_objective_power_is_a_hint(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.svs"
    tifffile.imwrite(
        path,
        picture,
        tile=(64, 64),
        compression="jpeg",
        description="Aperio Image Library v1\r\n1024x768|AppMag = 20",
        metadata=None,
    )
    with open_slide(path) as slide, pytest.raises(SpacingError, match=r"power of 20 suggests about 0\.5"):
        slide.require_spacing()


def test_thumbnail(aperio: Path, picture: np.ndarray) -> None:
    with open_slide(aperio) as slide:
        small = slide.thumbnail(128)
        assert small.shape == (96, 128, 3)
        assert np.abs(small - picture.reshape(96, 8, 128, 8, 3).mean((1, 3))).mean() < 3
        assert slide.thumbnail(5000).shape == (768, 1024, 3)


# ---- the fast path


def test_a_level_that_differs_is_read_through_openslide(
    aperio: Path, generic: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    original = pyramid._load
    # Level 1 comes from another slide's page: right size, wrong pixels.
    other = write_pyramid(
        aperio.parent / "other.svs", 255 - np.zeros((768, 1024, 3), np.uint8), 0.25, tile_px=64
    )
    monkeypatch.setattr(
        pyramid, "_load", lambda path, page: original(other if page.page == 1 else path, page)
    )
    with open_slide(aperio) as slide:
        assert slide.fast_levels == (0, 2)
        found = slide.read_level((0, 0), 1, (256, 192))
    assert np.array_equal(found, by_openslide(aperio, (0, 0), 1, (256, 192)))
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert "level 1: pixels that differ" in lines[0]


def test_without_libvips(
    aperio: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with open_slide(aperio) as slide:
        assert slide.fast_levels == ()
        assert slide.read_level((0, 0), 0, 8).shape == (8, 8, 3)
    assert len(caplog.records) == 1
    assert "pyvips cannot be imported" in caplog.text


def test_windows_of_the_check_are_seeded(aperio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    original = pyramid.FastPath.read

    def read(self, level, corner, size):
        seen.append(corner)
        return original(self, level, corner, size)

    monkeypatch.setattr(pyramid.FastPath, "read", read)
    rounds = []
    for seed in (0, 0, 1):
        seen.clear()
        open_slide(aperio, seed=seed).close()
        rounds.append(list(seen))
    assert rounds[0] == rounds[1] != rounds[2]
    assert len(rounds[0]) == 9


def test_positions_between_pixels_are_openslides(tmp_path: Path) -> None:
    # 1001 / 250: the downsample of level 1 is no whole number, so OpenSlide resamples nearly everywhere.
    picture = np.random.default_rng(0).integers(0, 255, (768, 1001, 3), dtype=np.uint8)
    path = write_pyramid(tmp_path / "a.svs", picture, 0.25, tile_px=64, downsamples=(1, 4))
    with open_slide(path) as slide:
        assert slide.level_downsamples[1] % 1
        for location in ((0, 0), (400, 300), (401, 303)):
            expected = by_openslide(path, location, 1, (40, 30))
            assert np.array_equal(slide.read_level(location, 1, (40, 30)), expected)


def test_processes_and_threads(aperio: Path) -> None:
    # A function of this module could not be found by a spawned process, whose pool would wait for ever.
    read = methodcaller("read_level", (64, 64), 0, 100)
    with open_slide(aperio) as slide:
        expected = read(slide)
        copied = pickle.loads(pickle.dumps(slide))  # noqa: S301
        assert np.array_equal(read(copied), expected)
        assert copied.fast_levels == slide.fast_levels
        copied.close()
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                found = pool.map_async(read, [slide] * 2).get(timeout=120)
            assert all(np.array_equal(each, expected) for each in found)
        process = multiprocessing.get_context("fork").Process(target=read, args=(slide,))
        process.start()  # inherits the open handles themselves
        process.join(20)
        assert process.exitcode == 0
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(read, [slide] * 20))
        assert all(np.array_equal(each, expected) for each in found)


# ---- damage


@pytest.mark.parametrize("how", ["zeros", "tail"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_damaged_tile_is_an_error_and_the_slide_stays_usable(damaged, how: str, fast: bool) -> None:
    path = damaged([(3, 2)], how)
    with open_slide(path, fast=fast) as slide:
        for _ in range(3):  # the decoder's cache must not hide the damage the second time
            with pytest.raises(TileError, match=rf"{path.name}.*\(192, 128\).*JPEG") as caught:
                slide.read_level((192, 128), 0, 64)
            assert caught.value.location == (192, 128)
            copied = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
            assert copied.location == (192, 128)
            fine = slide.read_level((256, 128), 0, 64)
            assert np.array_equal(fine, by_openslide(path, (256, 128), 0, (64, 64)))


@pytest.mark.parametrize("how", ["zeros", "tail"])
def test_damage_found_in_threads_never_leaks_pixels(
    damaged, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "_MAX_DOUBTS", 10**6)
    path = damaged([(x, 2) for x in range(0, 16, 2)], how)
    places = [(64 * x, 64 * y) for y in range(4) for x in range(16)] * 3

    def read(place: tuple[int, int]) -> np.ndarray | None:
        try:
            return slide.read_level(place, 0, 64)
        except TileError:
            return None

    with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, places))
    for place, pixels in zip(places, results, strict=True):
        bad = place[1] == 128 and place[0] % 128 == 0
        assert (pixels is None) == bad
        if pixels is not None:
            assert np.array_equal(pixels, by_openslide(path, place, 0, (64, 64)))
    assert not caplog.records  # libvips' own lines about damaged tiles are kept back


def test_many_doubtful_windows_end_the_fast_path(damaged, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = damaged([(3, 2)], "tail")
    with open_slide(path) as slide:
        for _ in range(40):
            with pytest.raises(TileError):
                slide.read_level((192, 128), 0, 64)
        assert slide.read_fast((0, 0), 0, (8, 8)) is None
        assert slide.read_level((0, 0), 0, 8).shape == (8, 8, 3)
    assert len([r for r in caplog.records if "32 windows" in r.getMessage()]) == 1


def test_files_that_are_no_slides(tmp_path: Path, aperio: Path) -> None:
    text = tmp_path / "a.svs"
    text.write_text("hello, this is no slide")
    empty = tmp_path / "empty.svs"
    empty.touch()
    flat = tmp_path / "flat.tiff"
    tifffile.imwrite(flat, np.zeros((8, 8), np.uint8))
    short = tmp_path / "short.svs"
    short.write_bytes(aperio.read_bytes()[:-5000])
    for path, message in (
        (tmp_path / "none.svs", "no such slide"),
        (tmp_path, "this is a folder"),
        (text, r"a\.svs: no slide that OpenSlide can read; this is no TIFF file"),
        (empty, "the file is empty; copying or writing it was probably interrupted"),
        (flat, "a whole TIFF file, but not tiled.*vips tiffsave"),
        (short, r"short\.svs: .*page \d reaches to byte [\d,]+, but the file ends at [\d,]+: it is cut off"),
    ):
        with pytest.raises(SlideError, match=message):
            open_slide(path)


def test_pixels_beyond_the_end_of_the_file(tmp_path: Path, picture: np.ndarray) -> None:
    # The full resolution lies last, so OpenSlide opens what is left of the file.
    path = tmp_path / "a.tiff"
    with tifffile.TiffWriter(path) as out:
        out.write(picture[::4, ::4], tile=(64, 64), metadata=None)
        out.write(picture, tile=(64, 64), metadata=None)
    path.write_bytes(path.read_bytes()[:-9000])
    openslide.OpenSlide(path).close()
    with pytest.raises(
        SlideError, match=r"a\.tiff: page 1 reaches to byte .* it is cut off \(copy it again\)"
    ):
        open_slide(path)


@pytest.mark.parametrize("fast", [True, False])
def test_tiles_that_were_never_scanned_are_background(tmp_path: Path, aperio: Path, fast: bool) -> None:
    path = tmp_path / "sparse.svs"
    path.write_bytes(aperio.read_bytes())
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("TileByteCounts", "TileOffsets"):
            tag = file.pages[0].tags[name]
            values = list(tag.value)
            values[2 * 16 + 3] = 0
            tag.overwrite(values)
    with open_slide(path, fast=fast) as slide:
        assert (slide.read_level((192, 128), 0, 64) == 255).all()
        around = slide.read_level((128, 64), 0, 192)
        assert np.array_equal(around, by_openslide(path, (128, 64), 0, (192, 192)))
        assert not (around[:64] == 255).all()
        tiles = list(slide.read_tiles([(x, 128) for x in range(0, 1024, 64)], 64, level=0, max_fault_share=0))
        assert len(tiles) == 16


def test_bad_requests(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        with pytest.raises(ValueError, match="level 3 was asked for, but the slide has levels 0–2"):
            slide.read_level((0, 0), 3, 8)
        with pytest.raises(ValueError, match="negative"):
            slide.read_level((0, 0), 0, (-1, 8))
        with pytest.raises(ValueError, match="positive"):
            slide.read_region((0, 0), 8, spacing_um=float("nan"))


def test_golden_slide_has_no_spacing() -> None:
    with open_slide(GOLDEN / "clam_slide.tiff") as slide:
        assert slide.spacing_um is None
        assert slide.level_dimensions == ((4096, 3072), (1024, 768), (256, 192))
        assert slide.best_level_for_downsample(64) == 2


def test_fault_list(tmp_path: Path) -> None:
    faults = FaultList("a.svs")
    faults.check(0, 0.0)
    faults.add((1, 2), "broken")
    faults.add((1, 2), "broken again")
    faults.add((3, 4), 'with "quotes", and a comma')
    assert len(faults) == 2
    assert (1, 2) in faults
    assert faults.share(8) == 0.25
    faults.check(8, 0.25)
    with pytest.raises(SlideError, match=r"a\.svs: 2 of 8 tiles.*0\.2;.*\(1, 2\): broken\."):
        faults.check(8, 0.2)
    text = faults.write(tmp_path / "faults.csv").read_text()
    assert text == 'x,y,reason\n1,2,broken\n3,4,"with ""quotes"", and a comma"\n'
    assert FaultList("b").write(tmp_path / "none.csv").read_text() == "x,y,reason\n"
