"""Bags of patch features: reads the files of CLAM, TRIDENT and STAMP, writes CLAM's.

What is assumed about the dialects (none of them carries a version that could be relied on):

* **CLAM**: ``h5_files/<slide>.h5`` with ``features`` [n, d] and ``coords`` [n, 2], top left corners in level-0
  pixels; ``coords`` may carry ``patch_size`` (pixels at ``patch_level``) and ``downsample`` of that level.
  ``pt_files/<slide>.pt`` is the tensor alone. ``patches/<slide>.h5`` has ``coords`` without features.
* **TRIDENT**: ``features`` [n, d] or [1, n, d]; ``coords`` in level-0 pixels with ``patch_size_level0`` and
  ``target_magnification``; at 10x a pixel is taken as 1 µm. The encoder is the attribute ``encoder`` of
  ``features`` or of the file where there is one.
* **STAMP**: ``feats`` [n, d]; ``coords`` in µm (file attribute ``unit`` is ``um``) with the file attributes
  ``extractor`` and ``tile_size`` (or ``tile_size_um``) in µm and, sometimes, ``tile_size_px``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medshared.bag_types import (
    BagAttributes,
    BagError,
    BagInfo,
    ClamAttributes,
    Coordinates,
    Features,
    PatchBag,
    check_uniform,
)
from medshared.checkpoints import WeightsError, load_checkpoint
from medshared.files import atomic_open

__all__ = [
    "BagAttributes",
    "BagError",
    "BagInfo",
    "ClamAttributes",
    "Coordinates",
    "Features",
    "PatchBag",
    "check_uniform",
    "describe_bag",
    "read_bag",
    "read_coordinates",
    "read_features",
    "write_clam_bag",
    "write_coordinates",
]

UM_PER_PIXEL_AT_1X = 10.0  # the usual convention: 40x is 0.25 µm a pixel
LONGEST_CHUNK = 65536  # rows of a block of coordinates


def _open_h5(path: Path) -> Any:
    """Open for reading; Any, since h5py's own types do not tell a dataset from a group."""
    import h5py

    if not path.is_file():
        raise BagError(f"{path}: no such file of patch features or coordinates")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        size = path.stat().st_size
        raise BagError(
            f"{path}: not a whole HDF5 file ({size:,} bytes): it was cut off or is something else; "
            "copy or make it again"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if hasattr(value, "tolist") else value


def _plain_attributes(holder: Any) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in holder.attrs.items()}


def _feature_key(file: Any, path: Path) -> str:
    """Return the name of the features in the file."""
    for key in ("features", "feats"):
        if key in file:
            return key
    if "coords" in file:
        raise BagError(
            f"{path}: holds coordinates without features: run the features step, and give its h5_files or pt_files"
        )
    raise BagError(f"{path}: expected a dataset 'features' or 'feats', found {sorted(file)}")


def _attributes(file: Any, key: str) -> BagAttributes:
    """Recognise the dialect and read what it says."""
    top, of_features = _plain_attributes(file), _plain_attributes(file[key])
    coords = _plain_attributes(file["coords"]) if "coords" in file else {}
    encoder = of_features.get("encoder") or top.get("encoder") or top.get("extractor")
    name = coords.get("name") or of_features.get("name")
    if key == "feats" or top.get("unit") == "um" or coords.get("unit") == "um":
        size_um = top.get("tile_size_um", top.get("tile_size", coords.get("tile_size")))
        size_px = top.get("tile_size_px")
        spacing = size_um / size_px if size_um and size_px else None
        return BagAttributes("stamp", encoder, spacing, None, _number(size_um), name)
    if "level0_magnification" in coords or "target_magnification" in coords:
        magnification = coords.get("target_magnification")
        spacing = UM_PER_PIXEL_AT_1X / magnification if magnification else None
        size = _number(coords.get("patch_size_level0"))
        return BagAttributes("trident", encoder, spacing, size, None, name)
    size = _number(coords.get("patch_size_level0"))
    if size is None and "patch_size" in coords and "downsample" in coords:
        size = float(coords["patch_size"]) * round(float(np.ravel(coords["downsample"])[0]))
    return BagAttributes("clam", encoder, _number(of_features.get("spacing_um")), size, None, name)


def _number(value: Any) -> float | None:
    return None if value is None else float(np.ravel(value)[0])


