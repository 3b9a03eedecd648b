"""Prepared frames by index, the original's sample contract, and the order of an epoch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from infection_mt.config import DataConfig, TransformsConfig
from infection_mt.data.frame_cache import PreparedStack, find_stack_range, load_frames, prepare_page
from infection_mt.data.frames import eval_tensor
from infection_mt.data.pages import StackRange, has_colours
from infection_mt.data.stacks import Stack
from infection_mt.data.table import FrameTable
from medshared.gpu import derive_seed
from medshared.images import StackError, StackPool

Sample = tuple[Tensor, int, dict[str, Any]]


class FrameStore:
    """Scaled, cropped and resized 8-bit frames of some stacks.

    ``cache: disk`` keeps them in memory-mapped files, ``memory`` in memory, and ``off`` decodes the page each time.
    Stacks are prepared when a batch first asks for them. Safe to use from several threads, and to send to other
    processes.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        data: DataConfig,
        cache_dir: Path | None = None,
        *,
        num_workers: int | None = None,
    ) -> None:
        """Remember what to prepare; no file is read yet.

        Args:
            stacks: All stacks that may be asked for.
            data: Gives ``transforms``, ``cache``, ``cache_dir``, ``num_workers`` and ``channel_offsets_hours``.
            cache_dir: Folder of the prepared frames; null: ``data.cache_dir``.
            num_workers: Processes that prepare; null: ``data.num_workers``.

        Raises:
            ValueError: ``cache: disk`` without a folder.
        """
        self.data = data
        self.transforms: TransformsConfig = data.transforms
        self.folder = cache_dir or data.cache_dir
        if data.cache == "disk" and self.folder is None:
            raise ValueError("data.cache: disk needs a folder: give data.cache_dir, or use memory or off")
        self.num_workers = data.num_workers if num_workers is None else num_workers
        self._stacks = {stack.path: stack for stack in stacks}
        self._frames: dict[Path, PreparedStack] = {}
        self._ranges: dict[Path, StackRange | None] = {}
        self._pool = StackPool()
        self._lock = threading.Lock()

    def prepare(self, stacks: Sequence[Stack] | None = None) -> None:
        """Build or open the frames of stacks (all by default) now instead of at the first batch.

        Raises:
            StackError: Naming every stack that cannot be used.
        """
        if self.data.cache == "off":
            return
        wanted = [
            s for s in (self._stacks.values() if stacks is None else stacks) if s.path not in self._frames
        ]
        if wanted:
            folder = self.folder if self.data.cache == "disk" else None
            self._frames.update(load_frames(wanted, self.transforms, folder, self.num_workers))

    def check(self, tables: Sequence[FrameTable]) -> None:
        """Refuse tables that ask for pages that cannot be used; prepares their stacks.

        With ``cache: off`` no page has been decoded yet, and a bad one is found when it is read.

        Raises:
            StackError: One error that names every such page.
        """
        self.prepare(list({stack.path: stack for table in tables for stack in table.stacks}.values()))
        problems: dict[str, int] = {}
        for table in tables:
            for shift in self._shifts(table):
                for s, stack in enumerate(table.stacks):
                    prepared = self._frames.get(stack.path)
                    if prepared is None or not prepared.bad_pages:
                        continue
                    pages = table.frame_index[table.stack_index == s] + shift
                    for page in np.clip(pages, 0, len(prepared) - 1).tolist():
                        if page in prepared.bad_pages:
                            reason = prepared.bad_pages[page]
                            problems[reason] = problems.get(reason, 0) + 1
        if problems:
            raise StackError(
                f"{len(problems)} pages that data.frames chooses cannot be used: repair them, leave them out by the "
                "hours of data.frames, or remove their stacks:\n  " + "\n  ".join(problems)
            )

    def batch(self, table: FrameTable, indices: ArrayLike) -> Tensor:
        """Frames of some samples.

        Page numbers beyond a stack are clamped to it. With ``channel_offsets_hours`` the three channels are the
        frames at these offsets, clamped at the start of the recording.

        Args:
            table: The samples.
            indices: [B] rows of the table.

        Returns:
            [B, C, S, S] uint8; C is 1 for gray stacks, 3 when a stack of the table has colours or for offsets.

        Raises:
            StackError: Naming file and page, when a page cannot be used.
        """
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        sources = table.stack_index[rows]
        shifted = [
            self._gather(table, sources, np.maximum(table.frame_index[rows] + shift, 0))
            for shift in self._shifts(table)
        ]
        if self.data.channel_offsets_hours is None:
            return torch.from_numpy(shifted[0])
        if shifted[0].shape[1] != 1:
            raise ValueError(
                "data.channel_offsets_hours needs gray stacks, but a stack of the table has colours"
            )
        return torch.from_numpy(np.concatenate(shifted, axis=1))

    def page(self, stack: Stack, index: int) -> NDArray[np.generic]:
        """A raw page; the number is clamped to the stack."""
        return self._pool.page(stack.path, _clamp(index, stack.n_frames))

    def _shifts(self, table: FrameTable) -> list[int]:
        """Pages by which the channels lie apart; a single 0 for plain frames."""
        offsets = self.data.channel_offsets_hours
        return [0] if offsets is None else [round(hours * table.frames_per_hour) for hours in offsets]

    def _gather(
        self, table: FrameTable, sources: NDArray[np.int64], frames: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        size = self.transforms.image_size
        if self.data.cache == "off":
            images = [self._decode(table.stacks[s], int(f)) for s, f in zip(sources, frames, strict=True)]
            channels = (
                3
                if any(stack.shape is not None and has_colours(stack.shape) for stack in table.stacks)
                else 1
            )
            result = np.empty((len(images), channels, size, size), np.uint8)
            for target, image in zip(result, images, strict=True):
                target[:] = np.moveaxis(image, 2, 0) if image.ndim == 3 else image
            return result
        with self._lock:
            self.prepare(table.stacks)
        prepared = [self._frames[stack.path] for stack in table.stacks]
        channels = max((stack.frames.shape[1] for stack in prepared), default=1)
        result = np.empty((len(sources), channels, size, size), np.uint8)
        for target, s, f in zip(result, sources, frames, strict=True):
            page = _clamp(int(f), len(prepared[s]))
            if page in prepared[s].bad_pages:
                raise StackError(prepared[s].bad_pages[page])
            target[:] = prepared[s].frames[page]
        return result

    def _decode(self, stack: Stack, frame: int) -> NDArray[np.uint8]:
        index = _clamp(frame, stack.n_frames)
        if stack.path not in self._ranges:
            self._ranges[stack.path] = find_stack_range(stack, self.transforms)
        where, limits = f"{stack.path}: page {index}", self._ranges[stack.path]
        return prepare_page(self.page(stack, index), self.transforms, where, limits, stack.shape)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock, and memory maps: another process opens its own."""
        frames = {} if self.data.cache == "disk" else self._frames
        return {**self.__dict__, "_lock": None, "_frames": frames}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class FrameDataset(Dataset[Sample]):
    """The original's samples: (image [3, S, S] float32 normalised, label, metadata), without augmentation.

    For a ``torch.utils.data.DataLoader``; the training loop gathers whole batches from the store instead.
    """

    def __init__(self, table: FrameTable, store: FrameStore) -> None:
        self.table = table
        self.store = store

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        images = eval_tensor(self.store.batch(self.table, indices), self.store.transforms)
        samples: list[Sample] = []
        for image, index in zip(images, indices, strict=True):
            metadata = self.get_metadata(index)
            label = metadata.pop("label")
            samples.append((image, label, metadata))
        return samples

    def get_metadata(self, index: int) -> dict[str, Any]:
        """Path, condition, position, frame index, hours and label of a sample."""
        return self.table.metadata(index)


class EpochSampler:
    """The batches of every epoch as a pure function of seed and epoch.

    Example:
        >>> sampler = EpochSampler(8, 3, seed=0, shuffle=False)
        >>> [batch.tolist() for batch in sampler.batches(1, skip=1)]
        [[3, 4, 5], [6, 7]]

    A remainder of a single sample joins the batch before it, since batch norm has no statistics of one frame.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        weights: ArrayLike | None = None,
    ) -> None:
        """Describe an epoch.

        Args:
            n: Samples.
            batch_size: Of the batch that all processes share.
            seed: Of the order.
            shuffle: A new permutation every epoch; otherwise the samples in order.
            drop_last: Leave out a last batch that is not full.
            weights: [n] chances ≥ 0 of drawing with replacement instead of a permutation.
        """
        if n < 1 or batch_size < 1:
            raise ValueError(f"expected at least one sample and a batch size ≥ 1, found {n} and {batch_size}")
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.drop_last = drop_last
        self.chances: NDArray[np.float64] | None = None
        if weights is not None:
            w = np.asarray(weights, dtype=np.float64)
            if w.shape != (n,) or not np.isfinite(w).all() or w.min() < 0 or w.sum() <= 0:
                raise ValueError(
                    f"weights: expected {n} numbers ≥ 0 that are not all 0, found shape {w.shape}"
                )
            self.chances = w / w.sum()

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.n, self.batch_size)
        if self.drop_last or (rest == 1 and full > 0):
            return full
        return full + (rest > 0)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """[n] sample numbers of an epoch."""
        generator = np.random.Generator(np.random.Philox(derive_seed(self.seed, "sampler", epoch)))
        if self.chances is not None:
            return generator.choice(self.n, size=self.n, replace=True, p=self.chances).astype(np.int64)
        return generator.permutation(self.n).astype(np.int64) if self.shuffle else np.arange(self.n)

    def batches(self, epoch: int, skip: int = 0) -> Iterator[NDArray[np.int64]]:
        """Every batch, over all processes.

        Args:
            epoch: Number of the epoch.
            skip: Batches already done, when an epoch is resumed in the middle.
        """
        order = self.order(epoch)
        for number in range(skip, len(self)):
            start, end = number * self.batch_size, (number + 1) * self.batch_size
            if number == len(self) - 1 and not self.drop_last:
                end = self.n
            yield order[start:end]


def sampler_weights(labels: ArrayLike) -> NDArray[np.float64]:
    """[N] weights 1 / (samples of the class), so that classes are drawn equally often; 1 for a single class.

    Example:
        >>> sampler_weights([1, 1, 0]).tolist()
        [0.5, 0.5, 1.0]
    """
    _, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse] if len(counts) > 1 else np.ones(len(inverse))


def _clamp(index: int, n: int) -> int:
    return min(max(index, 0), n - 1)
