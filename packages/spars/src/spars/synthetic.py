"""Synthetic CT with known truth: a body, a liver, a tumour, in the layout of MSD Task03_Liver.

The recipe is stated for 48 × 48 × 32 voxels of 1 mm and scales with the volume. Files come in several voxel sizes,
with flipped, exchanged and tilted axes, so that only a reader that honours the affine sees the same anatomy in all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_json
from medshared.gpu import derive_seed
from medshared.process import progress
from medshared.tables import write_table
from medshared.volumes import write_volume
from spars.errors import DataError

logger = logging.getLogger(__name__)

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]

HU_WINDOW = (-60.0, 160.0)  # that suits the recipe
WINDOW = (12, 12, 8)  # voxels of the classifier's window at the reference size
SIZE: Size = (48, 48, 32)  # the reference size in voxels, and the field of view in millimetres
TUMOUR_VOXELS = 150  # at least, at the reference size

_AIR, _BODY, _LIVER, _TUMOUR, _NOISE = -1000.0, 60.0, 100.0, 10.0, 15.0  # HU
_BODY_RADII = (22.0, 22.0, 18.0)
_LIVER_RADII = (16.0, 16.0, 11.0)
_LIVER_CENTRE = ((18.0, 29.0), (18.0, 29.0), (12.0, 20.0))
_TUMOUR_RADII = ((4.0, 7.0), (4.0, 7.0), (3.0, 5.0))
# Voxel sizes that divide the field of view of the reference size.
_SPACINGS: tuple[Spacing, ...] = ((1.0, 1.0, 1.0), (0.8, 0.8, 1.0), (1.0, 1.0, 1.6), (1.2, 1.2, 1.0))
_TILT = 12.0  # degrees at most, about each axis: the closest canonical axes stay unambiguous
_PERMUTED = 5  # every so many cases have their axes exchanged


@dataclass(frozen=True)
class SyntheticSet:
    """What was written.

    Attributes:
        folder: Root of the data set.
        splits: Case names of ``train``, ``val`` and ``test``.
        labels: 1 for a case with a tumour, else 0.
    """

    folder: Path
    splits: dict[str, list[str]]
    labels: dict[str, int]


def draw_case(
    rng: np.random.Generator, size: Size = SIZE, tumour: bool = True
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one volume in canonical axes.

    Args:
        rng: Source of every random number; the same state gives the same case.
        size: Voxels, at least 8 along each axis; the anatomy scales with them.
        tumour: Whether the liver has one.

    Returns:
        The image in HU, int16 ``size``, and the labels 0 background, 1 liver, 2 tumour, uint8 ``size``.

    Raises:
        DataError: The size is too small.
    """
    if min(size) < 8:
        raise DataError(
            f"a synthetic volume needs at least 8 voxels along each axis, found {'×'.join(map(str, size))}"
        )
    scale = np.divide(size, SIZE)
    # Voxel centres in the reference frame, where the recipe's numbers hold.
    axes = [(np.arange(n) + 0.5) / s - 0.5 for n, s in zip(size, scale, strict=True)]
    liver_centre = np.array([rng.uniform(*limits) for limits in _LIVER_CENTRE])
    liver = _ellipsoid(axes, liver_centre, np.array(_LIVER_RADII))
    image = np.full(size, _AIR, np.float32)
    image[_ellipsoid(axes, np.array(SIZE) / 2, np.array(_BODY_RADII))] = _BODY
    image[liver] = _LIVER
    label = liver.astype(np.uint8)
    if tumour:
        lesion = _tumour(rng, axes, liver, liver_centre, round(TUMOUR_VOXELS * float(np.prod(scale))))
        image[lesion] = _TUMOUR
        label[lesion] = 2
    image += rng.standard_normal(size, dtype=np.float32) * np.float32(_NOISE)
    return np.rint(image).astype(np.int16), label


def _ellipsoid(
    axes: list[NDArray[np.float64]], centre: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.bool_]:
    a, b, c = (((axis - m) / r) ** 2 for axis, m, r in zip(axes, centre, radii, strict=True))
    return a[:, None, None] + b[None, :, None] + c[None, None, :] <= 1


