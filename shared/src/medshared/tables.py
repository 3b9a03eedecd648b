"""CSV tables with declared columns, and JSON lines; errors name the file, the row and the column."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from medshared.files import to_plain, write_text

Kind = Literal["str", "int", "float", "bool", "category"]
MAX_REPORTED = 10
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class TableError(ValueError):
    """A table is not as declared; the message names file, row and column."""


@dataclass(frozen=True)
class Column:
    """What one column of a table must hold.

    Attributes:
        name: Header.
        kind: Type of the cells; ``category`` needs `choices`.
        required: The column must exist and every cell be filled; otherwise both may be missing.
        choices: The allowed values, as text.
        minimum: Smallest allowed number.
        maximum: Largest allowed number.
        unique: No value may occur twice.
    """

    name: str
    kind: Kind = "str"
    required: bool = True
    choices: Sequence[str] | None = None
    minimum: float | None = None
    maximum: float | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if self.kind == "category" and not self.choices:
            raise ValueError(f"column {self.name!r} of kind 'category' needs choices")


def read_table(path: Path | str, columns: Sequence[Column], *, allow_extra: bool = True) -> pd.DataFrame:
    """Read a CSV table and check it against its declared columns.

    Args:
        path: UTF-8 CSV file with a header line.
        columns: What is expected.
        allow_extra: Keep columns that were not declared (as text) instead of refusing them.

    Returns:
        The table in file order. Empty cells of columns that are not required are missing values; integer
        columns with missing values have pandas' ``Int64`` type. Columns that are not required and not there
        stay absent.

    Raises:
        FileNotFoundError: When the file is not there.
        TableError: Listing up to ten faults as ``file:row: column 'name': …``; the row is the line of the
            file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table")
    frame = _read_text(path)
    _check_header(path, [str(name) for name in frame.columns], columns, allow_extra)
    faults: list[tuple[int, str]] = []
    for column in columns:
        if column.name in frame.columns:
            converted, found = _convert(pd.Series(frame[column.name]), column)
            frame[column.name] = converted
            faults += [(row, f"{path}:{row}: column {column.name!r}: {text}") for row, text in found]
    if faults:
        lines = [text for _, text in sorted(faults, key=lambda fault: fault[0])]
        more = [f"… and {len(lines) - MAX_REPORTED} more"] if len(lines) > MAX_REPORTED else []
        raise TableError("\n".join(lines[:MAX_REPORTED] + more))
    return frame.reset_index(drop=True)


def _read_text(path: Path) -> pd.DataFrame:
    """Read every cell as text, indexed by line; ragged rows, doubled headers, other encodings are errors."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows: list[list[str]] = []
            lines: list[int] = []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise TableError(
                        f"{path}:{reader.line_num}: {len(cells)} cells where the header names {len(header)}: "
                        "a comma too many or too few, or a cut line"
                    )
                rows.append([cell.strip() for cell in cells])
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not UTF-8 at byte {error.start}: save the table as UTF-8 CSV") from error
    except csv.Error as error:
        raise TableError(f"{path}: not a CSV table: {error}") from error
    if not any(header):
        raise TableError(f"{path}:1: the table is empty: expected a header line")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise TableError(f"{path}:1: the header names {doubled} more than once")
    return pd.DataFrame(rows, index=pd.Index(lines, dtype=int), columns=pd.Index(header), dtype=object)


def _check_header(path: Path, header: list[str], columns: Sequence[Column], allow_extra: bool) -> None:
    missing = [column.name for column in columns if column.required and column.name not in header]
    if missing:
        raise TableError(f"{path}:1: required columns {missing} are missing; the header has {header}")
    declared = {column.name for column in columns}
    extra = [name for name in header if name not in declared]
    if extra and not allow_extra:
        raise TableError(f"{path}:1: unknown columns {extra}; known are {sorted(declared)}")


def _parse_int(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(text) if text.lstrip("+-").isdigit() else int(number)


def _parse_bool(text: str) -> bool:
    return BOOLEANS[text.lower()]


_PARSERS = {
    "int": (_parse_int, "a whole number"),
    "float": (float, "a number"),
    "bool": (_parse_bool, "true or false"),
}


def _convert(cells: pd.Series, column: Column) -> tuple[pd.Series, list[tuple[int, str]]]:
    """Return the typed column and its faults as (row of the file, text)."""
    values: list[Any] = []
    faults: list[tuple[int, str]] = []
    first_row: dict[Any, int] = {}
    for row, text in zip(cells.index.tolist(), cells.tolist(), strict=True):
        value, fault = _convert_cell(text, column)
        if fault is None and column.unique and value is not None:
            if value in first_row:
                fault = f"{text!r} is already in row {first_row[value]}; the column must not repeat values"
            first_row.setdefault(value, row)
        if fault is not None:
            faults.append((row, fault))
        values.append(value)
    if faults:
        return cells, faults
    has_gaps = any(value is None for value in values)
    types = {
        "int": "Int64" if has_gaps else "int64",
        "float": "float64",
        "bool": "boolean" if has_gaps else "bool",
    }
    return pd.Series(values, index=cells.index, dtype=types.get(column.kind, "object"), name=cells.name), []


def _convert_cell(text: str, column: Column) -> tuple[Any, str | None]:
    """Return the value of one cell, or what is wrong with it."""
    if text == "":
        return None, "the cell is empty" if column.required else None
    value: Any = text
    if column.kind in _PARSERS:
        parse, expected = _PARSERS[column.kind]
        try:
            value = parse(text)
        except (ValueError, KeyError, OverflowError):
            return None, f"expected {expected}, found {text!r}"
        if column.kind == "float" and column.required and np.isnan(value):
            return None, f"expected a number, found {text!r}"
    if column.choices is not None and text not in column.choices:
        return None, f"expected one of {list(column.choices)}, found {text!r}"
    if column.minimum is not None and value < column.minimum:
        return None, f"expected at least {column.minimum:g}, found {text!r}"
    if column.maximum is not None and value > column.maximum:
        return None, f"expected at most {column.maximum:g}, found {text!r}"
    return value, None


def write_table(path: Path | str, frame: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Path:
    """Write a table as CSV, atomically; missing values become empty cells.

    Args:
        path: Target; parent folders are created.
        frame: A data frame, or rows with the same keys.

    Returns:
        The path.
    """
    table = frame if isinstance(frame, pd.DataFrame) else pd.DataFrame.from_records(list(frame))
    write_text(Path(path), table.to_csv(index=False, lineterminator="\n"))
    return Path(path)


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """Read one JSON object per line; empty lines are passed over.

    Args:
        path: UTF-8 file.

    Returns:
        The objects in file order.

    Raises:
        FileNotFoundError: When the file is not there.
        TableError: Naming the line that is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TableError(f"{path}:{number}: not JSON ({error.msg} at character {error.pos})") from error
        if not isinstance(row, dict):
            raise TableError(f"{path}:{number}: expected an object in braces, found {type(row).__name__}")
        rows.append(row)
    return rows


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON object per line, atomically; non-finite numbers become null.

    Args:
        path: Target; parent folders are created.
        rows: The objects.

    Returns:
        The path.
    """
    lines = [json.dumps(to_plain(dict(row)), allow_nan=False, ensure_ascii=False) for row in rows]
    write_text(Path(path), "".join(f"{line}\n" for line in lines))
    return Path(path)
