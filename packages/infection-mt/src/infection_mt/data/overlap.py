"""Do two stacks show the same cells? Fourier registration of neighbouring fields.

Neighbouring fields of a well are often filmed with a small overlap. With one field in training and the other in
the test set, the same cells are learnt and scored. :func:`find_overlaps` is the test to use; the original's hash
tools, which miss shifted strips, are in :mod:`infection_mt.data.hash_tools`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from infection_mt.data.pages import PageError, scale_page
from infection_mt.data.stacks import Stack
from medshared.files import read_json, write_json
from medshared.images import StackReader

logger = logging.getLogger(__name__)

_NOISE_PIXELS = 1.0  # camera noise differs between the fields and would hide the common cells
_CELL_PIXELS = 4.0  # wider structures are illumination; without them fewer pixels make a sure match
_BLOCK_PIXELS = 4  # about one cell: blocks of this side are counted as independent witnesses of a match
_FORMAT = 1  # of remembered results: raise it when the test changes
Gray = NDArray[np.float32]


_Limits = tuple[float, float, float]  # least correlation, z and support of an overlap


@dataclass(frozen=True)
class Overlap:
    """How one field lies to another.

    Attributes:
        dy: Rows by which the second field lies below the first, in pixels of the original pages.
        dx: Columns by which it lies to the right.
        area: Common part of the area of a field, 0 … 1.
        correlation: Pearson correlation of the two images in the common part.
        z: The same in standard deviations of unrelated images of this texture.
        support: How many cells agree and how well: correlation times a self-normalised sum, √n when n equal cells
            fit perfectly, 1 when a single bright cell makes the match.
        overlapping: Whether all three are high enough.
    """

    dy: int
    dx: int
    area: float
    correlation: float
    z: float
    support: float
    overlapping: bool


@dataclass(frozen=True)
class OverlapPair:
    """Two overlapping stacks by their number in the list, with the measurement."""

    a: int
    b: int
    overlap: Overlap


@dataclass(frozen=True)
class _Field:
    """A filtered image and what every comparison needs of it; arrays have twice the image's size."""

    shape: tuple[int, ...]
    scale: int  # pixels of the page for one pixel here
    image: Gray
    spectrum: NDArray[np.complexfloating[Any, Any]]
    sums: NDArray[np.floating[Any]]  # of the part that a shifted window covers, for every shift
    spread: NDArray[np.floating[Any]]  # sum of squared deviations of the same part; infinite without texture
    power: NDArray[np.floating[Any]]  # autocorrelation


def measure_overlap(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    max_side: int | None = None,
    min_correlation: float = 0.5,
    min_z: float = 7.0,
    min_support: float = 2.8,
) -> Overlap:
    """Find the shift between two fields and judge whether they overlap.

    The band-passed images, whose spectra are nearly flat, are correlated by FFT for all shifts at once, and every
    shift is normalised by its own common part. A plain phase correlation divides by the amplitude of the whole
    padded images instead, whose borders then outweigh an overlap of a few per cent.

    The shift that fits best of thousands fits well by chance where few cells carry all contrast: two bright cells
    on two others already correlate by 0.9, and many cells by 0.6. A self-normalised sum over blocks of a cell's
    size, whose tails are bounded whatever the distribution of brightness, times the correlation therefore has to
    show that many cells agree well.

    Args:
        a: Page [H, W] or [H, W, 3].
        b: Page of the same shape.
        max_side: Shrink to at most this many pixels first; null: full resolution.
        min_correlation: Needed in the common part.
        min_z: Needed in standard deviations; very small overlaps of coarse textures cannot reach it.
        min_support: Needed support; 2.8 takes eight equal cells that fit perfectly, and more when they fit less well.

    Returns:
        The best shift, also when it is not convincing.
    """
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"fields of one microscope have one size, found {a.shape} and {b.shape}")
    return _compare(_field(a, max_side), _field(b, max_side), (min_correlation, min_z, min_support))


