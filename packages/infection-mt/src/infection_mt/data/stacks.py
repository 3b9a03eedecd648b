"""The list of stacks: one multi-page TIFF for each imaged position, from two folders or from a manifest CSV."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from infection_mt.config import DataConfig
from infection_mt.data.pages import PageError, check_kind
from medshared.files import read_json, write_json
from medshared.images import StackError, read_stack_info
from medshared.tables import MAX_REPORTED, Column, TableError, read_table

logger = logging.getLogger(__name__)

GroupKind = Literal["stack", "position", "well", "plate", "run"]
UNKNOWN_POSITION = "unknown"
INDEX_NAME = "stack_index.json"
_POSITION = re.compile(r"_p(\d+)_")
_WELL = (
    re.compile(r"_s\d+_([a-p])(\d+)_p", re.IGNORECASE),
    re.compile(r"(?:^|[_\-. ])([a-p])(\d{1,2})_p\d", re.IGNORECASE),
    re.compile(r"(?:^|[_\-. ])well[_\-]?([a-p])(\d{1,2})(?=[_\-. ]|$)", re.IGNORECASE),
)
_CONDITIONS = {"infected": "infected", "uninfected": "uninfected", "mock": "uninfected"}
_MANIFEST_COLUMNS = [
    Column("file", "str"),
    Column("condition", "category", choices=tuple(_CONDITIONS)),
    Column("plate", "str", required=False),
    Column("well", "str", required=False),
    Column("position", "str", required=False),
    Column("run", "str", required=False),
    Column("onset_hour", "float", required=False),
    Column("split", "category", required=False, choices=("train", "val", "test")),
    Column("label", "int", required=False),
]


@dataclass(frozen=True)
class Stack:
    """One imaged position over time.

    Attributes:
        path: The TIFF.
        label: Class index.
        condition: ``infected`` or ``uninfected``: the folder or the manifest's entry; it selects the frame rule.
        position: Digits as written in the file name, or ``unknown``.
        n_frames: Pages.
        well: Row letter and column, for example ``b2``; None when unknown.
        plate: Plate name; None when there is only one or it is unknown.
        run: Name of the experiment repeat.
        onset_hour: Hour of infection of this stack; None: the configuration's.
        split: ``train``, ``val`` or ``test`` when the manifest fixes it.
        shape: Of the first page in pixels (height, width[, channels]); None when it was not looked at.
        dtype: Of the first page.
    """

    path: Path
    label: int
    condition: str
    position: str
    n_frames: int
    well: str | None = None
    plate: str | None = None
    run: str | None = None
    onset_hour: float | None = None
    split: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    @property
    def key(self) -> str:
        """Name of the imaged field, ``[run/][plate/]well/position``; position numbers repeat between wells."""
        if self.well is None or self.position == UNKNOWN_POSITION:
            return "/".join(part for part in (self.run, self.plate, self.condition, self.path.stem) if part)
        return "/".join(part for part in (self.run, self.plate, self.well, self.position) if part)

    def group(self, kind: GroupKind) -> str:
        """Name of the group the stack belongs to.

        Args:
            kind: ``stack``, ``position`` (within its well), ``well`` (within its plate), ``plate`` or ``run``.

        Raises:
            ValueError: When the stack does not say what is asked for.
        """
        if kind == "stack":
            return str(self.path)
        if kind == "position":
            return self.key
        value: str | None = {"well": self.well, "plate": self.plate, "run": self.run}[kind]
        if value is None:
            raise ValueError(
                f"{self.path.name}: its {kind} is unknown, so stacks cannot be grouped by {kind}: "
                f"give a manifest with a column {kind!r}"
                + (", or name the file like *_s5_b2_p13_*" if kind == "well" else "")
            )
        site = self.plate or self.run
        return f"{site}/{value}" if kind == "well" and site else value


class ParsedName(NamedTuple):
    """What a file name says: position digits or ``unknown``, and the well or None."""

    position: str
    well: str | None


def parse_name(name: str) -> ParsedName:
    """Read position and well from a file name.

    The position is the digits of the first ``_p<digits>_``, kept as written. The well is the letter and column
    before it (``_s5_b2_p13_``, ``b02_p1``) or after ``well`` (``well-B2``), in lower case without leading zeros.

    Example:
        >>> parse_name("exp_s5_b2_p013_t0-94_ec.tiff")
        ParsedName(position='013', well='b2')
    """
    position = _POSITION.search(name)
    well = next((match for pattern in _WELL if (match := pattern.search(name))), None)
    return ParsedName(
        position.group(1) if position else UNKNOWN_POSITION,
        f"{well.group(1).lower()}{int(well.group(2))}" if well else None,
    )


class StackIndex:
    """Page counts of stacks, remembered in a file as long as path, size and modification time stay the same."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._entries: dict[str, dict[str, Any]] = {}
        self._changed = False
        if file is not None and file.exists():
            try:
                entries = read_json(file)
                self._entries = dict(entries["stacks"])
            except (ValueError, KeyError, TypeError, OSError) as error:
                logger.warning("%s cannot be used and is written anew: %s", file, error)

    def describe(self, stacks: Iterable[Stack], failed: dict[Path, str] | None = None) -> list[Stack]:
        """Fill in page count, shape and dtype.

        Args:
            stacks: Without these.
            failed: Receives path and reason of stacks that cannot be used, which are then left out; null: they
                are an error.

        Raises:
            StackError: One error that names every stack that cannot be used.
        """
        described, problems = [], []
        for stack in stacks:
            try:
                described.append(self._describe(stack))
            except OSError as error:
                problems.append(str(error))
                if failed is not None:
                    failed[stack.path] = str(error)
        if problems and failed is None:
            raise StackError(f"{len(problems)} of the stacks cannot be read:\n  " + "\n  ".join(problems))
        self._save()
        return described

    def _describe(self, stack: Stack) -> Stack:
        status = stack.path.stat()
        name = str(stack.path.resolve())
        entry = self._entries.get(name)
        stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if entry is None or any(entry.get(key) != value for key, value in stamp.items()):
            info = read_stack_info(stack.path)
            entry = {**stamp, "n_pages": info.n_pages, "shape": list(info.shape), "dtype": str(info.dtype)}
            self._entries[name] = entry
            self._changed = True
        try:
            check_kind(tuple(entry["shape"]), entry["dtype"])
        except PageError as error:
            raise StackError(f"{stack.path}: page 0: {error}") from error
        return replace(
            stack, n_frames=int(entry["n_pages"]), shape=tuple(entry["shape"]), dtype=str(entry["dtype"])
        )

    def _save(self) -> None:
        if self.file is not None and self._changed:
            write_json(self.file, {"stacks": self._entries})
            self._changed = False


