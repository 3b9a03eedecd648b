"""The images that the page shows: examples from files, drawn examples, and uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aespa.errors import DataError
from aespa.page.options import PageOptions

DRAWN, DRAWN_SIZE_PX, DRAWN_SEED = 6, 64, 2
HALF = 128
Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]


def no_raters() -> Bools:
    """Return masks of nobody."""
    return np.zeros((0, 1, 1), bool)


@dataclass(frozen=True, eq=False)
class Sample:
    """An image to click on.

    Attributes:
        name: Shown, and the beginning of the names of downloads.
        image: uint8 ``[H, W, 3]``.
        raters: bool ``[R, H, W]``; R is 0 where nobody outlined it.
        rater_names: Of the R raters.
    """

    name: str
    image: Pixels
    raters: Bools = field(default_factory=no_raters)
    rater_names: tuple[str, ...] = ()

    @property
    def n_raters(self) -> int:
        """How many raters outlined the image."""
        return len(self.rater_names)


class Examples:
    """The images that visitors may pick, read when they are picked.

    Args:
        options: Their files, or none for drawn ones.

    Raises:
        DataError: A path is not there, or a folder holds no image.
    """

    def __init__(self, options: PageOptions) -> None:
        self._options = options
        self._files = _named(_listed(options.images))

    @property
    def names(self) -> list[str]:
        """What visitors choose from."""
        return list(self._files) or [f"drawn image {i + 1}" for i in range(DRAWN)]

    def read(self, name: str) -> Sample:
        """Return an example.

        Args:
            name: One of `names`.

        Raises:
            DataError: No such example, or its file cannot be used.
        """
        if name not in self.names:
            raise DataError(f"{name!r} is not an example; there are {len(self.names)}")
        place = self.names.index(name)
        if not self._files:
            return _drawn(place, name)
        image = read_upload(self._files[name], self._options.max_megapixels)
        if place or not self._options.raters:
            return Sample(name, image)
        masks = _read_raters(self._options.raters, self._files[name], image)
        return Sample(name, image, masks, tuple(_named(self._options.raters)))


def read_upload(path: Path, max_megapixels: float) -> Pixels:
    """Read an image that somebody shows; deeper ones are stretched to 8 bits.

    Args:
        path: The file.
        max_megapixels: Larger images are refused before they are decoded.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        DataError: Not an image, damaged, too large, or partly transparent; the message names the file alone.
    """
    from aespa.data.reading import image_shape, read_image

    try:
        height, width = image_shape(path)
        if height * width > max_megapixels * 1e6:
            raise DataError(
                f"{path}: {width} x {height} px are {height * width / 1e6:.1f} megapixels, at most "
                f"{max_megapixels:g} are taken; cut out the part that matters or make it smaller"
            )
        return read_image(path, stretch=True)
    except DataError as error:
        # Visitors have no business with the folders of this machine.
        raise DataError(str(error).replace(str(path), path.name)) from error


def _drawn(place: int, name: str) -> Sample:
    from aespa.synthetic_drawing import draw_arrays

    arrays = draw_arrays(place + 1, DRAWN_SIZE_PX, DRAWN_SEED)
    native = arrays.native(place)
    return Sample(name, np.ascontiguousarray(native.image), native.masks, arrays.rater_ids)


def _listed(paths: Sequence[Path]) -> list[Path]:
    """Return the files that some paths mean."""
    from aespa.data.reading import IMAGE_SUFFIXES

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; -image names images or folders of images")
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"{path}: no images here ({', '.join(IMAGE_SUFFIXES)})")
        files.extend(found)
    return files


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """Give every file a name of its own: that of the file, with its folder where several are alike."""
    names = [path.stem for path in files]
    named: dict[str, Path] = {}
    for path, name in zip(files, names, strict=True):
        shown = name if names.count(name) == 1 else f"{path.parent.name}/{path.name}"
        while shown in named:
            shown += "'"
        named[shown] = path
    return named


def _read_raters(paths: Sequence[Path], image_path: Path, image: Pixels) -> Bools:
    from aespa.data.reading import check_shape, read_mask

    masks = []
    for path in paths:
        mask = read_mask(path)
        check_shape(path, mask.shape, image_path, (image.shape[0], image.shape[1]))
        masks.append(mask >= HALF)
    return np.stack(masks)
