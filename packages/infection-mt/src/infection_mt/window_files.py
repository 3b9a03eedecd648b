"""Windowed metrics on disk, under the original's names and keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt.config import WindowsConfig
from infection_mt.window_rules import METRICS, WindowMetrics
from medshared.files import write_json
from medshared.tables import write_table


def window_lists(
    windows: Sequence[WindowMetrics], metrics: Sequence[str] = METRICS
) -> tuple[list[float], dict[str, list[float | None]]]:
    """Return centres and one list per metric, None where undefined: the form of the JSON files.

    Args:
        windows: In order of time.
        metrics: Fields of `WindowMetrics`.

    Returns:
        Centres in hours and the lists by metric.
    """
    lists: dict[str, list[float | None]] = {}
    for name in metrics:
        values = [float(getattr(window, name)) for window in windows]
        lists[name] = [value if np.isfinite(value) else None for value in values]
    return [window.center for window in windows], lists


def temporal_metrics(
    windows: Sequence[WindowMetrics],
    *,
    size_hours: float,
    stride_hours: float,
    start_hour: float | None = None,
    end_hour: float | None = None,
) -> dict[str, Any]:
    """Return the content of ``temporal_metrics.json`` of a single run.

    Args:
        windows: In order of time.
        size_hours: Length of a window.
        stride_hours: Distance of neighbouring windows.
        start_hour: Stated when given.
        end_hour: Stated when given.

    Returns:
        ``window_size_hours``, ``stride_hours``, ``window_centers``, ``metrics_by_window``.
    """
    centers, lists = window_lists(windows)
    limits = {"start_hour": start_hour, "end_hour": end_hour}
    return {
        "window_size_hours": float(size_hours),
        "stride_hours": float(stride_hours),
        **{name: float(value) for name, value in limits.items() if value is not None},
        "window_centers": centers,
        "metrics_by_window": lists,
    }


def fold_temporal_metrics(
    windows: Sequence[WindowMetrics], *, size_hours: float, stride_hours: float
) -> dict[str, Any]:
    """Return the content of ``temporal_metrics.json`` of a cross-validation fold.

    Args:
        windows: In order of time.
        size_hours: Length of a window.
        stride_hours: Distance of neighbouring windows.

    Returns:
        ``window_centers``, ``metrics``, ``window_size``, ``stride``.
    """
    centers, lists = window_lists(windows)
    return {
        "window_centers": centers,
        "metrics": lists,
        "window_size": float(size_hours),
        "stride": float(stride_hours),
    }


def write_temporal_metrics(
    folder: Path, windows: Sequence[WindowMetrics], config: WindowsConfig, *, fold: bool = False
) -> list[Path]:
    """Write ``temporal_metrics.json`` in the original's form and ``temporal_windows.csv`` with everything.

    Args:
        folder: Where to.
        windows: In order of time.
        config: Size and stride.
        fold: Use the key names of a cross-validation fold.

    Returns:
        The two paths.
    """
    form = fold_temporal_metrics if fold else temporal_metrics
    content = form(windows, size_hours=config.size_hours, stride_hours=config.stride_hours)
    return [
        write_json(Path(folder) / "temporal_metrics.json", content),
        write_table(Path(folder) / "temporal_windows.csv", [window.as_row() for window in windows]),
    ]
