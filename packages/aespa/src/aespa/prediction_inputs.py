"""What is to be segmented: images and volumes by name, and the clicks on each."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from aespa.data.reading import IMAGE_SUFFIXES
from aespa.data.records import natural_order
from aespa.errors import DataError
from medshared.tables import Column, TableError, read_table
from medshared.volumes import is_volume_name, volume_stem

COLUMNS = (
    Column("image"),
    Column("slice", "int", required=False, minimum=0),
    Column("x", "int"),
    Column("y", "int"),
    Column("label", "category", choices=("0", "1")),
    Column("round", "int", required=False, minimum=0),
)


class TableClick(NamedTuple):
    """A row of the table of clicks.

    Attributes:
        line: Of the file, for messages.
        slice: Of a volume; null for an image.
        x: Column in pixels, from 0.
        y: Row.
        label: 1 inside, 0 outside.
    """

    line: int
    slice: int | None
    x: int
    y: int
    label: int


@dataclass(frozen=True)
class Item:
    """An image or a volume.

    Attributes:
        name: Of its results, without suffix; with the subfolder in the folder that was given.
        path: The file.
        clicks: In the order in which they are made.
    """

    name: str
    path: Path
    clicks: tuple[TableClick, ...] = field(default=())

    @property
    def is_volume(self) -> bool:
        """Whether the file is a NIfTI volume."""
        return is_volume_name(self.path.name)


def find_items(inputs: Sequence[Path], output: Path) -> list[Item]:
    """List the images and volumes among files and folders.

    Args:
        inputs: Files, and folders, which are searched with their subfolders for images and volumes.
        output: Folder of the results, left out of the search.

    Raises:
        DataError: A path is missing, of another kind, or empty; two results would have the same name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        for name, path in _files(given, output):
            earlier = found.setdefault(name, path)
            if earlier.resolve() != path.resolve():
                raise DataError(
                    f"{earlier} and {path}: the results of both would be called {name}; rename one, or write them to "
                    "different -output folders"
                )
    return [Item(name, path) for name, path in found.items()]


def _files(given: Path, output: Path) -> Iterator[tuple[str, Path]]:
    """Yield the results' names and the files of one path of the command line."""
    if given.is_file():
        if not _is_input(given.name):
            known = ", ".join((*IMAGE_SUFFIXES, ".nii", ".nii.gz"))
            raise DataError(f"{given}: expected an image or a volume ({known})")
        yield _stem(given), given
        return
    if not given.is_dir():
        raise DataError(f"{given}: no such file or folder")
    paths = []
    for folder, folders, names in os.walk(given):
        here = Path(folder)
        folders[:] = [
            each
            for each in folders
            if not each.startswith(".") and (here / each).resolve() != output.resolve()
        ]
        paths += [here / name for name in names if _is_input(name)]
    if not paths:
        raise DataError(f"{given}: no image and no NIfTI volume in this folder")
    for path in sorted(paths, key=lambda path: natural_order(path.relative_to(given).as_posix())):
        yield (path.relative_to(given).parent / _stem(path)).as_posix(), path


def _is_input(name: str) -> bool:
    return is_volume_name(name) or (name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))


def _stem(path: Path) -> str:
    return volume_stem(path) if is_volume_name(path.name) else path.stem


def with_clicks(items: Sequence[Item], table: Path) -> list[Item]:
    """Return the items with the clicks of a table.

    Args:
        items: All items, so that a row for none of them is noticed.
        table: Columns ``image`` (name of the result, file name or path), ``slice`` (of volumes), ``x``, ``y``,
            ``label`` and ``round``, which orders the clicks; rows of one round keep their order.

    Raises:
        TableError: Naming the rows that are not as expected, or for no item.
    """
    frame = read_table(table, COLUMNS)
    places = _places(items)
    chosen: list[list[tuple[int, TableClick]]] = [[] for _ in items]
    faults = []
    for line, row in zip(_lines(table), frame.to_dict("records"), strict=True):
        rank, z = _integer(row.get("round")), _integer(row.get("slice"))
        here = places.get(str(row["image"]), [])
        if len(here) != 1:
            shown = ", ".join(item.name for item in items[:5]) + (", …" if len(items) > 5 else "")
            what = "several inputs have that name" if here else f"none of the {len(items)} inputs ({shown})"
            faults.append(f"{table}:{line}: column 'image': {row['image']!r}: {what}")
            continue
        volume = items[here[0]].is_volume
        if volume != (z is not None):
            expected = "the number of a slice, from 0" if volume else "an empty cell: it is no volume"
            faults.append(f"{table}:{line}: column 'slice': expected {expected}, for {row['image']}")
            continue
        click = TableClick(line, z, int(row["x"]), int(row["y"]), int(row["label"]))
        chosen[here[0]].append((rank or 0, click))
    if faults:
        more = [f"… and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise TableError("\n".join(faults[:10] + more))
    ordered = [tuple(click for _, click in sorted(each, key=lambda pair: pair[0])) for each in chosen]
    return [Item(item.name, item.path, clicks) for item, clicks in zip(items, ordered, strict=True)]


def _places(items: Sequence[Item]) -> dict[str, list[int]]:
    """Return which items a cell of the column ``image`` may mean."""
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        for name in {item.name, _stem(item.path), item.path.name, str(item.path)}:
            places.setdefault(name, []).append(i)
    for i, item in enumerate(items):  # a full name is never in doubt
        places[item.name] = [i]
    return places


def _lines(table: Path) -> list[int]:
    """Return the line of each row of a table that was read."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        return [reader.line_num for cells in reader if cells]


def _integer(cell: object) -> int | None:
    """Return the number in a cell that may be missing."""
    return None if cell is None or cell != cell or str(cell) == "<NA>" else int(str(cell))
