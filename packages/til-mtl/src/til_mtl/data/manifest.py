"""``manifest.csv``: which slide every patch comes from, and on which side of the split it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medshared.tables import Column, read_table
from til_mtl.errors import DataError

MANIFEST = "manifest.csv"
SPLITS = ("train", "val", "test")
# Names of patches as prepare_tiger.py gives them, and of TIGER's regions: the slide comes first.
_NAMED_BY_SLIDE = re.compile(
    r"^(?P<slide>.+?)_(?:\[\d+, ?\d+, ?\d+, ?\d+\](?:[_-].*)?|\d+-\d+-\d+-\d+_\d+-\d+)$"
)
_COLUMNS = (
    Column("patch"),
    Column("task", "category", choices=("segmentation", "detection")),
    Column("split", "category", choices=SPLITS),
    Column("slide"),
)


@dataclass(frozen=True)
class Manifest:
    """The table of a data root.

    Attributes:
        path: The file.
        slides: (task, patch) → slide.
        sides: Slide → train, val or test.
    """

    path: Path
    slides: Mapping[tuple[str, str], str]
    sides: Mapping[str, str]


def read_manifest(root: Path) -> Manifest | None:
    """Read ``ROOT/manifest.csv`` if there is one.

    Args:
        root: Data root.

    Returns:
        The table, or ``None``.

    Raises:
        TableError: Missing columns or cells.
        DataError: One slide on two sides, or one patch in two rows.
    """
    path = root / MANIFEST
    if not path.is_file():
        return None
    table = read_table(path, _COLUMNS)
    slides: dict[tuple[str, str], str] = {}
    sides: dict[str, str] = {}
    columns = (table[name].tolist() for name in ("patch", "task", "split", "slide"))
    for patch, task, split, slide in zip(*columns, strict=True):
        if (task, patch) in slides:
            raise DataError(f"{path}: {task} patch {patch!r} has two rows: remove one")
        slides[task, patch] = slide
        if sides.setdefault(slide, split) != split:
            raise DataError(_two_sides(str(path), slide, {sides[slide], split}))
    return Manifest(path, slides, sides)


def slide_from_name(name: str) -> str:
    """Return the slide that a patch's name begins with, or an empty text where it does not tell.

    Example:
        >>> slide_from_name("104S_[100, 200, 400, 500]_0_256")
        '104S'
    """
    match = _NAMED_BY_SLIDE.match(name)
    return match["slide"] if match else ""


def shared_slides(sides: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Return slides that are on more than one side.

    Args:
        sides: Side → slides on it.

    Returns:
        Slide → its sides, only where there are several.
    """
    seen: dict[str, set[str]] = {}
    for side, slides in sides.items():
        for slide in slides:
            seen.setdefault(slide, set()).add(side)
    return {slide: where for slide, where in sorted(seen.items()) if len(where) > 1}


def refuse_shared(place: str, sides: Mapping[str, Iterable[str]]) -> None:
    """Refuse slides on more than one side.

    Args:
        place: Data root, for the message.
        sides: Side → slides on it.

    Raises:
        DataError: Naming the first such slide and how many there are.
    """
    shared = shared_slides(sides)
    if shared:
        slide = next(iter(shared))
        more = f" ({len(shared)} slides in all)" if len(shared) > 1 else ""
        raise DataError(_two_sides(place, slide, shared[slide]) + more)


def _two_sides(place: str, slide: str, sides: set[str]) -> str:
    named = " and in ".join(side for side in SPLITS if side in sides)
    return (
        f"{place}: slide {slide!r} is in {named}: results on tissue that was trained on mean nothing; "
        "move all its patches to one side, for both tasks alike (prepare_tiger.py does)"
    )
