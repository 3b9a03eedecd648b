"""Which patches make which batch: a pure function of seed and epoch, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from til_mtl.errors import DataError

Sampling = Literal["shuffle", "balanced"]


class EpochBatches:
    """Batches of patch indices for every epoch.

    Attributes:
        n_samples: Patches of the set.
        batch_size: Patches of a batch.
    """

    def __init__(
        self,
        tasks: np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        sampling: Sampling = "shuffle",
        training: bool = True,
    ) -> None:
        """Describe the batches.

        Args:
            tasks: int64 [N], the task of every patch.
            batch_size: Patches of a batch.
            seed: Of the order.
            shuffle: A new order every epoch; otherwise the given one.
            drop_last: Leave out an incomplete last batch.
            sampling: ``shuffle`` goes through all patches; ``balanced`` puts both tasks alike into every batch and
                goes through the smaller set several times.
            training: A last batch of a single patch is joined to the one before, because the network's image
                pooling normalises over the batch and cannot train on one patch.

        Raises:
            DataError: No patches, or batches of one patch in training.
        """
        self._tasks = np.asarray(tasks, dtype=np.int64)
        self.n_samples, self.batch_size = len(self._tasks), int(batch_size)
        self._seed, self._shuffle, self._drop_last, self._training = seed, shuffle, drop_last, training
        self._kinds = np.unique(self._tasks)
        self._balanced = sampling == "balanced" and training and len(self._kinds) > 1
        if not self.n_samples:
            raise DataError("there are no patches to make batches of")
        if training and min(self.batch_size, self.n_samples) < 2:
            raise DataError(
                f"batches of {self.batch_size} from {self.n_samples} patches: training needs at least 2 patches in "
                "a batch, because the network's image pooling normalises over the batch"
            )
        if self._balanced and self.batch_size < len(self._kinds):
            raise DataError(f"sampling: balanced needs a batch_size of at least {len(self._kinds)}")

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._balanced_counts()) if self._balanced else len(self._bounds())

    def batches(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Yield the batches of an epoch.

        Args:
            epoch: From 0.
            skip: Batches to leave out at the start, those a resumed run has seen.

        Yields:
            int64 [n], positions of patches; n is the batch size except perhaps in the last batch.
        """
        if self._balanced:
            yield from self._balanced_batches(epoch, skip)
            return
        order = self._order(np.arange(self.n_samples), epoch)
        for start, stop in self._bounds()[skip:]:
            yield order[start:stop]

    def _order(self, indices: np.ndarray, *key: int) -> np.ndarray:
        if not self._shuffle:
            return indices
        return indices[np.random.default_rng([self._seed, *key]).permutation(len(indices))]

    def _bounds(self) -> list[tuple[int, int]]:
        n, size = self.n_samples, self.batch_size
        bounds = [(start, min(n, start + size)) for start in range(0, n, size)]
        last = bounds[-1][1] - bounds[-1][0]
        if self._drop_last and last < size:
            if len(bounds) == 1:
                raise DataError(
                    f"drop_last leaves nothing of {n} patches in batches of {size}: lower batch_size"
                )
            return bounds[:-1]
        if self._training and last == 1:
            return [*bounds[:-2], (bounds[-2][0], n)]
        return bounds

    def _balanced_counts(self) -> np.ndarray:
        """Return int64 [batches, tasks]: patches of each task in each batch, until all were seen once."""
        size, kinds = self.batch_size, len(self._kinds)
        sets = np.array([(self._tasks == kind).sum() for kind in self._kinds])
        base, extra = divmod(size, kinds)
        longest = -(-int(sets.max()) // base)
        counts = np.full((longest, kinds), base, dtype=np.int64)
        for batch in range(longest):  # who gets the odd patch takes turns
            counts[batch, [(batch * extra + k) % kinds for k in range(extra)]] += 1
        seen = counts.cumsum(axis=0) >= sets
        return counts[: int(np.argmax(seen.all(axis=1))) + 1]

    def _balanced_batches(self, epoch: int, skip: int) -> Iterator[np.ndarray]:
        counts = self._balanced_counts()
        streams = []
        for column, kind in enumerate(self._kinds):
            indices = np.flatnonzero(self._tasks == kind)
            rounds = -(-int(counts[:, column].sum()) // len(indices))
            streams.append(
                np.concatenate([self._order(indices, epoch, int(kind), again) for again in range(rounds)])
            )
        ends = counts.cumsum(axis=0)
        for batch in range(skip, len(counts)):
            parts = [
                stream[ends[batch, k] - counts[batch, k] : ends[batch, k]] for k, stream in enumerate(streams)
            ]
            yield np.concatenate(parts)
