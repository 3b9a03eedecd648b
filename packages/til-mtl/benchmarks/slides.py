"""Speed and memory of whole-slide inference; one JSON line a workload.

* reading: the tiles of a synthetic slide through `read_tiles`, against OpenSlide tile by tile; both give the same
  pixels;
* shares: what reading the file, decoding, the network, finding cells and writing take on the way to a score, each
  measured for itself and within the whole; the largest is the bottleneck. With the real network, random weights;
* ``--large``: peak memory of a 40,000 x 40,000 slide with a model of a few lines, by the system's figure of a fresh
  process; more than 2 GB is an error.

``--quick`` for smaller slides, ``--device cuda`` for the network on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE, MARGIN, MPP = 256, 32, 0.5
LIMIT_GB = 2.0
LARGE_PX = 40_000
CELL_PX, CELLS_PER_PX = 7, 1 / 3000


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def medians(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time the sides in turn and return the median seconds of each; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def slide_rows(size: int) -> Callable[[int, int], NDArray[np.uint8]]:
    """Return a function for rows of a slide: stripes of three tissues with dark cells, glass around them."""
    rng = np.random.default_rng(0)
    block = np.empty((2048, 2048, 3), np.int16)
    for k, colour in enumerate(((170, 105, 165), (226, 160, 190), (238, 200, 228))):
        block[:, k * 683 : (k + 1) * 683] = colour
    block += rng.normal(0, 6, block.shape).astype(np.int16)
    rows, columns = np.mgrid[-CELL_PX : CELL_PX + 1, -CELL_PX : CELL_PX + 1]
    disc = rows**2 + columns**2 <= CELL_PX**2
    low, high = CELL_PX, 2048 - CELL_PX - 1
    for x, y in rng.integers(low, high, (int(2048**2 * CELLS_PER_PX), 2)):
        block[y - CELL_PX : y + CELL_PX + 1, x - CELL_PX : x + CELL_PX + 1][disc] = (62, 38, 105)
    tissue = np.clip(block, 0, 255).astype(np.uint8)
    wide = np.tile(tissue, (1, size // 2048 + 1, 1))[:, :size]
    edge = size // 10
    glass = np.full((2048, size, 3), 243, np.uint8)
    wide[:, :edge] = 243
    wide[:, size - edge :] = 243

    def rows_between(start: int, stop: int) -> NDArray[np.uint8]:
        y = np.arange(start, stop)
        inside = (y >= edge) & (y < size - edge)
        return np.where(inside[:, None, None], wide[y % 2048], glass[y % 2048])

    return rows_between


def make_slide(path: Path, size: int) -> Path:
    """Write a synthetic slide."""
    from medshared.slides import write_pyramid

    return write_pyramid(path, slide_rows(size), MPP, "generic", size_px=(size, size), downsamples=(1, 4, 16))


def cheap_model(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Tell tissues by their green, cells by their darkness."""
    green = tiles[..., 1]
    tissue = np.where(green > 180, 0, np.where(green > 130, 2, 1)).astype(np.uint8)
    return tissue, np.clip((120 - green.astype(np.float32)) / 80, 0, 1)


def tile_places(slide: Any) -> NDArray[np.int64]:
    """Return the corners of the tiles with tissue, row by row."""
    from medshared.slides import find_tissue
    from til_mtl.slides.tiling import TissueRows, plan_tiles

    plan = plan_tiles(slide, MPP, TILE, MARGIN)
    rows = TissueRows(find_tissue(slide), plan)
    return np.concatenate([plan.locations(row, rows.tiles_of(row)) for row in range(len(plan.rows.starts))])


def bench_reading(path: Path, repeats: int) -> None:
    """Time reading alone."""
    import openslide

    from medshared.slides import open_slide

    with open_slide(path) as slide, openslide.OpenSlide(path) as plain:
        places = tile_places(slide)
        pairs: list[tuple[int, int]] = [(int(x), int(y)) for x, y in places]

        def one_by_one() -> Iterator[NDArray[np.uint8]]:
            for place in pairs:
                yield np.asarray(plain.read_region(place, 0, (TILE, TILE)).convert("RGB"))

        ours = slide.read_tiles(places, TILE, spacing_um=MPP)
        for tile, other in zip(ours, one_by_one(), strict=True):
            np.testing.assert_array_equal(tile.pixels, other)

        def read(threads: int | None) -> int:
            return sum(1 for _ in slide.read_tiles(places, TILE, spacing_um=MPP, n_threads=threads))

        seconds = medians(
            {
                "ours": lambda: read(None),
                "one thread": lambda: read(1),
                "openslide": lambda: sum(1 for _ in one_by_one()),
            },
            repeats,
        )
    line(
        "reading tiles, fast path against OpenSlide tile by tile",
        tiles=len(pairs),
        tiles_per_second=len(pairs) / seconds["ours"],
        one_thread_tiles_per_second=len(pairs) / seconds["one thread"],
        openslide_tiles_per_second=len(pairs) / seconds["openslide"],
        speedup=seconds["openslide"] / seconds["ours"],
        one_thread_speedup=seconds["openslide"] / seconds["one thread"],
        wanted=3,
        equal=True,
        cpus=len(os.sched_getaffinity(0)),
    )


