"""CT and MR volumes as NIfTI files: read with every check, written with the affine they came with.

A volume in memory is an array ``(X, Y, Z)`` in C order with the affine that takes voxel indices to millimetres. The
frames in between (closest canonical orientation, another voxel size, another grid) all have a way back, so that a
prediction ends in the geometry of the file that a person opens.
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import atomic_open
from medshared.volume_grids import Order, Shape, resize_volume, resized_affine, window_hu

__all__ = [
    "Order",
    "Shape",
    "Volume",
    "VolumeError",
    "check_affine",
    "check_finite",
    "compact_values",
    "from_canonical",
    "is_volume_name",
    "read_volume",
    "resample_spacing",
    "resize_volume",
    "resized_affine",
    "to_canonical",
    "volume_stem",
    "voxel_spacing",
    "window_hu",
    "write_volume",
]

SUFFIXES = (".nii.gz", ".nii")
_INT16 = np.iinfo(np.int16)
_GZIP_LEVEL = 3
_GZIP_MAGIC = b"\x1f\x8b"


class VolumeError(ValueError):
    """A volume cannot be read or used; the message names the file, what was expected and what was found."""


@dataclass(frozen=True, eq=False)
class Volume:
    """An array in space.

    Attributes:
        array: ``(X, Y, Z)``, C order.
        affine: float64 ``[4, 4]``, voxel index to millimetres, NIfTI's RAS+ (x to the right, y to the front, z up).
        path: The file it came from, for messages.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    path: Path | None = None

    @property
    def shape(self) -> Shape:
        """Number of voxels along each axis."""
        x, y, z = self.array.shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along each axis, in millimetres."""
        x, y, z = voxel_spacing(self.affine)
        return x, y, z


def voxel_spacing(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the lengths in millimetres of the three voxel axes of an affine ``[4, 4]``."""
    x, y, z = np.sqrt((np.asarray(affine, np.float64)[:3, :3] ** 2).sum(axis=0)).tolist()
    return x, y, z


# ---------------------------------------------------------------------- files