def _shape(path: Path, key: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return n and d of features stored as [n, d] or [1, n, d]."""
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or shape[1] == 0:
        raise BagError(f"{path}: {key} must have shape [n, d], found {list(shape)}")
    if shape[0] == 0:
        raise BagError(f"{path}: the bag is empty: no patch was found on the slide")
    return shape[0], shape[1]


def _integral(path: Path, coords: np.ndarray) -> NDArray[np.int64]:
    """Return level-0 coordinates as whole numbers; early tools wrote them as floats."""
    if coords.ndim == 3 and coords.shape[0] == 1:
        coords = coords[0]
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise BagError(f"{path}: coords must have shape [n, 2], found {list(coords.shape)}")
    if coords.dtype.kind not in "iu" and not np.array_equal(coords, np.rint(coords)):
        raise BagError(f"{path}: coords must be whole level-0 pixels, found fractions (are they in µm?)")
    return coords.astype(np.int64)


def describe_bag(path: Path | str) -> BagInfo:
    """Read what a file of features holds, without reading the features of an h5 file.

    Args:
        path: ``.h5`` or ``.pt``.

    Returns:
        Size and attributes.

    Raises:
        BagError: As for `read_bag`, except that NaN is not looked for.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".hdf5"):
        return _read_pt(path).info
    with _open_h5(path) as file:
        key = _feature_key(file, path)
        return BagInfo(path, *_shape(path, key, file[key].shape), _attributes(file, key))


def read_bag(path: Path | str, *, check_finite: bool = True, memory_map: bool = False) -> PatchBag:
    """Read the features, places and attributes of the patches of one slide; the file is opened once.

    Args:
        path: ``.h5`` of CLAM, TRIDENT or STAMP, or a ``.pt`` tensor ``[n, d]`` (or a dictionary of the tensors
            ``features`` and, optionally, ``coords``).
        check_finite: Look for NaN and infinite features.
        memory_map: Map contiguous features of an h5 file instead of copying them: they come from disk when they
            are used, changes stay in memory, and the file must not be shortened meanwhile (replacing it is
            fine, as all writers here do). Other files are read as usual.

    Returns:
        The bag, rows in the order of the file.

    Raises:
        BagError: No such file, cut off, coordinates without features, no patch, NaN, numbers of rows that
            differ, or pickled objects in place of tensors.
    """
    path = Path(path)
    bag = _read_h5(path, memory_map) if path.suffix in (".h5", ".hdf5") else _read_pt(path)
    # A finite sum has finite terms; looking at it first saves an array of flags.
    if check_finite and not np.isfinite(bag.features.sum(dtype=np.float32)):
        bad = np.flatnonzero(~np.isfinite(bag.features).all(axis=1))
        if bad.size:
            raise BagError(
                f"{path}: {bad.size} of {len(bag.features)} rows hold NaN or infinite features "
                f"(first row {bad[0]}): make the features again"
            )
    return bag


def _features(path: Path, file: Any, key: str, memory_map: bool) -> np.ndarray:
    """Copy the features into memory, or map them where they lie in one piece."""
    data = file[key]
    offset = data.id.get_offset() if memory_map and file.userblock_size == 0 else None
    if offset is None or data.dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        return data[()]
    # mode "c": writing to the array changes this process's copy only.
    return np.memmap(path, data.dtype, "c", offset, data.shape).view(np.ndarray)


def _read_h5(path: Path, memory_map: bool = False) -> PatchBag:
    with _open_h5(path) as file:
        key = _feature_key(file, path)
        n, width = _shape(path, key, file[key].shape)
        attributes = _attributes(file, key)
        try:
            features = _features(path, file, key, memory_map).reshape(n, width)
            coords = file["coords"][()] if "coords" in file else None
        except OSError as error:
            raise BagError(f"{path}: cut off or damaged within the data ({error})") from error
    if features.dtype not in (np.float16, np.float32):
        features = features.astype(np.float32)
    pixels = um = None
    if coords is not None and attributes.dialect == "stamp":
        um = np.asarray(coords, dtype=np.float64)
    elif coords is not None:
        pixels = _integral(path, coords)
    places = pixels if pixels is not None else um
    if places is not None and len(places) != n:
        raise BagError(f"{path}: {n} rows of features but {len(places)} of coordinates: make the file again")
    return PatchBag(features, pixels, um, attributes, path)


def _read_pt(path: Path) -> PatchBag:
    import torch

    if not path.is_file():
        raise BagError(f"{path}: no such file of patch features")
    try:
        content = load_checkpoint(path)
    except WeightsError as error:
        raise BagError(str(error)) from error
    coords = None
    if isinstance(content, Mapping):
        coords, content = content.get("coords"), content.get("features", content.get("feats"))
    if not isinstance(content, torch.Tensor):
        raise BagError(f"{path}: expected a tensor [n, d], found {type(content).__name__}")
    n, width = _shape(path, "the tensor", tuple(content.shape))
    if content.dtype != torch.float16:
        content = content.float()
    pixels = None if coords is None else _integral(path, np.asarray(coords))
    if pixels is not None and len(pixels) != n:
        raise BagError(f"{path}: {n} rows of features but {len(pixels)} of coordinates: make the file again")
    return PatchBag(content.reshape(n, width).numpy(), pixels, None, BagAttributes("clam"), path)


