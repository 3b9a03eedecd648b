"""Cohorts on one to a thousand workers: rates measured here, the model, and the simulation beside it.

First the time of one unit of each work on one thread of this machine: a tile, a window, a frame, a slice, each divided
into reading with decoding and the network; files are synthetic, weights random, which takes as long as any others. Then
what a cohort of them takes, by `medshared.scaling`. One JSON line a result. Needs all packages:

    uv sync --all-packages --all-extras --group dev
    uv run python benchmarks/cohort.py [--quick] [--device cuda] [--storage-mb-per-s 1000] [--requests-per-s 5000]

``--network-speed 100`` divides the network's measured time, for a device that is so many times faster: an assumption.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medshared.gpu import one_thread
from medshared.scaling import Storage, Work, forecast, saturation, simulate

# What an item of a cohort holds: a slide of 40,000 x 40,000 pixels in tiles of 256, half of it tissue; a liver CT with
# a tenth of its windows looked at, and its slices clicked on once; a stack of 95 frames.
TILES_A_SLIDE, SLICES_A_VOLUME, FRAMES_A_STACK = 12_000, 200, 95
WINDOWS_A_VOLUME = 10_955
SLIDES, VOLUMES, FRAMES = 10_000, 1_000, 1_000_000
WORKERS = (1, 2, 4, 8, 16, 32, 64, 1000)


def line(**values: object) -> None:
    """Print one result."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps(rounded, ensure_ascii=False), flush=True)


