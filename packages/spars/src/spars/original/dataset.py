"""The original's data sets: NIfTI files of the Medical Segmentation Decathlon, volumes drawn with replacement."""

from __future__ import annotations

import logging
import os
import random
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spars.errors import DataError

logger = logging.getLogger(__name__)

Transform = Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]

SUFFIXES = (".nii", ".nii.gz")


class CustomDataset(Dataset[tuple[Any, Any]]):
    """``CustomDataset`` of ``net_global.py``, which none of its scripts use: pairs of images and labels.

    Args:
        images: Anything with an index.
        labels: As many.
    """

    def __init__(self, images: Sequence[Any], labels: Sequence[Any]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return one pair."""
        return self.images[index], self.labels[index]


class NIfTIDataset:
    """``NIfTIDataset`` of ``net_global.py``: labelled volumes of a folder, and batches of their crops.

    Cases are sorted by number, files other than ``.nii`` and ``.nii.gz`` are left out, and an image must be there;
    faithful: in the order of the directory listing, which differs between file systems, with every file whose name does
    not begin with a dot, and any ``labelsTr`` in the whole path replaced by ``imagesTr``.

    Args:
        dir_path: Folder with ``imagesTr`` and ``labelsTr``.
        transform: From image and label ``[X, Y, Z]`` to crops of both, e.g.
            :class:`spars.original.crops.NRandomCrop`.
        faithful: As the original.
        rng: Source of the draws of volumes; None: Python's shared one.

    Attributes:
        pairs: Paths of image and label of each case.

    Raises:
        DataError: A folder or an image is missing.
    """

    def __init__(
        self,
        dir_path: str | os.PathLike[str],
        transform: Transform | None = None,
        *,
        faithful: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.transform = transform
        self.faithful = faithful
        self.rng: Any = random if rng is None else rng
        folder = Path(dir_path) / "labelsTr"
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; data_dir must hold imagesTr/ and labelsTr/")
        # os.listdir: a faithful run keeps its order, which is the file system's.
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
        if faithful:
            labels = [str(folder / name) for name in names]
            self.pairs = [(Path(path.replace("labelsTr", "imagesTr")), Path(path)) for path in labels]
        else:
            names = sorted((name for name in names if name.endswith(SUFFIXES)), key=natural_key)
            self.pairs = [(_image_of(folder, name), folder / name) for name in names]
        logger.info("Found %d training files and %d label files.", len(self.pairs), len(self.pairs))
        logger.info("Combined into %d pairs.", len(self.pairs))

    def __len__(self) -> int:
        return len(self.pairs)

    def get_data_batch(self, batch_size: int, start_file_no: int, end_file_no: int) -> tuple[Tensor, Tensor]:
        """Draw volumes with replacement and crop them.

        Args:
            batch_size: Volumes.
            start_file_no: First case of the listing that may be drawn.
            end_file_no: One past the last; beyond the listing's end it means the end.

        Returns:
            Crops of the images and of the tumour masks, ``[batch_size · crops, 1, X, Y, Z]``.

        Raises:
            DataError: The range holds no case, there is no transform, or a file cannot be read.
        """
        if self.transform is None:
            raise DataError(
                "get_data_batch needs a transform that crops the volumes, e.g. NRandomCrop(crop_size, crop_no)"
            )
        pairs = self.pairs[start_file_no:end_file_no]
        if not pairs:
            raise DataError(
                f"no case to draw from: the range [{start_file_no}, {end_file_no}) of {len(self.pairs)} cases is "
                "empty; check the number of files in labelsTr/ and the range"
            )
        logger.debug("%d image files, %d label files", len(pairs), len(pairs))
        crops, masks = [], []
        for _ in range(batch_size):
            image_path, label_path = pairs[self.rng.randint(0, len(pairs) - 1)]
            image, label = self._read(image_path), self._read(label_path)
            if image.shape != label.shape:
                raise DataError(
                    f"{image_path} has the shape {image.shape}, its label {label_path} {label.shape}"
                )
            crop, mask = self.transform(image, label)
            crops.append(crop)
            masks.append(mask)
        return torch.from_numpy(np.concatenate(crops)), torch.from_numpy(np.concatenate(masks))

    def _read(self, path: Path) -> NDArray[Any]:
        import nibabel
        from nibabel.filebasedimages import ImageFileError

        try:
            image: Any = nibabel.load(path)  # type: ignore[attr-defined]
            # The original holds float64; the crops become float32 in either case.
            return image.get_fdata(caching="unchanged", dtype=np.float64 if self.faithful else np.float32)
        except FileNotFoundError:
            raise DataError(
                f"{path}: no such volume; every label in labelsTr/ needs its image in imagesTr/"
            ) from None
        except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
            raise DataError(
                f"{path}: not a NIfTI volume that can be read, it may be damaged: {error}"
            ) from error


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts ``liver_5`` before ``liver_12``."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _image_of(labels: Path, name: str) -> Path:
    image = labels.with_name("imagesTr") / name
    if not image.is_file():
        raise DataError(
            f"{image}: no such image, but {labels / name} is its label; add the image or remove the label"
        )
    return image