def load_stacks(
    data: DataConfig, cache_dir: Path | None = None, *, failed: dict[Path, str] | None = None
) -> list[Stack]:
    """All stacks of a configuration, checked for duplicates.

    Args:
        data: Names the two folders or the manifest.
        cache_dir: Where page counts are remembered; null: ``data.cache_dir``, and without both nowhere.
        failed: Receives path and reason of stacks that cannot be used, which are then left out; null: they are
            an error.

    Returns:
        Infected before uninfected stacks, each in the order of the path strings; or the manifest's order.
    """
    folder = cache_dir or data.cache_dir
    index = StackIndex(folder / INDEX_NAME if folder else None)
    if data.manifest is not None:
        return read_manifest(data.manifest, data, index, failed)
    return scan_folders(data, index, failed)


def scan_folders(
    data: DataConfig, index: StackIndex | None = None, failed: dict[Path, str] | None = None
) -> list[Stack]:
    """The stacks ``*.tif*`` of ``infected_dir`` and ``uninfected_dir``; folders below them are not searched.

    Raises:
        FileNotFoundError: A folder is missing.
        RuntimeError: A folder holds no stack.
        ValueError: Two files show the same field.
        StackError: Files that are no readable stack.
    """
    stacks = []
    for key, condition, label in (
        ("infected_dir", "infected", data.infected_label),
        ("uninfected_dir", "uninfected", data.uninfected_label),
    ):
        folder: Path | None = getattr(data, key)
        if folder is None:
            raise ValueError(f"data.{key} is not set")
        for path in _tiffs(folder, f"data.{key}"):
            position, well = parse_name(path.name)
            stacks.append(Stack(path, label, condition, position, 0, well))
    return _described(stacks, index, failed)


