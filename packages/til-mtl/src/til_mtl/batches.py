"""What one step gets: images or cached features, labels, tasks, in the order that seed and epoch fix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from til_mtl.config import Config
from til_mtl.data.augment import Augmentation
from til_mtl.data.loading import iterate_batches
from til_mtl.data.sampling import EpochBatches
from til_mtl.data.store import PatchStore
from til_mtl.models.deeplab import Features

if TYPE_CHECKING:
    from til_mtl.feature_cache import FeatureCache


class Batch(NamedTuple):
    """One step's patches.

    Attributes:
        images: float32 [n, 3, H, W]; empty where ``features`` are given.
        masks: int64 [n, H, W].
        tasks: int64 [n] on the CPU, where it decides what is computed: 0 tissue, 1 cells.
        indices: Positions in the store.
        features: What the frozen encoder gives; null: it has still to run.
    """

    images: Tensor
    masks: Tensor
    tasks: Tensor
    indices: np.ndarray
    features: Features | None = None

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
        batches = islice(self.indices(epoch, skip), max(limit - skip, 0))
        if self.features is not None:
            yield from _with_features(self.store, self.features, batches, device)
            return
        yield from _with_images(
            self.config, self.store, batches, device, augmentation=self.augmentation, epoch=epoch
        )


def evaluation_batches(
    config: Config,
    store: PatchStore,
    *,
    device: torch.device,
    limit: int | None = None,
    batches: Iterator[np.ndarray] | None = None,
) -> Iterator[Batch]:
    """Yield all patches in order, or those of given batches.

    Args:
        config: Batch size, normalisation.
        store: The patches.
        device: Where to.
        limit: Batches; null takes all.
        batches: Positions of each batch; null takes all patches in order.
    """
    if batches is None:
        batches = EpochBatches(store.tasks, config.batch_size, shuffle=False, training=False).batches(0)
    yield from _with_images(config, store, islice(batches, limit), device)


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
