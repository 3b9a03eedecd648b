"""Writing label maps as large as a slide: one 8-bit channel, tiled, pyramidal, losslessly compressed."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from medshared.slides.writing import check_pyramid, tiff_writer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    RowSource = Callable[[int, int], npt.NDArray[np.uint8]]

_STEP = 4  # downsample from level to level


def write_label_pyramid(
    path: str | os.PathLike[str],
    labels: npt.NDArray[np.uint8] | RowSource,
    spacing_um: float | None,
    *,
    size_px: tuple[int, int] | None = None,
    tile_px: int = 512,
    downsamples: Sequence[int] | None = None,
    compression: Literal["zlib", "lzw"] = "zlib",
    workers: int | None = None,
) -> Path:
    """Write a pyramid of labels that OpenSlide and QuPath open; memory holds a few rows of tiles.

    Coarser levels hold the label of one pixel of each block, never a mean.

    Args:
        path: the file, ``.tif``.
        labels: uint8 [height, width], or a function of ``(first_row, last_row + 1)`` that returns those rows as
            uint8 [rows, width]. Rows are asked for once, in order.
        spacing_um: µm per pixel of level 0; ``None`` leaves it out.
        size_px: (width, height), needed when ``labels`` is a function.
        tile_px: edge of the file's own tiles, a multiple of 16.
        downsamples: of the levels; by default 1, 4, 16, … as long as the level is larger than a tile.
        compression: ``"zlib"`` (deflate) or ``"lzw"``.
        workers: threads that compress; by default tifffile's choice.

    Returns:
        The path.

    Raises:
        ValueError: for arguments that do not fit together.
        OSError: naming the file when it cannot be written; nothing half-written stays.
    """
    rows, width, height = _source(labels, size_px)
    levels = tuple(downsamples) if downsamples is not None else _levels(width, height, tile_px)
    check_pyramid(tile_px, levels, "generic", spacing_um)
    if min(width, height) < levels[-1]:
        raise ValueError(f"labels of {width} x {height} px are too few for a downsample of {levels[-1]}")
    path = Path(path)
    options: dict[str, Any] = {"tile": (tile_px, tile_px), "compression": compression, "maxworkers": workers}
    with contextlib.ExitStack() as spools, tiff_writer(path, width * height) as out:
        for factor, following in itertools.zip_longest(levels, levels[1:]):
            reduced = None
            if following is not None:
                spool = spools.enter_context(tempfile.TemporaryFile(dir=path.parent))
                reduced = _Every(following // factor, width // factor, spool)
            tiles = _tiles(rows, width // factor, height // factor, tile_px, reduced)
            shape = (height // factor, width // factor)
            out.write(tiles, shape=shape, **_tags(spacing_um, factor), **options)
            rows = reduced.rows if reduced is not None else rows
    return path


def _tags(spacing_um: float | None, factor: int) -> dict[str, Any]:
    tags: dict[str, Any] = {"dtype": "uint8", "photometric": "minisblack", "metadata": None}
    tags["subfiletype"] = 0 if factor == 1 else 1
    if spacing_um is not None:
        per_cm = 1e4 / (spacing_um * factor)
        tags |= {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    return tags


def _source(
    labels: npt.NDArray[np.uint8] | RowSource, size_px: tuple[int, int] | None
) -> tuple[RowSource, int, int]:
    if callable(labels):
        if size_px is None:
            raise ValueError("size_px (width, height) must be given when the labels are a function")
        return labels, int(size_px[0]), int(size_px[1])
    if labels.ndim != 2 or labels.dtype.name != "uint8":
        raise ValueError(f"labels must be uint8 [height, width], found {labels.dtype} {list(labels.shape)}")
    array = labels
    return lambda start, stop: array[start:stop], labels.shape[1], labels.shape[0]


def _levels(width: int, height: int, tile_px: int) -> tuple[int, ...]:
    levels = [1]
    while max(width, height) > levels[-1] * tile_px and min(width, height) >= levels[-1] * _STEP:
        levels.append(levels[-1] * _STEP)
    return tuple(levels)


class _Every:
    """The next level, one pixel of each block, taken while the rows of this one pass, kept in an unnamed file."""

    def __init__(self, factor: int, width: int, spool: IO[bytes]) -> None:
        self.factor, self.width, self._spool = factor, width // factor, spool
        self._passed = 0

    def add(self, block: npt.NDArray[np.uint8]) -> None:
        """Take the next rows."""
        middle = self.factor // 2
        first = (middle - self._passed) % self.factor
        chosen = block[first :: self.factor, middle :: self.factor][:, : self.width]
        self._spool.write(chosen.tobytes())
        self._passed += len(block)

    def rows(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return stored rows."""
        import numpy as np

        self._spool.seek(start * self.width)
        data = np.frombuffer(self._spool.read((stop - start) * self.width), np.uint8)
        return data.reshape(stop - start, self.width)


def _tiles(
    rows: RowSource, width: int, height: int, tile_px: int, following: _Every | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the level's tiles row by row, filled up with zeros at the border."""
    import numpy as np

    for top in range(0, height, tile_px):
        bottom = min(height, top + tile_px)
        block = np.asarray(rows(top, bottom), np.uint8)
        if block.shape != (bottom - top, width):
            raise ValueError(
                f"rows {top}–{bottom - 1} must have shape {(bottom - top, width)}, found {block.shape}"
            )
        if following is not None:
            following.add(block)
        for left in range(0, width, tile_px):
            part = block[:, left : left + tile_px]
            tile = np.zeros((tile_px, tile_px), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