def find_overlaps(
    stacks: Sequence[Stack],
    *,
    frame: int = 0,
    max_side: int = 256,
    min_correlation: float = 0.5,
    min_z: float = 7.0,
    min_support: float = 2.8,
    cache_dir: Path | None = None,
) -> list[OverlapPair]:
    """All overlapping pairs of stacks within one well (or folder, where the well is unknown).

    One page of each stack is read. Results are remembered for the life of the process, and in ``cache_dir`` for
    other processes, as long as the files stay the same.

    Args:
        stacks: The stacks; pairs refer to their order.
        frame: Page to compare, clamped to the stack.
        max_side: Working size in pixels; shifts are exact to ``page side / max_side`` pixels.
        min_correlation: See :func:`measure_overlap`.
        min_z: See :func:`measure_overlap`.
        min_support: See :func:`measure_overlap`.
        cache_dir: Folder of ``overlaps-<hash>.json``; null: nothing is written.
    """
    limits = (min_correlation, min_z, min_support)
    identity = [_FORMAT, frame, max_side, limits, [_identity(stack) for stack in stacks]]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]
    file = cache_dir / f"overlaps-{key}.json" if cache_dir is not None else None
    return list(_find_overlaps(tuple(stacks), frame, max_side, limits, key, file))


@lru_cache(maxsize=8)
def _find_overlaps(
    stacks: tuple[Stack, ...], frame: int, max_side: int, limits: _Limits, key: str, file: Path | None
) -> tuple[OverlapPair, ...]:
    if file is not None and (remembered := _read_pairs(file, len(stacks))) is not None:
        return remembered
    pairs = []
    for members in by_well(stacks).values():
        fields: dict[int, _Field] = {}
        for i in members if len(members) > 1 else ():
            try:
                fields[i] = _field(read_frame(stacks[i], frame), max_side)
            except PageError as error:
                logger.warning(
                    "%s: page %d is not compared with its neighbours: %s", stacks[i].path, frame, error
                )
        for i, j in combinations(fields, 2):
            if fields[i].shape == fields[j].shape:
                found = _compare(fields[i], fields[j], limits)
                if found.overlapping:
                    pairs.append(OverlapPair(i, j, found))
    if file is not None:
        write_json(file, {"pairs": [asdict(pair) for pair in pairs]})
    return tuple(pairs)


def _identity(stack: Stack) -> list[Any]:
    """What the result depends on of one stack: the file as it is, and its well."""
    well = stack.group("well") if stack.well else None
    try:
        status = stack.path.stat()
    except OSError:  # whoever reads it says what is wrong
        return [str(stack.path), None, None, well]
    return [str(stack.path.resolve()), status.st_size, status.st_mtime_ns, well]


def _read_pairs(file: Path, n_stacks: int) -> tuple[OverlapPair, ...] | None:
    """Remembered pairs; None when there are none, or the file is damaged."""
    try:
        pairs = [
            OverlapPair(row["a"], row["b"], Overlap(**row["overlap"])) for row in read_json(file)["pairs"]
        ]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s cannot be used and is written anew: %s", file, error)
        return None
    return tuple(pairs) if all(0 <= pair.a < pair.b < n_stacks for pair in pairs) else None


def read_frame(stack: Stack, frame: int) -> NDArray[np.uint8]:
    """One page as an 8-bit gray or RGB image; the number is clamped to the stack."""
    with StackReader(stack.path) as reader:
        return scale_page(reader.page(min(max(frame, 0), stack.n_frames - 1)))


def by_well(stacks: Sequence[Stack]) -> dict[str, list[int]]:
    """Numbers of the stacks of each well, or of each folder where the well is unknown."""
    wells: dict[str, list[int]] = {}
    for i, stack in enumerate(stacks):
        wells.setdefault(stack.group("well") if stack.well else str(stack.path.parent), []).append(i)
    return wells


def _field(page: NDArray[Any], max_side: int | None) -> _Field:
    image = _gray(page)
    scale = 1 if max_side is None else max(1, math.ceil(max(image.shape) / max_side))
    if scale > 1:
        image = np.asarray(Image.fromarray(image).reduce(scale), np.float32)
    image = gaussian_filter(image, _NOISE_PIXELS) - gaussian_filter(image, _CELL_PIXELS)
    image -= image.mean()
    spread = float(image.std())
    image = (image / spread if spread > 0 else image).astype(np.float32)
    shape = _padded(image.shape)
    mask = np.conj(_forward(np.ones(image.shape, np.float32), shape))
    spectrum = _forward(image, shape)
    sums = _backward(spectrum * mask, shape)
    squares = _backward(_forward(image * image, shape) * mask, shape)
    power = _backward(np.abs(spectrum) ** 2, shape)
    common = _common(image.shape)[2]
    spread = np.maximum(squares - sums * sums / np.maximum(common, 1), 0)
    # A common part without texture (empty background) has no meaningful correlation.
    spread[(common < 16) | (spread < 0.05 * common)] = np.inf
    return _Field(image.shape, scale, image, *(np.asarray(x) for x in (spectrum, sums, spread, power)))


