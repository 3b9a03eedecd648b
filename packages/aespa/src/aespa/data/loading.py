"""Files → resized arrays: masks first, so that images nobody outlined are never decoded; then the images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from aespa.config import Config
from aespa.data.cropping import Box, crop, crop_box
from aespa.data.lidc import files_fingerprint, keep_outlined
from aespa.data.on_demand import ImagesOnDemand, channels_first, resized_image
from aespa.data.reading import (
    check_shape,
    image_shape,
    read_classes,
    read_masks,
    resize_mask,
    resize_nearest,
)
from aespa.data.records import Record, Split, find_records
from aespa.errors import DataError
from medshared.images import ArrayCache
from medshared.process import progress

logger = logging.getLogger(__name__)

CACHE_FOLDER = ".aespa_cache"
_CACHE_VERSION = 1  # raised whenever the same files give other arrays
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Resized:
    """A split at the network's size.

    Attributes:
        records: The images that at least one rater outlines.
        images: uint8 ``[n, 1 or 3, S, S]``; 1 where all are grey.
        masks: uint8 0/1 ``[n, R, S, S]``.
        present: bool ``[n, R]``.
    """

    records: list[Record]
    images: NDArray[np.uint8] | ImagesOnDemand
    masks: NDArray[np.uint8]
    present: NDArray[np.bool_]


def load_resized(config: Config, split: Split) -> Resized:
    """Read a split, from the cache on disk where the configuration asks for one.

    Args:
        config: The data keys.
        split: ``"train"`` or ``"test"``.

    Returns:
        The arrays.

    Raises:
        DataError: As `aespa.data.arrays.load_arrays`.
    """
    records = find_records(config, split)
    if config.dataset == "LIDC":
        records = keep_outlined(config, split, records)
    if config.cache != "disk":
        return _read(config, split, records)[0]

    folder = cache_folder(config)
    names = hashlib.sha256("\n".join(record.name for record in records).encode()).hexdigest()
    shown = f"{config.dataset}-{split}-{config.image_size}"
    key = f"{shown}|{_CACHE_VERSION}|{config.subset}|{names}|{files_fingerprint(records)}"
    build = cache(lambda: _read(config, split, records))
    arrays = ArrayCache(folder)
    try:
        kept = arrays.get_or_build(f"{key}|kept", lambda: build()[1])
        return Resized(
            [records[i] for i in kept.tolist()],
            arrays.get_or_build(f"{key}|images", lambda: np.asarray(build()[0].images)),
            arrays.get_or_build(f"{key}|masks", lambda: build()[0].masks),
            np.array(arrays.get_or_build(f"{key}|present", lambda: build()[0].present)),
        )
    except OSError as error:
        logger.warning("the images are kept in memory instead of %s: %s", folder, error)
        return build()[0]


def _read(config: Config, split: Split, records: Sequence[Record]) -> tuple[Resized, NDArray[np.int64]]:
    """Return the arrays of the images that somebody outlines, and the places of these among the records."""
    masks, present, boxes = _all_masks(records, config.image_size, config.w)
    kept = np.flatnonzero(masks.any(axis=(1, 2, 3)))
    _report_left_out(config, split, records, kept)
    if config.subset is not None and config.subset < len(kept):
        kept = kept[np.linspace(0, len(kept) - 1, config.subset).round().astype(np.int64)]
    if len(kept) < len(records):
        masks, present = masks[kept], present[kept]
    chosen, cuts = [records[i] for i in kept.tolist()], [boxes[i] for i in kept.tolist()]
    if config.cache == "off":
        images = ImagesOnDemand(chosen, cuts, config.image_size, config.w)
    else:
        images = _all_images(chosen, cuts, config.image_size, config.w)
    return Resized(chosen, images, masks, present), kept


def _report_left_out(
    config: Config, split: Split, records: Sequence[Record], kept: NDArray[np.int64]
) -> None:
    size, where = config.image_size, f"{config.data_path} ({config.dataset}, {split})"
    if not len(kept):
        without = sum(not any(record.raters) for record in records)
        raise DataError(
            f"{where}: none of {len(records)} images has an outline: {without} have no mask file, in the others all "
            f"masks are empty at image_size {size}; use a larger image_size, or check that masks hold 0 and 255"
        )
    left_out = len(records) - len(kept)
    if left_out and config.dataset == "MBHSeg-Multiclass":
        logger.info("%s: %d of %d slices and classes hold an outline", where, len(kept), len(records))
    elif left_out:
        used = set(kept.tolist())
        names = [record.name for i, record in enumerate(records) if i not in used][:5]
        logger.warning(
            "%s: %d of %d images are left out, as no rater outlines anything at image_size %d: %s",
            where, left_out, len(records), size, ", ".join(names),
        )  # fmt: skip


def _all_masks(
    records: Sequence[Record], size: int, threads: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[Box | None]]:
    """Return masks and presence of all records, and the square that each image is cut to."""
    raters = len(records[0].raters)
    if not raters:
        raise DataError(
            f"{records[0].image} and {len(records) - 1} other images: no rater's mask file was found"
        )
    masks = np.zeros((len(records), raters, size, size), np.uint8)
    present = np.zeros((len(records), raters), bool)
    boxes: list[Box | None] = []
    groups = [list(group) for _, group in groupby(records, lambda record: record.image)]
    for group, found in zip(
        groups, _in_threads(partial(_masks_of_image, size=size), groups, threads, "masks"), strict=True
    ):
        rows = slice(len(boxes), len(boxes) + len(group))
        masks[rows], present[rows] = found.masks, found.present
        boxes += [found.box] * len(group)
    return masks, present, boxes


class _Found(NamedTuple):
    """Masks bool ``[records of one image, R, S, S]``, bool ``[R]`` which raters have a file, and the cut."""

    masks: NDArray[np.bool_]
    present: NDArray[np.bool_]
    box: Box | None


def _masks_of_image(group: list[Record], *, size: int) -> _Found:
    first = group[0]
    shape = image_shape(first.image)
    if first.target_class is None:
        found, present = read_masks(first, shape)
        box = crop_box(first) if first.crop_around else None
        cut = found if box is None else [crop(mask, box) for mask in found]
        return _Found(np.stack([resize_mask(mask, size) for mask in cut])[None], present, box)
    masks = np.zeros((len(group), len(first.raters), size, size), bool)
    for rater, path in enumerate(first.raters):
        if path is None:
            continue
        classes = read_classes(path)  # once for all classes
        check_shape(path, classes.shape[:2], first.image, shape)
        for i, record in enumerate(group):
            masks[i, rater] = resize_nearest(classes[..., record.target_class or 0], size)
    return _Found(masks, np.asarray([path is not None for path in first.raters]), None)


def _all_images(
    records: Sequence[Record], boxes: Sequence[Box | None], size: int, threads: int
) -> NDArray[np.uint8]:
    places = [list(group) for _, group in groupby(range(len(records)), lambda i: records[i].image)]
    images = np.empty((len(records), 1, size, size), np.uint8)
    found = _in_threads(
        lambda at: resized_image(records[at[0]], boxes[at[0]], size), places, threads, "images"
    )
    for at, image in zip(places, found, strict=True):
        if image.ndim == 3 and images.shape[1] == 1:
            images = np.repeat(images, 3, axis=1)
        images[at] = channels_first(image)
    return images


def _in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, description: str
) -> Iterator[Result]:
    """Yield the results in order; PIL lets other threads run while it decodes and resizes."""
    if threads <= 1:
        yield from progress(map(work, items), total=len(items), description=description)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield from progress(pool.map(work, items), total=len(items), description=description)
    finally:
        pool.shutdown(cancel_futures=True)


def cache_folder(config: Config) -> Path:
    """Return where ``cache: disk`` keeps its files."""
    return config.cache_dir or config.data_path / CACHE_FOLDER
