"""The maps of a slide as strips of whole rows, from top to bottom; the slide as a whole is never in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medshared.slides.faults import FaultList
from til_mtl.slides.maps import SlideModel, label_map, run_model
from til_mtl.slides.tiling import TilePlan, TissueRows, kept_part

if TYPE_CHECKING:
    from medshared.slides import Slide, Tile


@dataclass
class Clock:
    """Where the time goes, in seconds.

    The first two pass in a thread of their own, beside the others.

    Attributes:
        reading: The networks wait for decoded tiles.
        network: The networks, with the way to and from the device.
        waiting: All else waits for the next strip.
        peaks: Counting pixels and finding cells.
        writing: Compressing and writing the map.
        total: All of the slide.
    """

    reading: float = 0.0
    network: float = 0.0
    waiting: float = 0.0
    peaks: float = 0.0
    writing: float = 0.0
    total: float = 0.0


class Strip(NamedTuple):
    """Some rows of the map.

    Attributes:
        top: First row.
        height: Number of rows.
        segmentation: uint8 ``[height, W]``: 0 background, 1 tumour, 2 stroma, 3 other; ``None`` for glass.
        probability: float32 ``[height, W]``, of a cell; 0 outside tissue. ``None`` for glass.
        tissue_probability: uint8 ``[3, height, W]`` (0–255), when it is asked for.
    """

    top: int
    height: int
    segmentation: NDArray[np.uint8] | None = None
    probability: NDArray[np.float32] | None = None
    tissue_probability: NDArray[np.uint8] | None = None


def one_ahead(strips: Iterator[Strip]) -> Iterator[Strip]:
    """Yield strips while the next one is made in a thread; its errors come out here."""
    with ThreadPoolExecutor(1, thread_name_prefix="strips") as pool:
        following = pool.submit(next, strips, None)
        while (strip := following.result()) is not None:
            following = pool.submit(next, strips, None)
            yield strip


@dataclass
class StripReader:
    """Runs a model over the tissue of one slide.

    Attributes:
        slide: The slide.
        plan: Its tiles.
        tissue: Its tissue.
        model: The model.
        faults: Takes the tiles that cannot be decoded; their kept parts stay background.
        batch: Tiles that the model gets at a time.
        max_fault_share: Largest share of faulty tiles.
        threads: That read tiles; ``None`` for the CPUs, at most 4.
        keep_probabilities: Whether the strips hold tissue probabilities.
        clock: Where the time goes.
        n_tiles: Tiles with tissue.
    """

    slide: Slide
    plan: TilePlan
    tissue: TissueRows
    model: SlideModel
    faults: FaultList
    batch: int = 32
    max_fault_share: float = 0.1
    threads: int | None = None
    keep_probabilities: bool = False
    clock: Clock = field(default_factory=Clock)
    n_tiles: int = 0

    def __iter__(self) -> Iterator[Strip]:
        """Yield the strips; they cover the map once."""
        rows = [self.tissue.tiles_of(row) for row in range(len(self.plan.rows.starts))]
        places = [(row, int(column)) for row, columns in enumerate(rows) for column in columns]
        self.n_tiles = len(places)
        parts = [self.plan.locations(row, columns) for row, columns in enumerate(rows)]
        tiles = self.slide.read_tiles(
            np.concatenate(parts),
            self.plan.tile,
            spacing_um=self.plan.asked_mpp,
            n_threads=self.threads,
            faults=self.faults,
            max_fault_share=self.max_fault_share,
        )
        waiting: dict[int, Strip] = {}
        following = 0  # the next strip to yield
        for group in self._groups(tiles):
            self._predict([places[tile.row] for tile in group], group, waiting)
            reached = places[group[-1].row][0]
            while following < reached:
                yield self._finished(following, waiting)
                following += 1
        while following < len(rows):
            yield self._finished(following, waiting)
            following += 1

    def _groups(self, tiles: Iterator[Tile]) -> Iterator[list[Tile]]:
        group: list[Tile] = []
        while True:
            started = time.perf_counter()
            tile = next(tiles, None)
            self.clock.reading += time.perf_counter() - started
            if tile is not None:
                group.append(tile)
            if group and (tile is None or len(group) == self.batch):
                yield group
                group = []
            if tile is None:
                return

    def _predict(self, places: list[tuple[int, int]], group: list[Tile], waiting: dict[int, Strip]) -> None:
        """Run the model on some tiles and put the kept parts where they belong."""
        pixels = np.stack([tile.pixels for tile in group])
        started = time.perf_counter()
        tissue, cells = run_model(self.model, pixels)
        self.clock.network += time.perf_counter() - started
        for number, (row, column) in enumerate(places):
            if row not in waiting:
                waiting[row] = self._open(row, empty=False)
            self._put(waiting[row], row, column, tissue[number], cells[number])

    def _open(self, row: int, *, empty: bool = True) -> Strip:
        top, bottom = (int(each) for each in self.plan.rows.edges[row : row + 2])
        if empty:
            return Strip(top, bottom - top)
        shape = (bottom - top, self.plan.size[0])
        extra = np.zeros((3, *shape), np.uint8) if self.keep_probabilities else None
        return Strip(top, bottom - top, np.zeros(shape, np.uint8), np.zeros(shape, np.float32), extra)

    def _finished(self, row: int, waiting: dict[int, Strip]) -> Strip:
        """Return a strip; a row without tissue, or all of whose tiles are faulty, is empty."""
        return waiting.pop(row, None) or self._open(row)

    def _put(
        self, strip: Strip, row: int, column: int, tissue: NDArray[Any], cells: NDArray[np.float32]
    ) -> None:
        assert strip.segmentation is not None and strip.probability is not None  # noqa: S101, PT018
        window, kept = kept_part(self.plan.rows, self.plan.columns, row, column)
        (top, bottom), (left, right) = ((each.start, each.stop) for each in window)
        inside = self.tissue.between(top, bottom, left, right)
        if tissue.ndim == 3 and strip.tissue_probability is not None:
            shares = tissue[:, kept[0], kept[1]] * inside
            strip.tissue_probability[:, :, left:right] = np.rint(255 * np.clip(shares, 0, 1))
        strip.segmentation[:, left:right] = label_map(tissue[..., kept[0], kept[1]]) * inside
        strip.probability[:, left:right] = np.where(inside, cells[kept], 0)
