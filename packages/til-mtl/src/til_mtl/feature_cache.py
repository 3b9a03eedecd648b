"""The frozen encoder's features of every patch, computed once.

With all encoder stages and their norms frozen, and no augmentation, c2 and c3 of a patch never change: later epochs
only run the fourth stage, the pyramid and the decoder. In float32 a patch of 256x256 takes 3.1 MB, in float16 half.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from til_mtl.config import Config
from til_mtl.data.loading import to_tensor
from til_mtl.errors import TrainingError
from til_mtl.models.deeplab import Features, TilNetwork

logger = logging.getLogger(__name__)

# Features are computed for groups of neighbours in the store, not for the batches that ask for them: rounding may
# depend on a batch's size, and a resumed run must get the same numbers as one that was never stopped.
GROUP = 8


class ImageStore(Protocol):
    """What a cache needs of a `til_mtl.data.store.PatchStore`."""

    def __len__(self) -> int:
        """Return the number of patches."""
        ...

    def images(self, indices: np.ndarray, /) -> np.ndarray:
        """Return uint8 ``[n, H, W, 3]``."""
        ...


class FeatureCache:
    """Features by position in a store, filled when they are first asked for.

    Args:
        network: Its encoder must be constant: all stages frozen, with their norms.
        store: The patches.
        config: ``normalize``; ``cache: disk`` keeps the features in ``cache_dir`` while the run lasts, anything else
            in memory.
        device: Where the encoder runs and features are returned.
        half: Keep float16; halves the size at a relative error of 5e-4.

    Raises:
        TrainingError: The encoder is not constant.
    """

    def __init__(
        self,
        network: TilNetwork,
        store: ImageStore,
        config: Config,
        *,
        device: torch.device | str = "cpu",
        half: bool = False,
    ) -> None:
        if not network.encoder_is_constant:
            raise TrainingError(
                "cached features need an encoder that never changes: freeze_encoder: true, freeze_until: layer3 and "
                "freeze_bn: true"
            )
        self.network, self.store, self.normalize = network, store, config.normalize
        self.device = torch.device(device)
        self.dtype = torch.float16 if half else torch.float32
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if config.cache == "disk" and config.cache_dir is not None:
            Path(config.cache_dir).mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(dir=config.cache_dir, prefix="features-")
        self._known = np.zeros(len(store), dtype=bool)
        self._arrays: tuple[Tensor, Tensor] | None = None

    def get(self, indices: np.ndarray | Sequence[int]) -> Features:
        """Return features in float32 on the device.

        Args:
            indices: Positions in the store, ``[n]``.

        Returns:
            c2 ``[n, 512, H/8, W/8]`` and c3 ``[n, 1024, H/16, W/16]`` (in ResNet-50).

        Raises:
            TrainingError: A feature does not fit float16.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        for group in np.unique(wanted[~self._known[wanted]] // GROUP):
            self._fill(np.arange(group * GROUP, min((group + 1) * GROUP, len(self._known))))
        assert self._arrays is not None  # noqa: S101 - for type checkers: filled above
        rows = torch.from_numpy(wanted)
        c2, c3 = (
            array[rows].to(self.device, dtype=torch.float32, non_blocking=True) for array in self._arrays
        )
        return Features(c2, c3)

    def _fill(self, rows: np.ndarray) -> None:
        images = to_tensor(self.store.images(rows), self.normalize, self.device)
        with torch.no_grad():
            features = self.network.encode(images)
        arrays = self._arrays or self._allocate(features)
        for array, values in zip(arrays, features, strict=True):
            kept = values.to("cpu", self.dtype)
            if self.dtype == torch.float16 and not bool(torch.isfinite(kept).all()):
                raise TrainingError(
                    f"a feature of {float(values.abs().max()):.3g} does not fit float16; keep float32 features"
                )
            array[torch.from_numpy(rows)] = kept
        self._arrays = arrays
        self._known[rows] = True

    def _allocate(self, features: Features) -> tuple[Tensor, Tensor]:
        shapes = [(len(self._known), *values.shape[1:]) for values in features]
        size = sum(int(np.prod(shape)) for shape in shapes) * self.dtype.itemsize
        where = "memory" if self._folder is None else self._folder.name
        logger.info("cached features of %d patches: %.1f GB in %s", len(self._known), size / 1e9, where)
        arrays = [self._array(f"c{number}.npy", shape) for number, shape in zip((2, 3), shapes, strict=True)]
        return arrays[0], arrays[1]

    def _array(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if self._folder is None:
            return torch.empty(shape, dtype=self.dtype)
        kind = np.float16 if self.dtype == torch.float16 else np.float32
        path = Path(self._folder.name) / name
        return torch.from_numpy(np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape))
