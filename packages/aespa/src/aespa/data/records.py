"""Which files make up a data set: one record an image, or, where a data set has classes, one an image and class."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aespa.config import Config
from aespa.errors import DataError

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Record:
    """The files of one image.

    Attributes:
        name: Unique in the split; in tables and file names of predictions.
        patient: Images of one patient stay together in splits and intervals.
        image: The image's file.
        raters: Mask file of each rater; None for a rater who did not outline the image, which is not the same as an
            outline without a pixel.
        rater_ids: Who the raters are; the same in all records of a split.
        target_class: The class that is the object here, of several in the mask files; None for masks of one object.
        crop_around: Mask files; the image is cut to a square around all they outline. Empty: the whole image.
    """

    name: str
    patient: str
    image: Path
    raters: tuple[Path | None, ...]
    rater_ids: tuple[str, ...]
    target_class: int | None = None
    crop_around: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the record's arrays are made from."""
        return (self.image, *(path for path in self.raters if path is not None), *self.crop_around)


def find_records(config: Config, split: Split) -> list[Record]:
    """List the images of a split, sorted by name, from the names of the files alone: none is opened.

    Args:
        config: ``dataset``, ``data_path``, and what picks raters, classes and crops.
        split: ``"train"`` or ``"test"``.

    Returns:
        The records; images that no rater outlined are among them and left out when they are loaded.

    Raises:
        DataError: No data set is chosen, the folder is missing or empty, or its layout is another one's.
    """
    from aespa.data import folders, layouts, lidc, mbhseg, refuge

    finders: dict[str, Callable[[Config, Split], list[Record]]] = {
        "LIDC": lidc.find_lidc,
        "REFUGE": refuge.find_refuge,
        "MBHSeg-Binary": mbhseg.find_binary,
        "MBHSeg-Multiclass": mbhseg.find_multiclass,
        "folders": folders.find_folders,
    }
    if config.dataset is None:
        raise DataError(f"dataset is not set: choose one of {', '.join(finders)}")
    layouts.check_layout(config.data_path, config.dataset)
    records = finders[config.dataset](config, split)
    if not records:
        raise DataError(
            f"{config.data_path}: no image of split {split!r} was found in the layout of {config.dataset}"
        )
    return records


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; hidden ones are passed over, a missing folder has none."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names, key=natural_order)]


def files_by_name(folder: Path) -> dict[str, Path]:
    """Return the files in a folder by name, sorted; hidden ones are passed over, a missing folder has none."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    return {name: folder / name for name in sorted(names, key=natural_order)}


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``slice_2`` before ``slice_10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]
