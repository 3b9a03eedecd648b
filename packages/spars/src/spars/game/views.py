"""What players of the standard game see of a volume: the window, and its surroundings at a lower resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.lattice import Lattice, Size


def view_stride(window: Size, step: int) -> int:
    """Return the voxels that one voxel of a view averages on each axis, by default.

    Args:
        window: Size in voxels.
        step: Voxels of a move.

    Returns:
        The largest divisor of ``step`` that leaves at least 4 voxels on every axis of the view, else 1.
    """
    fitting = [s for s in range(1, step + 1) if step % s == 0 and min(window) // s >= 4]
    return max(fitting, default=1)


def view_shape(window: Size, stride: int, context: int) -> tuple[int, int, int, int]:
    """Return ``(channels, x, y, z)`` of one view.

    Args:
        window: Size in voxels.
        stride: Voxels averaged to one of the view.
        context: Width of the surroundings in windows; 0 or 1 = none.
    """
    x, y, z = (max(1, w // stride) for w in window)
    return 2 if context > 1 else 1, x, y, z


class Views:
    """Averaged views of windows for any number of places at once.

    The first channel is the window, averaged over blocks of ``stride`` voxels. The second, where ``context`` > 1, is a
    region ``context`` times as wide around it, averaged to the same number of voxels. Beyond the volume everything is
    0, the lowest value of the HU window.

    Args:
        volumes: float ``[X, Y, Z]`` in [0, 1], all of the lattice's grid.
        lattice: The window positions.
        stride: Divides the lattice's step.
        context: Width of the surroundings in windows; 0 or 1 = none.

    Attributes:
        shape: ``(channels, x, y, z)`` of one view.

    Raises:
        DataError: When a volume has another size, or the stride does not divide the step.
    """

    def __init__(
        self, volumes: Sequence[NDArray[Any]], lattice: Lattice, stride: int = 1, context: int = 0
    ) -> None:
        if stride < 1 or lattice.step % stride:
            raise DataError(f"view_stride must divide the step of {lattice.step} voxels, found {stride}")
        self.lattice, self.stride = lattice, stride
        self.scales = (1, context) if context > 1 else (1,)
        self.shape = view_shape(lattice.window, stride, context)
        self._first = np.array([axis[0] for axis in lattice.axes], np.int64)
        self._places = [np.arange(side) for side in self.shape[1:]]
        # Voxels from a window's corner back to the corner of its surroundings, whole strides.
        self._reach = [
            np.array([w * (scale - 1) // 2 // stride * stride for w in lattice.window], np.int64)
            for scale in self.scales
        ]
        self._coarse = [
            np.stack([self._averaged(volume, scale, reach) for volume in volumes])
            for scale, reach in zip(self.scales, self._reach, strict=True)
        ]

    def _averaged(self, volume: NDArray[Any], scale: int, reach: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the block mean at every stride, beginning ``reach`` before the first start."""
        from scipy.ndimage import uniform_filter

        if volume.shape != self.lattice.grid:
            raise DataError(
                f"the volume has {list(volume.shape)} voxels, the lattice is for {list(self.lattice.grid)}"
            )
        block = self.stride * scale
        margin = [int(r) + block for r in reach]
        padded = np.pad(volume.astype(np.float32, copy=False), [(m, m) for m in margin])
        # Running sums leave rounding errors beyond the range of the voxels.
        means = uniform_filter(padded, block, mode="constant").clip(padded.min(), padded.max())
        # An even block of the filter covers [i − b/2, i + b/2), an odd one is centred.
        low = [int(f - r + m + block // 2) for f, r, m in zip(self._first, reach, margin, strict=True)]
        s = self.stride
        return np.ascontiguousarray(means[low[0] :: s, low[1] :: s, low[2] :: s])

    def at(self, case: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the views ``[n, channels, x, y, z]`` of windows.

        Args:
            case: Number of the volume of each, int64 ``[n]``.
            starts: Lowest corners in voxels, on the lattice, int64 ``[n, 3]``.
        """
        origin = (starts - self._first) // self.stride
        found = []
        for scale, coarse in zip(self.scales, self._coarse, strict=True):
            x, y, z = (origin[:, i, None] + self._places[i] * scale for i in range(3))
            found.append(
                coarse[case[:, None, None, None], x[:, :, None, None], y[:, None, :, None], z[:, None, None]]
            )
        return np.stack(found, axis=1)
