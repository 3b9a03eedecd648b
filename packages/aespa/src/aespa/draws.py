"""Random numbers that belong to an image and not to the batch that it happens to be in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class ItemDraws:
    """One independent stream of random numbers for each item of a batch.

    Clicks, raters and latents of an image are then the same whatever the batch size is and however a batch is spread
    over devices.

    Args:
        seeds: One seed an item; see :func:`medshared.gpu.derive_seed`.

    Example:
        >>> both, second = ItemDraws([1, 2]).uniform(3), ItemDraws([2]).uniform(3)
        >>> bool((both[1] == second[0]).all())
        True
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams = [np.random.default_rng(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self.streams)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Draw ``[B, n]`` numbers in [0, 1)."""
        return np.stack([stream.random(n) for stream in self.streams])

    def normal(self, n: int, size: int) -> torch.Tensor:
        """Draw standard normal float32 numbers ``[n, B, size]``."""
        import torch

        values = [stream.standard_normal((n, size), dtype=np.float32) for stream in self.streams]
        return torch.from_numpy(np.stack(values, axis=1))