def _compare(a: _Field, b: _Field, limits: _Limits) -> Overlap:
    """Pearson correlation of the common part for every shift at once; the most significant one is kept."""
    dy, dx, common = _common(a.shape)
    r = _backward(a.spectrum * np.conj(b.spectrum), _padded(a.shape))
    r -= a.sums * _negated(b.sums) / np.maximum(common, 1)
    r /= np.sqrt(a.spread * _negated(b.spread))
    z = r * np.sqrt(common / np.float32(_texture_area(a, b)))
    row, column = np.unravel_index(np.argmax(z), z.shape)
    # Significance grows with the area and so pulls towards larger ones: the best fit nearby is the exact shift.
    near = np.ix_(*((np.arange(k - 2, k + 3) % n) for k, n in zip((row, column), z.shape, strict=True)))
    down, right = np.unravel_index(np.argmax(r[near]), (5, 5))
    row, column = int(near[0][down, 0]), int(near[1][0, right])
    correlation = float(min(r[row, column], 1.0))
    support = correlation * _agreement(a, b, int(dy[row]), int(dx[column]))
    measured = correlation, float(z[row, column]), support
    return Overlap(
        dy=int(dy[row]) * a.scale,
        dx=int(dx[column]) * a.scale,
        area=float(common[row, column]) / (a.shape[0] * a.shape[1]),
        correlation=measured[0],
        z=measured[1],
        support=measured[2],
        overlapping=all(value >= limit for value, limit in zip(measured, limits, strict=True)),
    )


def _agreement(a: _Field, b: _Field, dy: int, dx: int) -> float:
    """Σ y / √(Σ y²) over blocks, y a block's part in the covariance of the common part; 0 without one."""
    height, width = a.shape
    first = a.image[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
    second = b.image[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
    if first.size == 0:
        return 0.0
    product = (first - first.mean()) * (second - second.mean())
    edges = [np.arange(0, side, _BLOCK_PIXELS) for side in product.shape]
    blocks = np.add.reduceat(np.add.reduceat(product, edges[0], axis=0), edges[1], axis=1)
    spread = float(np.sqrt((blocks * blocks).sum()))
    return float(blocks.sum()) / spread if spread > 0 else 0.0


@lru_cache(maxsize=2)
def _common(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows and columns of every shift, and the pixels that both images then share."""
    dy, dx = (np.where(np.arange(n) < n // 2, np.arange(n), np.arange(n) - n) for n in _padded(shape))
    rows, columns = np.clip(shape[0] - np.abs(dy), 0, None), np.clip(shape[1] - np.abs(dx), 0, None)
    return dy, dx, (rows[:, None] * columns).astype(np.float32)


def _negated(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The values of every shift at the opposite shift."""
    return np.roll(values[::-1, ::-1], 1, (0, 1))


def _padded(shape: tuple[int, ...]) -> list[int]:
    fast: Any = scipy.fft.next_fast_len
    return [fast(2 * n, real=True) for n in shape]


def _forward(image: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    transform: Any = scipy.fft.rfft2  # scipy describes its dispatcher here, not the result
    return transform(image, shape)


def _backward(spectrum: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    transform: Any = scipy.fft.irfft2
    return transform(spectrum, shape)


def _texture_area(a: _Field, b: _Field) -> float:
    """Pixels that count as one independent observation: Σ of the product of the two autocorrelations."""
    peaks = float(a.power[0, 0]) * float(b.power[0, 0])
    return max(1.0, float((a.power * b.power).sum()) / max(peaks, 1e-20))


def _gray(page: NDArray[Any]) -> Gray:
    image = np.asarray(page, np.float32)
    return np.ascontiguousarray(image.mean(axis=2) if image.ndim == 3 else image)
