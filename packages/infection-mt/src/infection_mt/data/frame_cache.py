"""Preparing whole stacks once: every page scaled, cropped, resized and kept as 8-bit frames.

A page that cannot be used (damaged, NaN, of another size) does not stop its stack: its frame is black, and it is
listed with the reason, so that it is an error only where a sample asks for it. Only NumPy, Pillow and the TIFF
reader are imported, so that worker processes start quickly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infection_mt.config import TransformsConfig
from infection_mt.data.pages import (
    PageError,
    StackRange,
    check_kind,
    has_colours,
    page_percentiles,
    prepare_image,
    scale_page,
    stack_range_of,
)
from infection_mt.data.stacks import Stack
from medshared.files import read_json, write_json
from medshared.images import ArrayCache, StackError, StackReader

logger = logging.getLogger(__name__)
_FORMAT = 2  # part of the key: raise it when prepared frames change
_PARALLEL_FROM_PIXELS = 400_000_000  # starting processes takes longer than decoding less than this
_Task = tuple[Stack, TransformsConfig, "Path | None"]


@dataclass(frozen=True)
class PreparedStack:
    """All frames of a stack.

    Attributes:
        frames: [n_frames, C, S, S] uint8, C 1 or 3; black where a page cannot be used.
        bad_pages: Page number → why it cannot be used.
    """

    frames: NDArray[np.uint8]
    bad_pages: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.frames)


def cache_key(stack: Stack, transforms: TransformsConfig) -> str:
    """Name of a stack's prepared frames; it changes with the file and with everything that changes the frames."""
    status = stack.path.stat()
    identity = [
        _FORMAT,
        str(stack.path.resolve()),
        status.st_size,
        status.st_mtime_ns,
        transforms.image_size,
        transforms.crop_border_fraction if transforms.crop_border_pixels is None else None,
        transforms.crop_border_pixels,
        transforms.intensity,
    ]
    return f"{stack.path.stem[-40:]}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]}"


def prepare_page(
    page: NDArray[np.generic],
    transforms: TransformsConfig,
    where: str,
    stack_range: StackRange | None = None,
    shape: tuple[int, ...] | None = None,
) -> NDArray[np.uint8]:
    """One frame [S, S] or [S, S, 3].

    Args:
        page: Pixels as stored.
        transforms: Scaling, crop and size.
        where: File and page, for errors.
        stack_range: See :func:`find_stack_range`.
        shape: Of the other pages of the stack, which this one must have too; null: any.

    Raises:
        StackError: Starting with ``where``.
    """
    try:
        if shape is not None and page.shape != shape:
            raise PageError(
                f"its shape {page.shape} differs from {shape} of the first page: pages of one stack must have one "
                "size and kind (is it a thumbnail, or two recordings in one file?)"
            )
        return prepare_image(scale_page(page, transforms.intensity, stack_range), transforms)
    except PageError as error:
        raise StackError(f"{where}: {error}") from error


def find_stack_range(stack: Stack, transforms: TransformsConfig) -> StackRange | None:
    """The stack's gray values for ``intensity: stack``, from the pages that can be used; None for other rules.

    Raises:
        StackError: No page can be used.
    """
    if transforms.intensity != "stack":
        return None
    ranges: list[StackRange] = []
    problems: list[str] = []
    with StackReader(stack.path) as reader:
        for i in range(stack.n_frames):
            try:
                ranges.append(page_percentiles(reader.page(i)))
            except PageError as error:
                problems.append(f"{stack.path}: page {i}: {error}")
            except StackError as error:
                problems.append(str(error))
    if not ranges:
        raise StackError(problems[0] if problems else f"{stack.path}: no page")
    return stack_range_of(ranges)


def build_frames(stack: Stack, transforms: TransformsConfig) -> PreparedStack:
    """All frames of a stack, in memory.

    Raises:
        StackError: Naming the file, when no page can be used.
    """
    frames = np.empty(_frames_shape(stack, transforms), np.uint8)
    bad: dict[int, str] = {}
    for i, frame in enumerate(_iterate_frames(stack, transforms, bad)):
        frames[i] = frame
    return PreparedStack(frames, bad)


def write_frames(stack: Stack, transforms: TransformsConfig, folder: Path) -> PreparedStack:
    """All frames of a stack in a memory-mapped file, written page by page unless they are there already.

    Raises:
        StackError: Naming the file, when no page can be used.
        OSError: Naming the file that cannot be written.
    """
    cache, key = ArrayCache(folder), cache_key(stack, transforms)
    listing = _listing(cache.path(key))
    if cache.path(key).exists() and _read_listing(listing) is None:
        cache.path(key).unlink()  # frames without their list of bad pages cannot be trusted

    def frames() -> Iterator[NDArray[np.uint8]]:
        bad: dict[int, str] = {}
        yield from _iterate_frames(stack, transforms, bad)
        # Before the frames appear under their name: frames with a list are complete.
        write_json(listing, {"stack": str(stack.path), "bad_pages": bad})

    array = cache.get_or_write(key, _frames_shape(stack, transforms), np.uint8, frames)
    return PreparedStack(array, _read_listing(listing) or {})


