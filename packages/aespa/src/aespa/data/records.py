"""Which files make up a data set: one record an image, or, where a data set has classes, one an image and class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
