"""Preparing whole stacks once: every page scaled, cropped, resized and kept as 8-bit frames.

Only NumPy, Pillow and the TIFF reader are imported, so that worker processes start quickly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infection_mt.config import TransformsConfig
from infection_mt.data.pages import (
    PageError,
    StackRange,
    page_percentiles,
    prepare_image,
    scale_page,
    stack_range_of,
)
from infection_mt.data.stacks import Stack
from medshared.images import ArrayCache, StackError, StackReader

logger = logging.getLogger(__name__)
_FORMAT = 1  # part of the key: raise it when prepared frames change
_PARALLEL_FROM_PIXELS = 400_000_000  # starting processes takes longer than decoding less than this
_Task = tuple[Stack, TransformsConfig, "Path | None"]


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
    page: NDArray[np.generic], transforms: TransformsConfig, where: str, stack_range: StackRange | None = None
) -> NDArray[np.uint8]:
    """One frame [S, S] or [S, S, 3].

    Raises:
        StackError: Starting with ``where``.
    """
    try:
        return prepare_image(scale_page(page, transforms.intensity, stack_range), transforms)
    except PageError as error:
        raise StackError(f"{where}: {error}") from error


def find_stack_range(stack: Stack, transforms: TransformsConfig) -> StackRange | None:
    """The stack's gray values for ``intensity: stack``; None for the other rules."""
    if transforms.intensity != "stack":
        return None
    ranges = []
    with StackReader(stack.path) as reader:
        for i in range(stack.n_frames):
            try:
                ranges.append(page_percentiles(reader.page(i)))
            except PageError as error:
                raise StackError(f"{stack.path}: page {i}: {error}") from error
    return stack_range_of(ranges)


def build_frames(stack: Stack, transforms: TransformsConfig) -> NDArray[np.uint8]:
    """All frames of a stack.

    Returns:
        [n_frames, C, S, S] uint8; C is 1, or 3 when a page has colours.

    Raises:
        StackError: Naming file and page.
    """
    size = transforms.image_size
    stack_range = find_stack_range(stack, transforms)
    frames = np.empty((stack.n_frames, 1, size, size), np.uint8)
    with StackReader(stack.path) as reader:
        for i in range(stack.n_frames):
            image = prepare_page(reader.page(i), transforms, f"{stack.path}: page {i}", stack_range)
            if image.ndim == 3 and frames.shape[1] == 1:
                frames = np.repeat(frames, 3, axis=1)
            frames[i] = np.moveaxis(image, 2, 0) if image.ndim == 3 else image
    return frames


def load_frames(
    stacks: Sequence[Stack], transforms: TransformsConfig, folder: Path | None, num_workers: int
) -> dict[Path, NDArray[np.uint8]]:
    """Prepared frames of stacks, built where they are missing.

    One process holds one stack at a time. With ``num_workers`` above 1 and enough pixels to decode, several
    processes build.

    Args:
        stacks: The stacks.
        transforms: Scaling, crop and size.
        folder: Of the memory-mapped files; None: frames are returned in memory and nothing is written.
        num_workers: Processes.

    Returns:
        File → [n_frames, C, S, S] uint8, read-only for a folder.

    Raises:
        StackError: One error that names every bad stack.
    """
    tasks: list[_Task] = [(stack, transforms, folder) for stack in stacks]
    missing = [task for task in tasks if not _is_built(*task)]
    workers = min(num_workers, len(missing))
    if missing:
        logger.info("preparing the frames of %d stacks at %d pixels", len(missing), transforms.image_size)
    parallel = workers > 1 and sum(map(_pixels, (task[0] for task in missing))) >= _PARALLEL_FROM_PIXELS
    built: dict[Path, NDArray[np.uint8]] = {}
    problems = []
    for task, result in zip(missing, _run(missing, workers if parallel else 0), strict=True):
        if isinstance(result, str):
            problems.append(result)
        elif result is not None:
            built[task[0].path] = result
    if problems:
        raise StackError(
            f"{len(problems)} of {len(stacks)} stacks cannot be used:\n  " + "\n  ".join(problems)
        )
    if folder is None:
        return built
    cache = ArrayCache(folder)
    for stack in stacks:
        key = cache_key(stack, transforms)
        built[stack.path] = cache.get_or_build(key, lambda stack=stack: build_frames(stack, transforms))
    return built


def _is_built(stack: Stack, transforms: TransformsConfig, folder: Path | None) -> bool:
    return folder is not None and ArrayCache(folder).path(cache_key(stack, transforms)).exists()


def _pixels(stack: Stack) -> int:
    return stack.n_frames * (math.prod(stack.shape) if stack.shape else 0)


def _run(tasks: Sequence[_Task], workers: int) -> Iterator[NDArray[np.uint8] | str | None]:
    if workers == 0:
        yield from map(_build, tasks)
        return
    # spawn: forking a process that has started CUDA or threads is not safe
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_build, tasks)


def _build(task: _Task) -> NDArray[np.uint8] | str | None:
    """Build one stack: the frames, None when they went into the folder, or the text of an error."""
    stack, transforms, folder = task
    try:
        if folder is None:
            return build_frames(stack, transforms)
        ArrayCache(folder).get_or_build(cache_key(stack, transforms), lambda: build_frames(stack, transforms))
    except StackError as error:
        return str(error)
    return None
