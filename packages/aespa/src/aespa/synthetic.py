"""Drawn images as files, in the layouts of the data sets: what the demonstration and the tests train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aespa.data.refuge import FOLDERS
from aespa.synthetic_drawing import (
    IMAGES_OF_A_PATIENT,
    STYLES,
    Drawn,
    Lesion,
    draw_arrays,
    draw_lesion,
    draw_sample,
    image_rng,
    render,
)
from medshared.files import write_bytes, write_json
from medshared.tables import write_table
from medshared.volumes import write_volume

__all__ = [
    "Drawn",
    "Lesion",
    "draw_arrays",
    "draw_lesion",
    "draw_sample",
    "make_demo_data",
    "render",
    "write_folders",
    "write_lidc",
    "write_mbhseg",
    "write_refuge",
]

SPLITS = ("train", "test")
LIDC_SIDE = 180
CT_SIDE, CT_SLICES = 128, 8


def make_demo_data(out: Path, dataset: str, n_train: int, n_test: int, seed: int) -> Path:
    """Write a drawn data set.

    Args:
        out: Folder of the data set, to be given as ``data_path``.
        dataset: ``LIDC``, ``REFUGE``, ``folders``, or ``MBHSeg`` for raw volumes.
        n_train: Images for training, or cases of a data set of volumes.
        n_test: Images for testing.
        seed: The same seed gives the same files.

    Returns:
        The folder.
    """
    writers: dict[str, Callable[[Path, int, int, int], Path]] = {
        "LIDC": write_lidc,
        "REFUGE": write_refuge,
        "MBHSeg": write_mbhseg,
        "folders": write_folders,
    }
    if dataset not in writers:
        raise ValueError(f"dataset must be one of {sorted(writers)}, found {dataset!r}")
    return writers[dataset](out, n_train, n_test, seed)


def write_lidc(folder: Path, n_train: int, n_test: int, seed: int) -> Path:
    """Write slices of lung nodules: 180 x 180 px, four graders.

    To every ten slices comes one that the first three graders do not all outline: it must be left out again.

    Args:
        folder: Where to; ``{train,test}/{images,gt}/<patient>/`` are made in it.
        n_train: Slices for training that all graders outline.
        n_test: Slices for testing that all graders outline.
        seed: The same seed gives the same files.

    Returns:
        The folder.
    """
    patient = 0
    for part, (split, n) in enumerate(zip(SPLITS, (n_train, n_test), strict=True)):
        for i in range(n + n // 10):
            patient += i % IMAGES_OF_A_PATIENT == 0
            drawn = draw_sample(image_rng(seed, part, i), LIDC_SIDE)
            case, name = f"LIDC-IDRI-{patient:04d}", f"z-{100 + 5 * i:.1f}_c0"
            write_png(folder / split / "images" / case / f"{name}.png", drawn.pixels)
            for rater, mask in enumerate(drawn.masks):
                # Slices beyond the number asked for are those without an outline of grader 1.
                outlined = mask & (i < n or rater != 1)
                write_png(folder / split / "gt" / case / f"{name}_l{rater}.png", outlined)
    return folder


def write_refuge(
    folder: Path, n_train: int, n_test: int, seed: int, *, height: int = 240, width: int = 300
) -> Path:
    """Write fundus images: the lesion's rim is the disc and its core the cup, outlined by seven raters.

    Raters 1 to 3 outline as the first three styles; 4 to 7 as the standard one, shifted by one pixel each way.

    Args:
        folder: Where to; ``{Training-400,Test-400}/<name>/`` are made in it.
        n_train: Images for training.
        n_test: Images for testing.
        seed: The same seed gives the same files.
        height: Of the images, in pixels.
        width: Of the images, in pixels, at least the height: the eye is in the middle of a dark frame.

    Returns:
        The folder.
    """
    for part, (split, n) in enumerate(zip(FOLDERS.values(), (n_train, n_test), strict=True)):
        for i in range(n):
            rng = image_rng(seed, part, i)
            lesion = draw_lesion(rng)
            disc = render(lesion, rng, height)
            cup = render(replace(lesion, radius=lesion.radius / 2), rng, height)
            name = f"{'gT'[part]}{i:04d}"
            left = (width - height) // 2
            picture = np.zeros((height, width, 3), np.uint8)
            # An orange eye: the channels differ, as those of a photograph do.
            picture[:, left : left + height] = np.rint(disc.image[..., None] * np.array([255, 170, 90]))
            write_bytes(folder / split / name / f"{name}.jpg", _encoded(picture, "JPEG", quality=95))
            for structure, drawn in (("disc", disc), ("cup", cup)):
                for rater, mask in enumerate(_seven(drawn.masks), start=1):
                    framed = np.zeros((height, width), bool)
                    framed[:, left : left + height] = mask
                    write_png(folder / split / name / f"{name}_seg_{structure}_{rater}.png", framed)
    return folder


def _seven(masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    standard = masks[1]
    moved = [np.roll(standard, step, axis) for axis in (0, 1) for step in (1, -1)]
    return [masks[0], standard, masks[2], *moved]


def write_mbhseg(folder: Path, n_train: int, n_test: int, seed: int) -> Path:
    """Write head CT volumes of 128 x 128 x 8 voxels, to be cut into slices by `aespa.prepare.mbhseg`.

    A lesion is a ball through six slices; what is beside it is of another class. Every case has its own affine, oblique
    and some of them mirrored. Of the four raters of the training cases, the last outlined every second and the second
    all but every fourth case; test cases have three raters.

    Args:
        folder: Where to; ``{train,test}/<case>/`` are made in it.
        n_train: Cases for training.
        n_test: Cases for testing.
        seed: The same seed gives the same files.

    Returns:
        The folder.
    """
    for part, (split, n) in enumerate(zip(SPLITS, (n_train, n_test), strict=True)):
        for i in range(n):
            rng = image_rng(seed, part, i)
            hu, labels = _draw_volume(rng, 1 + i % 5)
            affine = _oblique_affine(rng)
            case = folder / split / f"ID_{split}{i:03d}"
            raters = [
                r for r in range(4) if (split == "test" and r < 3) or (split == "train" and _has_file(i, r))
            ]
            for rater in raters:
                write_volume(case / f"label_annot_{rater + 1}.nii.gz", labels[rater], affine)
            write_volume(case / "image.nii.gz", hu, affine)
    return folder


def _has_file(case: int, rater: int) -> bool:
    return {1: case % 4 != 3, 3: case % 2 == 0}.get(rater, True)


def _draw_volume(rng: np.random.Generator, kind: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return HU ``[128, 128, 8]`` within 0..80 but for a ring of bone, and labels ``[4, 128, 128, 8]``."""
    lesion = draw_lesion(rng)
    beside = 1 + kind % 5
    hu = np.empty((CT_SIDE, CT_SIDE, CT_SLICES), np.int16)
    labels = np.zeros((4, *hu.shape), np.uint8)
    for z in range(CT_SLICES):
        above = (z - (CT_SLICES - 1) / 2) / (CT_SLICES / 2 - 1)
        drawn = render(lesion, rng, CT_SIDE, scale=float(np.sqrt(max(0.0, 1 - above**2))))
        hu[..., z] = np.rint(80 * drawn.image)
        for rater, mask in enumerate(drawn.masks):
            labels[rater][..., z] = np.where(mask & drawn.satellite, beside, kind * mask)
    hu[:2], hu[-2:] = 1000, -1000  # bone and air: outside any window of the brain
    return hu, labels