def median_seconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the median time of a call after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def measure_tiles(folder: Path, repeats: int, device: torch.device) -> dict[str, dict[str, float]]:
    """A tile of 256 pixels: read and decoded; through ResNet-50 for features; through the multi-task network."""
    from advmil.prepare.encoders import load_encoder
    from medshared.slides import open_slide, write_pyramid
    from til_mtl.config import Config
    from til_mtl.models.build import build_network
    from til_mtl.slides.maps import NetworkModel

    rng = np.random.default_rng(0)
    side, tile = 4096, 256

    def rows(first: int, last: int) -> np.ndarray:
        cells = rng.integers(-30, 31, (-(-(last - first) // 8), side // 8, 3))
        texture = cells.repeat(8, 0).repeat(8, 1)[: last - first]
        grain = rng.integers(
            -12, 13, texture.shape
        )  # without it a tile has a third of the bytes of a real one
        return np.clip(np.array([190, 120, 170]) + texture + grain, 0, 255).astype(np.uint8)

    path = write_pyramid(folder / "slide.svs", rows, 0.5, size_px=(side, side))
    places = np.stack(np.meshgrid(*[np.arange(side // tile)] * 2), axis=-1).reshape(-1, 2) * tile
    with open_slide(path) as slide:
        reading = median_seconds(
            lambda: sum(1 for _ in slide.read_tiles(places, tile, spacing_um=0.5, n_threads=1)),
            repeats,
            device,
        ) / len(places)
    pixels = rng.integers(0, 256, (8, tile, tile, 3), dtype=np.uint8)
    encoder = load_encoder("resnet50_trunc", source="random").network.to(device).eval()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).to(device)
    model = NetworkModel([build_network(Config())], "none", device.type, "32-true")
    with torch.inference_mode():
        features = median_seconds(lambda: encoder(images), repeats, device) / len(pixels)
    maps = median_seconds(lambda: model(pixels), repeats, device) / len(pixels)
    common = {"read_s": reading, "bytes": path.stat().st_size / len(places)}
    return {
        "advmil prepare, tile": common | {"network_s": features, "written": 1024 * 4.0},
        "til-mtl predict, tile": common | {"network_s": maps, "written": 2000.0},
    }


def measure_volumes(folder: Path, repeats: int, device: torch.device) -> dict[str, dict[str, float]]:
    """A CT volume read; a window of it scored; a slice encoded and clicked on."""
    from aespa.models.architecture import Architecture
    from aespa.models.build import build_network as build_aespa
    from aespa.predictor import AespaPredictor
    from medshared.volumes import read_volume, write_volume
    from spars.models.fast_net import FastNet
    from spars.models.net import Net

    rng = np.random.default_rng(0)
    depth = 40
    voxels = rng.normal(40, 20, (256, 256, depth)).astype(np.int16).repeat(2, 0).repeat(2, 1)
    path = folder / "ct.nii.gz"
    write_volume(path, voxels, np.diag([0.7, 0.7, 2.5, 1.0]))
    reading = median_seconds(lambda: read_volume(path), repeats, device) / depth
    net = FastNet(Net().eval(), (48, 48, 24)).to(device)
    crops = torch.randn(4, 48, 48, 24, device=device)
    with torch.inference_mode():
        scoring = median_seconds(lambda: net(crops), repeats, device) / len(crops)
    predictor = AespaPredictor(build_aespa(Architecture()).to(device).eval(), mode="AESPA")
    image = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)

    def slice_with_click() -> None:
        predictor.set_image(image)
        predictor.click(200, 200, 1)
        predictor.predict()

    clicking = median_seconds(slice_with_click, repeats, device)
    common = {"read_s": reading, "bytes": path.stat().st_size / depth, "written": 512 * 512 * 2 / 10}
    per_slice = WINDOWS_A_VOLUME / SLICES_A_VOLUME
    return {
        "spars predict, slice": common | {"network_s": scoring * per_slice, "window_s": scoring},
        "aespa predict, slice": common | {"network_s": clicking},
    }


def measure_frames(folder: Path, repeats: int, device: torch.device) -> dict[str, dict[str, float]]:
    """A frame of 812 x 928 pixels: page, resized to 512, ResNet-50."""
    import tifffile

    from infection_mt.config import Config
    from infection_mt.data.frame_cache import prepare_page
    from infection_mt.models.checkpoint import build_model
    from medshared.images import StackReader

    pages = np.random.default_rng(0).integers(200, 12000, (8, 812, 928), dtype=np.uint16)
    path = folder / "stack_s5_b2_p1_t0-7_ec.tiff"
    tifffile.imwrite(path, pages, photometric="minisblack")
    config = Config.model_validate(
        {"data": {"infected_dir": folder, "uninfected_dir": folder, "transforms": {"image_size": 512}},
         "model": {"name": "resnet50", "pretrained": False}}
    )  # fmt: skip
    with StackReader(path) as reader:

        def read() -> None:
            for i in range(len(pages)):
                prepare_page(reader.page(i), config.data.transforms, str(i), None)

        reading = median_seconds(read, repeats, device) / len(pages)
    model: Any = build_model(config.model, "multitask").to(device).eval()
    x = torch.randn(4, 3, 512, 512, device=device)
    with torch.inference_mode():
        network = median_seconds(lambda: model(x), repeats, device) / len(x)
    return {
        "infection-mt predict, frame": {
            "read_s": reading,
            "network_s": network,
            "bytes": path.stat().st_size / len(pages),
            "written": 120.0,
        }
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--storage-mb-per-s", type=float, default=1000.0)
    parser.add_argument("--requests-per-s", type=float, default=5000.0)
    parser.add_argument("--network-speed", type=float, default=1.0)
    arguments = parser.parse_args()
    device, repeats = torch.device(arguments.device), 1 if arguments.quick else 5
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, one_thread():
        for measure in (measure_tiles, measure_volumes, measure_frames):
            rates |= measure(Path(name), repeats, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"
    for unit, found in rates.items():
        line(unit=unit, device=name, **found)
    units = {"tile": (SLIDES, TILES_A_SLIDE), "slice": (VOLUMES, SLICES_A_VOLUME)}
    units["frame"] = (FRAMES // FRAMES_A_STACK, FRAMES_A_STACK)
    storage = Storage(arguments.storage_mb_per_s * 1e6, arguments.requests_per_s)
    for unit, found in rates.items():
        items, count = units[unit.rpartition(" ")[2]]
        work = Work(
            items,
            count * (found["read_s"] + found["network_s"] / arguments.network_speed),
            count * found["bytes"],
            count * found["written"],
            spread=0.5,
            startup_s=15.0,
        )
        knee, limit = saturation(work, storage)
        line(
            cohort=unit.rpartition(",")[0], item_s=work.compute_s, saturates_at_workers=knee, saturates=limit
        )
        for workers in WORKERS:
            said, seen = forecast(work, storage, workers), simulate(work, storage, workers)
            line(
                cohort=unit.rpartition(",")[0],
                items=items,
                workers=workers,
                model_hours=said.seconds / 3600,
                simulated_hours=seen.seconds / 3600,
                efficiency=said.efficiency,
                limit=said.limit,
                each_once=bool((seen.done == 1).all() and not seen.twice_at_once),
            )


if __name__ == "__main__":
    main()
