"""A folder of DICOM slices as one volume (extra ``dicom``)."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medshared.volumes import Volume, VolumeError, check_affine, compact_values
from spars.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

logger = logging.getLogger(__name__)

_DIRECTION_TOLERANCE = 1e-3  # of direction cosines and of the pixel spacing
_GAP_TOLERANCE = 0.05  # of the distance of slices
_TILT_TOLERANCE = 0.01  # sine of the angle between the stack's axis and the slices' normal
_NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PixelData")


def read_series(folder: Path) -> Volume:
    """Read the slices of one CT series.

    Slices are ordered by their place along the stack's normal, whatever the files are called; slope and intercept of
    each slice are applied; the affine is turned from DICOM's axes (left, back, up) to NIfTI's (right, front, up).

    Args:
        folder: Holds the slices of one series, one file each; files of other kinds are passed over.

    Returns:
        HU ``(columns, rows, slices)``, int16 where they are whole, else float32.

    Raises:
        DataError: No slices, several series, slices that differ in size or direction, a gap, a place taken twice,
            pixels that cannot be unpacked.
        ImportError: pydicom is not installed.
    """
    folder = Path(folder)
    slices = _slices(folder)
    _check_alike(folder, slices)
    order, step = _stacked(folder, slices)
    slices = [slices[i] for i in order]
    array = np.stack([_pixels(each) for each in slices], axis=2)
    affine = _affine(slices[0], step)
    try:
        check_affine(folder, affine)
        return Volume(compact_values(folder, array, slack=1e-6), affine, folder)
    except VolumeError as error:
        raise DataError(str(error)) from error


def _slices(folder: Path) -> list[FileDataset]:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        message = f"{folder}: reading DICOM needs pydicom: pip install 'spars[dicom]', or convert to NIfTI"
        raise ImportError(message) from error
    found, others = [], 0
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            data = pydicom.dcmread(path)
        except (InvalidDicomError, EOFError, ValueError):
            others += 1
            continue
        missing = [name for name in _NEEDED if name not in data]
        if "NumberOfFrames" in data and int(data.NumberOfFrames) > 1:
            raise DataError(
                f"{path}: several frames in one file; convert the series to NIfTI (dcm2niix) first"
            )
        if missing:  # a scout, a report, a directory file
            others += 1
            continue
        found.append(data)
    if not found:
        raise DataError(f"{folder}: no DICOM slices with pixels and a place in space ({others} other files)")
    if others:
        logger.info("%s: %d files are no slices and passed over", folder, others)
    return found


def _check_alike(folder: Path, slices: list[FileDataset]) -> None:
    series = Counter(str(each.get("SeriesInstanceUID", "")) for each in slices)
    if len(series) > 1:
        listed = ", ".join(f"{n} slices of …{uid[-12:]}" for uid, n in series.most_common(3))
        raise DataError(f"{folder}: {len(series)} series in one folder ({listed}); give each its own folder")
    first = slices[0]
    for each in slices[1:]:
        if (each.Rows, each.Columns) != (first.Rows, first.Columns):
            raise DataError(
                f"{each.filename}: {each.Rows}×{each.Columns} pixels, but {first.filename} has "
                f"{first.Rows}×{first.Columns}; a volume needs slices of one size"
            )
        for name, unit in (("ImageOrientationPatient", "direction"), ("PixelSpacing", "pixel spacing")):
            here, there = np.array(each[name].value, float), np.array(first[name].value, float)
            if np.abs(here - there).max() > _DIRECTION_TOLERANCE:
                raise DataError(
                    f"{each.filename}: {unit} {here.tolist()}, but {first.filename} has {there.tolist()}; "
                    "a volume needs slices of one direction and spacing"
                )


def _stacked(folder: Path, slices: list[FileDataset]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the order of the slices and the step from one to the next in millimetres, in DICOM's axes."""
    directions = np.array(slices[0].ImageOrientationPatient, np.float64)
    normal = np.cross(directions[:3], directions[3:])
    positions = np.array([each.ImagePositionPatient for each in slices], np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    if len(slices) == 1:
        return order, normal * float(slices[0].get("SliceThickness") or 1.0)
    gaps = np.diff(along[order])
    usual = float(np.median(gaps))
    if gaps.min() < _GAP_TOLERANCE * max(usual, 1e-6):
        i = int(np.argmin(gaps))
        both = " and ".join(str(slices[order[j]].filename) for j in (i, i + 1))
        raise DataError(f"{folder}: two slices at one place ({both}); remove one of them")
    if np.abs(gaps - usual).max() > _GAP_TOLERANCE * usual:
        i = int(np.argmax(np.abs(gaps - usual)))
        raise DataError(
            f"{folder}: slices are {usual:.3g} mm apart, but {gaps[i]:.3g} mm between {slices[order[i]].filename} and "
            f"{slices[order[i + 1]].filename}; a slice is missing, or the series has two spacings"
        )
    step = (positions[order[-1]] - positions[order[0]]) / (len(slices) - 1)
    if np.linalg.norm(np.cross(step / np.linalg.norm(step), normal)) > _TILT_TOLERANCE:
        logger.warning("%s: the stack leans (gantry tilt); voxels are parallelepipeds", folder)
    return order, step


def _pixels(data: FileDataset) -> NDArray[np.float64]:
    try:
        pixels: Any = data.pixel_array
    except Exception as error:  # plugins for compressed pixels raise what they like
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{data.filename}: pixels could not be unpacked ({reason}); convert to NIfTI (dcm2niix) first"
        ) from error
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    return pixels.T.astype(np.float64) * slope + intercept


def _affine(first: FileDataset, step: NDArray[np.float64]) -> NDArray[np.float64]:
    directions = np.array(first.ImageOrientationPatient, np.float64)
    between_rows, between_columns = (float(each) for each in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = directions[:3] * between_columns
    affine[:3, 1] = directions[3:] * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = np.array(first.ImagePositionPatient, np.float64)
    affine[:2] *= -1  # left, back → right, front
    return affine
