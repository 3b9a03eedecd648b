"""Between the strips of a slide and the writer of its map: rows are handed on, pixels counted, cells found."""

from __future__ import annotations

import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from til_mtl.peaks import Candidates, StripPeaks, no_candidates
from til_mtl.slides.strips import Strip, StripReader, one_ahead
from til_mtl.slides.tallies import Tallies

if TYPE_CHECKING:
    from til_mtl.slides.options import SlideOptions

MAPS = ("other-probability.tif", "tumor-probability.tif", "stroma-probability.tif", "cell-probability.tif")


class ProbabilitySpool(AbstractContextManager["ProbabilitySpool"]):
    """Probability maps in unnamed files while the slide passes, written as pyramids afterwards."""

    def __init__(self, folder: Path, width: int) -> None:
        """Open the files in the folder of the slide."""
        folder.mkdir(parents=True, exist_ok=True)
        self._width = width
        self._open = ExitStack()
        self._files: list[IO[bytes]] = []
        for _ in MAPS:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by the stack
            self._files.append(self._open.enter_context(file))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, strip: Strip) -> None:
        """Append the rows of a strip; probabilities become 0–255."""
        empty = np.zeros((strip.height, self._width), np.uint8)
        tissue = strip.tissue_probability if strip.tissue_probability is not None else [empty] * 3
        cells = empty if strip.probability is None else np.rint(255 * strip.probability).astype(np.uint8)
        for file, rows in zip(self._files, (*tissue, cells), strict=True):
            file.write(rows.tobytes())

    def write(self, folder: Path, size: tuple[int, int], mpp: float) -> None:
        """Write the maps."""
        from medshared.slides import write_label_pyramid

        for file, name in zip(self._files, MAPS, strict=True):
            file.seek(0)

            def rows(start: int, stop: int, file: Any = file) -> NDArray[np.uint8]:
                data = np.frombuffer(file.read((stop - start) * self._width), np.uint8)
                return data.reshape(stop - start, self._width)

            write_label_pyramid(folder / name, rows, mpp, size_px=size)


class StripFeed:
    """Hands the rows of the map to the writer while it counts pixels and finds cells in them."""

    def __init__(
        self, reader: StripReader, options: SlideOptions, spool: ProbabilitySpool | None = None
    ) -> None:
        """Start above the first row."""
        self._strips = one_ahead(iter(reader))
        self._width = reader.plan.size[0]
        self._clock, self._spool = reader.clock, spool
        self._peaks = StripPeaks(self._width, options.conf, options.nms)
        self._found: list[Candidates] = []
        self._held: list[NDArray[np.uint8]] = []
        self._first = self._next = 0
        self.tallies = Tallies(reader.plan.size)

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return rows of the segmentation; they are asked for once, in order."""
        while self._next < stop:
            started = time.perf_counter()
            strip = next(self._strips)
            self._clock.waiting += time.perf_counter() - started
            self._take(strip)
        block = np.concatenate(self._held) if len(self._held) != 1 else self._held[0]
        self._held, self._first = [block[stop - self._first :]], stop
        return block[: len(block) - (self._next - stop)]

    def _take(self, strip: Strip) -> None:
        shown = strip.segmentation
        self._held.append(shown if shown is not None else np.zeros((strip.height, self._width), np.uint8))
        self._next += strip.height
        started = time.perf_counter()
        self.tallies.add(strip)
        if strip.probability is None:
            self._found.append(self._peaks.skip(strip.height))
        else:
            # Glass and undecodable tiles have probability 0 and no cells, whatever the threshold.
            probability = np.where(strip.segmentation != 0, strip.probability, np.nan)
            self._found.append(self._peaks.add(probability, strip.segmentation))
        self._clock.peaks += time.perf_counter() - started
        if self._spool is not None:
            self._spool.add(strip)

    def cells(self) -> Candidates:
        """Return all cells, the most probable first, after the last row."""
        found = no_candidates()
        for part in (*self._found, self._peaks.finish()):
            found = found.join(part) if len(part.x) else found
        return found.pick(np.lexsort((found.x, found.y, -found.p)))
