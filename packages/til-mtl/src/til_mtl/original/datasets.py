"""The original's data classes under their names: one item at a time, for code that was written for them.

Training itself goes through `til_mtl.data`, which decodes once and in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from til_mtl.config import Config, Task
from til_mtl.data.folders import find_run_patches, pair_files
from til_mtl.data.images import Resample, read_image, read_labels, read_mask
from til_mtl.data.loading import to_tensor
from til_mtl.data.store import cpu_threads

Transform = Callable[[np.ndarray], torch.Tensor]
_ROUTES = {"segmentation": "s", "detection": "d"}


class _SplitDataset(Dataset[tuple[Any, ...]]):
    """Items of one split: image, mask, and for the multi-task network the letter of the task.

    The original took the letter from the 20th character of the mask's path; here the folder tells the task.
    """

    split: str

    def __init__(
        self,
        data_dir: str | Path | None = None,
        transform: Transform | None = None,
        *,
        task: Task = "mtl",
        img_size: tuple[int, int] = (256, 256),
        mask_resample: Resample = "nearest",
        **config: Any,
    ) -> None:
        """List the patches.

        Args:
            data_dir: Data root; by default the working directory.
            transform: uint8 [H, W, 3] → tensor; by default float32 [3, H, W] in [0, 1].
            task: ``mtl``, ``seg`` or ``det``.
            img_size: (width, height) that other patches are resized to.
            mask_resample: ``bicubic`` is the original's.
            **config: Further keys of `til_mtl.config.Config`, such as ``fold_seg`` and ``val_split``.

        Raises:
            DataError: As `til_mtl.data.folders.find_run_patches`.
        """
        settings = Config(data_dir=None if data_dir is None else Path(data_dir), task=task, **config)
        self.files = find_run_patches(settings)[self.split]
        self.transform = transform or _to_tensor
        self.task, self.img_size = task, img_size
        self.mask_resample: Resample = mask_resample

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return (image, mask) or, for the multi-task network, (image, mask, "s" or "d")."""
        file = self.files[index]
        image = self.transform(read_image(file.image, self.img_size))
        mask = read_mask(file.mask, file.task, self.img_size, self.mask_resample)
        return (image, mask, _ROUTES[file.task]) if self.task == "mtl" else (image, mask)


class train_Dataset(_SplitDataset):  # noqa: N801 - the original's name
    """Training patches: for the multi-task network all of tissue, then all of cells."""

    split = "train"


class val_Dataset(_SplitDataset):  # noqa: N801 - the original's name
    """Validation patches; the released original read the training folder for the cells."""

    split = "val"


class Total_Dataset(Dataset[tuple[torch.Tensor, np.ndarray]]):  # noqa: N801 - the original's name
    """Pairs of ``<root>/images`` and ``<root>/masks``, whatever their labels mean."""

    def __init__(
        self,
        root: str | Path,
        transform: Transform | None = None,
        *,
        img_size: tuple[int, int] = (256, 256),
    ) -> None:
        """List the pairs.

        Args:
            root: Folder with ``images`` and ``masks``.
            transform: As for `train_Dataset`.
            img_size: (width, height).

        Raises:
            DataError: As `til_mtl.data.folders.pair_files`.
        """
        self.pairs = list(pair_files(Path(root) / "images", Path(root) / "masks").values())
        self.transform, self.img_size = transform or _to_tensor, img_size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        """Return image and mask."""
        from PIL import Image

        image, mask = self.pairs[index]
        labels = Image.fromarray(read_labels(mask)).resize(self.img_size, Image.Resampling.NEAREST)
        return self.transform(read_image(image, self.img_size)), np.array(labels)


class DataModule:
    """Loaders of training and validation batches.

    Attributes:
        train_dataset: Training patches.
        val_dataset: Validation patches.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        val_split: float = 0.2,
        test_split: float = 0.0,
        num_workers: int = 8,
        batch_size: int = 32,
        seed: int = 42,
        shuffle: bool = True,
        pin_memory: bool = True,
        drop_last: bool = False,
        **dataset: Any,
    ) -> None:
        """Find the patches.

        Args:
            data_dir: Data root.
            val_split: Share of the slides for validation where there is no folder ``val``.
            test_split: The same for ``test``.
            num_workers: Processes that load; at most the CPUs.
            batch_size: Patches of a batch.
            seed: Of the split and of the order.
            shuffle: The training set; the validation set never is.
            pin_memory: Only with CUDA.
            drop_last: Leave out an incomplete last training batch; the original did so in validation, too.
            **dataset: As for `train_Dataset`.
        """
        shared: dict[str, Any] = {"val_split": val_split, "test_split": test_split, "seed": seed, **dataset}
        self.train_dataset = train_Dataset(data_dir, **shared)
        self.val_dataset = val_Dataset(data_dir, **shared)
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self._loading = {
            "num_workers": min(num_workers, cpu_threads()),
            "pin_memory": pin_memory and torch.cuda.is_available(),
        }

    def train_dataloader(self) -> DataLoader[tuple[Any, ...]]:
        """Return the loader of training batches."""
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            self.train_dataset, self.batch_size, shuffle=self.shuffle, drop_last=self.drop_last,
            generator=generator, **self._loading,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[tuple[Any, ...]]:
        """Return the loader of validation batches."""
        return DataLoader(self.val_dataset, self.batch_size, shuffle=False, **self._loading)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return to_tensor(image[None])[0]
