"""Speed and memory of the parts that decide how long a run takes; one JSON line a workload.

Both sides of a comparison run in this process, alternating, on the same frames, and give the same pixels. Memory is the
peak of a fresh process's allocations. Run with ``nox -s bench``; ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from infection_mt.config import Config
from infection_mt.data.frames import Augmentation
from infection_mt.data.loading import iterate_batches
from infection_mt.data.pages import page_to_image, prepare_image
from infection_mt.data.prepare import prepare_data
from infection_mt.losses import multitask_loss
from infection_mt.training import RunOptions, Trainer
from medshared.images import StackPool
from medshared.runs import RunDirectory


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


def write_stacks(folder: Path, *, n: int, pages: int, shape: tuple[int, int]) -> tuple[Path, Path]:
    """Write gray 16-bit stacks in the two-folder layout."""
    rng = np.random.default_rng(0)
    for name, well in (("infected", "b2"), ("uninfected", "c4")):
        (folder / name).mkdir(parents=True)
        for position in range(n):
            page = rng.integers(200, 12000, (pages, *shape), dtype=np.uint16)
            path = folder / name / f"bench_s5_{well}_p{position}_t0-{pages - 1}_ec.tiff"
            tifffile.imwrite(path, page, photometric="minisblack")
    return folder / "infected", folder / "uninfected"


def make_config(folder: Path, folders: tuple[Path, Path], **data: object) -> Config:
    """Return a configuration over the benchmark's stacks."""
    return Config.model_validate(
        {
            "output_dir": folder / "out",
            "data": {
                "infected_dir": folders[0],
                "uninfected_dir": folders[1],
                "num_workers": 0,
                "split_ratios": [0.5, 0.25, 0.25],
                "frames": {"infected_window_hours": [1, 48], "uninfected_window_hours": [0, 48]},
                **data,
            },
            "model": {"name": "resnet18", "pretrained": False, "hidden_dim": 64},
        }
    )


def bench_reading(folder: Path, repeats: int, pages: int) -> None:
    """Prepared training frames: cached, through open handles, and opening the file for every frame."""
    folders = write_stacks(folder / "reading", n=4, pages=pages, shape=(812, 928))
    config = make_config(folder, folders, transforms={"image_size": 512})
    data = prepare_data(config)
    table, transforms = data.tables["train"], config.data.transforms
    chosen = np.random.default_rng(1).permutation(len(table))[:32]
    pool = StackPool()

    def prepared(page: np.ndarray) -> np.ndarray:
        return prepare_image(page_to_image(page), transforms)[..., 0]

    def opening() -> list[np.ndarray]:
        frames = []
        for i in chosen:
            with tifffile.TiffFile(table.metadata(int(i))["path"]) as file:
                frames.append(prepared(file.pages[int(table.frame_index[i])].asarray()))
        return frames

    def handles() -> list[np.ndarray]:
        return [
            prepared(pool.page(Path(table.metadata(int(i))["path"]), int(table.frame_index[i])))
            for i in chosen
        ]

    def cached() -> torch.Tensor:
        return data.store.batch(table, chosen)

    reference = np.stack(opening())
    assert np.array_equal(reference, cached().numpy()[:, 0]), "the cached frames differ"
    assert np.array_equal(reference, np.stack(handles())), "the frames through open handles differ"
    seconds = medians({"opening": opening, "handles": handles, "cached": cached}, repeats)
    per_frame = {name: 1e3 * value / len(chosen) for name, value in seconds.items()}
    line(
        "read_prepared_frames_812x928_to_512",
        opening_ms=per_frame["opening"],
        handles_ms=per_frame["handles"],
        cached_ms=per_frame["cached"],
        ratio_handles=seconds["opening"] / seconds["handles"],
        ratio_cached=seconds["opening"] / seconds["cached"],
        equal_pixels=True,
    )
    raw = medians(
        {
            "opening": lambda: [
                _open_and_read(table.metadata(int(i))["path"], int(table.frame_index[i])) for i in chosen
            ],
            "handles": lambda: [
                pool.page(Path(table.metadata(int(i))["path"]), int(table.frame_index[i])) for i in chosen
            ],
        },
        repeats,
    )
    line(
        "read_raw_pages_812x928",
        ratio_handles=raw["opening"] / raw["handles"],
        handles_ms=1e3 * raw["handles"] / 32,
    )


def _open_and_read(path: str, index: int) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        return file.pages[index].asarray()


