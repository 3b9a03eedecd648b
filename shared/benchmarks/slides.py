"""Speed and memory of reading whole-slide images; one JSON line a workload.

Both sides of a comparison run in this process, alternating, on the same synthetic slide (tiled JPEG, Aperio flavour), and
give the same pixels or coordinates. Memory is the peak of a fresh process. Run with ``nox -s bench``; ``--quick`` for a
smaller slide.
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

import cv2
import numpy as np
import openslide

from medshared.slides import (
    ClamPatching,
    ClamSegmentation,
    Contour,
    find_tissue,
    make_grid,
    open_slide,
    patch_coordinates,
    segment,
    write_pyramid,
)

TILE_PX = 256


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


def peak_rss_mb() -> float:
    """Return the peak of this process; ``getrusage`` would include that of the process that started it."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def synthetic_rows(size: int) -> Callable[[int, int], np.ndarray]:
    """Return a function for rows of a slide: two blobs of textured tissue, one with holes, on glass."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.normal(0, 25, (256, 256, 3)), (2048, 2048), interpolation=cv2.INTER_CUBIC)
    texture = coarse + rng.normal(0, 8, (2048, 2048, 3)) + (195, 130, 175)
    tissue = np.clip(texture, 0, 255).astype(np.uint8)
    glass = np.clip(rng.normal(240, 1.5, (2048, 2048, 3)), 0, 255).astype(np.uint8)
    small = np.zeros((size // 16 + 1, size // 16 + 1), np.uint8)
    unit = size / 16 / 100
    cv2.ellipse(small, (int(36 * unit), int(45 * unit)), (int(26 * unit), int(34 * unit)), 10, 0, 360, 1, -1)
    cv2.circle(small, (int(78 * unit), int(60 * unit)), int(16 * unit), 1, -1)
    for x, y, radius in ((30, 40, 5), (42, 58, 3), (78, 60, 4)):
        cv2.circle(small, (int(x * unit), int(y * unit)), int(radius * unit), 0, -1)
    columns = np.arange(size)

    def rows(start: int, stop: int) -> np.ndarray:
        y = np.arange(start, stop)
        where = small[np.ix_(y // 16, columns // 16)][..., None]
        place = np.ix_(y % 2048, columns % 2048)
        return np.where(where, tissue[place], glass[place])

    return rows


def by_openslide(path: Path, coordinates: np.ndarray) -> Iterator[np.ndarray]:
    """Read tile by tile, as most programs do."""
    with openslide.OpenSlide(path) as slide:
        for x, y in coordinates.tolist():
            yield np.asarray(slide.read_region((x, y), 0, (TILE_PX, TILE_PX)).convert("RGB"))


def by_us(path: Path, coordinates: np.ndarray, n_threads: int | None = None) -> Iterator[np.ndarray]:
    with open_slide(path) as slide:
        for tile in slide.read_tiles(coordinates, TILE_PX, level=0, n_threads=n_threads):
            yield tile.pixels


def consume(tiles: Iterator[np.ndarray]) -> int:
    return sum(1 for _ in tiles)


def bench_reading(path: Path, size: int, repeats: int, columns: int) -> None:
    """Neighbouring tiles, on and off the file's own tiles, and tiles all over the slide."""
    across = size // TILE_PX - 1
    first = (across - min(columns, across)) // 2
    grid = (
        np.array([(x, y) for x in range(first, first + min(columns, across)) for y in range(across)])
        * TILE_PX
    )
    scattered = np.random.default_rng(0).integers(0, size - TILE_PX, (min(400, len(grid)), 2))
    for name, coordinates in (("aligned", grid), ("not_aligned", grid + 100), ("scattered", scattered)):
        pairs = zip(by_openslide(path, coordinates), by_us(path, coordinates), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs), "the tiles differ"
        seconds = medians(
            {
                "openslide": lambda c=coordinates: consume(by_openslide(path, c)),
                "ours": lambda c=coordinates: consume(by_us(path, c)),
                "one_thread": lambda c=coordinates: consume(by_us(path, c, 1)),
            },
            repeats,
        )
        line(
            f"read_tiles_{name}",
            tiles=len(coordinates),
            openslide_tiles_per_s=len(coordinates) / seconds["openslide"],
            tiles_per_s=len(coordinates) / seconds["ours"],
            ratio=seconds["openslide"] / seconds["ours"],
            ratio_one_thread=seconds["openslide"] / seconds["one_thread"],
            cpus=len(os.sched_getaffinity(0)),
            equal_pixels=True,
        )


