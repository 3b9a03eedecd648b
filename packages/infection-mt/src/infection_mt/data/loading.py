"""Batches for the loop: frames are gathered in the background while the network works on the batch before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infection_mt.config import TransformsConfig
from infection_mt.data.dataset import FrameStore
from infection_mt.data.table import FrameTable

Indices = NDArray[np.int64]


def iterate_batches(
    store: FrameStore, table: FrameTable, batches: Iterable[Indices], *, workers: int = 1
) -> Iterator[tuple[Indices, Tensor]]:
    """Yield (sample indices, uint8 frames ``[B, C, S, S]``) in the order of ``batches``.

    Args:
        store: Prepared frames.
        table: The samples that the indices point into.
        batches: Index arrays, one a batch.
        workers: Threads that gather ahead; at most ``workers + 1`` batches are held.
    """
    pending: deque[tuple[Indices, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="frames") as pool:
        try:
            for indices in batches:
                pending.append((indices, pool.submit(store.batch, table, indices)))
                if len(pending) > max(1, workers):
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def evaluation_batches(n: int, batch_size: int) -> list[Indices]:
    """Return consecutive index arrays that cover ``range(n)``."""
    return [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def normalise(frames: Tensor, transforms: TransformsConfig) -> Tensor:
    """Turn uint8 frames into the network's input: ``(x / 255 − mean) / std``.

    Gray frames with equal mean and std in all channels keep one channel, which the networks read as three equal
    ones (a third of the work); otherwise the result has three channels.

    Args:
        frames: ``[B, C, S, S]`` uint8, C 1 or 3.
        transforms: Holds mean and std.
    """
    mean, std = transforms.mean, transforms.std
    x = frames.to(torch.float32).div_(255.0)
    if frames.shape[1] == 1 and len(set(mean)) == 1 and len(set(std)) == 1:
        return x.sub_(mean[0]).div_(std[0])
    shape = (1, 3, 1, 1)
    return (x - x.new_tensor(mean).view(shape)) / x.new_tensor(std).view(shape)
