"""The table of slides: one row a slide, labels repeated for every slide of a patient."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from advmil.errors import DataError
from medshared.tables import Column, TableError, read_table

MAX_REPORTED = 10
COLUMNS = (
    Column("pathology_id", unique=True),
    Column("patient_id"),
    Column("e", kind="float"),
    Column("t", kind="float"),
)


@dataclass(frozen=True)
class Patient:
    """One patient of a cohort.

    Attributes:
        id: Identifier as text.
        slides: Slides (file stems) in the order of the table.
        event: 1 = death observed, 0 = censored.
        time: Days until then, above 0.
    """

    id: str
    slides: tuple[str, ...]
    event: int
    time: float


@dataclass(frozen=True)
class Cohort:
    """A table of slides.

    Attributes:
        slides: Columns ``pathology_id``, ``patient_id`` (text), ``e`` (int), ``t`` (days, float) and whatever
            else the file holds, in the order of the file.
        patients: Patients by id, in the order of their first row.
        path: The file, for messages.
    """

    slides: pd.DataFrame
    patients: dict[str, Patient]
    path: Path
    _columns: dict[str, np.ndarray] = field(repr=False, compare=False)

    @property
    def max_time(self) -> float:
        """Longest time of the whole table in days: the unit of ``time_format: ratio``."""
        return float(self._columns["time"].max())

    @property
    def min_time(self) -> float:
        """Shortest time of the whole table in days."""
        return float(self._columns["time"].min())

    def outcomes(self, patients: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return events (int64) and times in days (float64) of patients, each of shape ``[n]``.

        Args:
            patients: Identifiers.

        Raises:
            DataError: Naming patients that the table lacks.
        """
        rows = pd.Index(self._columns["id"]).get_indexer(pd.Index(list(patients), dtype=object))
        missing = [str(patients[int(k)]) for k in np.flatnonzero(rows < 0)]
        if missing:
            raise DataError(
                f"{self.path} lacks {len(missing)} of the patients asked for ({shorten(missing)}): "
                "use the table they were taken from"
            )
        return self._columns["event"][rows], self._columns["time"][rows]


def shorten(names: Sequence[str], most: int = 5) -> str:
    """Join the first names of a list and say that there are more."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def read_cohort(path: Path | str) -> Cohort:
    """Read a table of slides, ``table/<dataset>_path_full.csv`` of the original.

    Args:
        path: CSV with the columns ``pathology_id``, ``patient_id``, ``e`` (0 or 1) and ``t`` (days); other
            columns are kept.

    Returns:
        The cohort; identifiers are text even where they hold digits only.

    Raises:
        DataError: No such file, missing columns, doubled slides, an event other than 0 and 1, a time that is
            not above 0, or rows of one patient that contradict each other; with file and line.
    """
    path = Path(path)
    try:
        frame = read_table(path, COLUMNS)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such table of slides: set path_label to an existing file") from error
    except TableError as error:
        raise DataError(str(error)) from error
    if frame.empty:
        raise DataError(f"{path}: the table holds no slide, only a header")
    _check_rows(path, frame)
    frame["e"] = frame["e"].astype(np.int64)
    grouped = frame.groupby("patient_id", sort=False)
    first = grouped.head(1)
    columns = {
        "id": first["patient_id"].to_numpy(dtype=object),
        "event": first["e"].to_numpy(dtype=np.int64),
        "time": first["t"].to_numpy(dtype=np.float64),
    }
    names = frame["pathology_id"].to_numpy(dtype=object)
    members = grouped.indices
    patients = {
        key: Patient(key, tuple(names[np.sort(members[key])]), int(event), float(time))
        for key, event, time in zip(columns["id"], columns["event"], columns["time"], strict=True)
    }
    return Cohort(frame, patients, path, columns)


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    """Raise with the lines whose values are impossible or contradict the patient's first row."""
    event, time = frame["e"].to_numpy(dtype=np.float64), frame["t"].to_numpy(dtype=np.float64)
    faults: dict[int, str] = {}
    for k in np.flatnonzero(~np.isin(event, (0.0, 1.0))):
        faults[int(k)] = f"column 'e': expected 0 (censored) or 1 (death observed), found {event[k]:g}"
    for k in np.flatnonzero(~(time > 0) | ~np.isfinite(time)):
        faults[int(k)] = f"column 't': expected days above 0, found {time[k]:g}"
    if not faults:
        code, _ = pd.factorize(frame["patient_id"])
        _, first = np.unique(code, return_index=True)
        start = first[code]
        lines = None
        for k in np.flatnonzero((event != event[start]) | (time != time[start])):
            lines = _line_numbers(path) if lines is None else lines
            other = int(start[k])
            faults[int(k)] = (
                f"patient {frame['patient_id'].iloc[k]} has e={event[k]:g}, t={time[k]:g} here but "
                f"e={event[other]:g}, t={time[other]:g} in line {lines[other]}: labels of a patient must agree"
            )
    if faults:
        lines = _line_numbers(path)
        texts = [f"{path}:{lines[k]}: {faults[k]}" for k in sorted(faults)]
        more = [f"… and {len(texts) - MAX_REPORTED} more"] if len(texts) > MAX_REPORTED else []
        raise DataError("\n".join(texts[:MAX_REPORTED] + more))


def _line_numbers(path: Path) -> list[int]:
    """Return the line of the file that every row of the table ends on."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        return [reader.line_num for cells in reader if cells][1:]