def loop_over_points(contours: list[Contour], step: int) -> np.ndarray:
    """Test candidate by candidate with OpenCV, as the usual tools do."""
    kept = []
    for contour in contours:
        x0, y0, width, height = contour.box
        quarter = TILE_PX // 4
        for x in range(x0, x0 + width, step):
            for y in range(y0, y0 + height, step):
                cx, cy = x + TILE_PX // 2, y + TILE_PX // 2
                corners = [(cx + dx, cy + dy) for dx in (-quarter, quarter) for dy in (-quarter, quarter)]
                if not any(cv2.pointPolygonTest(contour.outer, corner, False) >= 0 for corner in corners):
                    continue
                if any(cv2.pointPolygonTest(hole, (cx, cy), False) > 0 for hole in contour.holes):
                    continue
                kept.append((x, y))
    return np.array(kept)


PARAMETERS = ClamSegmentation(a_t=1, a_h=1)


def bench_patching(path: Path, repeats: int) -> None:
    """Which patches lie in tissue: all candidates at once, and one by one."""
    with open_slide(path) as slide:
        contours = segment(slide, PARAMETERS)
        patching = ClamPatching(TILE_PX, TILE_PX // 2)
        ours = patch_coordinates(slide, contours, patching)
        assert np.array_equal(ours, loop_over_points(contours, TILE_PX // 2)), "the coordinates differ"
        seconds = medians(
            {
                "loop": lambda: loop_over_points(contours, TILE_PX // 2),
                "ours": lambda: patch_coordinates(slide, contours, patching),
            },
            repeats,
        )
    line(
        "patch_coordinates",
        patches=len(ours),
        points_in_contours=sum(len(contour.outer) for contour in contours),
        ms=1e3 * seconds["ours"],
        ratio=seconds["loop"] / seconds["ours"],
        equal_coordinates=True,
    )


def segment_and_read(path: Path, fast: bool) -> int:
    """Take a slide from its file to all its tissue tiles."""
    with open_slide(path, fast=fast) as slide:
        if fast:
            coordinates = patch_coordinates(slide, segment(slide, PARAMETERS), ClamPatching(TILE_PX, TILE_PX))
            return sum(1 for _ in slide.read_tiles(coordinates, TILE_PX, level=0))
        coordinates = patch_coordinates(slide, segment(slide, PARAMETERS), ClamPatching(TILE_PX, TILE_PX))
    return consume(by_openslide(path, coordinates))


def otsu_and_read(path: Path) -> int:
    with open_slide(path) as slide:
        grid = make_grid(slide, TILE_PX, level=0, tissue=find_tissue(slide))
        return sum(1 for _ in slide.read_tiles(grid.coordinates, TILE_PX, level=0))


def bench_pipeline(path: Path, repeats: int) -> None:
    """Tissue mask, patching and reading together, and the peak memory of a fresh process that does them."""
    n = segment_and_read(path, True)
    n_grid = otsu_and_read(path)
    seconds = medians(
        {
            "openslide": lambda: segment_and_read(path, False),
            "ours": lambda: segment_and_read(path, True),
            "grid": lambda: otsu_and_read(path),
        },
        repeats,
    )
    done = subprocess.run(
        [sys.executable, __file__, "--memory-of", str(path)], check=True, capture_output=True, text=True
    )
    line(
        "segment_patch_read_tissue",
        tiles=n,
        openslide_tiles_per_s=n / seconds["openslide"],
        tiles_per_s=n / seconds["ours"],
        ratio=seconds["openslide"] / seconds["ours"],
        aligned_grid_tiles_per_s=n_grid / seconds["grid"],
        peak_rss_mb=float(done.stdout),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", type=int, default=None, help="edge of the slide in pixels (20000; 6000 with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="a smaller slide and fewer repeats")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of is not None:
        segment_and_read(options.memory_of, True)
        print(peak_rss_mb())
        return
    size = options.size or (6000 if options.quick else 20000)
    repeats = 1 if options.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        path = write_pyramid(
            Path(folder) / "bench.svs",
            synthetic_rows(size),
            0.25,
            size_px=(size, size),
            downsamples=(1, 4, 16),
        )
        line(
            "write_pyramid",
            size_px=size,
            seconds=time.perf_counter() - started,
            file_mb=path.stat().st_size / 1e6,
            peak_rss_mb=peak_rss_mb(),
        )
        bench_reading(path, size, repeats, columns=20)
        bench_patching(path, repeats)
        bench_pipeline(path, repeats)


if __name__ == "__main__":
    main()
