"""What a frame is called: wells and positions from file names, sample keys, groups of frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infection_mt.data.stacks import UNKNOWN_POSITION, parse_name

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
    parsed = parse_name(file_name(path))
    return parsed.well, None if parsed.position == UNKNOWN_POSITION else parsed.position


def sample_key(metadata: Mapping[str, Any]) -> str:
    """Return the key of a frame, the same as `infection_mt.data.table.FrameTable.keys` gives.

    Args:
        metadata: The object of one line of ``test_metadata.jsonl``.

    Returns:
        ``[run/][plate/]well/position/frame``; condition and stem of the file where well or position is not known.

    Example:
        >>> sample_key({"path": "x_s5_b2_p13_t0-94_ec.tiff", "position": "13", "frame_index": 4})
        'b2/13/4'
    """
    path = str(metadata.get("path", ""))
    well, position = well_and_position(path)
    well, position = metadata.get("well") or well, metadata.get("position") or position
    site = [metadata.get("run"), metadata.get("plate")]
    if well is None or position in (None, UNKNOWN_POSITION):
        place = [*site, metadata.get("condition"), file_name(path).rsplit(".", 1)[0]]
    else:
        place = [*site, well, position]
    frame = metadata.get("frame_index")
    if frame is None:
        frame = f"{metadata.get('hours_since_start')}h"
    return "/".join([*(str(part) for part in place if part), str(frame)])


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