def file_seconds(path: Path) -> float:
    """Return the seconds to read the compressed bytes of level 0."""
    import tifffile

    with tifffile.TiffFile(path) as file, path.open("rb") as handle:
        page: Any = file.pages[0]
        started = time.perf_counter()
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            handle.seek(offset)
            handle.read(size)
        return time.perf_counter() - started


def bench_shares(path: Path, folder: Path, device: str, precision: str) -> None:
    """Score a slide with the real network and say where the time goes."""
    from medshared.slides import open_slide
    from til_mtl.config import Config
    from til_mtl.models.build import build_network
    from til_mtl.slides.maps import NetworkModel
    from til_mtl.slides.options import SlideOptions
    from til_mtl.slides.slide_run import score_slide

    model = NetworkModel([build_network(Config())], "none", device, precision)
    model(np.zeros((2, TILE, TILE, 3), np.uint8))  # the first call sets things up
    # Random weights find cells everywhere or nowhere: the threshold leaves what a slide with many cells has.
    _, probability = model(np.random.default_rng(0).integers(0, 255, (2, TILE, TILE, 3), dtype=np.uint8))
    conf = float(np.quantile(probability, 0.97))
    options = SlideOptions(slides=path, out=folder, mpp=MPP, conf=min(conf, 1.0))
    facts = score_slide(path, None, folder, options, model)
    seconds = facts["seconds_in"]
    with open_slide(path) as slide:
        places = tile_places(slide)
        started = time.perf_counter()
        n = sum(1 for _ in slide.read_tiles(places, TILE, spacing_um=MPP, n_threads=1))
        alone = time.perf_counter() - started
    from_file = file_seconds(path)
    parts = {
        "reading": from_file,
        "decoding": max(alone - from_file, 0.0),
        "network": seconds["network"],
        "cells": seconds["peaks"],
        "writing": seconds["writing"],
    }
    total = sum(parts.values())
    line(
        "from slide to score, real network",
        device=device,
        precision=precision,
        tiles=n,
        tiles_per_second=n / seconds["total"],
        network_tiles_per_second=n / seconds["network"],
        seconds=seconds["total"],
        seconds_network_waits_for_tiles=seconds["reading"],
        **{f"share_{name}": value / total for name, value in parts.items()},
        bottleneck=max(parts, key=lambda name: parts[name]),
    )


def peak_gb() -> float:
    """Return the peak resident size of this process, by the kernel's figure, in GB."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024 / 1e9


def child(path: Path, folder: Path) -> None:
    """Score a slide with the cheap model and report this process's peak."""
    from til_mtl.slides.options import SlideOptions
    from til_mtl.slides.slide_run import score_slide

    before = peak_gb()
    facts = score_slide(
        path, None, folder, SlideOptions(slides=path, out=folder, mpp=MPP, conf=0.5), cheap_model
    )
    row, seconds = facts["row"], facts["seconds_in"]
    print(
        json.dumps(
            {
                "peak_gb": peak_gb(),
                "start_gb": before,
                "tiles": facts["n_tiles"],
                "lymphocytes": row["n_lymphocytes"],
                "score": row["tils-score"],
                **{f"seconds_{name}": value for name, value in seconds.items()},
            }
        )
    )


def bench_memory(size: int, folder: Path) -> bool:
    """Measure the peak of a fresh process on a slide; return whether it stays within the limit."""
    path = make_slide(folder / f"{size}.tif", size)
    command = [sys.executable, __file__, "--child", str(path), str(folder / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    line(f"peak memory, {size} x {size}", **found, limit_gb=LIMIT_GB, slide_gb=path.stat().st_size / 1e9)
    path.unlink()
    return found["peak_gb"] <= LIMIT_GB


def main() -> int:
    """Run the workloads asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller slides")
    parser.add_argument("--large", action="store_true", help="memory of a 40,000 x 40,000 slide, too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    within = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_reading(make_slide(folder / "read.tif", 3072 if arguments.quick else 8192), 2)
        on_gpu = arguments.device.startswith("cuda")
        size = (8192 if on_gpu else 1024) if arguments.quick else (16384 if on_gpu else 2048)
        path = make_slide(folder / "score.tif", size)
        bench_shares(path, folder / "score", arguments.device, arguments.precision)
        sizes = [4096, 8192] if arguments.quick else [8192, 16384]
        for size in [*sizes, *([LARGE_PX] if arguments.large else [])]:
            within &= bench_memory(size, folder)
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
