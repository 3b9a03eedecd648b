"""Decoded patches at hand: read once, kept in memory or on disk, checked on the way."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from medshared.images import ArrayCache
from medshared.process import progress
from medshared.tables import Column, read_table
from til_mtl.config import Config
from til_mtl.data.folders import PatchFile
from til_mtl.data.images import read_image, read_mask, read_size
from til_mtl.errors import DataError

logger = logging.getLogger(__name__)

TASK_CODES = {"segmentation": 0, "detection": 1}
MAX_THREADS = 20
_MAX_REPORTED = 10
_CHUNK = 64  # patches decoded at a time when the cache is on disk


class PatchStore:
    """Patches of a split as arrays.

    With ``cache: memory`` and ``disk`` all files are decoded when the store is made, so that a bad one shows
    before training; with ``off`` they are decoded at every access.

    Attributes:
        files: The patches.
        tasks: int64 [N], 0 segmentation, 1 detection.
        names: File stems.
        slides: Slide of every patch, empty where unknown.
        size: (width, height) in pixels that all patches have.
    """

    def __init__(self, files: Sequence[PatchFile], config: Config) -> None:
        """Read the patches.

        Args:
            files: As `til_mtl.data.folders.find_patches` returns them.
            config: ``img_size``, ``mask_resample``, ``cache``, ``cache_dir`` and ``num_workers``.

        Raises:
            DataError: Naming the files that cannot be used, up to ten of them.
        """
        self.files = tuple(files)
        self.tasks = np.array([TASK_CODES[each.task] for each in self.files], dtype=np.int64)
        self.names = [each.name for each in self.files]
        self.slides = [each.slide for each in self.files]
        self.size = config.img_size
        self._resample = config.resolved_value("mask_resample")
        self._threads = config.num_workers if config.num_workers is not None else cpu_threads()
        self._images: np.ndarray | None = None
        self._masks: np.ndarray | None = None
        self._points: dict[int, np.ndarray] = {}
        self._tell_resizing()
        if config.cache == "memory":
            self._fill_memory()
        elif config.cache == "disk" and self.files:
            self._fill_disk(ArrayCache(config.cache_dir or Path("cache")))

    def __len__(self) -> int:
        return len(self.files)

    def images(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return images.

        Args:
            indices: Positions in ``files``.

        Returns:
            uint8 [n, H, W, 3].

        Raises:
            DataError: With ``cache: off``, for a file that cannot be used.
        """
        if self._images is not None:
            return np.asarray(self._images[np.asarray(indices, dtype=np.int64)])
        return self._stack(self._decode(indices, "image"), (3,))

    def masks(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return label masks.

        Args:
            indices: Positions in ``files``.

        Returns:
            uint8 [n, H, W].

        Raises:
            DataError: As `images`.
        """
        if self._masks is not None:
            return np.asarray(self._masks[np.asarray(indices, dtype=np.int64)])
        return self._stack(self._decode(indices, "mask"), ())

    def points(self, index: int) -> np.ndarray:
        """Return the cell centres of a detection patch.

        Args:
            index: Position in ``files``.

        Returns:
            float64 [m, 2], (x, y) in pixels of the resized patch, pixel (0, 0) covering [0, 1): the annotated
            points, or the centroids of the mask's components where there are none. Segmentation patches have
            no cells.

        Raises:
            DataError: A table of points that is not one, or has points outside the patch.
        """
        if index not in self._points:
            self._points[index] = self._find_points(self.files[index], index)
        return self._points[index]

    def _tell_resizing(self) -> None:
        """Say so if patches are resized: a network sees cells of another size than was meant."""
        if not self.files:
            return
        try:
            stored = read_size(self.files[0].image)
        except DataError:  # reading it says so
            return
        if stored != tuple(self.size):
            logger.warning(
                "%s: %d x %d pixels, resized to img_size %d x %d like all patches of another size",
                self.files[0].image, *stored, *self.size,
            )  # fmt: skip

    def _find_points(self, file: PatchFile, index: int) -> np.ndarray:
        if file.task == "segmentation":
            return np.empty((0, 2))
        if file.points is None:
            return component_centres(self.masks([index])[0] == 1)
        stored = read_size(file.image)
        return read_points(file.points, stored) * (np.array(self.size) / np.array(stored))

    def _read(self, index: int, what: str) -> np.ndarray | DataError:
        file = self.files[index]
        try:
            if what == "image":
                return read_image(file.image, self.size)
            return read_mask(file.mask, file.task, self.size, self._resample)
        except DataError as error:
            return error

    def _decode(self, indices: np.ndarray | Sequence[int], what: str) -> Iterator[np.ndarray | DataError]:
        wanted = [int(index) for index in indices]
        if self._threads <= 1 or len(wanted) < 2:
            yield from (self._read(index, what) for index in wanted)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            yield from pool.map(lambda index: self._read(index, what), wanted)

    def _stack(self, decoded: Iterator[np.ndarray | DataError], channels: tuple[int, ...]) -> np.ndarray:
        arrays, errors = [], []
        for each in decoded:
            (errors if isinstance(each, DataError) else arrays).append(each)
        raise_errors(errors)
        shape = (len(arrays), self.size[1], self.size[0], *channels)
        return np.stack(arrays) if arrays else np.empty(shape, np.uint8)

    def _fill_memory(self) -> None:
        n, (width, height) = len(self), self.size
        images = np.empty((n, height, width, 3), np.uint8)
        masks = np.empty((n, height, width), np.uint8)
        errors: list[DataError] = []
        for what, target in (("image", images), ("mask", masks)):
            decoded = self._decode(range(n), what)
            for index, each in enumerate(progress(decoded, total=n, description=f"reading {what}s")):
                if isinstance(each, DataError):
                    errors.append(each)
                else:
                    target[index] = each
        raise_errors(errors)
        self._images, self._masks = images, masks

    def _fill_disk(self, cache: ArrayCache) -> None:
        n, (width, height) = len(self), self.size

        def chunks(what: str) -> Iterator[np.ndarray]:
            channels = (3,) if what == "image" else ()
            for start in range(0, n, _CHUNK):
                yield self._stack(self._decode(range(start, min(n, start + _CHUNK)), what), channels)

        self._images = cache.get_or_write(
            self._key("image"), (n, height, width, 3), np.uint8, lambda: chunks("image")
        )
        self._masks = cache.get_or_write(
            self._key("mask"), (n, height, width), np.uint8, lambda: chunks("mask")
        )

    def _key(self, what: str) -> str:
        """Return what a cached array depends on: files, their sizes and dates, and how they are resized."""
        parts = [what, str(self.size), self._resample if what == "mask" else ""]
        for file in self.files:
            path = file.image if what == "image" else file.mask
            try:
                status = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
            parts.append(f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {file.task}")
        return "\n".join(parts)


def raise_errors(errors: Sequence[DataError]) -> None:
    """Raise one error for several unusable files, if there are any.

    Args:
        errors: What is wrong with each file.

    Raises:
        DataError: Up to ten messages, a line each.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        more = [f"… and {len(errors) - _MAX_REPORTED} more"] if len(errors) > _MAX_REPORTED else []
        raise DataError("\n".join([*map(str, errors[:_MAX_REPORTED]), *more]))


def read_points(path: Path | str, size: tuple[int, int]) -> np.ndarray:
    """Read annotated cell centres.

    Args:
        path: CSV with the columns x and y in pixels of the stored patch.
        size: (width, height) of the stored patch.

    Returns:
        float64 [m, 2].

    Raises:
        TableError: Not such a table.
        DataError: Points outside the patch.
    """
    table = read_table(path, (Column("x", "float"), Column("y", "float")))
    points = table[["x", "y"]].to_numpy(np.float64).reshape(-1, 2)
    outside = ((points < 0) | (points > np.array(size))).any(axis=1)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"{path}:{row + 2}: point ({points[row, 0]:g}, {points[row, 1]:g}) lies outside the patch of "
            f"{size[0]} x {size[1]} pixels: points are in pixels of the patch, not of the slide"
        )
    return points


def component_centres(mask: np.ndarray) -> np.ndarray:
    """Return the centroids of the connected components of a mask, 4-neighbours joined.

    Args:
        mask: bool [H, W].

    Returns:
        float64 [m, 2], (x, y) with pixel (0, 0) covering [0, 1), in reading order of the components.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask)  # type: ignore[misc]
    centres = np.asarray(ndimage.center_of_mass(mask, labels, range(1, count + 1)), dtype=np.float64)
    return centres.reshape(-1, 2)[:, ::-1] + 0.5


def cpu_threads() -> int:
    """Return the number of CPUs that this process may use, at most 20."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_THREADS, usable)
