"""From stored patches to tensors on the device, prepared in a thread while the network works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from til_mtl.data.augment import Augmentation
from til_mtl.data.store import PatchStore

# Mean and standard deviation of red, green and blue in [0, 1].
NORMALISATION: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "lunit": ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class PatchBatch(NamedTuple):
    """What one training or validation step gets.

    Attributes:
        images: float32 [n, 3, H, W], in [0, 1] or normalised.
        masks: int64 [n, H, W], labels.
        tasks: int64 [n] on the CPU, where they decide what is computed: 0 segmentation, 1 detection.
        indices: int64 [n], positions in the store.
    """

    images: torch.Tensor
    masks: torch.Tensor
    tasks: torch.Tensor
    indices: np.ndarray


def to_tensor(
    images: np.ndarray | torch.Tensor,
    normalize: str = "none",
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return images as the network takes them; bytes travel to the device, not floats.

    Args:
        images: uint8 [n, H, W, 3].
        normalize: ``none`` (the original: division by 255 only), ``lunit`` or ``imagenet``.
        device: Where to.
        dtype: Floating-point type of the result.

    Returns:
        [n, 3, H, W].

    Raises:
        ValueError: For an unknown normalisation.
    """
    if normalize != "none" and normalize not in NORMALISATION:
        raise ValueError(f"normalize must be none, {', '.join(NORMALISATION)}; found {normalize!r}")
    pixels = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
    scaled = pixels.to(dtype, memory_format=torch.contiguous_format) / 255
    if normalize == "none":
        return scaled
    mean, deviation = _moments(normalize, dtype, scaled.device)
    return (scaled - mean) / deviation


@cache  # made anew for each batch they would make the CPU wait for the GPU
def _moments(normalize: str, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation, [1, 3, 1, 1]."""
    mean, deviation = (
        torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
        for values in NORMALISATION[normalize]
    )
    return mean, deviation


class _RawBatch(NamedTuple):
    images: torch.Tensor
    masks: torch.Tensor
    indices: np.ndarray


def iterate_batches(
    store: PatchStore,
    batches: Iterable[np.ndarray],
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    normalize: str = "none",
    device: torch.device | str = "cpu",
    pin_memory: bool = False,
    prefetch: int = 2,
) -> Iterator[PatchBatch]:
    """Yield batches as tensors on the device; the next ones are decoded and augmented meanwhile.

    Args:
        store: The patches.
        batches: Positions of each batch, see `til_mtl.data.sampling.EpochBatches`.
        augmentation: Of training patches; ``None`` leaves them as they are.
        seed: Of the augmentation.
        epoch: From 0, for the augmentation.
        normalize: As for `to_tensor`.
        device: Where to.
        pin_memory: Copy from page-locked memory; only with CUDA.
        prefetch: Batches prepared ahead; 0 prepares each when it is asked for.

    Yields:
        The batches in order.

    Raises:
        DataError: A file that cannot be used, when patches are decoded on the way.
    """
    pinned = pin_memory and torch.device(device).type == "cuda"

    def prepare(indices: np.ndarray) -> _RawBatch:
        arrays = store.images(indices), store.masks(indices)
        if augmentation is not None:
            arrays = augmentation.apply(*arrays, seed, epoch, indices)
        images, masks = (torch.from_numpy(np.ascontiguousarray(each)) for each in arrays)
        if pinned:
            images, masks = images.pin_memory(), masks.pin_memory()
        return _RawBatch(images, masks, indices)

    raw = _ahead(batches, prepare, prefetch) if prefetch > 0 else map(prepare, batches)
    for batch in raw:
        yield PatchBatch(
            to_tensor(batch.images, normalize, device),
            batch.masks.to(device, non_blocking=True).long(),
            torch.from_numpy(store.tasks[batch.indices]),
            batch.indices,
        )


def _ahead(
    batches: Iterable[np.ndarray], prepare: Callable[[np.ndarray], _RawBatch], depth: int
) -> Iterator[_RawBatch]:
    """Prepare batches in a thread that ends with the consumer, and hand over its errors."""
    ready: queue.Queue[_RawBatch | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: _RawBatch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for indices in batches:
                if stopped.is_set():
                    return
                put(prepare(indices))
            put(None)
        except BaseException as error:  # raised again where the batch is asked for
            put(error)

    thread = threading.Thread(target=work, name="patches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
