"""What a bag of patch features is, and which bags may be mixed; files of them: `medshared.bags`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Dialect = Literal["clam", "trident", "stamp"]
Features = NDArray[np.float32] | NDArray[np.float16]


class BagError(ValueError):
    """A file of patch features or coordinates cannot be used; the message names it and the reason."""


@dataclass(frozen=True)
class BagAttributes:
    """What a file says about how its features were made; null where it does not say.

    Attributes:
        dialect: Whose form the file has.
        encoder: Name of the network.
        spacing_um: µm a pixel of the patches that the network saw.
        patch_size_level0: Side of a patch in level-0 pixels.
        patch_size_um: Side of a patch in µm.
        name: Slide.
    """

    dialect: Dialect = "clam"
    encoder: str | None = None
    spacing_um: float | None = None
    patch_size_level0: float | None = None
    patch_size_um: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class ClamAttributes:
    """The attributes of ``coords`` in CLAM's files.

    Attributes:
        patch_size: Side of a patch in pixels of ``patch_level``.
        patch_level: Level of the pyramid.
        downsample: Factor of that level in x and y.
        downsampled_level_dim: Width and height of that level.
        level_dim: The same two numbers.
        name: Slide.
        save_path: Folder of the file.
    """

    patch_size: int
    patch_level: int
    downsample: tuple[float, float]
    downsampled_level_dim: tuple[int, int]
    level_dim: tuple[int, int]
    name: str
    save_path: str

    @property
    def patch_size_level0(self) -> float:
        """Side of a patch in level-0 pixels."""
        return self.patch_size * round(self.downsample[0])


@dataclass(frozen=True)
class BagInfo:
    """A file of features without the features.

    Attributes:
        path: The file.
        n: Patches.
        width: Numbers a patch.
        attributes: What the file says about itself.
    """

    path: Path
    n: int
    width: int
    attributes: BagAttributes


@dataclass(frozen=True)
class PatchBag:
    """The patches of one slide.

    Attributes:
        features: ``[n, d]``, float32, or float16 where the file holds that.
        coordinates: Top left corners (x, y) in level-0 pixels, int64 ``[n, 2]``; null where the file has none
            or has them in µm.
        coordinates_um: Top left corners in µm, float64 ``[n, 2]``; STAMP only.
        attributes: What the file says about itself.
        path: The file.
    """

    features: Features
    coordinates: NDArray[np.int64] | None
    coordinates_um: NDArray[np.float64] | None
    attributes: BagAttributes
    path: Path

    @property
    def info(self) -> BagInfo:
        """The bag without its numbers."""
        return BagInfo(self.path, len(self.features), self.features.shape[1], self.attributes)


class Coordinates(NamedTuple):
    """Places of patches.

    Attributes:
        xy: Top left corners in level-0 pixels, int64 ``[n, 2]``.
        attributes: Those of ``coords``, as plain Python values.
    """

    xy: NDArray[np.int64]
    attributes: dict[str, Any]


def check_uniform(bags: Iterable[BagInfo | PatchBag]) -> None:
    """Refuse bags that must not be mixed: of different widths, encoders or spacings.

    What a file does not say about itself agrees with everything.

    Args:
        bags: Bags, or their descriptions (`describe_bag`).

    Raises:
        BagError: Naming two files and what differs.
    """
    first: dict[str, tuple[Any, Path]] = {}
    for bag in bags:
        info = bag.info if isinstance(bag, PatchBag) else bag
        stated = {
            "width": info.width,
            "encoder": info.attributes.encoder,
            "spacing_um": info.attributes.spacing_um,
        }
        for what, value in stated.items():
            if value is None:
                continue
            before, path = first.setdefault(what, (value, info.path))
            same = abs(value - before) <= 0.01 * before if what == "spacing_um" else value == before
            if not same:
                raise BagError(
                    f"{info.path} has {what} {value!r} but {path} has {before!r}: features of different encoders "
                    "or spacings must not be mixed; make one of the two sets again"
                )
