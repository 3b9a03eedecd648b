"""Windows of a volume: drawn at random for training, or counted all at once.

The original takes a voxel of the dilated mask as a crop's lowest corner and cuts the crop off at the border
(`spars.original.crops`). Here the voxel lies at a random place of the crop, crops stay inside, and a crop's class is
what it holds.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.lattice import Lattice

Size = tuple[int, int, int]
Region = Literal["liver", "body", "volume"]

TUMOUR, LIVER = 2, 1
BODY_HU = -300.0  # what is denser belongs to the body
_TRIES = 64  # draws, each of all crops that are still missing


def body_level(hu_window: tuple[float, float] | None) -> float:
    """Return what counts as body in an image scaled by a HU window; null = HU.

    A window that starts above -300 HU leaves nothing lower to tell apart: what is above its lower end is body.
    """
    if hu_window is None:
        return BODY_HU
    low, high = hu_window
    return max(0.0, (BODY_HU - low) / (high - low))


class CropSource:
    """A volume from which crops of both classes are drawn by rejection, without tables of voxels that are not tumour.

    A positive crop holds a tumour voxel, drawn uniformly, at a uniformly random place, as far as the border allows;
    and at least ``min_tumour_voxels`` of them. A negative one is drawn about a voxel of the region and holds none.
    Crops between the two, with fewer tumour voxels than wanted, belong to neither class.

    Args:
        image: ``[X, Y, Z]``, HU or scaled.
        label: ``[X, Y, Z]``, 0 background, 1 liver, 2 tumour; null = unknown, only `draw_windows` works then.
        size: Voxels of a crop. A volume that is smaller is padded with its lowest value.
        min_tumour_voxels: Of a positive crop.
        negative_region: Where negative crops come from: about the liver, in the body's bounding box, anywhere.
        body_above: What counts as body, in the units of ``image``.
        name: For messages.
    """

    def __init__(
        self,
        image: NDArray[np.float32],
        label: NDArray[np.uint8] | None,
        size: Size,
        *,
        min_tumour_voxels: int = 1,
        negative_region: Region = "body",
        body_above: float = BODY_HU,
        name: str = "",
    ) -> None:
        known = np.zeros(image.shape, np.uint8) if label is None else label
        self.image, known = padded(image, known, size)
        self.size, self.at_least, self.region, self.name = size, min_tumour_voxels, negative_region, name
        self.counter = TumourCounter(known)
        self._limit = np.subtract(self.image.shape, size)
        self._tumour = np.argwhere(known == TUMOUR).astype(np.int32)
        self._liver = np.empty(0, np.int64)
        self._low, self._high = np.zeros(3, np.int64), np.array(self.image.shape)
        if negative_region == "liver":
            self._liver = np.flatnonzero(known == LIVER)
        if negative_region == "body" or (negative_region == "liver" and not self._liver.size):
            self._low, self._high = bounding_box(self.image > body_above)

    @property
    def has_positives(self) -> bool:
        """Whether there is tumour enough for a positive crop."""
        return len(self._tumour) >= self.at_least

    def draw(
        self, n: int, rng: np.random.Generator, positive_share: float = 0.5
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw crops of both classes.

        Args:
            n: Number of crops.
            rng: Source of the draws.
            positive_share: Of the crops, rounded down; without tumour all are negative.

        Returns:
            Crops float32 ``[n, *size]``, positive ones first, and classes int64 ``[n]``.

        Raises:
            DataError: The volume has no place for a crop of a class.
        """
        n_positive = int(n * positive_share) if self.has_positives else 0
        starts = np.concatenate([self._positive(n_positive, rng), self._negative(n - n_positive, rng)])
        return cut(self.image, starts, self.size), np.repeat(
            np.array([1, 0], np.int64), [n_positive, n - n_positive]
        )

    def draw_windows(self, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw windows of the region, whatever they hold.

        Args:
            n: Number of windows.
            rng: Source of the draws.

        Returns:
            float32 ``[n, *size]``.
        """
        return cut(self.image, self._about_region(n, rng), self.size)

    def _positive(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        def draw(k: int) -> NDArray[np.int64]:
            voxels = self._tumour[rng.integers(0, len(self._tumour), k)].astype(np.int64)
            return np.clip(voxels - rng.integers(0, self.size, (k, 3)), 0, self._limit)

        found = _accepted(draw, lambda starts: self.counter.counts(starts, self.size) >= self.at_least, n)
        if found is None:
            raise DataError(
                f"{self.name or 'volume'}: hardly a crop of {_text(self.size)} voxels holds {self.at_least} of the "
                f"{len(self._tumour)} tumour voxels; lower min_tumour_voxels or enlarge crop_size"
            )
        return found

    def _negative(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        found = _accepted(
            lambda k: self._about_region(k, rng),
            lambda starts: self.counter.counts(starts, self.size) == 0,
            n,
        )
        if found is None:
            raise DataError(
                f"{self.name or 'volume'}: hardly a crop of {_text(self.size)} voxels in the {self.region} is free of "
                "tumour; reduce crop_size or set negative_region: volume"
            )
        return found

    def _about_region(self, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if self._liver.size:
            drawn = self._liver[rng.integers(0, self._liver.size, k)]
            middle = np.stack(np.unravel_index(drawn, self.image.shape), axis=1)
        else:
            middle = rng.integers(self._low, self._high, (k, 3))
        return np.clip(middle - rng.integers(0, self.size, (k, 3)), 0, self._limit)


def draw_crops(
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    size: Size,
    n: int,
    rng: np.random.Generator,
    *,
    min_tumour_voxels: int = 1,
    negative_region: Region = "body",
    body_above: float = BODY_HU,
    positive_share: float = 0.5,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw crops of one volume once; see `CropSource`, which draws again and again.

    Args:
        image: ``[X, Y, Z]``, HU or scaled.
        label: ``[X, Y, Z]``, 0 background, 1 liver, 2 tumour.
        size: Voxels of a crop.
        n: Number of crops.
        rng: Source of the draws.
        min_tumour_voxels: Of a positive crop.
        negative_region: Where negative crops come from.
        body_above: What counts as body, in the units of ``image``.
        positive_share: Of the crops, rounded down.

    Returns:
        Crops float32 ``[n, *size]``, positive ones first, and classes int64 ``[n]``.

    Raises:
        DataError: The volume has no place for a crop of a class.
    """
    source = CropSource(
        image,
        label,
        size,
        min_tumour_voxels=min_tumour_voxels,
        negative_region=negative_region,
        body_above=body_above,
    )
    return source.draw(n, rng, positive_share)


def padded(
    image: NDArray[np.float32], label: NDArray[np.uint8], size: Size
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Pad a volume that is smaller than a crop, both sides alike: the image with its lowest value, the label with 0.

    Args:
        image: ``[X, Y, Z]``.
        label: Same shape.
        size: Voxels of a crop.

    Raises:
        DataError: Shapes that differ.
    """
    if image.shape != label.shape:
        raise DataError(f"image of shape {list(image.shape)} and label of {list(label.shape)} must be alike")
    missing = [max(0, wanted - n) for wanted, n in zip(size, image.shape, strict=True)]
    if not any(missing):
        return image, label
    widths = [(each // 2, each - each // 2) for each in missing]
    return np.pad(image, widths, constant_values=image.min()), np.pad(label, widths)


def cut(image: NDArray[np.float32], starts: NDArray[np.int64], size: Size) -> NDArray[np.float32]:
    """Copy windows out of a volume.

    Args:
        image: ``[X, Y, Z]``.
        starts: Lowest corners int64 ``[n, 3]``, each in ``[0, shape − size]``.
        size: Voxels of a window.

    Returns:
        float32 ``[n, *size]``.
    """
    windows = np.lib.stride_tricks.sliding_window_view(image, size)
    return np.ascontiguousarray(windows[starts[:, 0], starts[:, 1], starts[:, 2]], dtype=np.float32)


def _accepted(draw, accepts, n: int) -> NDArray[np.int64] | None:
    """Draw until ``n`` starts are accepted; null when that takes too long."""
    if n == 0:
        return np.empty((0, 3), np.int64)
    found, missing = [], n
    for _ in range(_TRIES):
        starts = draw(max(8, 2 * missing))
        kept = starts[accepts(starts)][:missing]
        found.append(kept)
        missing -= len(kept)
        if missing == 0:
            return np.concatenate(found)
    return None


def bounding_box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first voxel and one past the last of a mask along each axis; of the whole array when it is empty.

    Args:
        mask: ``[X, Y, Z]``.
    """
    low, high = np.zeros(3, np.int64), np.array(mask.shape, np.int64)
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if hit.size:
            low[axis], high[axis] = hit[0], hit[-1] + 1
    return low, high


# ---------------------------------------------------------------------- counts


def integral(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of True voxels below each corner.

    Args:
        mask: ``[X, Y, Z]``.

    Returns:
        int64 ``[X + 1, Y + 1, Z + 1]``; entry (i, j, k) counts ``mask[:i, :j, :k]``.
    """
    sums = np.zeros(tuple(n + 1 for n in mask.shape), np.int64)
    inner = sums[1:, 1:, 1:]
    np.cumsum(mask, axis=0, out=inner)
    np.cumsum(inner, axis=1, out=inner)
    np.cumsum(inner, axis=2, out=inner)
    return sums


class TumourCounter:
    """Counts the tumour voxels of any windows of a volume; only the tumour's bounding box is kept.

    Args:
        label: ``[X, Y, Z]``, 0 background, 1 liver, 2 tumour.
    """

    def __init__(self, label: NDArray[np.uint8]) -> None:
        mask = label == TUMOUR
        nowhere = np.zeros(3, np.int64)
        self.low, self.high = bounding_box(mask) if mask.any() else (nowhere, nowhere)
        self.sums = integral(mask[tuple(slice(a, b) for a, b in zip(self.low, self.high, strict=True))])

    def counts(self, starts: NDArray[np.int64], size: Size) -> NDArray[np.int64]:
        """Count the tumour voxels of windows.

        Args:
            starts: Lowest corners int64 ``[n, 3]``.
            size: Voxels of a window.

        Returns:
            int64 ``[n]``.
        """
        first = np.clip(starts, self.low, self.high) - self.low
        end = np.clip(starts + np.asarray(size), self.low, self.high) - self.low
        total = np.zeros(len(starts), np.int64)
        for corner in range(8):
            upper = [corner >> axis & 1 for axis in range(3)]
            a, b, c = (end[:, i] if up else first[:, i] for i, up in enumerate(upper))
            total += (1 if sum(upper) % 2 else -1) * self.sums[a, b, c]
        return total


def window_counts(label: NDArray[np.uint8], lattice: Lattice) -> NDArray[np.int64]:
    """Count the tumour voxels of every window of a lattice.

    Args:
        label: ``lattice.grid``, 0 background, 1 liver, 2 tumour.
        lattice: Window positions.

    Returns:
        int64 ``lattice.shape``.

    Raises:
        DataError: The label has not the lattice's grid.
    """
    if label.shape != tuple(lattice.grid):
        raise DataError(f"label of shape {list(label.shape)} on a lattice over {list(lattice.grid)} voxels")
    counts = TumourCounter(label).counts(lattice.all_starts(), lattice.window)
    return counts.reshape(lattice.shape)


def _text(size: Size) -> str:
    return "×".join(map(str, size))
