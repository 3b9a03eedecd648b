"""Many tiles of one slide: neighbours read together, in several threads, in the order asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from medshared.slides.faults import FaultList, TileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from medshared.slides.reading import LevelChoice, Slide

_RUN_PX = 2**21  # pixels of the level read in one go: eight tiles of 512 px, 32 of 256 px
_CHUNK_PX = 2**24  # pixels of the level that one thread works on at a time: 256 tiles of 256 px, 48 MiB
_LEAST_CHUNK = 16  # tiles


class Tile(NamedTuple):
    """One tile.

    Attributes:
        row: its row in the coordinates.
        location: (x, y) of its top-left corner in level-0 pixels.
        pixels: uint8 [height, width, 3]; a view of a larger read, which may be read-only: copy it to keep or change it.
    """

    row: int
    location: tuple[int, int]
    pixels: npt.NDArray[np.uint8]


class _Run(NamedTuple):
    """Tiles first … stop - 1, which touch or overlap along one axis (0: x, 1: y)."""

    first: int
    stop: int
    axis: int


def read_tiles(
    slide: Slide,
    coordinates: npt.ArrayLike,
    size_px: int,
    *,
    spacing_um: float | None = None,
    level: int | None = None,
    n_threads: int | None = None,
    faults: FaultList | None = None,
    max_fault_share: float = 1.0,
) -> Iterator[Tile]:
    """Read square tiles; the ones that cannot be decoded are recorded and left out.

    Args:
        slide: the slide.
        coordinates: integers [n, 2], (x, y) of the top-left corners in level-0 pixels. Neighbours that follow each
            other along a column or row are read together.
        size_px: edge of a tile in pixels of the result.
        spacing_um: µm per pixel of the result; give this or ``level``.
        level: pyramid level to read without rescaling.
        n_threads: threads that read and decode; by default the CPUs of this process, at most 4. 1 starts none.
        faults: takes the tiles that cannot be decoded; by default a list that is thrown away.
        max_fault_share: the largest share of faulty tiles, 0–1.

    Yields:
        The tiles in the order of the coordinates, without the faulty ones.

    Raises:
        SlideError: as soon as more than ``max_fault_share`` of all tiles are faulty.
        SpacingError: when µm are asked for and the slide's spacing is unknown.
        ValueError: for coordinates of another shape or kind, or unless one of spacing and level is given.
    """
    from medshared.slides.reading import LevelChoice

    points = _as_points(coordinates)
    if (spacing_um is None) == (level is None):
        raise ValueError("give either spacing_um or level")
    if size_px < 1:
        raise ValueError(f"size_px must be at least 1, found {size_px}")
    if level is not None:
        if not 0 <= level < len(slide.level_downsamples):
            raise ValueError(f"{slide.path}: there is no level {level}")
        choice = LevelChoice(level, slide.level_downsamples[level], 1.0)
    else:
        assert spacing_um is not None  # noqa: S101  # for the type checker: one of the two is given
        choice = slide.choose_level(spacing_um)
    collected = FaultList(slide.path) if faults is None else faults
    threads = n_threads if n_threads is not None else min(4, _cpu_count())
    return _stream(slide, points, size_px, choice, max(1, threads), collected, max_fault_share)


def _as_points(coordinates: npt.ArrayLike) -> npt.NDArray[np.int64]:
    import numpy as np

    points = np.asarray(coordinates)
    if points.size == 0:
        return np.empty((0, 2), np.int64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"coordinates must have shape [n, 2], found {list(points.shape)}")
    if points.dtype.kind not in "iu":
        whole = np.rint(points)
        if points.dtype.kind != "f" or not np.array_equal(whole, points):
            raise ValueError(f"coordinates must be whole level-0 pixels, found {points.dtype}")
        points = whole
    return points.astype(np.int64)


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _stream(
    slide: Slide,
    points: npt.NDArray[np.int64],
    size_px: int,
    choice: LevelChoice,
    threads: int,
    faults: FaultList,
    max_fault_share: float,
) -> Iterator[Tile]:
    from medshared.slides.reading import scaled_size

    source = scaled_size((size_px, size_px), choice.scale)[0]
    # Neighbouring columns (or rows) in one chunk share the file's own tiles, which are decoded once for all of them.
    length = min(max(1, _CHUNK_PX // source**2), max(_LEAST_CHUNK, -(-len(points) // (2 * threads))))

    def read(first: int) -> list[Tile | TileError]:
        return _read_chunk(slide, points, first, min(first + length, len(points)), size_px, source, choice)

    for results in _in_order(range(0, len(points), length), read, threads):
        for result in results:
            if isinstance(result, TileError):
                faults.add(result.location, result.reason)
                faults.check(len(points), max_fault_share)
            else:
                yield result


def _in_order(
    chunks: range, read: Callable[[int], list[Tile | TileError]], threads: int
) -> Iterator[list[Tile | TileError]]:
    """Read chunks ahead in threads, a few at a time, and yield them in order."""
    if threads == 1 or len(chunks) < 2:
        yield from map(read, chunks)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="slide")
    waiting: deque[Future[list[Tile | TileError]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(read, chunk))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_chunk(
    slide: Slide,
    points: npt.NDArray[np.int64],
    first: int,
    stop: int,
    size_px: int,
    source: int,
    choice: LevelChoice,
) -> list[Tile | TileError]:
    """Read tiles first … stop - 1 row by row, and return them in the order of the coordinates."""
    import numpy as np

    order = first + np.lexsort((points[first:stop, 0], points[first:stop, 1]))
    results: dict[int, Tile | TileError] = {}
    for run in _find_runs(points[order], source, choice.downsample):
        rows = order[run.first : run.stop].tolist()
        results.update(
            zip(rows, _read_run(slide, points, rows, run.axis, size_px, source, choice), strict=True)
        )
    return [results[row] for row in range(first, stop)]


def _find_runs(points: npt.NDArray[np.int64], source: int, downsample: float) -> list[_Run]:
    """Group consecutive tiles that touch or overlap in one column or row.

    Args:
        points: int64 [n, 2], level-0 pixels.
        source: edge of a tile in pixels of the level.
        downsample: of the level.

    Returns:
        Runs that cover all tiles once, in order.
    """
    import numpy as np

    n = len(points)
    if n == 0:
        return []
    steps = np.diff(points, axis=0) / downsample
    whole = np.all(np.abs(steps - np.rint(steps)) < 1e-6, axis=1)
    near = (steps > 0) & (steps <= source + 1e-6)
    joins = [
        whole & near[:, 0] & (steps[:, 1] == 0),
        whole & near[:, 1] & (steps[:, 0] == 0),
    ]
    # 0 and 1: the axis along which a tile continues the one before; -1: it starts a new run.
    along = np.where(joins[0], 0, np.where(joins[1], 1, -1)).tolist()
    longest = max(source, _RUN_PX // source)  # pixels along the run
    offsets = np.where(joins[0], steps[:, 0], steps[:, 1]).tolist()
    runs, first, axis, reach = [], 0, -1, 0.0
    for i in range(1, n):
        joined = along[i - 1]
        continues = joined >= 0 and axis in (-1, joined) and reach + offsets[i - 1] + source <= longest
        if continues:
            axis, reach = joined, reach + offsets[i - 1]
        else:
            runs.append(_Run(first, i, axis))
            first, axis, reach = i, -1, 0.0
    runs.append(_Run(first, n, axis))
    return runs


def _read_run(
    slide: Slide,
    points: npt.NDArray[np.int64],
    rows: list[int],
    axis: int,
    size_px: int,
    source: int,
    choice: LevelChoice,
) -> list[Tile | TileError]:
    """Read a run in one go; if anything is wrong with it, tile by tile."""
    from medshared.slides.reading import rescale

    places: list[tuple[int, int]] = [(int(x), int(y)) for x, y in points[rows]]
    if len(places) > 1 and choice.level in slide.fast_levels:
        offsets = [round((place[axis] - places[0][axis]) / choice.downsample) for place in places]
        size = [source, source]
        size[axis] += offsets[-1]
        strip = slide.read_fast(places[0], choice.level, (size[0], size[1]))
        if strip is not None:
            parts = [strip[:, o : o + source] if axis == 0 else strip[o : o + source] for o in offsets]
            return [
                Tile(row, place, rescale(part, (size_px, size_px)))
                for row, place, part in zip(rows, places, parts, strict=True)
            ]
    results: list[Tile | TileError] = []
    for row, place in zip(rows, places, strict=True):
        try:
            pixels = slide.read_level(place, choice.level, source)
        except TileError as error:
            results.append(error)
        else:
            results.append(Tile(row, place, rescale(pixels, (size_px, size_px))))
    return results