def read_manifest(
    path: str | Path,
    data: DataConfig | None = None,
    index: StackIndex | None = None,
    failed: dict[Path, str] | None = None,
) -> list[Stack]:
    """The stacks of a manifest CSV.

    Columns: ``file`` (relative paths count from the manifest) and ``condition`` (infected, uninfected or mock)
    are required; ``plate``, ``well``, ``position``, ``run``, ``onset_hour`` (hours since the first frame),
    ``split`` (train, val, test) and ``label`` are optional, and so are their cells. Well and position are read
    from the file name where the manifest is silent.

    Args:
        path: The CSV.
        data: Gives the labels of the two conditions; null: 1 and 0.
        index: Remembered page counts.
        failed: See :func:`load_stacks`.

    Raises:
        TableError: Naming file, row and column.
        ValueError: Two rows name the same file or field.
        StackError: Files that are no readable stack.
    """
    path = Path(path)
    labels = {
        "infected": data.infected_label if data else 1,
        "uninfected": data.uninfected_label if data else 0,
    }
    frame = read_table(path, _MANIFEST_COLUMNS)
    if frame.empty:
        raise TableError(f"{path}: the manifest has no rows")
    rows = [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
    if failed is None:
        _check_files(path, rows)
    stacks = [_stack_of_row(path.parent, row, labels) for row in rows]
    without = [n for n, stack in enumerate(stacks, start=2) if stack.split is None]
    if 0 < len(without) < len(stacks):
        raise TableError(
            f"{path}:{without[0]}: column 'split' is empty here and in {len(without) - 1} more rows, but filled "
            "elsewhere: fill it for every stack or for none"
        )
    return _described(stacks, index, failed)


def check_duplicates(stacks: Iterable[Stack]) -> None:
    """Refuse two entries for one file or for one imaged field.

    Raises:
        ValueError: Naming both files.
    """
    files: dict[Path, Stack] = {}
    fields: dict[str, Stack] = {}
    for stack in stacks:
        resolved = stack.path.resolve()
        if (other := files.get(resolved)) is not None:
            raise ValueError(f"{other.path} and {stack.path} are the same file: list it once")
        if (other := fields.get(stack.key)) is not None:
            raise ValueError(
                f"{other.path} and {stack.path} both show {stack.key} (well/position): remove the copy, or tell "
                "them apart by the columns plate or run of a manifest"
            )
        files[resolved] = fields[stack.key] = stack


def _tiffs(folder: Path, key: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{key}: folder {folder} does not exist")
    found = sorted((p for p in folder.glob("*.tif*") if p.is_file()), key=str)
    hidden = [p.name for p in found if p.name.startswith(".")]
    if hidden:
        logger.warning("%s: %d hidden files are left out (%s, …)", folder, len(hidden), hidden[0])
    found = [p for p in found if not p.name.startswith(".")]
    if not found:
        raise RuntimeError(
            f"{key}: folder {folder} holds no *.tif or *.tiff file (folders below are not searched)"
        )
    return found


def _described(stacks: list[Stack], index: StackIndex | None, failed: dict[Path, str] | None) -> list[Stack]:
    check_duplicates(stacks)
    described = (index or StackIndex(None)).describe(stacks, failed)
    kinds = Counter((stack.shape, stack.dtype) for stack in described)
    if len(kinds) > 1:
        logger.warning(
            "the stacks differ in page size or type (every page is scaled and resized on its own): %s",
            "; ".join(
                f"{n} of {'x'.join(map(str, shape or ()))} {dtype}" for (shape, dtype), n in kinds.items()
            ),
        )
    return described


def _check_files(manifest: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    missing = [
        f"{manifest}:{number}: column 'file': {file} does not exist (paths are relative to the manifest)"
        for number, row in enumerate(rows, start=2)
        if not (file := manifest.parent / str(row["file"])).is_file()
    ]
    if missing:
        more = [f"… and {len(missing) - MAX_REPORTED} more"] if len(missing) > MAX_REPORTED else []
        raise TableError("\n".join(missing[:MAX_REPORTED] + more))


def _stack_of_row(folder: Path, row: Mapping[str, Any], labels: Mapping[str, int]) -> Stack:
    file = folder / str(row["file"])
    condition = _CONDITIONS[str(row["condition"])]
    parsed = parse_name(file.name)
    label, onset = _cell(row, "label"), _cell(row, "onset_hour")
    return Stack(
        path=file,
        label=labels[condition] if label is None else int(label),
        condition=condition,
        position=_text(row, "position") or parsed.position,
        n_frames=0,
        well=(_text(row, "well") or parsed.well or "").lower() or None,
        plate=_text(row, "plate"),
        run=_text(row, "run"),
        onset_hour=None if onset is None else float(onset),
        split=_text(row, "split"),
    )


def _cell(row: Mapping[str, Any], key: str) -> Any:
    value = row.get(key)
    return None if value is None or pd.isna(value) or value == "" else value


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = _cell(row, key)
    return None if value is None else str(value).strip() or None
