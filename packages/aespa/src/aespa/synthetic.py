"""Drawn images as files, in the layouts of the data sets: what the demonstration and the tests train on."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aespa.synthetic_drawing import (
    IMAGES_OF_A_PATIENT,
    Drawn,
    Lesion,
    draw_arrays,
    draw_lesion,
    draw_sample,
    image_rng,
    render,
)
from medshared.files import write_bytes

__all__ = [
    "Drawn",
    "Lesion",
    "draw_arrays",
    "draw_lesion",
    "draw_sample",
    "make_demo_data",
    "render",
    "write_lidc",
]

SPLITS = ("train", "test")
LIDC_SIDE = 180


def make_demo_data(out: Path, dataset: str, n_train: int, n_test: int, seed: int) -> Path:
    """Write a drawn data set.

    Args:
        out: Folder of the data set, to be given as ``data_path``.
        dataset: Name of its layout.
        n_train: Images for training, or cases of a data set of volumes.
        n_test: Images for testing.
        seed: The same seed gives the same files.

    Returns:
        The folder.
    """
    writers: dict[str, Callable[[Path, int, int, int], Path]] = {"LIDC": write_lidc}
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


def write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    """Write bytes ``[H, W]`` or ``[H, W, 3]``, or a mask as 0 and 255."""
    write_bytes(path, _encoded(pixels, "PNG", compress_level=1))


def _encoded(pixels: NDArray[np.uint8] | NDArray[np.bool_], kind: str, **options: int) -> bytes:
    from PIL import Image

    content = BytesIO()
    grey = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    Image.fromarray(grey).save(content, kind, **options)
    return content.getvalue()