def bench_epoch(folder: Path, repeats: int) -> None:
    """One training epoch: ours, and a plain loop that opens, decodes and augments each frame on the main thread."""
    folders = write_stacks(folder / "epoch", n=4, pages=12, shape=(812, 928))
    size = {"image_size": 64, "random_flip": True, "random_rotation": True}
    config = make_config(folder, folders, transforms=size, batch_size=16)
    run = RunDirectory(folder / "run").create({})
    trainer = Trainer(config.resolved(), prepare_data(config), run, RunOptions(device="cpu"))
    table = trainer.data.tables["train"]
    rng = np.random.default_rng(0)

    class NoStop:
        requested, name = False, None

    def ours() -> None:
        trainer.train_epoch(1, NoStop())  # type: ignore[arg-type]

    def plain() -> None:
        order = rng.permutation(len(table))
        trainer.model.train()
        for start in range(0, len(order), 16):
            rows = order[start : start + 16]
            images = np.stack([_plain_frame(table, int(i), rng) for i in rows])
            x = (torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255 - 0.5) / 0.25
            trainer.step(torch.from_numpy(rows), x, trainer.columns["train"])

    seconds = medians({"plain": plain, "ours": ours}, repeats)
    line("train_epoch_resnet18_812x928_to_64px", frames=len(table), **{f"{k}_s": v for k, v in seconds.items()},
         ratio=seconds["plain"] / seconds["ours"])  # fmt: skip
    bench_step(trainer, repeats)


def _plain_frame(table: object, i: int, rng: np.random.Generator) -> np.ndarray:
    meta = table.metadata(i)  # type: ignore[attr-defined]
    page = _open_and_read(meta["path"], int(meta["frame_index"])).astype(np.float32)
    page -= page.min()
    page /= max(page.max(), 1e-9)
    image = Image.fromarray(np.repeat((page * 255).astype(np.uint8)[..., None], 3, axis=2))
    image = image.resize((64, 64), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return np.asarray(image.rotate(rng.uniform(-15, 15)))


def bench_step(trainer: Trainer, repeats: int) -> None:
    """A full training step from the cache against the bare model's forward, loss, backward and update."""
    table, columns = trainer.data.tables["train"], trainer.columns["train"]
    rows = np.arange(16)
    augmentation = Augmentation(trainer.config.data.transforms)
    draws = augmentation.draw(len(table), seed=0, epoch=1)
    ready = trainer._input(trainer.data.store.batch(table, rows))
    network, optimizer = trainer.network, torch.optim.AdamW(trainer.network.parameters(), lr=1e-4)
    index = torch.from_numpy(rows)
    label, target = columns["label"][index], columns["target"][index]
    batches = [rows] * 8

    def bare() -> None:
        network.train()
        for _ in batches:
            optimizer.zero_grad(set_to_none=True)
            multitask_loss(*network(ready), label, target).total.backward()
            optimizer.step()

    def whole() -> None:
        trainer.model.train()
        for indices, frames in iterate_batches(trainer.data.store, table, batches):
            images = augmentation.apply(frames, draws, indices)
            trainer.step(torch.from_numpy(indices), trainer._input(images), columns)

    seconds = medians({"bare": bare, "whole": whole}, max(repeats, 5))
    line("train_step_resnet18_64px_batch16", bare_ms=1e3 * seconds["bare"] / 8, whole_ms=1e3 * seconds["whole"] / 8,
         overhead=seconds["whole"] / seconds["bare"] - 1)  # fmt: skip


MEMORY = """
import sys, tracemalloc
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, {here!r})
from speed import make_config
from infection_mt.data.prepare import prepare_data
config = make_config(Path({folder!r}), (Path({a!r}), Path({b!r})), transforms={{"image_size": 256}}, cache={cache!r})
data = prepare_data(config)
table = data.tables["train"]
import tifffile, imagecodecs, PIL.Image  # libraries are loaded before the count begins
tracemalloc.start()
for start in range(0, 64, 16):
    data.store.batch(table, np.linspace(0, len(table) - 1, 16).astype(int))
print(tracemalloc.get_traced_memory()[1])
"""


def bench_memory(folder: Path) -> None:
    """Peak of Python's and NumPy's allocations while the cache is built and read, stacks of 20 and of 200 pages."""
    for cache in ("disk", "off"):
        growth = {}
        for pages in (20, 200):
            place = folder / f"memory_{cache}_{pages}"
            a, b = write_stacks(place, n=4, pages=pages, shape=(256, 256))
            code = MEMORY.format(
                here=str(Path(__file__).parent), folder=str(place), a=str(a), b=str(b), cache=cache
            )
            out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            growth[pages] = int(out.stdout) / 2**20
        line("peak_allocation", cache=cache, mb_20_pages=growth[20], mb_200_pages=growth[200])


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    repeats = 2 if quick else 5
    line("machine", threads=torch.get_num_threads(), torch=torch.__version__)
    with tempfile.TemporaryDirectory() as name:
        bench_reading(Path(name), repeats, pages=12 if quick else 40)
        bench_epoch(Path(name), repeats)
        bench_memory(Path(name))


if __name__ == "__main__":
    main()