def _tumour(
    rng: np.random.Generator,
    axes: list[NDArray[np.float64]],
    liver: NDArray[np.bool_],
    liver_centre: NDArray[np.float64],
    at_least: int,
) -> NDArray[np.bool_]:
    """Draw an ellipsoid within the liver until it has enough voxels there."""
    while True:
        radii = np.array([rng.uniform(*limits) for limits in _TUMOUR_RADII])
        direction = rng.standard_normal(3)
        within = direction / np.linalg.norm(direction) * rng.uniform() ** (1 / 3)  # uniform in the unit ball
        lesion = _ellipsoid(axes, liver_centre + within * (np.array(_LIVER_RADII) - radii), radii) & liver
        if np.count_nonzero(lesion) >= at_least:
            return lesion


def write_synthetic(
    folder: Path,
    n_train: int = 32,
    n_val: int = 8,
    n_test: int = 16,
    size: Size = SIZE,
    seed: int = 0,
    geometry: Literal["mixed", "plain"] = "mixed",
) -> SyntheticSet:
    """Write a data set: ``imagesTr``, ``labelsTr``, ``dataset.json``, ``splits.json``, ``labels.csv``.

    Every fourth training volume has no tumour; all others have one.

    Args:
        folder: Target, created.
        n_train: Training volumes.
        n_val: Validation volumes.
        n_test: Test volumes.
        size: Voxels of 1 mm that the field of view holds; files of other voxel sizes have other shapes.
        seed: Of every random choice; a case depends on it and on its own number only.
        geometry: ``mixed`` = several voxel sizes, flipped, exchanged and tilted axes; ``plain`` = 1 mm voxels and
            axes that are those of the patient.

    Returns:
        Names and labels.
    """
    counts = {"train": n_train, "val": n_val, "test": n_test}
    names = [f"liver_{k}" for k in range(sum(counts.values()))]
    labels: dict[str, int] = {}
    for k, name in enumerate(progress(names, description="drawing volumes")):
        labels[name] = int(k >= n_train or k % 4 != 3)
        rng = np.random.default_rng(derive_seed(seed, "synthetic", k))
        image, label, affine = _draw_file(rng, size, bool(labels[name]), k, geometry)
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", label, affine)
        write_volume(folder / "imagesTr" / f"{name}.nii.gz", image, affine)
    splits: dict[str, list[str]] = {}
    first = 0
    for part, n in counts.items():
        splits[part] = names[first : first + n]
        first += n
    write_table(folder / "labels.csv", [{"case": name, "label": labels[name]} for name in names])
    write_json(folder / "dataset.json", _description(names))
    write_json(folder / "splits.json", {**splits, "seed": seed})
    logger.info("%s: %d synthetic volumes, %d with a tumour", folder, len(names), sum(labels.values()))
    return SyntheticSet(folder, splits, labels)


def _draw_file(
    rng: np.random.Generator, size: Size, tumour: bool, k: int, geometry: str
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Draw a case as a scanner might store it."""
    if geometry == "plain":
        image, label = draw_case(rng, size, tumour)
        return image, label, np.eye(4)
    spacing = _SPACINGS[(k + k // 4) % len(_SPACINGS)]  # not in step with the cases that have no tumour
    x, y, z = (max(8, round(n / each)) for n, each in zip(size, spacing, strict=True))
    image, label = draw_case(rng, (x, y, z), tumour)
    axes = rng.permutation(3) if k % _PERMUTED == _PERMUTED - 1 else np.arange(3)
    flipped = [axis for axis in range(3) if rng.uniform() < 0.5]
    affine = _tilted(rng, np.divide(size, (x, y, z)), (x, y, z)) @ _stored_axes((x, y, z), axes, flipped)

    def stored(array: NDArray) -> NDArray:
        return np.ascontiguousarray(np.flip(array, tuple(flipped)).transpose(axes))

    return stored(image), stored(label), affine


def _tilted(rng: np.random.Generator, spacing: NDArray[np.float64], shape: Size) -> NDArray[np.float64]:
    """Return an affine of tilted canonical axes with the volume's middle near the origin."""
    rotation = np.eye(3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(rng.uniform(-_TILT, _TILT))
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = rng.uniform(-50, 50, 3) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _stored_axes(shape: Size, axes: NDArray[np.int64], flipped: list[int]) -> NDArray[np.float64]:
    """Return the matrix from voxels of the stored array to those of the canonical one."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for stored, canonical in enumerate(axes):
        matrix[canonical, stored] = -1 if canonical in flipped else 1
        matrix[canonical, 3] = shape[canonical] - 1 if canonical in flipped else 0
    return matrix


def _description(names: list[str]) -> dict[str, object]:
    return {
        "name": "synthetic liver",
        "description": "ellipsoids of body, liver and tumour",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": len(names),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names
        ],
        "test": [],
    }