def read_features(path: Path | str, *, check_finite: bool = True, memory_map: bool = False) -> Features:
    """Read the features of one slide, ``[n, d]``; see `read_bag`."""
    return read_bag(path, check_finite=check_finite, memory_map=memory_map).features


def read_coordinates(path: Path | str) -> Coordinates:
    """Read the places of patches, of a file with or without features.

    Args:
        path: h5 file with ``coords`` in level-0 pixels.

    Returns:
        Whole numbers (early tools wrote floats) and the attributes of ``coords``.

    Raises:
        BagError: No such file, cut off, no coordinates, or coordinates in µm.
    """
    path = Path(path)
    with _open_h5(path) as file:
        if "coords" not in file:
            raise BagError(f"{path}: expected a dataset 'coords', found {sorted(file)}")
        if "feats" in file or file.attrs.get("unit") == "um" or file["coords"].attrs.get("unit") == "um":
            raise BagError(f"{path}: coordinates are in µm (STAMP); level-0 pixels are needed here")
        try:
            return Coordinates(_integral(path, file["coords"][()]), _plain_attributes(file["coords"]))
        except OSError as error:
            raise BagError(f"{path}: cut off or damaged within the data ({error})") from error


def write_clam_bag(
    folder: Path | str,
    stem: str,
    features: ArrayLike,
    coordinates: ArrayLike,
    attributes: BagAttributes | ClamAttributes | None = None,
    *,
    half: bool = False,
) -> tuple[Path, Path]:
    """Write the features of one slide as CLAM does, each file atomically.

    Rows stay in the given order, which is to be that of the file of coordinates whatever order they were
    computed in; they are stored contiguously, so that a bag is read in one piece.

    Args:
        folder: Gets ``h5_files/<stem>.h5`` and ``pt_files/<stem>.pt``.
        stem: Name of the slide.
        features: ``[n, d]``.
        coordinates: Top left corners in level-0 pixels, whole numbers ``[n, 2]``.
        attributes: Stored with the coordinates; null fields are left out.
        half: Store float16 instead of float32.

    Returns:
        The h5 and the pt file; the pt file is written last.

    Raises:
        BagError: Shapes that do not fit, or numbers that are not finite in the stored type.
    """
    import h5py
    import torch

    h5_path, pt_path = Path(folder) / "h5_files" / f"{stem}.h5", Path(folder) / "pt_files" / f"{stem}.pt"
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(features, dtype=np.float16 if half else np.float32)
    _shape(h5_path, "features", stored.shape)
    xy = _integral(h5_path, np.asarray(coordinates))
    if stored.ndim != 2 or len(xy) != len(stored):
        raise BagError(
            f"{h5_path}: features {list(stored.shape)} and coordinates {list(xy.shape)} do not fit"
        )
    if not np.isfinite(stored).all():
        hint = " as float16 (largest is 65504): write float32" if half else ""
        raise BagError(f"{h5_path}: features are NaN or infinite{hint}")
    with atomic_open(h5_path) as handle, h5py.File(handle.name, "w") as file:
        held = file.create_dataset("features", data=stored)
        places = file.create_dataset("coords", data=xy)
        for key, value in _stated(attributes).items():
            (held if key in ("encoder", "spacing_um") else places).attrs[key] = value
    with atomic_open(pt_path) as handle:
        torch.save(torch.from_numpy(stored), handle)
    return h5_path, pt_path


def _stated(attributes: BagAttributes | ClamAttributes | None) -> dict[str, Any]:
    values = {} if attributes is None else asdict(attributes)
    return {key: value for key, value in values.items() if value is not None and key != "dialect"}


def write_coordinates(path: Path | str, coordinates: ArrayLike, attributes: ClamAttributes) -> Path:
    """Write the places of patches as CLAM's ``patches/<slide>.h5``, atomically.

    Args:
        path: Target.
        coordinates: Top left corners in level-0 pixels, whole numbers ``[n, 2]``, n above 0.
        attributes: Stored on ``coords``.

    Returns:
        The path.

    Raises:
        BagError: Shapes that do not fit, no patch, or fractions.
    """
    import h5py

    path = Path(os.fspath(path))
    xy = _integral(path, np.asarray(coordinates))
    if not len(xy):
        raise BagError(f"{path}: no patch to write: a slide without tissue gets no file")
    with atomic_open(path) as handle, h5py.File(handle.name, "w") as file:
        # Resizable like CLAM's, in blocks of many rows where CLAM has one.
        data = file.create_dataset(
            "coords", data=xy, maxshape=(None, 2), chunks=(min(len(xy), LONGEST_CHUNK), 2)
        )
        for key, value in asdict(attributes).items():
            data.attrs[key] = value
    return path
