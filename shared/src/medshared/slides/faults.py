"""What goes wrong with slides: errors that name file and place, and the list of tiles that cannot be decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class SlideError(OSError, ValueError):
    """A slide that cannot be read or lacks what was asked for; the message says what to do."""


class SpacingError(SlideError):
    """A slide without µm per pixel was asked for something in µm."""


class TileError(SlideError):
    """A part of a slide that cannot be decoded; the slide itself stays usable.

    Attributes:
        path: the slide.
        location: (x, y) of the top-left corner in level-0 pixels.
        reason: what the decoder said.
    """

    def __init__(self, path: str | os.PathLike[str], location: tuple[int, int], reason: str) -> None:
        self.path, self.location, self.reason = Path(path), location, reason
        super().__init__(f"{path}: the tile at {location} (level-0 pixels) cannot be decoded: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.location, self.reason)


class Fault(NamedTuple):
    """One tile that could not be decoded: its corner in level-0 pixels, and why."""

    x: int
    y: int
    reason: str


class FaultList:
    """The tiles of one slide that could not be decoded.

    Example:
        >>> faults = FaultList("a.svs")
        >>> faults.add((512, 0), "Premature end of JPEG file")
        >>> len(faults), faults.share(100)
        (1, 0.01)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make an empty list.

        Args:
            path: the slide, named in messages.
        """
        self.path = Path(path)
        self._faults: dict[tuple[int, int], Fault] = {}

    def add(self, location: tuple[int, int], reason: str) -> None:
        """Record one tile; a tile recorded before is not counted twice.

        Args:
            location: (x, y) in level-0 pixels.
            reason: what the decoder said.
        """
        x, y = int(location[0]), int(location[1])
        self._faults.setdefault((x, y), Fault(x, y, reason))

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults.values())

    def __contains__(self, location: object) -> bool:
        return location in self._faults

    def share(self, n: int) -> float:
        """Return the faulty share of ``n`` tiles; 0 when there are none."""
        return len(self) / n if n else 0.0

    def check(self, n: int, max_fault_share: float) -> None:
        """Refuse the slide when too many of its tiles are faulty.

        Args:
            n: number of tiles asked for.
            max_fault_share: largest share allowed, 0–1.

        Raises:
            SlideError: with the number, the limit and the first fault.
        """
        if self.share(n) > max_fault_share:
            first = next(iter(self))
            raise SlideError(
                f"{self.path}: {len(self)} of {n} tiles cannot be decoded, more than the allowed share of "
                f"{max_fault_share:g}; the first is at ({first.x}, {first.y}): {first.reason}. Copy or export the "
                "slide again, or allow a larger share of faulty tiles"
            )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the faults as a CSV table with columns x, y, reason.

        Args:
            path: the table to write; without faults it holds the header only.

        Returns:
            The path.
        """
        import pandas as pd

        from medshared.tables import write_table

        return write_table(Path(path), pd.DataFrame(list(self), columns=list(Fault._fields)))
