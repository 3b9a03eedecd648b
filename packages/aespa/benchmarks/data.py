"""Speed of reading data: one JSON line a workload. ``--quick`` for a fast look.

The plain sides are written out here. Images: the four files of an item are opened, resized and made tensors one after
the other, again in every epoch, as a loader without workers does. Volumes: whole cases in float64, pictures of all
cases kept in memory and written once for each of the two trees. Both sides run in this process, alternating, on the
same files, and give the same numbers. Seconds are processor seconds of the fastest round but for the workload with
threads, where they are seconds of the clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from aespa.config import Config
from aespa.data.arrays import load_arrays
from aespa.data.lidc import find_lidc, keep_outlined
from aespa.data.loading import load_resized
from aespa.data.records import Record
from aespa.prepare.mbhseg import BINARY, MULTI, process_mbhseg
from aespa.synthetic import write_lidc
from medshared.volumes import write_volume

SIDE, BATCH = 128, 16


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def fastest(
    sides: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Run the sides in turn and return the seconds of each one's fastest round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return {name: min(values) for name, values in seconds.items()}


def plain_item(record: Record) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image ``[3, S, S]`` and masks ``[R, S, S]`` of one item, from its files."""

    def resized(path: Path | None, mode: str) -> torch.Tensor:
        assert path is not None
        with Image.open(path) as opened:
            small = opened.convert(mode).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        array = np.asarray(small)
        array = array[..., None] if array.ndim == 2 else array
        return torch.from_numpy(array.transpose(2, 0, 1).copy()).float() / 255

    masks = [(resized(path, "L") >= 0.5).float()[0] for path in record.raters]
    return resized(record.image, "RGB"), torch.stack(masks)


def plain_epoch(records: list[Record]) -> torch.Tensor:
    """Go through all batches; return the sums that the other side must reach too."""
    total = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(records), BATCH):
        items = [plain_item(record) for record in records[start : start + BATCH]]
        images, masks = torch.stack([i for i, _ in items]), torch.stack([m for _, m in items])
        total += torch.stack([images.double().sum(), masks.double().sum()])
    return total


def cached_epoch(arrays) -> torch.Tensor:
    """Go through all batches of arrays in memory."""
    total = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(arrays), BATCH):
        batch = arrays.batch(range(start, min(start + BATCH, len(arrays))))
        total += torch.stack([batch.images.double().sum(), batch.raters.double().sum()])
    return total


def epochs(folder: Path, n: int, repeats: int) -> None:
    """An epoch from arrays in memory, and from a file mapped into it, against decoding anew."""
    write_lidc(folder, n, 0, seed=0)
    config = Config(dataset="LIDC", data_path=folder, image_size=SIDE, w=1)
    records = keep_outlined(config, "train", find_lidc(config, "train"))
    memory = load_arrays(config, "train")
    disk = load_arrays(config.model_copy(update={"cache": "disk"}), "train")
    expected = plain_epoch(records)
    assert torch.equal(expected, cached_epoch(memory))
    assert torch.equal(expected, cached_epoch(disk))
    seconds = fastest(
        {
            "plain": lambda: plain_epoch(records),
            "memory": lambda: cached_epoch(memory),
            "disk": lambda: cached_epoch(disk),
        },
        repeats,
    )
    line(
        "epoch_of_batches",
        images=len(records),
        image_size=SIDE,
        decoded_every_epoch_s=seconds["plain"],
        memory_s=seconds["memory"],
        disk_s=seconds["disk"],
        times_faster_memory=seconds["plain"] / seconds["memory"],
        times_faster_disk=seconds["plain"] / seconds["disk"],
        bytes_an_image=int(memory.images[:, 0].nbytes + memory.masks.nbytes) // len(memory),
        equal=True,
    )


def threads(folder: Path, repeats: int) -> None:
    """Decode and resize a whole split once, with one thread and with more; by the clock."""
    config = Config(dataset="LIDC", data_path=folder, image_size=SIDE)
    n = len(load_resized(config, "train").records)
    sides = {
        f"{w}_threads": (lambda w=w: load_resized(config.model_copy(update={"w": w}), "train"))
        for w in (1, 2, 4)
    }
    seconds = fastest(sides, repeats, time.perf_counter)
    line(
        "decode_and_resize",
        images=n,
        files_an_image=4,
        **{f"images_a_second_{name}": n / value for name, value in seconds.items()},
    )


def plain_process(source: Path, out: Path, raters: int) -> None:
    """Cut volumes into slices with everything in memory."""
    pictures: dict[str, np.ndarray] = {}
    for case in sorted((source / "train").iterdir()):
        volume = np.asarray(nibabel.load(case / "image.nii.gz").get_fdata(), np.float32)  # type: ignore[attr-defined]
        labels = [nibabel.load(case / f"label_{r}.nii.gz").get_fdata() for r in range(raters)]  # type: ignore[attr-defined]
        for z in range(volume.shape[2]):
            if not sum(each[:, :, z].sum() for each in labels):
                continue
            pictures[f"{case.name}/slice_{z}"] = (np.clip(volume[:, :, z] / 80, 0, 1) * 255).astype(np.uint8)
            for tree in (BINARY, MULTI):
                folder = out / tree / "train/gt" / case.name
                folder.mkdir(parents=True, exist_ok=True)
                for r, each in enumerate(labels):
                    one_hot = np.stack([np.abs(each[:, :, z] - c) < 1e-6 for c in range(6)], axis=-1)
                    mask = one_hot if tree == MULTI else each[:, :, z] > 0
                    np.save(folder / f"slice_{z}_r{r}.npy", mask.astype(np.uint8) * np.uint8(255))
    for tree in (BINARY, MULTI):
        for name, picture in pictures.items():
            path = out / tree / "train/imgs" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def volumes(folder: Path, size: int, repeats: int) -> None:
    """Cut two cases of 24 slices with three raters."""
    rng = np.random.default_rng(0)
    for case in range(2):
        home = folder / "raw/train" / f"case_{case}"
        hu = rng.normal(40, 30, (size, size, 24)).astype(np.float32)
        write_volume(home / "image.nii.gz", hu, np.eye(4))
        for rater in range(3):
            labels = np.zeros((size, size, 24), np.uint8)
            labels[size // 4 : size // 2, size // 4 : size // 2 + rater, 2:22] = 1 + case
            write_volume(home / f"label_{rater}.nii.gz", labels, np.eye(4))

    def ours() -> None:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        assert process_mbhseg(folder / "raw", folder / "ours") == 0

    def plain() -> None:
        shutil.rmtree(folder / "plain", ignore_errors=True)
        plain_process(folder / "raw", folder / "plain", 3)

    seconds = fastest({"plain": plain, "ours": ours}, repeats)
    files = [path.relative_to(folder / "plain") for path in (folder / "plain").rglob("slice_*")]
    for file in files:
        read = np.load if file.suffix == ".npy" else Image.open
        assert np.array_equal(*(np.asarray(read(folder / side / file)) for side in ("plain", "ours")))
    line(
        "process_mbhseg",
        cases=2,
        size=size,
        files=len(files),
        everything_in_memory_s=seconds["plain"],
        case_by_case_s=seconds["ours"],
        times_faster=seconds["plain"] / seconds["ours"],
        equal=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    repeats = 2 if quick else 5
    with tempfile.TemporaryDirectory() as home:
        epochs(Path(home) / "LIDC", 64 if quick else 512, repeats)
        threads(Path(home) / "LIDC", repeats)
        volumes(Path(home), 64 if quick else 256, repeats)


if __name__ == "__main__":
    main()
