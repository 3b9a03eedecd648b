"""Where the generator's noise comes from.

A source is anything that answers a size with a tensor of draws on the CPU; the generator moves them to its device, so
that the same seed gives the same predictions on every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

Distribution = Literal["uniform", "gaussian"]


class NoiseSource(Protocol):
    """Answers a size with that many draws, a float tensor on the CPU."""

    def __call__(self, size: tuple[int, ...]) -> Tensor:
        """Draw noise of this size."""
        ...


def torch_noise(
    distribution: Distribution = "uniform", generator: torch.Generator | None = None
) -> NoiseSource:
    """Return a source of ``U(0, 1)`` or ``N(0, 1)``, the stream of ``torch.rand`` or ``torch.randn``.

    Args:
        distribution: ``uniform`` or ``gaussian``.
        generator: CPU generator to draw from; by default torch's global one.

    Raises:
        ValueError: Another distribution.
    """
    if distribution == "uniform":
        return lambda size: torch.rand(size, generator=generator)
    if distribution == "gaussian":
        return lambda size: torch.randn(size, generator=generator)
    raise ValueError(f"gen_noi_noise_dist: expected uniform or gaussian, found {distribution!r}")


def zero_noise(size: tuple[int, ...]) -> Tensor:
    """Answer with zeros: the deterministic prediction."""
    return torch.zeros(size)


class FixedNoise:
    """Gives out draws that were made before, in order; for tests and for replaying a bag."""

    def __init__(self, draws: Iterable[Tensor]) -> None:
        self._draws: Iterator[Tensor] = iter(draws)

    def __call__(self, size: tuple[int, ...]) -> Tensor:
        """Return the next draw, which must have this size."""
        draw = next(self._draws, None)
        if draw is None:
            raise ValueError(f"no draw is left for noise of size {size}")
        if tuple(draw.shape) != tuple(size):
            raise ValueError(f"expected noise of size {tuple(size)}, the next draw has {tuple(draw.shape)}")
        return draw


class RecordedNoise:
    """Draws from a source and remembers what it gave, so that a second pass sees the same noise.

    Attributes:
        draws: What was given out so far, in order.
    """

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        self.draws: list[Tensor] = []

    def __call__(self, size: tuple[int, ...]) -> Tensor:
        """Draw, remember and return."""
        draw = self._source(size)
        self.draws.append(draw)
        return draw

    def replay(self) -> FixedNoise:
        """Return a source of the same draws from the beginning."""
        return FixedNoise(self.draws)
