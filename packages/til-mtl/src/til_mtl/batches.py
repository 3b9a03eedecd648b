"""What one step gets: images or cached features, labels, tasks, in the order that seed and epoch fix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medshared.distributed import Share, process_count, process_rank
from medshared.shared_layers import SharedRows
from medshared.shared_layers import rows_of as shared_rows
from til_mtl.config import Config
from til_mtl.data.augment import Augmentation
from til_mtl.data.loading import iterate_batches
from til_mtl.data.sampling import EpochBatches
from til_mtl.data.store import PatchStore
from til_mtl.models.deeplab import Features

if TYPE_CHECKING:
    from til_mtl.feature_cache import FeatureCache


class WholeBatch(NamedTuple):
    """A batch that several processes compute.

    Attributes:
        share: Which patches are this process's.
        tasks: int64 [n], of all patches.
    """

    share: Share
    tasks: Tensor


class Batch(NamedTuple):
    """One step's patches.

    Attributes:
        images: float32 [n, 3, H, W]; empty where ``features`` are given.
        masks: int64 [n, H, W].
        tasks: int64 [n] on the CPU, where it decides what is computed: 0 tissue, 1 cells.
        indices: Positions in the store.
        features: What the frozen encoder gives; null: it has still to run.
        whole: The batch of which these patches are this process's share; null: it is all of it.
    """

    images: Tensor
    masks: Tensor
    tasks: Tensor
    indices: np.ndarray
    features: Features | None = None
    whole: WholeBatch | None = None

    @property
    def n(self) -> int:
        """Patches of the batch, over all processes."""
        return len(self.indices) if self.whole is None else self.whole.share.n

    def has(self, task: int) -> bool:
        """Return whether the batch has a patch of a task, in any process.

        Args:
            task: 0 tissue, 1 cells.
        """
        return bool(((self.tasks if self.whole is None else self.whole.tasks) == task).any())

    def shared_rows(self, task: int) -> SharedRows | None:
        """Return which of all patches of a task this process has; null when it has them all."""
        return None if self.whole is None else shared_rows(self.whole.share, self.whole.tasks == task)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the patches."""
        return int(self.masks.shape[-2]), int(self.masks.shape[-1])


class TrainingBatches:
    """The training set, epoch by epoch.

    Args:
        config: Order, augmentation, normalisation.
        store: The patches.
        features: Their cached features; null without.
    """

    def __init__(self, config: Config, store: PatchStore, features: FeatureCache | None = None) -> None:
        self.config, self.store, self.features = config, store, features
        self.augmentation = None if config.augment == "none" else Augmentation(config.augment)
        self.order = EpochBatches(
            store.tasks,
            config.batch_size,
            seed=config.seed_everything,
            shuffle=config.shuffle,
            drop_last=config.drop_last,
            sampling=config.sampling,
        )

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.order)

    def indices(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Yield the positions of each batch; with ``overfit_batches`` every epoch has those of the first.

        Args:
            epoch: 0-based.
            skip: Batches to leave out at the start.
        """
        return self.order.batches(0 if self.config.overfit_batches else epoch, skip=skip)

    def epoch(self, epoch: int, *, skip: int, limit: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batches of an epoch, the first ``skip`` left out, up to the ``limit``-th.

        Args:
            epoch: 0-based.
            skip: Batches that a resumed run has seen.
            limit: Batches of the epoch.
            device: Where to.
        """
        batches = list(islice(self.indices(epoch, skip), max(limit - skip, 0)))
        shares = [Share.of(len(indices)) for indices in batches]
        own = (share.take(indices) for share, indices in zip(shares, batches, strict=True))
        if self.features is not None:
            parts = _with_features(self.store, self.features, own, device)
        else:
            parts = _with_images(
                self.config, self.store, own, device, augmentation=self.augmentation, epoch=epoch
            )
        for share, indices, part in zip(shares, batches, parts, strict=True):
            whole = (
                None if share.count == 1 else WholeBatch(share, torch.from_numpy(self.store.tasks[indices]))
            )
            yield part._replace(whole=whole)


def evaluation_batches(
    config: Config,
    store: PatchStore,
    *,
    device: torch.device,
    limit: int | None = None,
    batches: Iterator[np.ndarray] | None = None,
) -> Iterator[Batch]:
    """Yield all patches in order, or those of given batches; every process its own turns.

    Args:
        config: Batch size, normalisation.
        store: The patches.
        device: Where to.
        limit: Batches; null takes all.
        batches: Positions of each batch; null takes all patches in order.
    """
    if batches is None:
        batches = EpochBatches(store.tasks, config.batch_size, shuffle=False, training=False).batches(0)
    turns = islice(islice(batches, limit), process_rank(), None, process_count())
    yield from _with_images(config, store, turns, device)


def _with_images(
    config: Config,
    store: PatchStore,
    batches: Iterator[np.ndarray],
    device: torch.device,
    *,
    augmentation: Augmentation | None = None,
    epoch: int = 0,
) -> Iterator[Batch]:
    loaded = iterate_batches(
        store,
        batches,
        augmentation,
        seed=config.seed_everything,
        epoch=epoch,
        normalize=config.normalize,
        device=device,
        pin_memory=config.pin_memory,
    )
    for batch in loaded:
        yield Batch(*batch)


def _with_features(
    store: PatchStore, features: FeatureCache, batches: Iterator[np.ndarray], device: torch.device
) -> Iterator[Batch]:
    for indices in batches:
        masks = torch.from_numpy(store.masks(indices)).to(device).long()
        tasks = torch.from_numpy(store.tasks[indices])
        yield Batch(torch.empty(0, device=device), masks, tasks, indices, features.get(indices))


def batch_of(config: Config, store: PatchStore, indices: np.ndarray, device: torch.device) -> Batch:
    """Return given patches as one batch.

    Args:
        config: Normalisation.
        store: The patches.
        indices: Positions in the store.
        device: Where to.
    """
    return next(_with_images(config, store, iter([indices]), device))


def rows_of(values: Tensor, keep: Tensor) -> Tensor:
    """Return the kept rows; all of them without a copy.

    Args:
        values: Of every sample of the batch.
        keep: On the CPU.
    """
    if bool(keep.all()):
        return values
    rows = keep.nonzero().squeeze(1)
    if values.is_cuda:  # a copy from ordinary memory would wait for everything that the GPU has still to do
        rows = rows.pin_memory().to(values.device, non_blocking=True)
    return values.index_select(0, rows)