def _oblique_affine(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return an affine of 0.5 x 0.5 x 5 mm voxels, tilted by up to 20 degrees, mirrored in half of the cases."""
    tilt = rng.uniform(-0.35, 0.35)
    turned = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([0.5 * rng.choice([-1.0, 1.0]), 0.5, 5.0])
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


def write_folders(folder: Path, n_train: int, n_test: int, seed: int, *, size: int = 96) -> Path:
    """Write own data: ``images/``, ``raters/<style>/``, ``splits.json`` and ``patients.csv``.

    The liberal rater did not outline every fifth image.

    Args:
        folder: Where to.
        n_train: Images for training.
        n_test: Images for testing.
        seed: The same seed gives the same files.
        size: Side of the images in pixels.

    Returns:
        The folder.
    """
    names: dict[str, list[str]] = {}
    rows = []
    for part, (split, n) in enumerate(zip(SPLITS, (n_train, n_test), strict=True)):
        names[split] = [f"{split}_{i:04d}" for i in range(n)]
        for i, name in enumerate(names[split]):
            drawn = draw_sample(image_rng(seed, part, i), size)
            write_png(folder / "images" / f"{name}.png", drawn.pixels)
            for rater, style in enumerate(STYLES[:3]):
                if rater != 2 or i % 5 != 4:
                    write_png(folder / "raters" / style / f"{name}.png", drawn.masks[rater])
            rows.append({"name": name, "patient": f"{split}_{i // IMAGES_OF_A_PATIENT:04d}"})
    write_json(folder / "splits.json", names)
    write_table(folder / "patients.csv", rows)
    return folder


def write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    """Write bytes ``[H, W]`` or ``[H, W, 3]``, or a mask as 0 and 255."""
    write_bytes(path, _encoded(pixels, "PNG", compress_level=1))


def _encoded(pixels: NDArray[np.uint8] | NDArray[np.bool_], kind: str, **options: int) -> bytes:
    from PIL import Image

    content = BytesIO()
    grey = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    Image.fromarray(grey).save(content, kind, **options)
    return content.getvalue()
