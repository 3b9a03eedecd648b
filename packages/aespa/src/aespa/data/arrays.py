"""All images of a split with all raters' masks, at the network's input size, in memory.

An image is kept as bytes and becomes a tensor only in the batch that needs it: 3,543 images with three raters take
222 MiB at 128 px, and no epoch decodes a file again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from aespa.config import Config
    from aespa.data.on_demand import ImagesOnDemand
    from aespa.data.records import Record, Split


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step of training or evaluation takes.

    Attributes:
        images: float32 ``[B, 3, S, S]`` in [0, 1].
        raters: float32 0/1 ``[B, R, S, S]``.
        valid: bool ``[B, R]``: raters whose mask at this size has a pixel.
        index: int64 ``[B]``: places of the images in the arrays.
    """

    images: torch.Tensor
    raters: torch.Tensor
    valid: torch.Tensor
    index: torch.Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)


@dataclass(frozen=True, eq=False)
class NativeSample:
    """One image at its own resolution.

    Attributes:
        image: uint8 ``[H, W, 3]``.
        masks: bool ``[R, H, W]``; all false for a rater who did not outline the image.
        present: bool ``[R]``: whether the rater outlined the image; an outline may be empty.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    present: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RaterArrays:
    """The images of a split and their raters' masks.

    Attributes:
        images: uint8 ``[n, 3, S, S]``; the channels of grey images are views of one. With ``cache: off`` an object
            that decodes what it is indexed with.
        masks: uint8 0/1 ``[n, R, S, S]``.
        valid: bool ``[n, R]``: the mask has a pixel at this size.
        present: bool ``[n, R]``: the rater outlined the image; implied by `valid`, an outline may be empty.
        names: of the images, unique.
        patients: of the images, for splits and intervals.
        rater_ids: of the columns R.
        classes: of the images, where a record is one class of several; else None.
        records: files the images came from; empty for images that were drawn.
    """

    images: NDArray[np.uint8] | ImagesOnDemand
    masks: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    present: NDArray[np.bool_]
    names: tuple[str, ...]
    patients: tuple[str, ...]
    rater_ids: tuple[str, ...]
    classes: tuple[int | None, ...]
    records: tuple[Record, ...] = ()

    def __post_init__(self) -> None:
        n, size = len(self.images), self.images.shape[-1]
        raters = len(self.rater_ids)
        expected = {
            "images": (n, 3, size, size),
            "masks": (n, raters, size, size),
            "valid": (n, raters),
            "present": (n, raters),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} must have shape {shape}, found {found}")
        for name in ("names", "patients", "classes"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} must have {n} entries, found {len(getattr(self, name))}")
        if self.records and len(self.records) != n:
            raise ValueError(f"records must be empty or have {n} entries, found {len(self.records)}")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    @property
    def size(self) -> int:
        """Side S of the images in pixels."""
        return self.images.shape[-1]

    @property
    def n_raters(self) -> int:
        """Number of raters R."""
        return len(self.rater_ids)

    def batch(self, indices: Sequence[int] | NDArray[np.integer], device: Any = "cpu") -> Batch:
        """Return images as tensors.

        Args:
            indices: Places of the images, any order, repeats allowed.
            device: Where the tensors shall lie. Bytes travel there and are scaled there.

        Returns:
            The batch, in the order asked for.

        Raises:
            IndexError: A place that does not exist.
        """
        import torch

        where = np.asarray(indices, np.int64).reshape(-1)
        if where.size and (where.min() < 0 or where.max() >= len(self)):
            raise IndexError(f"indices must lie in [0, {len(self)}), found {where.min()} to {where.max()}")
        images = torch.from_numpy(self._stored(where)).to(device)
        # Scaled before it is spread over the channels; the quotient is the original's, bit for bit.
        images = (images.float() / 255).expand(-1, 3, -1, -1).contiguous()
        return Batch(
            images,
            torch.from_numpy(self.masks[where]).to(device).float(),
            torch.from_numpy(self.valid[where]).to(device),
            torch.from_numpy(where).to(device),
        )

    def _stored(self, where: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images ``[k, 1 or 3, S, S]``, grey ones once."""
        if isinstance(self.images, np.ndarray) and self.images.strides[1] == 0:
            return self.images[where, :1]
        return self.images[where]

    def native(self, index: int) -> NativeSample:
        """Return one image and its masks at the resolution of the files; drawn images are returned as they are.

        Args:
            index: Place of the image.

        Returns:
            The sample; images of REFUGE are cropped as the network sees them.

        Raises:
            DataError: A file is not there any more, damaged, or of another size than the image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), found {index}")
        if self.records:
            from aespa.data.reading import read_sample

            return NativeSample(*read_sample(self.records[index]))
        image = np.ascontiguousarray(self._stored(np.asarray([index]))[0].transpose(1, 2, 0))
        image = np.broadcast_to(image, (*image.shape[:2], 3))
        return NativeSample(image, self.masks[index].astype(bool), self.present[index].copy())

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> RaterArrays:
        """Return some of the images, in the order given."""
        where = np.asarray(indices, np.int64).reshape(-1)

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in where.tolist())

        images = self.images
        return replace(
            self,
            images=three_channels(self._stored(where))
            if isinstance(images, np.ndarray)
            else images.pick(where),
            masks=self.masks[where],
            valid=self.valid[where],
            present=self.present[where],
            names=pick(self.names),
            patients=pick(self.patients),
            classes=pick(self.classes),
            records=pick(self.records) if self.records else (),
        )


def three_channels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images ``[n, 1 or 3, S, S]`` as ``[n, 3, S, S]`` without copying a grey channel."""
    return np.broadcast_to(images, (len(images), 3, *images.shape[2:]))


def load_arrays(config: Config, split: Split) -> RaterArrays:
    """Read a split at the network's input size.

    Images that no rater outlines at this size are left out, with a line in the log that says how many.

    Args:
        config: The data keys; ``w`` threads decode, and ``cache: disk`` keeps the result in ``cache_dir`` and maps it
            into memory until a file or a setting changes.
        split: ``"train"`` or ``"test"``.

    Returns:
        The arrays; with ``subset`` only that many images, evenly spaced.

    Raises:
        DataError: Wrong layout, damaged files, masks that do not fit, or no image that any rater outlines.
    """
    from aespa.data.loading import load_resized

    resized = load_resized(config, split)
    records = resized.records
    return RaterArrays(
        images=three_channels(resized.images) if isinstance(resized.images, np.ndarray) else resized.images,
        masks=resized.masks,
        valid=np.asarray(resized.masks.any(axis=(2, 3))),
        present=resized.present,
        names=tuple(record.name for record in records),
        patients=tuple(record.patient for record in records),
        rater_ids=records[0].rater_ids,
        classes=tuple(record.target_class for record in records),
        records=tuple(records),
    )
