"""MBHSeg volumes → slices that can be loaded: the original's ``process_mbhseg.py``, one case in memory at a time.

A case appears whole or not at all. What is done is remembered, so that a stopped run goes on where it was; a bad case
is reported at the end and stops no other.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aespa.data.reading import N_CLASSES
from aespa.data.records import files_by_name, subfolders
from aespa.errors import DataError
from medshared.batch import Task, run_batch, write_batch_report
from medshared.files import read_json, write_bytes, write_json
from medshared.leases import Shard
from medshared.volumes import Volume, is_volume_name, read_volume, window_hu

logger = logging.getLogger(__name__)

BINARY, MULTI = "MBHSeg-Binary", "MBHSeg-Multi"
REPORT = "process_mbhseg.json"
_DONE = ".process_mbhseg"  # folder of what is known to be finished


@dataclass(frozen=True)
class CaseFiles:
    """The volumes of one case.

    Attributes:
        image: CT in HU.
        raters: Label volume of each rater, by its id.
    """

    image: Path
    raters: dict[str, Path]


def process_mbhseg(
    source: Path,
    out: Path,
    *,
    level: float = 40,
    width: float = 80,
    jobs: int = 1,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> int:
    """Write every slice that a rater outlined, as an image and as masks of each rater.

    Args:
        source: Folder with ``{train,test}/<case>/``: one volume with "image" in its name, and label volumes (0 to 5)
            whose names end with the rater's digit before the first dot.
        out: Gets ``MBHSeg-Binary/`` and ``MBHSeg-Multi/``, and a report as ``process_mbhseg.json``.
        level: Middle of the HU window.
        width: Width of the HU window.
        jobs: Cases at once.
        overwrite: Make finished cases again.
        shard: The part of the cases that this job does.

    Returns:
        0, or 1 when a case failed.

    Raises:
        DataError: The window or the folder cannot be used at all.
    """
    if not width > 0:
        raise DataError(f"width must be above 0 HU, found {width:g}")
    low, high = level - width / 2, level + width / 2
    tasks = [
        _task(split, folder, out, (low, high))
        for split in ("train", "test")
        for folder in _cases(source / split)
    ]
    if not tasks:
        raise DataError(
            f"{source}: no case was found; expected train/<case>/ and test/<case>/ with NIfTI volumes"
        )
    outcomes = run_batch("process_mbhseg", tasks, shard=shard, jobs=jobs, again=overwrite)
    report = REPORT
    if shard is not None and shard.count > 1:  # jobs of several shards write one each
        report = f"process_mbhseg-{shard.index + 1}.json"
    return write_batch_report(out / report, outcomes, shard)


def _cases(folder: Path) -> list[Path]:
    stray = list(files_by_name(folder))
    if stray:
        logger.warning("%s: %d files are no cases and are passed over: %s", folder, len(stray), stray[:5])
    return subfolders(folder)


def _task(split: str, folder: Path, out: Path, window: tuple[float, float]) -> Task:
    done = out / _DONE / split / f"{folder.name}.json"
    _forget_if_removed(done, out, split)
    return Task(
        item=f"{split}/{folder.name}",
        output=done,
        inputs=partial(_inputs, folder, window),
        work=partial(_process_case, split, folder, out, window, done),
    )


def _forget_if_removed(done: Path, out: Path, split: str) -> None:
    """Take a case for unfinished whose folders somebody removed."""
    try:
        n_slices = read_json(done)["slices"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if n_slices and not all(folder.is_dir() for folder in _targets(out, split, done.stem)):
        done.unlink()


def _inputs(folder: Path, window: tuple[float, float]) -> Mapping[str, Any]:
    files = {name: path.stat() for name, path in files_by_name(folder).items() if is_volume_name(name)}
    return {
        "window_hu": list(window),
        "files": {name: [found.st_size, found.st_mtime_ns] for name, found in files.items()},
    }


def _targets(out: Path, split: str, case: str) -> list[Path]:
    """Return the folders of a case. Masks first: the loader lists images, and each must find its masks."""
    return [out / tree / split / kind / case for kind in ("gt", "imgs") for tree in (BINARY, MULTI)]


def find_case(folder: Path) -> CaseFiles:
    """Return the volumes of a case.

    Args:
        folder: Of the case.

    Returns:
        The image and the raters' files, sorted by id.

    Raises:
        DataError: No image or several, no rater, or two files of one rater.
    """
    volumes = {name: path for name, path in files_by_name(folder).items() if is_volume_name(name)}
    images = [path for name, path in volumes.items() if "image" in name]
    if len(images) != 1:
        raise DataError(
            f'{folder}: expected one volume with "image" in its name, found {[p.name for p in images] or "none"} '
            f"among {sorted(volumes) or 'no volumes'}"
        )
    raters: dict[str, Path] = {}
    for name, path in volumes.items():
        if path == images[0]:
            continue
        rater = name.split(".")[0][-1]
        if not rater.isalnum():
            raise DataError(f"{path}: the name must end with the rater's digit before its first dot")
        if rater in raters:
            raise DataError(f"{path}: rater {rater} has a file already: {raters[rater].name}")
        raters[rater] = path
    if not raters:
        raise DataError(f"{folder}: no rater's label volume beside {images[0].name}")
    return CaseFiles(images[0], dict(sorted(raters.items())))


def read_case(files: CaseFiles) -> tuple[Volume, dict[str, NDArray[np.uint8]]]:
    """Read a case and check that its volumes belong together.

    Args:
        files: From `find_case`.

    Returns:
        The image in HU and the labels of each rater, uint8 ``[X, Y, Z]`` in 0..5.

    Raises:
        DataError: Labels out of range, or a label volume of another shape or another place in space.
        VolumeError: A volume cannot be read.
    """
    image = read_volume(files.image)
    labels = {}
    for rater, path in files.raters.items():
        volume = read_volume(path)
        if volume.shape != image.shape:
            raise DataError(
                f"{path}: the labels have {list(volume.shape)} voxels, {files.image.name} has {list(image.shape)}"
            )
        apart = _largest_distance(volume.affine, image.affine, image.shape)
        if apart > 0.5 * min(image.spacing):
            raise DataError(
                f"{path}: its affine puts the labels up to {apart:.3g} mm away from {files.image.name}; resample the "
                "labels to the image"
            )
        low, high = volume.array.min(), volume.array.max()
        if volume.array.dtype.kind == "f" or low < 0 or high >= N_CLASSES:
            raise DataError(
                f"{path}: labels out of range: expected whole numbers 0 to {N_CLASSES - 1}, found {low:g} to {high:g}"
            )
        labels[rater] = volume.array.astype(np.uint8)
    return image, labels


def _largest_distance(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, int, int]) -> float:
    """Return how far, in mm, two affines put the same corner of a volume apart."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())