def prepare_each(
    stacks: Sequence[Stack], transforms: TransformsConfig, folder: Path | None, num_workers: int
) -> Iterator[tuple[Stack, PreparedStack | str]]:
    """Prepare stacks one after the other, building what is missing; a stack that cannot be used stops nothing.

    One process holds one page at a time (without a folder one stack). With ``num_workers`` above 1 and enough
    pixels to decode, several processes build.

    Args:
        stacks: The stacks.
        transforms: Scaling, crop and size.
        folder: Of the memory-mapped files; None: frames are returned in memory and nothing is written.
        num_workers: Processes.

    Yields:
        Stack, and its frames or the reason why it cannot be used.
    """
    tasks: list[_Task] = [(stack, transforms, folder) for stack in stacks]
    missing = [task for task in tasks if not _is_built(*task)]
    workers = min(num_workers, len(missing))
    if missing:
        logger.info("preparing the frames of %d stacks at %d pixels", len(missing), transforms.image_size)
    parallel = workers > 1 and sum(map(_pixels, (task[0] for task in missing))) >= _PARALLEL_FROM_PIXELS
    results = _run(missing, workers if parallel else 0)
    to_build = {task[0].path for task in missing}
    for stack in stacks:
        result = next(results) if stack.path in to_build else None
        if result is None and folder is not None:
            result = write_frames(stack, transforms, folder)
        if result is not None:
            yield stack, result


def load_frames(
    stacks: Sequence[Stack], transforms: TransformsConfig, folder: Path | None, num_workers: int
) -> dict[Path, PreparedStack]:
    """Prepared frames of stacks, see :func:`prepare_each`.

    Returns:
        File → frames and bad pages; frames are read-only for a folder.

    Raises:
        StackError: One error that names every stack that cannot be used at all.
    """
    built: dict[Path, PreparedStack] = {}
    problems: list[str] = []
    for stack, result in prepare_each(stacks, transforms, folder, num_workers):
        if isinstance(result, str):
            problems.append(result)
        else:
            built[stack.path] = result
    if problems:
        raise StackError(
            f"{len(problems)} of {len(stacks)} stacks cannot be used:\n  " + "\n  ".join(problems)
        )
    return built


def _iterate_frames(
    stack: Stack, transforms: TransformsConfig, bad: dict[int, str]
) -> Iterator[NDArray[np.uint8]]:
    """Yield [C, S, S] page by page and note pages that cannot be used; raise when all of them are bad."""
    stack_range = find_stack_range(stack, transforms)
    empty = np.zeros(_frames_shape(stack, transforms)[1:], np.uint8)
    with StackReader(stack.path) as reader:
        shape = reader.info.shape
        for i in range(stack.n_frames):
            try:
                image = prepare_page(
                    reader.page(i), transforms, f"{stack.path}: page {i}", stack_range, shape
                )
            except StackError as error:
                bad[i] = str(error)
                yield empty
            else:
                yield np.moveaxis(image, 2, 0) if image.ndim == 3 else image[None]
    if len(bad) == stack.n_frames:
        raise StackError(f"none of the {len(bad)} pages can be used: {bad[0]}")
    if bad:
        first = next(iter(bad.values()))
        logger.warning("%s: %d of %d pages cannot be used: %s", stack.path, len(bad), stack.n_frames, first)


def _frames_shape(stack: Stack, transforms: TransformsConfig) -> tuple[int, int, int, int]:
    shape, dtype = stack.shape, stack.dtype
    if shape is None or dtype is None:
        with StackReader(stack.path) as reader:
            shape, dtype = reader.info.shape, reader.info.dtype
    try:
        check_kind(shape, dtype)
    except PageError as error:
        raise StackError(f"{stack.path}: page 0: {error}") from error
    return (stack.n_frames, 3 if has_colours(shape) else 1, transforms.image_size, transforms.image_size)


def _listing(frames: Path) -> Path:
    return frames.with_suffix(".pages.json")


def _read_listing(path: Path) -> dict[int, str] | None:
    """The bad pages of prepared frames; None when the list is missing or damaged."""
    try:
        content: Any = read_json(path)
        return {int(page): str(reason) for page, reason in content["bad_pages"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _is_built(stack: Stack, transforms: TransformsConfig, folder: Path | None) -> bool:
    if folder is None:
        return False
    path = ArrayCache(folder).path(cache_key(stack, transforms))
    return path.exists() and _listing(path).exists()


def _pixels(stack: Stack) -> int:
    return stack.n_frames * (math.prod(stack.shape) if stack.shape else 0)


def _run(tasks: Sequence[_Task], workers: int) -> Iterator[PreparedStack | str | None]:
    if workers == 0:
        yield from map(_build, tasks)
        return
    # spawn: forking a process that has started CUDA or threads is not safe
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_build, tasks)


def _build(task: _Task) -> PreparedStack | str | None:
    """Build one stack: the frames, None when they went into the folder, or the text of an error."""
    stack, transforms, folder = task
    try:
        if folder is None:
            return build_frames(stack, transforms)
        write_frames(stack, transforms, folder)
    except StackError as error:
        return str(error)
    return None
