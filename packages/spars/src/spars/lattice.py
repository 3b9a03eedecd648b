"""The lattice of window positions in a volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError

Size = tuple[int, int, int]

# Move of each action in steps along the three axes; the codes are the original's.
MOVES: NDArray[np.int64] = np.array(
    [[0, 0, 1], [0, 0, -1], [0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0]], np.int64
)
MOVES.flags.writeable = False


@dataclass(frozen=True)
class Lattice:
    """All window positions that the game can reach from the centred one without leaving the volume.

    A *start* is the lowest corner of a window in voxels, an *index* its place on the lattice, a *flat index* the
    C-order number of an index. The window spans ``[start, start + window)`` on every axis.

    Attributes:
        grid: Size of the volume in voxels, all three axes.
        window: Size of the window in voxels.
        step: Voxels of one move.
    """

    grid: Size
    window: Size
    step: int = 4

    def __post_init__(self) -> None:
        if self.step < 1:
            raise DataError(f"step must be at least 1 voxel, found {self.step}")
        if any(w < 1 for w in self.window) or any(g < w for g, w in zip(self.grid, self.window, strict=True)):
            raise DataError(
                f"a window of {_text(self.window)} voxels does not fit a volume of {_text(self.grid)}; "
                "choose a smaller window_size or a larger full_image_size"
            )

    @cached_property
    def axes(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Starts along each axis, ascending: ``(G − w) // 2`` and every ``step`` from there within [0, G − w]."""
        found = []
        for size, window in zip(self.grid, self.window, strict=True):
            middle = (size - window) // 2
            found.append(np.arange(middle % self.step, size - window + 1, self.step, dtype=np.int64))
        return found[0], found[1], found[2]

    @cached_property
    def shape(self) -> Size:
        """Number of positions along each axis."""
        a, b, c = (len(axis) for axis in self.axes)
        return a, b, c

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    @cached_property
    def centre(self) -> NDArray[np.int64]:
        """Index of the centred window, int64 ``[3]``."""
        middles = [(g - w) // 2 // self.step for g, w in zip(self.grid, self.window, strict=True)]
        return np.array(middles, np.int64)

    def starts(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the starts in voxels of indices.

        Args:
            index: int64 ``[..., 3]``.
        """
        return np.stack([axis[index[..., i]] for i, axis in enumerate(self.axes)], axis=-1)

    def all_starts(self) -> NDArray[np.int64]:
        """Return the starts of all positions, int64 ``[len, 3]`` in C order."""
        grids = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([grid.ravel() for grid in grids], axis=1)

    def flat(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the flat indices of indices, int64 ``[...]``."""
        return (index[..., 0] * self.shape[1] + index[..., 1]) * self.shape[2] + index[..., 2]

    def unflat(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices, int64 ``[..., 3]``, of flat ones."""
        return np.stack(np.unravel_index(flat, self.shape), axis=-1).astype(np.int64)


def _text(size: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in size)
