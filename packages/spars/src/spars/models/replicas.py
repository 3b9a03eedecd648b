"""A crop stretched by repeating voxels: how often each voxel is repeated, and what the original's policy sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spars.errors import CheckpointError, DataError
from spars.original.resize import nearest_sources

Size = tuple[int, int, int]

FIRST_LAYERS = ("mlp_extractor.policy_net.0.weight", "mlp_extractor.value_net.0.weight")


@dataclass(frozen=True)
class Replicas:
    """How the voxels of a window are repeated when it is stretched to the grid.

    The original's policy sees the stretched window of N voxels as an image, so that stable-baselines3 moves the last
    axis to the front and flattens. Voxel j of the window, in that order, appears r_j times.

    Args:
        window: Size of the window in voxels.
        grid: What it is stretched to.

    Raises:
        DataError: The window is larger than the grid along an axis: some voxels would not appear.
    """

    window: Size
    grid: Size

    def __post_init__(self) -> None:
        if any(not 1 <= n <= size for n, size in zip(self.window, self.grid, strict=True)):
            raise DataError(
                f"a window of {'×'.join(map(str, self.window))} voxels cannot be stretched to "
                f"{'×'.join(map(str, self.grid))}; choose a smaller window_size or a larger grid"
            )

    @cached_property
    def axes(self) -> tuple[int, int, int]:
        """Order of the axes in which the full policy flattens its input."""
        # stable-baselines3 takes the first axis for the channels of an image where it is the shortest one.
        return (0, 1, 2) if int(np.argmin(self.grid)) == 0 else (2, 0, 1)

    @cached_property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Repetitions of each voxel along each axis."""
        a, b, c = (
            np.bincount(nearest_sources(n, size), minlength=n)
            for n, size in zip(self.window, self.grid, strict=True)
        )
        return a, b, c

    @cached_property
    def number(self) -> NDArray[np.int64]:
        """Repetitions r of each voxel of the window, int64 ``[voxels]`` in the policy's order; they sum to N."""
        along = [self.counts[axis] for axis in self.axes]
        return (along[0][:, None, None] * along[1][:, None] * along[2]).ravel()

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """Voxel of the window that each input of the full policy repeats, int64 ``[N]``, both in the policy's order."""
        window = [self.window[axis] for axis in self.axes]
        along = [nearest_sources(self.window[axis], self.grid[axis]) for axis in self.axes]
        return ((along[0][:, None, None] * window[1] + along[1][:, None]) * window[2] + along[2]).ravel()

    def compact_state(self, full: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the compact policy's weights for those of the full policy.

        Args:
            full: State dictionary with first layers ``[64, N]``.

        Returns:
            The same names with first layers ``[64, voxels]``: Σ of the replicas' weights, divided by √r.

        Raises:
            CheckpointError: A first layer is missing or has another width.
        """
        sources = torch.from_numpy(self.sources)
        result = dict(full)
        for name in FIRST_LAYERS:
            weight = self._first_layer(full, name, len(self.sources), "the stretched window")
            summed = weight.new_zeros(len(weight), len(self.number)).index_add_(
                1, sources.to(weight.device), weight
            )
            result[name] = summed / self._root(summed)
        return result

    def full_state(self, compact: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of the full policy that gives the outputs of a compact one.

        All replicas of a voxel get the same weight. Which one it was of the many full policies that act and train alike
        is not known to the compact policy. At 256×256×180 the result has 6 GB.

        Args:
            compact: State dictionary with first layers ``[64, voxels]``.

        Returns:
            The same names with first layers ``[64, N]``.

        Raises:
            CheckpointError: A first layer is missing or has another width.
        """
        sources = torch.from_numpy(self.sources)
        result = dict(compact)
        for name in FIRST_LAYERS:
            weight = self._first_layer(compact, name, len(self.number), "the window")
            result[name] = (weight / self._root(weight)).index_select(1, sources.to(weight.device))
        return result

    def _root(self, like: Tensor) -> Tensor:
        return torch.from_numpy(np.sqrt(self.number)).to(like)

    @staticmethod
    def _first_layer(state: Mapping[str, Tensor], name: str, width: int, what: str) -> Tensor:
        weight = state.get(name)
        if weight is None or weight.ndim != 2 or weight.shape[1] != width:
            found = "nothing" if weight is None else list(weight.shape)
            raise CheckpointError(
                f"{name}: expected [64, {width}], one column a voxel of {what}, found {found}; the policy belongs to "
                "another window or grid"
            )
        return weight


def wrap_to_uint8(observation: NDArray[Any]) -> NDArray[np.uint8]:
    """Return what the original's learner gets: HU in a uint8 buffer, cut to whole numbers modulo 256.

    Air (−1000 HU) becomes 24, −1 becomes 255, bone of 300 becomes 44.

    Args:
        observation: HU, any shape.
    """
    return (np.trunc(observation).astype(np.int64) % 256).astype(np.uint8)


def policy_input(observation: NDArray[Any]) -> NDArray[np.float32]:
    """Return what the original's MLP sees of an observation: last axis first, divided by 255.

    Args:
        observation: ``[..., X, Y, Z]``: uint8 of :func:`wrap_to_uint8` for the learner, HU for its opponent.

    Returns:
        ``[..., Z, X, Y]``.
    """
    values = np.moveaxis(np.asarray(observation).astype(np.float32), -1, -3)
    return np.divide(values, np.float32(255), dtype=np.float32)
