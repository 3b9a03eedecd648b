"""The original's tools against copies: a perceptual hash of whole frames, and of border strips.

Shifted strips hash differently, so they miss most overlaps; :func:`infection_mt.data.overlap.find_overlaps` is the
test to use for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infection_mt.data.overlap import by_well, read_frame
from infection_mt.data.stacks import Stack
from medshared.tables import write_jsonl

SIDES = ("left", "right", "top", "bottom")
_OPPOSITE = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))


def perceptual_hash(image: NDArray[Any]) -> NDArray[np.bool_]:
    """256 bits of the low frequencies of an image.

    Gray, 64 x 64 bicubic, real part of the two-dimensional FFT (not a DCT, despite the tool's name), lowest
    16 x 16 block, bit = above the median of the block without its first row and column.

    Args:
        image: [H, W] or [H, W, 3] uint8.
    """
    gray = (
        Image.fromarray(np.ascontiguousarray(image)).convert("L").resize((64, 64), Image.Resampling.BICUBIC)
    )
    block = np.fft.fft2(np.asarray(gray, np.float64)).real[:16, :16]
    return (block > np.median(block[1:, 1:])).ravel()


def hamming(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> int:
    """Number of different bits."""
    return int(np.count_nonzero(a != b))


def find_duplicates(
    stacks: Sequence[Stack], *, frame: int = 0, max_distance: int = 6, folder: Path | None = None
) -> list[tuple[Stack, Stack, int]]:
    """Stacks whose frame looks like that of an earlier one.

    Args:
        stacks: In order; the first of similar ones is kept.
        frame: Page to hash.
        max_distance: Most different bits of duplicates.
        folder: Where ``dedup_manifest.jsonl`` (kept) and ``dedup_removed.jsonl`` are written.

    Returns:
        (removed stack, the kept stack it resembles, distance).
    """
    kept: list[tuple[Stack, NDArray[np.bool_]]] = []
    removed: list[tuple[Stack, Stack, int]] = []
    for stack in stacks:
        code = perceptual_hash(read_frame(stack, frame))
        match = next(((other, d) for other, bits in kept if (d := hamming(code, bits)) <= max_distance), None)
        if match is None:
            kept.append((stack, code))
        else:
            removed.append((stack, *match))
    if folder is not None:
        write_jsonl(folder / "dedup_manifest.jsonl", [_described(stack, frame) for stack, _ in kept])
        rows = [{**_described(s, frame), "duplicate_of": str(o.path), "hamming": d} for s, o, d in removed]
        write_jsonl(folder / "dedup_removed.jsonl", rows)
    return removed


@dataclass(frozen=True)
class StripMatch:
    """Opposite borders of two fields that look alike."""

    a: str
    b: str
    best_hamming: int
    a_side: str
    b_side: str


def audit_strips(
    stacks: Sequence[Stack],
    *,
    frame: int = 0,
    strip: int = 64,
    max_distance: int = 8,
    file: Path | None = None,
) -> list[StripMatch]:
    """Compare hashed border strips of all pairs within a well, as the original's audit does.

    Shifted strips hash differently, so a missing pair proves nothing; :func:`find_overlaps` aligns them.

    Args:
        stacks: The stacks.
        frame: Page to compare.
        strip: Width of the strips in pixels.
        max_distance: Most different bits.
        file: JSON lines of the result.
    """
    matches = []
    for members in by_well(stacks).values():
        codes = {i: _strip_hashes(read_frame(stacks[i], frame), strip) for i in members if len(members) > 1}
        for i, j in combinations(codes, 2):
            distance, a_side, b_side = min((hamming(codes[i][x], codes[j][y]), x, y) for x, y in _OPPOSITE)
            if distance <= max_distance:
                matches.append(StripMatch(str(stacks[i].path), str(stacks[j].path), distance, a_side, b_side))
    if file is not None:
        write_jsonl(file, [asdict(match) for match in matches])
    return matches


def _strip_hashes(image: NDArray[np.uint8], strip: int) -> dict[str, NDArray[np.bool_]]:
    parts = (image[:, :strip], image[:, -strip:], image[:strip], image[-strip:])
    return {side: perceptual_hash(part) for side, part in zip(SIDES, parts, strict=True)}


def _described(stack: Stack, frame: int) -> dict[str, Any]:
    return {
        "path": str(stack.path),
        "condition": stack.condition,
        "position": stack.position,
        "frame_index": frame,
    }
