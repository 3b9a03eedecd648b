"""Writing tiled pyramidal slides that OpenSlide opens as real ones: for tests, demos and derived images."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from medshared.files import atomic_open

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tifffile import TiffWriter

    RowSource = Callable[[int, int], npt.NDArray[np.uint8]]

Flavour = Literal["aperio", "generic"]
_INSTALL = 'pip install "medshared[images]"'
_LARGEST_CLASSIC = 3 * 2**30  # bytes of raw pixels; far below the 4 GiB that classic TIFF offsets reach


def write_pyramid(
    path: str | os.PathLike[str],
    image: npt.NDArray[np.uint8] | RowSource,
    spacing_um: float | None,
    flavour: Flavour = "aperio",
    *,
    size_px: tuple[int, int] | None = None,
    tile_px: int = 256,
    downsamples: Sequence[int] = (1, 4, 16),
    quality: int = 90,
    subsampling: tuple[int, int] = (2, 2),
    magnification: float | None = None,
    workers: int | None = None,
) -> Path:
    """Write a tiled, JPEG-compressed pyramid; memory holds a few rows of tiles, however large the slide is.

    Args:
        path: the file, ``.svs`` for ``"aperio"`` and ``.tif`` or ``.tiff`` for ``"generic"``.
        image: uint8 [height, width, 3], or a function of ``(first_row, last_row + 1)`` that returns those rows
            as uint8 [rows, width, 3]. Rows are asked for once, in order.
        spacing_um: µm per pixel of level 0; ``None`` leaves it out, as some slides do.
        flavour: ``"aperio"`` is detected by OpenSlide as vendor ``aperio``, ``"generic"`` as ``generic-tiff``.
        size_px: (width, height), needed when ``image`` is a function.
        tile_px: edge of the file's own tiles, a multiple of 16.
        downsamples: of the levels; starts with 1, rises, and each is a multiple of the one before.
        quality: of JPEG, 1–100.
        subsampling: chroma subsampling (horizontal, vertical): (2, 2), (2, 1) or (1, 1).
        magnification: written as Aperio's ``AppMag``; by default 10 / spacing.
        workers: threads that compress; by default tifffile's choice.

    Returns:
        The path.

    Raises:
        ValueError: for arguments that do not fit together.
        ImportError: with the command to install what is missing.
        OSError: naming the file when it cannot be written; nothing half-written stays.
    """
    rows, width, height = _source(image, size_px)
    check_pyramid(tile_px, downsamples, flavour, spacing_um)
    if min(width, height) < downsamples[-1]:
        raise ValueError(
            f"an image of {width} x {height} px is too small for a downsample of {downsamples[-1]}"
        )
    try:
        import imagecodecs  # noqa: F401  # compresses JPEG for tifffile
        import tifffile  # noqa: F401
    except ImportError as error:
        raise ImportError(f"writing slides needs tifffile and imagecodecs: {_INSTALL}") from error

    path = Path(path)
    shared: dict[str, Any] = {
        "photometric": "rgb",  # turned into YCbCr on the way, as subsampling asks
        "compression": "jpeg",
        "compressionargs": {"level": quality},
        "subsampling": subsampling,
        "tile": (tile_px, tile_px),
        "dtype": "uint8",
        "metadata": None,
        "maxworkers": workers,
    }
    with contextlib.ExitStack() as spools, tiff_writer(path, width * height * 3) as out:
        for level, factor in enumerate(downsamples):
            following = None
            if level + 1 < len(downsamples):
                spool = spools.enter_context(tempfile.TemporaryFile(dir=path.parent))
                following = _Reduction(
                    width // factor, height // factor, downsamples[level + 1] // factor, spool
                )
            tags = _description(flavour, spacing_um, factor, (width, height), quality, magnification, tile_px)
            out.write(
                _tiles(rows, width // factor, height // factor, tile_px, following),
                shape=(height // factor, width // factor, 3),
                subfiletype=0 if level == 0 or flavour == "aperio" else 1,
                **tags,
                **shared,
            )
            rows = following.rows if following is not None else rows
    return path


@contextlib.contextmanager
def tiff_writer(path: Path, raw_bytes: int) -> Iterator[TiffWriter]:
    """Open a TIFF file for writing; nothing half-written stays.

    Args:
        path: the file; its folder is created.
        raw_bytes: of all pixels; decides between classic and big TIFF.

    Yields:
        tifffile's writer.

    Raises:
        OSError: naming the file when it cannot be written.
    """
    import tifffile

    with atomic_open(path, "wb") as handle:
        big = raw_bytes > _LARGEST_CLASSIC
        with tifffile.TiffWriter(_Positioned(handle), bigtiff=big) as out:  # pyright: ignore[reportArgumentType]
            yield out


def _source(
    image: npt.NDArray[np.uint8] | RowSource, size_px: tuple[int, int] | None
) -> tuple[RowSource, int, int]:
    if callable(image):
        if size_px is None:
            raise ValueError("size_px (width, height) must be given when the image is a function")
        return image, int(size_px[0]), int(size_px[1])
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.name != "uint8":
        raise ValueError(
            f"the image must be uint8 [height, width, 3], found {image.dtype} {list(image.shape)}"
        )
    if size_px is not None and tuple(size_px) != (image.shape[1], image.shape[0]):
        raise ValueError(
            f"size_px is {tuple(size_px)}, but the image is {image.shape[1]} wide and {image.shape[0]} high"
        )
    array = image
    return lambda start, stop: array[start:stop], image.shape[1], image.shape[0]


def check_pyramid(tile_px: int, downsamples: Sequence[int], flavour: str, spacing_um: float | None) -> None:
    """Refuse settings that no pyramid can have.

    Args:
        tile_px: edge of a tile.
        downsamples: of the levels.
        flavour: ``"aperio"`` or ``"generic"``.
        spacing_um: µm per pixel of level 0, or ``None``.

    Raises:
        ValueError: naming the argument.
    """
    if tile_px < 16 or tile_px % 16:
        raise ValueError(f"tile_px must be a positive multiple of 16, found {tile_px}")
    steps_fit = all(b > a and b % a == 0 for a, b in itertools.pairwise(downsamples))
    if not downsamples or downsamples[0] != 1 or not steps_fit:
        raise ValueError(
            "downsamples must start with 1 and rise, each a multiple of the one before, such as (1, 4, 16); "
            f"found {tuple(downsamples)}"
        )
    if flavour not in ("aperio", "generic"):
        raise ValueError(f"flavour must be 'aperio' or 'generic', found {flavour!r}")
    if spacing_um is not None and not (math.isfinite(spacing_um) and spacing_um > 0):
        raise ValueError(f"spacing_um must be a positive number of µm per pixel, found {spacing_um}")


class _Positioned:
    """A binary file without ``name``, so that tifffile writes into the open temporary file itself."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.read, self.write, self.seek = handle.read, handle.write, handle.seek
        self.tell, self.flush, self.truncate = handle.tell, handle.flush, handle.truncate
        self.readinto = getattr(handle, "readinto", None)


