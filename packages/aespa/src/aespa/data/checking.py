"""Go through every file of a data set and name all that cannot be used, instead of stopping at the first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from aespa.config import Config
from aespa.data.cropping import crop_box
from aespa.data.reading import check_shape, read_classes, read_mask, read_pixels
from aespa.data.records import Record, Split, find_records
from aespa.errors import DataError
from medshared.process import progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        item: Split and name of the image, or the split alone.
        message: Which file, what was expected, what was found, and what to do.
        severity: ``"error"`` stops training; ``"warning"`` leaves the image out or changes what is measured.
    """

    item: str
    message: str
    severity: str = "error"


def check_data(config: Config) -> list[Problem]:
    """Read every file of both splits.

    Args:
        config: The data keys; ``w`` threads read.

    Returns:
        All problems, in the order of the images; empty if the data are sound.
    """
    problems: list[Problem] = []
    patients: dict[str, set[str]] = {}
    for split in get_args(Split):
        try:
            records = find_records(config, split)
        except DataError as error:
            problems.append(Problem(split, str(error)))
            continue
        patients[split] = {record.patient for record in records}
        groups = [list(group) for _, group in groupby(records, lambda record: record.image)]
        with ThreadPoolExecutor(max(1, config.w)) as pool:
            checked = pool.map(_check_image, groups)
            for group, messages in zip(
                groups, progress(checked, total=len(groups), description=f"check {split}"), strict=True
            ):
                problems += [Problem(f"{split}: {group[0].name}", message) for message in messages]
        problems += _without_raters(split, records)
    both = sorted(patients.get("train", set()) & patients.get("test", set()))
    if both:
        message = (
            f"{len(both)} patients are in both splits ({', '.join(both[:5])}): results will look too good"
        )
        problems.append(Problem("train and test", message, "warning"))
    return problems


def _check_image(group: list[Record]) -> list[str]:
    """Return what is wrong with an image and its masks."""
    record, messages = group[0], []
    try:
        height, width = read_pixels(record.image).shape[:2]
    except DataError as error:
        return [str(error)]
    for path in record.raters:
        try:
            if path is not None:
                mask = read_mask(path) if record.target_class is None else read_classes(path)[..., 0]
                check_shape(path, mask.shape, record.image, (height, width))
        except DataError as error:
            messages.append(str(error))
    if record.crop_around and not messages:
        try:
            crop_box(record)
        except DataError as error:
            messages.append(str(error))
    return messages


def _without_raters(split: str, records: Sequence[Record]) -> list[Problem]:
    names = [record.name for record in records if not any(record.raters)]
    if not names:
        return []
    message = f"{len(names)} images have no rater's mask file and are left out: {', '.join(names[:5])}"
    return [Problem(split, message, "warning")]
