"""Windows and intervals of hours that sweeps run over, and the files of sliding windows."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infection_mt.studies.sweep_files import write_curves
from infection_mt.windows import window_starts
from medshared.files import write_json


@dataclass(frozen=True)
class Interval:
    """A closed interval of hours since the first frame."""

    start: float
    end: float

    @property
    def name(self) -> str:
        """Text for folders, the same for writing and reading: ``1-7``, ``1.5-6``."""
        return f"{self.start:g}-{self.end:g}"

    @property
    def center(self) -> float:
        """Middle in hours."""
        return (self.start + self.end) / 2.0


def write_window_files(output: Path, stem: str, content: dict[str, Any], *, save_data: bool) -> list[Path]:
    """Write the figures, and when asked the numbers, of sliding windows."""
    results: dict[str, Any] = content["results"]
    curves = {metric: {"mean of folds": (r["means"], r["stds"])} for metric, r in results.items()}
    centers = next(iter(results.values()))["window_centers"]
    label = f"Centre of the {content['window_size']:g} h window (h)"
    written = write_curves(output, stem, centers, curves, x_label=label)
    if save_data:
        written.append(write_json(output / f"{stem}_data.json", content))
    return written


def windows_of(arguments: argparse.Namespace) -> tuple[list[Interval], float]:
    """Return the windows that a command line asks for, and their stride.

    Raises:
        ValueError: There is none.
    """
    size = arguments.window_size
    stride = size if arguments.stride is None else arguments.stride
    starts = getattr(arguments, "window_starts", None)
    if not starts:
        starts = window_starts(size, stride, arguments.start_hour, arguments.end_hour)
    latest = getattr(arguments, "max_hour", None)
    windows = [Interval(s, s + size) for s in starts if latest is None or s + size <= latest + 1e-9]
    if not windows:
        raise ValueError(
            f"no window of {size:g} h lies between the given hours; widen them or shorten the window"
        )
    return windows, float(stride)