class _Reduction:
    """The next level, made by area averaging while the rows of this one pass, kept in an unnamed file."""

    def __init__(self, width: int, height: int, factor: int, spool: IO[bytes]) -> None:
        self.factor, self._spool = factor, spool
        self.width, self.height = width // factor, height // factor
        self._pending: list[npt.NDArray[np.uint8]] = []

    def add(self, block: npt.NDArray[np.uint8]) -> None:
        """Take the next rows and store what they complete."""
        import numpy as np

        self._pending.append(block)
        rows = np.concatenate(self._pending) if len(self._pending) > 1 else block
        whole = rows.shape[0] // self.factor
        self._store(rows[: whole * self.factor], whole)
        self._pending = [rows[whole * self.factor :].copy()]

    def _store(self, rows: npt.NDArray[np.uint8], n: int) -> None:
        import numpy as np

        if n:
            used = rows[:, : self.width * self.factor].reshape(n, self.factor, self.width, self.factor, 3)
            # Two sums in turn are several times faster than one mean over both axes.
            total = used.sum(axis=1, dtype=np.uint32).sum(axis=2)
            area = self.factor * self.factor
            self._spool.write(((total + area // 2) // area).astype(np.uint8).tobytes())

    def rows(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return stored rows."""
        import numpy as np

        line = self.width * 3
        self._spool.seek(start * line)
        data = np.frombuffer(self._spool.read((stop - start) * line), np.uint8)
        return data.reshape(stop - start, self.width, 3)


def _tiles(
    rows: RowSource, width: int, height: int, tile_px: int, following: _Reduction | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the level's tiles row by row; tiles at the border continue its last pixels."""
    import numpy as np

    for top in range(0, height, tile_px):
        bottom = min(height, top + tile_px)
        block = np.ascontiguousarray(rows(top, bottom), np.uint8)
        if block.shape != (bottom - top, width, 3):
            raise ValueError(
                f"rows {top}–{bottom - 1} must have shape {(bottom - top, width, 3)}, found {block.shape}"
            )
        if following is not None:
            following.add(block)
        # Repeated pixels, not black ones: a hard edge would ring into the visible part of JPEG blocks.
        padding = ((0, tile_px - block.shape[0]), (0, -width % tile_px), (0, 0))
        block = np.pad(block, padding, mode="edge")
        for left in range(0, width, tile_px):
            yield np.ascontiguousarray(block[:, left : left + tile_px])


def _description(
    flavour: Flavour,
    spacing_um: float | None,
    factor: int,
    size: tuple[int, int],
    quality: int,
    magnification: float | None,
    tile_px: int,
) -> dict[str, Any]:
    """Return the tags that tell flavour and spacing."""
    if flavour == "generic":
        if spacing_um is None:
            return {}
        return {"resolution": (1e4 / (spacing_um * factor),) * 2, "resolutionunit": "CENTIMETER"}
    width, height = size
    text = f"Aperio Image Library v12.0.0 \r\n{width}x{height} [0,0 {width}x{height}] ({tile_px}x{tile_px})"
    if factor > 1:
        text += f" -> {width // factor}x{height // factor}"
    text += f" JPEG/YCC Q={quality}"
    if spacing_um is not None:
        power = magnification if magnification is not None else 10 / spacing_um
        text += f"|AppMag = {power:g}|MPP = {spacing_um:.6g}"
    return {"description": text}