def is_volume_name(name: str) -> bool:
    """Return whether a file name is that of a NIfTI volume: ``.nii`` or ``.nii.gz``, not hidden."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def volume_stem(path: str | os.PathLike[str]) -> str:
    """Return a file's name without ``.nii`` or ``.nii.gz``."""
    name = Path(path).name
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a three-dimensional NIfTI file.

    Scale slope and intercept of the header are applied. A fourth axis of length 1 is dropped.

    Args:
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        int16 where every value is a whole number that fits, else float32.

    Raises:
        FileNotFoundError: When the file is not there.
        VolumeError: For another format, a damaged file, several frames, no voxels, NaN or infinite voxels, colours,
            and an affine that does not span space; the message names the file.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise VolumeError(f"{path}: expected a NIfTI volume (.nii or .nii.gz)")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such volume")
    _check_container(path)
    try:
        image: Any = nibabel.load(path)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, np.float64)
        raw = np.asanyarray(image.dataobj.get_unscaled())
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    except (EOFError, OSError, ValueError, zlib.error, ImageFileError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VolumeError(
            f"{path}: the volume could not be read ({reason}); it may be damaged or cut off, copy it again"
        ) from error
    array = _three_axes(path, raw)
    check_affine(path, affine)
    return Volume(_scaled(path, array, slope, intercept), affine, path)


def _check_container(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(2)
    if not head:
        raise VolumeError(f"{path}: the file is empty; copying or downloading it was probably interrupted")
    if path.name.endswith(".gz") and head != _GZIP_MAGIC:
        raise VolumeError(
            f"{path}: not a gzip file (it starts with {head!r}); rename it to .nii or compress it"
        )


def _three_axes(path: Path, raw: NDArray[Any]) -> NDArray[Any]:
    if raw.dtype.kind not in "iuf":
        raise VolumeError(
            f"{path}: expected one number per voxel, found type {raw.dtype}; convert it to a grey volume"
        )
    shape = raw.shape
    while raw.ndim > 3 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    if raw.size == 0:
        raise VolumeError(f"{path}: the volume is empty: its header says shape {list(shape)}")
    if raw.ndim != 3:
        raise VolumeError(
            f"{path}: expected three axes, found shape {list(shape)}; split several frames into one file each"
        )
    return raw


def _scaled(path: Path, raw: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Apply the header's scale."""
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise VolumeError(f"{path}: the header's scale slope {slope} or intercept {intercept} is not finite")
    if slope == 1 and intercept == 0:
        return compact_values(path, raw)
    # Products with a slope like float32's 0.1 are whole but for their last bits.
    return compact_values(path, raw.astype(np.float64) * slope + intercept, slack=1e-6)


def compact_values(
    path: str | os.PathLike[str], values: NDArray[Any], slack: float = 0.0
) -> NDArray[np.int16] | NDArray[np.float32]:
    """Return int16 where every value is a whole number that fits, else float32; C order.

    Args:
        path: For messages.
        values: Any numbers.
        slack: How far from whole a value may be, as a share of the largest one.

    Raises:
        VolumeError: Values are NaN or infinite.
    """
    if values.dtype in (np.int16, np.uint8, np.int8):
        return np.ascontiguousarray(values, dtype=np.int16)
    check_finite(path, values)
    lowest, highest = float(values.min()), float(values.max())
    if _INT16.min <= lowest and highest <= _INT16.max:
        rounded = np.rint(values)
        if np.abs(values - rounded).max() <= slack * max(1.0, abs(lowest), abs(highest)):
            return np.ascontiguousarray(rounded, dtype=np.int16)
    return np.ascontiguousarray(values, dtype=np.float32)


def check_finite(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Refuse NaN and infinite voxels.

    Args:
        path: For the message.
        array: Any numbers.

    Raises:
        VolumeError: Naming the file, how many there are and where the first lies.
    """
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    n = int(np.count_nonzero(bad))
    if n:
        first = [int(i) for i in np.argwhere(bad)[0]]
        raise VolumeError(
            f"{path}: {n} voxels are NaN or infinite, the first at {first}; replace them (for CT by -1024) first"
        )


def check_affine(path: str | os.PathLike[str], affine: NDArray[np.float64]) -> None:
    """Refuse an affine whose axes do not span space.

    Args:
        path: For the message.
        affine: ``[4, 4]``.

    Raises:
        VolumeError: Naming the file and the affine's rows.
    """
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    usable = np.isfinite(affine).all() and (spacing > 0).all()
    # Relative to the voxel's size: thin slices are no fault.
    if usable and abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-3:
        return
    rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3])
    raise VolumeError(
        f"{path}: the affine's axes do not span space ({rows}); the header needs voxel sizes and directions"
    )


def write_volume(path: str | os.PathLike[str], array: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    """Write a NIfTI file atomically; the same values give the same bytes.

    Args:
        path: ``.nii`` or ``.nii.gz``; folders are created.
        array: ``(X, Y, Z)``; booleans become uint8, float64 float32, int64 the smallest signed type that holds it.
        affine: ``[4, 4]``, voxel index to millimetres. NIfTI keeps it in float32.

    Returns:
        The path.

    Raises:
        VolumeError: For another suffix, another number of axes, or values no NIfTI type of ours holds.
        OSError: Naming the file when it cannot be written.
    """
    import nibabel

    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise VolumeError(f"{path}: a volume is written as .nii or .nii.gz")
    if array.ndim != 3:
        raise VolumeError(f"{path}: expected an array of three axes, found shape {list(array.shape)}")
    image = nibabel.Nifti1Image(_stored(path, array), np.asarray(affine, np.float64))  # type: ignore[attr-defined]
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        data = gzip.compress(data, _GZIP_LEVEL, mtime=0)
    with atomic_open(path, "wb") as handle:
        handle.write(data)
    return path


def _stored(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind in "iu":
        if array.dtype.itemsize < 8 and array.dtype != np.uint32:
            return array
        lowest, highest = (int(array.min()), int(array.max())) if array.size else (0, 0)
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
                return array.astype(dtype)
    raise VolumeError(f"{path}: values of type {array.dtype} cannot be written; give uint8, int16 or float32")


# ---------------------------------------------------------------------- orientation


def to_canonical(volume: Volume) -> tuple[Volume, NDArray[np.int64]]:
    """Turn a volume so that its axes point most nearly to the right, the front and up (RAS+).

    Axes are only exchanged and flipped: no voxel value changes.

    Args:
        volume: Any orientation.

    Returns:
        The turned volume, and its orientation int64 ``[3, 2]``: row i says which axis the file's axis i became, and
        1, or -1 where it was flipped; `from_canonical` takes it.
    """
    from nibabel.orientations import inv_ornt_aff, io_orientation

    orientation = np.asarray(io_orientation(volume.affine), np.int64)
    array = volume.array
    for axis, (_, sign) in enumerate(orientation):
        array = np.flip(array, axis) if sign < 0 else array
    array = np.ascontiguousarray(array.transpose(np.argsort(orientation[:, 0])))
    affine = volume.affine @ inv_ornt_aff(orientation, volume.shape)
    return Volume(array, np.asarray(affine, np.float64), volume.path), orientation


def from_canonical(array: NDArray[Any], orientation: NDArray[np.int64]) -> NDArray[Any]:
    """Turn an array back to the file's own axes.

    Args:
        array: ``(X, Y, Z)`` in canonical orientation.
        orientation: From `to_canonical`.

    Returns:
        The array in the file's orientation, C order.
    """
    array = array.transpose(orientation[:, 0])
    for axis, (_, sign) in enumerate(orientation):
        array = np.flip(array, axis) if sign < 0 else array
    return np.ascontiguousarray(array)


# ---------------------------------------------------------------------- voxel size


def resample_spacing(volume: Volume, spacing: tuple[float, float, float], order: Order = "linear") -> Volume:
    """Resample a volume to another voxel size along its own axes.

    Args:
        volume: Any.
        spacing: Wanted distances of voxels in millimetres.
        order: As for `resize_volume`.

    Returns:
        The same space with the whole number of voxels nearest to that size; its ``spacing`` is the size that
        results, off by at most half a voxel in the whole extent.
    """
    if not all(np.isfinite(each) and each > 0 for each in spacing):
        raise ValueError(f"spacing must be three numbers above 0 in millimetres, found {spacing}")
    x, y, z = (
        max(1, round(n * old / new))
        for n, old, new in zip(volume.shape, volume.spacing, spacing, strict=True)
    )
    affine = resized_affine(volume.affine, volume.shape, (x, y, z))
    return Volume(resize_volume(volume.array, (x, y, z), order), affine, volume.path)
