"""Images that are decoded whenever they are asked for, for sets that neither memory nor disk shall hold."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from aespa.data.cropping import Box, crop
from aespa.data.reading import read_pixels, resize_image_uint8
from aespa.data.records import Record


class ImagesOnDemand:
    """Stands for an array uint8 ``[n, 3, S, S]``; indexing it with places decodes the files."""

    def __init__(
        self, records: Sequence[Record], boxes: Sequence[Box | None], size: int, threads: int
    ) -> None:
        """Name the files; none is opened yet.

        Args:
            records: One an image.
            boxes: The square that each image is cut to, or None.
            size: Side S in pixels.
            threads: That decode at once; 0 and 1 decode in the caller's.
        """
        self._files = list(zip(records, boxes, strict=True))
        self._size, self._threads = size, threads

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that this stands for."""
        return len(self._files), 3, self._size, self._size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, where: int | Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Decode the images at some places, in that order; one that is asked for twice is decoded once.

        Args:
            where: Places, or one place.

        Returns:
            uint8 ``[k, 3, S, S]``, or ``[3, S, S]`` for one place.
        """
        places, back = np.unique(np.asarray(where, np.int64), return_inverse=True)
        chosen = [self._files[i] for i in places.tolist()]
        decoded = np.empty((len(chosen), *self.shape[1:]), np.uint8)

        def read(file: tuple[Record, Box | None]) -> NDArray[np.uint8]:
            return channels_first(resized_image(*file, self._size))

        if self._threads <= 1 or len(chosen) < 2:
            for i, file in enumerate(chosen):
                decoded[i] = read(file)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for i, image in enumerate(pool.map(read, chosen)):
                    decoded[i] = image
        return decoded[back.reshape(np.shape(where))]

    def pick(self, where: NDArray[np.int64]) -> ImagesOnDemand:
        """Return some of the images, still undecoded."""
        records, boxes = (
            zip(*(self._files[i] for i in where.tolist()), strict=True) if where.size else ((), ())
        )
        return ImagesOnDemand(records, boxes, self._size, self._threads)


def resized_image(record: Record, box: Box | None, size: int) -> NDArray[np.uint8]:
    """Read, crop and resize one image: uint8 ``[S, S]`` if it is grey, else ``[S, S, 3]``."""
    image = read_pixels(record.image)
    if box is not None:
        image = crop(image, box)
    resized = resize_image_uint8(image, size)
    # Grey pictures are often stored with three equal channels.
    if resized.ndim == 3 and (resized == resized[..., :1]).all():
        return np.ascontiguousarray(resized[..., 0])
    return resized


def channels_first(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``[S, S]`` as ``[1, S, S]`` and ``[S, S, 3]`` as ``[3, S, S]``."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
