"""The order of patients in an epoch, known for any epoch without going through those before."""

from __future__ import annotations

import torch


class EpochOrder:
    """Order in which a loader of n items goes through them.

    The order of epoch k equals that of the (k+1)-th pass over ``DataLoader(…, shuffle=True,
    generator=torch.Generator().manual_seed(seed))``, and depends on nothing but ``n``, ``seed`` and k: a run
    that is resumed continues with the order of the run that was stopped.

    Args:
        n: Number of items.
        seed: Of the generator.
        shuffle: False gives 0, 1, … in every epoch.

    Example:
        >>> order = EpochOrder(4, seed=0)
        >>> sorted(order.epoch(5)), order.epoch(1) == EpochOrder(4, seed=0).epoch(1)
        ([0, 1, 2, 3], True)
    """

    def __init__(self, n: int, seed: int, shuffle: bool = True) -> None:
        self.n, self.seed, self.shuffle = n, seed, shuffle
        self._generator = torch.Generator()
        self._next = -1  # epoch that the generator stands before; -1 = not seeded

    def epoch(self, k: int) -> list[int]:
        """Return the indices of epoch k (from 0) in order.

        Raises:
            ValueError: When k is negative.
        """
        if k < 0:
            raise ValueError(f"epochs count from 0, found {k}")
        if not self.shuffle:
            return list(range(self.n))
        if self._next < 0 or k < self._next:
            self._generator.manual_seed(self.seed)
            self._next = 0
        order: list[int] = []
        while self._next <= k:
            order = self._draw()
            self._next += 1
        return order

    def _draw(self) -> list[int]:
        # A pass of the loader draws a seed for its workers, the order, and one more order that it does not use.
        torch.empty((), dtype=torch.int64).random_(generator=self._generator)
        order = torch.randperm(self.n, generator=self._generator).tolist()
        torch.randperm(self.n, generator=self._generator)
        return order
