"""The original's training crops, with its random draws, and the corrected ones under the same name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.original.resize import FULL_SHAPE, resize_image

if TYPE_CHECKING:
    import torch

Size = tuple[int, int, int]
Voxel = tuple[int, int, int]

BODY_HU = -300  # voxels above it are body
MOST_TRIES = 1000  # draws of one negative crop


class NRandomCrop:
    """``NRandomCrop`` of ``net_global.py``: crops of a volume, half of them at tumour, stretched to one size.

    The faithful draws are the original's bit for bit (Python's ``random``, one ``choice`` a crop), without its two
    index tables of 24 bytes a voxel. What is corrected by default:

    * the drawn voxel lies anywhere in the crop; faithful: it is the crop's lowest corner;
    * crops are moved inside the volume; faithful: they are cut at its far border, down to one voxel, and stretched all
      the same;
    * tumour voxels are those of the mask; faithful: of the mask dilated by one voxel;
    * crops without tumour come from the body and hold no tumour voxel; faithful: their corner is any voxel of the
      volume outside the dilated mask, and they may hold tumour;
    * an odd number of crops is kept; faithful: it loses one;
    * the label is left alone; faithful: it is changed in place to tumour 1, everything else 0.

    Args:
        crop_size: Size of a crop in voxels; the original's scripts give (96, 96, 64).
        crop_no: Crops of a volume.
        size: What crops are stretched to.
        faithful: As the original.
        rng: Source of the draws; None: Python's shared one, which ``random.seed`` sets.
    """

    def __init__(
        self,
        crop_size: Sequence[int] = (64, 64, 32),
        crop_no: int = 10,
        *,
        size: Sequence[int] = FULL_SHAPE,
        faithful: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.crop_size: Size = (int(crop_size[0]), int(crop_size[1]), int(crop_size[2]))
        self.crop_no = crop_no
        self.size = tuple(size)
        self.faithful = faithful
        self.rng: Any = random if rng is None else rng

    def __call__(
        self, images: NDArray[Any], labels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw crops of a volume.

        Args:
            images: ``[X, Y, Z]``, HU.
            labels: ``[X, Y, Z]``: 0 background, 1 liver, 2 tumour. Changed in place when faithful.

        Returns:
            Stretched crops of the image and of the tumour mask, float32 ``[crops, 1, *size]``; the mask's are
            fractions, because it is stretched as numbers (:func:`crop_classes`).

        Raises:
            DataError: Shapes differ, or (corrected) no crop without tumour was found.
            IndexError: As the original, a mask that leaves fewer than three voxels free.
            ValueError: As the original, too few voxels to draw ``crop_no`` crops from.
        """
        if images.shape != labels.shape or images.ndim != 3:
            raise DataError(
                f"expected an image and a label of one shape [X, Y, Z], found {images.shape}, {labels.shape}"
            )
        if self.faithful:
            labels[labels == 1] = 0
            labels[labels == 2] = 1
            mask = dilate(labels)
            starts = self.corners(mask)
        else:
            mask = labels == 2
            starts = self.starts(images, mask)
            images, mask = self._padded(images, images.min(initial=0)), self._padded(mask, False)
        if not starts:
            raise ValueError("need at least one array to concatenate: too few voxels to draw crops from")
        boxes = [
            tuple(slice(s, s + c) for s, c in zip(start, self.crop_size, strict=True)) for start in starts
        ]
        shape = (len(boxes), 1, *self.size)
        crops, masks = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for index, box in enumerate(boxes):
            crops[index] = resize_image(images[box], self.size)[0].numpy()
            masks[index] = resize_image(mask[box], self.size)[0].numpy()
        return crops, masks

    def corners(self, dilated: NDArray[np.bool_]) -> list[Voxel]:
        """Draw the lowest corners of the faithful crops.

        Args:
            dilated: bool ``[X, Y, Z]``, from :func:`dilate`.

        Raises:
            IndexError: Fewer than three voxels are outside the mask.
        """
        positives, negatives = _Voxels(dilated), _Voxels(~dilated)
        # The original means to keep negative crops inside the volume and clips the columns of its table of voxels, but
        # takes the rows for the columns: three rows change, and only in crops larger than the volume or after tumour
        # at the origin does that matter.
        for axis, (size, crop) in enumerate(zip(dilated.shape, self.crop_size, strict=True)):
            negatives.clip_row(axis, size - crop - 1)
        if len(positives) == 0 and len(negatives) >= self.crop_no:
            return [self.rng.choice(negatives) for _ in range(self.crop_no)]
        if len(positives) == 0 or len(negatives) == 0:
            return []
        half = self.crop_no // 2
        return [self.rng.choice(positives) for _ in range(half)] + [
            self.rng.choice(negatives) for _ in range(half)
        ]

    def starts(self, images: NDArray[Any], mask: NDArray[np.bool_]) -> list[Voxel]:
        """Draw the starts of the corrected crops: half of them hold tumour where there is any, the rest hold none.

        Args:
            images: ``[X, Y, Z]``, HU.
            mask: bool ``[X, Y, Z]``: tumour.

        Raises:
            DataError: No crop without tumour was found.
        """
        tumour = _Voxels(mask)
        n_positive = self.crop_no // 2 if len(tumour) else 0
        found = []
        for _ in range(n_positive):
            voxel = self.rng.choice(tumour)
            start = [v - self.rng.randrange(c) for v, c in zip(voxel, self.crop_size, strict=True)]
            found.append(clipped_start(start, self.crop_size, mask.shape))
        box = _bounding_box(images > BODY_HU)
        for _ in range(self.crop_no - n_positive):
            found.append(self._negative(box, mask))
        return found

    def _negative(self, box: tuple[Voxel, Voxel], mask: NDArray[np.bool_]) -> Voxel:
        for _ in range(MOST_TRIES):
            voxel = [self.rng.randint(low, high) for low, high in zip(*box, strict=True)]
            start = centred_start(voxel, self.crop_size, mask.shape)
            if not mask[tuple(slice(s, s + c) for s, c in zip(start, self.crop_size, strict=True))].any():
                return start
        raise DataError(
            f"no crop of {'×'.join(map(str, self.crop_size))} voxels without tumour was found in {MOST_TRIES} draws; "
            "choose a smaller crop_size, or leave this case out"
        )

    def _padded(self, array: NDArray[Any], value: Any) -> NDArray[Any]:
        missing = [(0, max(0, c - n)) for n, c in zip(array.shape, self.crop_size, strict=True)]
        return np.pad(array, missing, constant_values=value) if any(n for _, n in missing) else array


