"""The bags of a group that this process computes, and what the processes exchange about them.

A group is the batch: each process takes every n-th of its bags. What a loss compares, averages or counts is that of
the whole group; gradients, which are sums over bags, are added up before a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medshared.distributed import Share, average_gradients, summed
from medshared.gpu import derive_seed

Draws = Literal["stream", "bag"]


class GroupWork:
    """One pass over the bags of a group.

    Args:
        n: Bags of the group.
        draws: ``stream`` takes noise and dropout from torch's global stream, bag after bag; ``bag`` gives every bag a
            seed of its own, so that the processes that compute the others need not be waited for.
        share: Which bags are this process's; by default all.

    Attributes:
        own: Numbers of the bags of this process.
    """

    def __init__(self, n: int, draws: Draws = "stream", share: Share | None = None) -> None:
        self.share = share or Share(n, 0, 1)
        self.own: Sequence[int] = range(n)[self.share.own]
        self._seed = int(torch.randint(2**62, ())) if draws == "bag" else None

    @property
    def alone(self) -> bool:
        """Whether this process computes the whole group."""
        return self.share.whole

    def begin(self, i: int) -> None:
        """Start the draws of a bag."""
        if self._seed is not None:
            torch.manual_seed(derive_seed(self._seed, "bag", i))

    def end(self) -> None:
        """Leave the global stream where every process has it."""
        if self._seed is not None:
            torch.manual_seed(derive_seed(self._seed, "after"))

    def gather(self, own: Sequence[Tensor]) -> Tensor:
        """Return the rows ``[n, k]`` of all bags from those ``[1, k]`` of this process's; no gradient passes."""
        rows = torch.cat(list(own))
        return rows if self.alone else self.share.gather(rows.detach())

    def total(self, values: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return the sum of scalars over all processes; one may have none."""
        own = torch.stack(list(values)).sum() if values else like.new_zeros(())
        return own if self.alone else summed(own)

    def mean(self, values: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return the mean of all elements over all processes; one may have none."""
        if self.alone:
            return torch.cat([value.reshape(-1) for value in values]).mean()
        own = torch.cat([like.new_zeros(0), *(value.reshape(-1) for value in values)])
        found = summed(torch.stack([own.sum(), own.new_tensor(float(len(own)))]))
        return found[0] / found[1]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes in place."""
        if self.share.count == 1:
            return
        tensors = list(parameters)
        average_gradients(tensors)
        if not self.alone:  # otherwise all have the same ones
            for p in tensors:
                if p.grad is not None:
                    p.grad.mul_(self.share.count)
