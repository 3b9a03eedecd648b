"""Volumes read, checked and turned to canonical axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medshared.volumes import Volume, VolumeError, from_canonical, read_volume, to_canonical, voxel_spacing
from spars.data.cache import Arrays, cached_arrays, source_key
from spars.data.layout import Case
from spars.errors import DataError

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]

_CACHE_VERSION = 1
_SAME_PLACE = 0.1  # voxels by which image and label may lie apart


class VolumeSettings(Protocol):
    """The keys of a configuration that say how volumes are read; both configurations have them."""

    @property
    def label_map(self) -> Mapping[int, int] | None: ...  # noqa: D102

    @property
    def cache_dir(self) -> Path | None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class CaseVolume:
    """One case in canonical axes.

    Attributes:
        name: Of the case.
        image: HU ``[X, Y, Z]``, int16, or float32 where HU are not whole.
        label: uint8 ``[X, Y, Z]``, 0 background, 1 liver, 2 tumour; null = none known.
        affine: float64 ``[4, 4]`` of these arrays.
        orientation: int64 ``[3, 2]``, how the file's axes became these (`medshared.volumes.to_canonical`).
        source_affine: float64 ``[4, 4]`` of the file.
    """

    name: str
    image: NDArray[Any]
    label: NDArray[np.uint8] | None
    affine: NDArray[np.float64]
    orientation: NDArray[np.int64]
    source_affine: NDArray[np.float64]

    @property
    def spacing(self) -> Spacing:
        """Voxel size in millimetres along the canonical axes."""
        return voxel_spacing(self.affine)

    @property
    def shape(self) -> Size:
        """Number of voxels along the canonical axes."""
        x, y, z = self.image.shape
        return x, y, z

    def in_source(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array of these axes, such as the label, in those of the file."""
        return from_canonical(array, self.orientation)


def read_image(case: Case) -> Volume:
    """Read the image of a case, NIfTI or a folder of DICOM slices, as stored.

    Args:
        case: From `spars.data.layout.find_cases`.

    Raises:
        DataError: It is missing or cannot be used.
    """
    try:
        if case.image.is_dir():
            from spars.data.dicom import read_series

            return read_series(case.image)
        return read_volume(case.image)
    except (VolumeError, FileNotFoundError) as error:
        raise DataError(str(error)) from error


def read_label(case: Case, label_map: Mapping[int, int] | None = None) -> Volume:
    """Read the voxel labels of a case as stored.

    Args:
        case: With a label.
        label_map: Value of the file to 0 background, 1 liver, 2 tumour; null = they are these already.

    Returns:
        uint8, only 0, 1 and 2.

    Raises:
        DataError: There is none, it cannot be read, or it holds other values.
    """
    if case.label is None:
        raise DataError(f"{case.image}: case {case.name!r} has no voxel labels")
    try:
        label = read_volume(case.label)
    except (VolumeError, FileNotFoundError) as error:
        raise DataError(str(error)) from error
    known = {0: 0, 1: 1, 2: 2} if label_map is None else dict(label_map)
    found = np.unique(label.array)
    other = [float(value) for value in found if value not in known]
    if other:
        listed = ", ".join(f"{value:g}" for value in other[:5]) + (", …" if len(other) > 5 else "")
        raise DataError(
            f"{case.label}: labels must be {', '.join(map(str, sorted(known)))}, found also {listed}; "
            "set label_map to say what each value is (0 background, 1 liver, 2 tumour)"
        )
    array = np.zeros(label.shape, np.uint8)
    for value in found:
        array[label.array == value] = known[int(value)]
    return Volume(array, label.affine, label.path)


def load_case(case: Case, settings: VolumeSettings) -> CaseVolume:
    """Read a case into canonical axes, through the cache where there is one.

    Args:
        case: From `spars.data.layout.find_cases`.
        settings: A configuration; gives ``label_map`` and ``cache_dir``.

    Raises:
        DataError: A file is missing, damaged or holds what it must not; image and label differ in shape or place.
    """
    names = ["image", "affine", "orientation", "source_affine", *(["label"] if case.label else [])]
    found = cached_arrays(_cache_path(case, settings), names, lambda: _canonical_arrays(case, settings))
    return CaseVolume(
        case.name,
        found["image"],
        found.get("label"),
        found["affine"],
        found["orientation"],
        found["source_affine"],
    )


def _cache_path(case: Case, settings: VolumeSettings) -> Path | None:
    if settings.cache_dir is None:
        return None
    for path in (case.image, case.label):
        if path is not None and not path.exists():
            raise DataError(f"{path}: no such volume")
    said = {"version": _CACHE_VERSION, "label_map": settings.label_map}
    return settings.cache_dir / "volumes" / f"{case.name}-{source_key((case.image, case.label), said)}.npz"


def _canonical_arrays(case: Case, settings: VolumeSettings) -> Arrays:
    image = read_image(case)
    canonical, orientation = to_canonical(image)
    arrays: Arrays = {
        "image": canonical.array,
        "affine": canonical.affine,
        "orientation": orientation,
        "source_affine": image.affine,
    }
    if case.label is not None:
        label = read_label(case, settings.label_map)
        _check_geometry(case, image, label)
        arrays["label"] = to_canonical(Volume(label.array, image.affine))[0].array
    return arrays


def _check_geometry(case: Case, image: Volume, label: Volume) -> None:
    if image.shape != label.shape:
        raise DataError(
            f"{case.label}: shape {_text(label.shape)}, but the image {case.image} has {_text(image.shape)}; "
            "resample the label to the image"
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in image.shape], indexing="ij")).reshape(3, 8)
    homogeneous = np.vstack([corners, np.ones(8)])
    apart = float(np.linalg.norm(((image.affine - label.affine) @ homogeneous)[:3], axis=0).max())
    if apart > _SAME_PLACE * min(image.spacing):
        raise DataError(
            f"{case.label}: its affine puts it up to {apart:.3g} mm from the image {case.image}; they must lie in one "
            "place: resample the label, or copy the image's affine if it is only the header that differs"
        )


def _text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