def _process_case(split: str, folder: Path, out: Path, window: tuple[float, float], done: Path) -> str:
    files = find_case(folder)
    image, labels = read_case(files)
    outlined = np.zeros(image.shape[2], bool)
    for volume in labels.values():
        outlined |= volume.any(axis=(0, 1))
    slices = np.flatnonzero(outlined).tolist()

    targets = _targets(out, split, folder.name)
    unfinished = [target.with_name(f".{target.name}.unfinished") for target in targets]
    for rest in unfinished:
        shutil.rmtree(rest, ignore_errors=True)  # left by a job that was killed
    try:
        for z in slices:
            _write_slice(
                unfinished, image.array[:, :, z], {r: v[:, :, z] for r, v in labels.items()}, z, window
            )
        for target, made in zip(targets, unfinished, strict=True):
            shutil.rmtree(target, ignore_errors=True)
            if slices:
                made.rename(target)
    finally:
        for rest in unfinished:
            shutil.rmtree(rest, ignore_errors=True)
    write_json(done, {"case": folder.name, "raters": list(labels), "slices": slices})
    return f"{len(slices)} slices of {image.shape[2]}, {len(labels)} raters"


def _write_slice(
    folders: list[Path],
    image: NDArray[Any],
    labels: dict[str, NDArray[np.uint8]],
    z: int,
    window: tuple[float, float],
) -> None:
    """Write one slice into the folders of `_targets`. Rows of the picture are the volume's first axis."""
    binary_masks, multi_masks, *images = folders
    picture = _encoded(lambda file: _picture(windowed_bytes(image, *window)).save(file, "PNG"))
    for folder in images:
        write_bytes(folder / f"slice_{z}.png", picture)
    for rater, values in labels.items():
        name = f"slice_{z}_r{rater}.npy"
        binary = (values > 0).astype(np.uint8) * np.uint8(255)
        one_hot = (values[..., None] == np.arange(N_CLASSES, dtype=np.uint8)).astype(np.uint8) * np.uint8(255)
        write_bytes(binary_masks / name, _encoded(partial(_save, binary)))
        write_bytes(multi_masks / name, _encoded(partial(_save, one_hot)))


def windowed_bytes(hu: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return HU in a window as bytes, cut off and not rounded, as the original: ``uint8(255 u)``."""
    return (np.float32(255) * window_hu(hu, low, high)).astype(np.uint8)


def _save(array: NDArray[Any], file: io.BytesIO) -> None:
    np.save(file, array, allow_pickle=False)


def _picture(pixels: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def _encoded(save: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()
