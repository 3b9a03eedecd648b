"""Many tiles: order, equality with single reads, faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.slides import FaultList, SlideError, SpacingError, open_slide
from medshared.slides.tiles import _find_runs


def columns(step: int, x0: int = 0, y0: int = 0) -> np.ndarray:
    """Return a grid over the slide of 1024 × 768 px, x outer, y inner."""
    return np.array([(x, y) for x in range(x0, 1024, step) for y in range(y0, 768, step)])


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("coordinates", "size", "options"),
    [
        (columns(64), 64, {"level": 0}),
        (columns(64)[:, ::-1] % [1024, 768], 64, {"level": 0}),
        (columns(50, 7, 3), 64, {"level": 0}),  # overlapping, beyond the border, off the file's own tiles
        (columns(256), 64, {"level": 1}),
        (columns(128), 64, {"spacing_um": 0.5}),
        (columns(90), 30, {"spacing_um": 0.75}),
        (np.random.default_rng(0).permutation(columns(64)), 40, {"level": 0}),
    ],
)
def test_tiles_equal_single_reads(
    aperio: Path, coordinates: np.ndarray, size: int, options: dict, fast: bool, n_threads: int
) -> None:
    with open_slide(aperio, fast=fast) as slide:
        tiles = list(slide.read_tiles(coordinates, size, n_threads=n_threads, **options))
        assert [tile.row for tile in tiles] == list(range(len(coordinates)))
        for tile in tiles[::5]:
            assert tile.location == tuple(coordinates[tile.row])
            if "level" in options:
                expected = slide.read_level(tile.location, options["level"], size)
            else:
                expected = slide.read_region(tile.location, size, **options)
            assert np.array_equal(tile.pixels, expected)


def test_faults_are_recorded_and_the_rest_is_read(damaged) -> None:
    path = damaged([(3, 2), (5, 2)], "tail")
    coordinates = columns(64)
    with open_slide(path) as slide, open_slide(path, fast=False) as plain:
        for each in (slide, plain):
            faults = FaultList(path)
            tiles = list(each.read_tiles(coordinates, 64, level=0, faults=faults, max_fault_share=0.02))
            assert sorted((fault.x, fault.y) for fault in faults) == [(192, 128), (320, 128)]
            assert all("JPEG" in fault.reason for fault in faults)
            assert len(tiles) == len(coordinates) - 2
            assert not {(192, 128), (320, 128)} & {tile.location for tile in tiles}
            with pytest.raises(SlideError, match="2 of 192 tiles cannot be decoded"):
                list(each.read_tiles(coordinates, 64, level=0, max_fault_share=0.006))


def test_threads_end_when_the_reader_stops_early(aperio: Path) -> None:
    import threading

    with open_slide(aperio) as slide:
        before = threading.active_count()
        tiles = slide.read_tiles(columns(64), 64, level=0, n_threads=3)
        next(tiles)
        tiles.close()
        assert threading.active_count() == before


def test_requests(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        assert list(slide.read_tiles([], 64, level=0)) == []
        assert [t.location for t in slide.read_tiles(np.array([[1.0, 2.0]]), 8, level=0)] == [(1, 2)]
        for arguments, message in (
            (([[0, 0]], 8), "either spacing_um or level"),
            (([[0, 0, 0]], 8), r"shape \[n, 2\]"),
            (([[0.5, 0]], 8), "whole level-0 pixels"),
            (([[0, 0]], 0), "at least 1"),
        ):
            options = {} if "either" in message else {"level": 0}
            with pytest.raises(ValueError, match=message):
                slide.read_tiles(*arguments, **options)
        with pytest.raises(ValueError, match="no level 9"):
            slide.read_tiles([[0, 0]], 8, level=9)
        slide.spacing_um = None
        with pytest.raises(SpacingError):
            slide.read_tiles([[0, 0]], 8, spacing_um=0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30),
    st.sampled_from([16, 64]),
    st.sampled_from([1.0, 4.0]),
)
def test_runs_cover_all_tiles_in_order_without_gaps(
    cells: list[tuple[int, int]], source: int, downsample: float
) -> None:
    points = np.array(cells, np.int64).reshape(-1, 2) * 16 * int(downsample)
    runs = _find_runs(points, source, downsample)
    assert [i for run in runs for i in range(run.first, run.stop)] == list(range(len(points)))
    for run in runs:
        inside = points[run.first : run.stop]
        if len(inside) > 1:
            assert (np.ptp(inside, axis=0) > 0).sum() == 1
            steps = np.diff(inside[:, run.axis])
            assert ((steps > 0) & (steps <= source * downsample)).all()
