"""What a frame is called: wells and positions from file names, sample keys, groups of frames."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WELL = re.compile(r"_s\d+_([a-z]\d+)_p(\d+)_", re.IGNORECASE)
_POSITION = re.compile(r"_p(\d+)_")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def file_name(path: str) -> str:
    r"""Return the last component of a path written on any system.

    Args:
        path: With slashes or backslashes.

    Returns:
        The file name.

    Example:
        >>> file_name("/data/a_s5_b2_p6_t0-94_ec.tiff"), file_name(r"D:\data\b.tiff")
        ('a_s5_b2_p6_t0-94_ec.tiff', 'b.tiff')
    """
    return PureWindowsPath(path).name


def well_and_position(path: str) -> tuple[str | None, str | None]:
    """Return well and position that a stack's file name states.

    Args:
        path: File name such as ``…_s5_b2_p13_t0-94_ec.tiff``, with or without folders.

    Returns:
        Well (``b2``) and position (``13``), None where the name does not tell.

    Example:
        >>> well_and_position("x_s5_b2_p13_t0-94_ec.tiff"), well_and_position("stack_p07_.tif")
        (('b2', '13'), (None, '07'))
    """
    name = file_name(path)
    if match := _WELL.search(name):
        return match.group(1).lower(), match.group(2)
    match = _POSITION.search(name)
    return None, match.group(1) if match else None


def sample_key(metadata: Mapping[str, Any]) -> str:
    """Return the key ``well/position/frame`` of a frame; the file's stem replaces a well that is not known.

    Args:
        metadata: The object of one line of ``test_metadata.jsonl``.

    Returns:
        A text that names the frame within its experiment.

    Example:
        >>> sample_key({"path": "x_s5_b2_p13_t0-94_ec.tiff", "position": "13", "frame_index": 4})
        'b2/13/4'
    """
    path = str(metadata.get("path", ""))
    well, position = well_and_position(path)
    well = metadata.get("well") or well or file_name(path).rsplit(".", 1)[0] or "unknown"
    position = metadata.get("position") or position or "unknown"
    frame = metadata.get("frame_index")
    if frame is None:
        frame = f"{metadata.get('hours_since_start')}h"
    return f"{well}/{position}/{frame}"


def hours_of(metadata: Sequence[Mapping[str, Any]]) -> Floats:
    """Return ``hours_since_start`` of every frame, NaN where it is missing.

    Args:
        metadata: One mapping per frame.

    Returns:
        Hours, shape ``[N]``.
    """
    hours = [row.get("hours_since_start") for row in metadata]
    return np.array([float("nan") if hour is None else float(hour) for hour in hours], dtype=np.float64)


def number_names(names: Iterable[str]) -> Integers:
    """Number names in order of first appearance.

    Args:
        names: One per frame.

    Returns:
        Numbers from 0, shape ``[N]``.

    Example:
        >>> number_names(["b", "a", "b"]).tolist()
        [0, 1, 0]
    """
    code: dict[str, int] = {}
    return np.array([code.setdefault(name, len(code)) for name in names], dtype=np.int64)


def number_stacks(metadata: Sequence[Mapping[str, Any]]) -> Integers:
    """Number the stacks of frames in order of first appearance.

    Args:
        metadata: One mapping per frame.

    Returns:
        Numbers from 0, shape ``[N]``.
    """
    return number_names(str(row.get("path", "")) for row in metadata)


def group_name(row: Mapping[str, Any], kind: str) -> str:
    """Return the name of a frame's well or position.

    Args:
        row: The frame's metadata.
        kind: ``well`` or ``position``.

    Returns:
        ``plate/well`` or ``plate/well/position``; the condition stands for a well that is not known.
    """
    well, position = well_and_position(str(row.get("path", "")))
    well = str(row.get("well") or well or row.get("condition", "unknown"))
    plate = str(row.get("plate") or "")
    return f"{plate}/{well}" if kind == "well" else f"{plate}/{well}/{row.get('position') or position}"