def dilate(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask grown by the 6 neighbours of its voxels (scipy's default cross)."""
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(labels != 0), dtype=bool)


def crop_classes(labels: torch.Tensor, *, faithful: bool = False) -> torch.Tensor:
    """Return the class of stretched crops of the tumour mask.

    Args:
        labels: ``[n, ...]``, fractions.
        faithful: Only a maximum of exactly 1 makes a crop positive; else any tumour does.

    Returns:
        int64 ``[n]``: 1 tumour, 0 none.
    """
    largest = labels.flatten(1).amax(1)
    return largest.long() if faithful else (largest > 0).long()


def clipped_start(start: Sequence[int], crop: Sequence[int], shape: Sequence[int]) -> Voxel:
    """Return the nearest start that keeps a crop inside a volume, 0 along axes where the crop is the larger one."""
    a, b, c = (min(max(0, s), max(0, n - k)) for s, k, n in zip(start, crop, shape, strict=True))
    return a, b, c


def centred_start(voxel: Sequence[int], crop: Sequence[int], shape: Sequence[int]) -> Voxel:
    """Return the start of the crop around a voxel, moved inside the volume."""
    return clipped_start([v - k // 2 for v, k in zip(voxel, crop, strict=True)], crop, shape)


class _Voxels(Sequence[Voxel]):
    """The voxels of a mask in C order as a sequence, found when asked for and not kept in a table."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        self._ends = np.cumsum(np.count_nonzero(mask.reshape(len(mask), -1), axis=1))
        self._rows: dict[int, Voxel] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(f"index {index} is out of bounds for dimension 0 with size {len(self)}")
        if index in self._rows:
            return self._rows[index]
        slab = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[slab - 1]) if slab else 0
        place = np.flatnonzero(self._mask[slab])[index - before]
        y, z = np.unravel_index(place, self._mask.shape[1:])
        return slab, int(y), int(z)

    def clip_row(self, row: int, high: int) -> None:
        """Limit all three coordinates of a voxel to [0, high]; a negative ``high`` wins."""
        x, y, z = (min(max(0, value), high) for value in self[row])
        self._rows[row] = (x, y, z)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[Voxel, Voxel]:
    """Return first and last voxel of a mask along each axis; of the whole volume where the mask is empty."""
    ends = []
    for axis in range(3):
        along = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append((int(along[0]), int(along[-1])) if len(along) else (0, mask.shape[axis] - 1))
    (a, d), (b, e), (c, f) = ends
    return (a, b, c), (d, e, f)
