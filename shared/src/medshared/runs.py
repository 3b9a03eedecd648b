"""One run, one directory: what it was asked, what it did, where to go on after an interruption.

```
config.yaml        the resolved configuration
environment.json   versions, command, seed, git state, device
log.txt            written by run_logging
metrics.csv        one row for each call of log_metrics
checkpoints/       last.pt, best.pt
figures/
results.json       written last: a directory that has it holds a finished run
```
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from medshared.checkpoints import load_checkpoint, save_checkpoint
from medshared.configuration import dump_yaml, load_yaml_or_json
from medshared.files import read_json, to_plain, write_error, write_json, write_text
from medshared.process import StopSignal, progress, run_logging

if TYPE_CHECKING:
    import torch

__all__ = ["RunDirectory", "StopSignal", "progress", "run_logging"]

Scalar = str | int | float | bool
logger = logging.getLogger(__name__)

_ASIDE = ("config.yaml", "environment.json", "metrics.csv", "checkpoints", "figures", "results.json")


class RunDirectory:
    """The directory of one run. Making the object touches no file; `create` does.

    Attributes:
        path: the directory.
        checkpoints: the folder of the checkpoints.
        figures: the folder of the pictures.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self._rows: list[dict[str, Scalar]] | None = None

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    def create(
        self,
        config: Mapping[str, Any],
        command: Sequence[str] | None = None,
        seed: int | None = None,
        *,
        resume: bool = False,
    ) -> Self:
        """Make the folders and write ``config.yaml`` and ``environment.json``.

        Without ``resume``, what an unfinished earlier run left in the directory goes to ``interrupted-1/``
        (then 2, 3, …), so that two runs are never mixed and nothing is lost. With ``resume`` it stays, and
        ``environment.json`` keeps the earlier entries under ``earlier``.

        Args:
            config: the resolved configuration; anything `medshared.files.to_plain` takes.
            command: the program and its arguments; by default those of this process.
            seed: the run's seed.
            resume: go on with the run that the directory holds, if any.

        Returns:
            This object.

        Raises:
            FileExistsError: when the directory holds a finished run and ``resume`` is false.
            OSError: naming the directory when it cannot be written.
        """
        if self.is_complete and not resume:
            message = "the folder holds a finished run; choose another one, or resume to go on with it"
            raise FileExistsError(errno.EEXIST, message, str(self.path))
        from medshared.environment import describe_environment

        environment = describe_environment(command, seed)
        try:
            if resume:
                self._compare(config)
                environment["earlier"] = self._earlier_environments()
                if not self.is_complete and not self.has_checkpoint("last"):
                    # The run was killed in its first epoch and starts at its beginning; its rows would double.
                    (self.path / "metrics.csv").unlink(missing_ok=True)
            else:
                self._set_aside()
            for folder in (self.path, self.checkpoints, self.figures):
                folder.mkdir(parents=True, exist_ok=True)
                for half_written in folder.glob(".*.tmp"):  # left by a process that was killed while writing
                    half_written.unlink(missing_ok=True)
            write_text(self.path / "config.yaml", dump_yaml(config))
            write_json(self.path / "environment.json", environment)
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise write_error(self.path, cause, "the output folder") from error
        self._rows = None if resume else []
        return self

    @property
    def is_complete(self) -> bool:
        """Whether the directory holds a finished run."""
        return (self.path / "results.json").is_file()

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Write ``results.json``, which marks the run as finished: call it last.

        Args:
            results: anything `medshared.files.write_json` takes.

        Returns:
            The path of the file.
        """
        return write_json(self.path / "results.json", results)

    # Metrics

    @property
    def metrics_rows(self) -> list[dict[str, Scalar]]:
        """The rows logged so far, also those of the process that this one resumes; empty cells are absent."""
        if self._rows is None:
            self._rows = _read_rows(self.path / "metrics.csv")
        return [dict(row) for row in self._rows]

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one row to ``metrics.csv``; its columns are the union over all rows, in order of appearance.

        Floats are written so that they read back to the same bits.

        Args:
            row: names and numbers or text; NumPy and torch scalars are fine, ``None`` leaves the cell empty.

        Raises:
            TypeError: naming a value that is no scalar.
        """
        plain = {str(key): value for key, value in to_plain(row, finite=False).items() if value is not None}
        for key, value in plain.items():
            if isinstance(value, (list, dict)):
                raise TypeError(f"metric {key!r} must be one number or text, found {value!r}")
        rows = [*self.metrics_rows, plain]
        self._write_rows(rows)

    def truncate_metrics(self, n: int) -> None:
        """Keep the first ``n`` rows: those that the checkpoint, from which a run resumes, knows of.

        Args:
            n: number of rows to keep, at least 0.
        """
        if n < 0:
            raise ValueError(f"n must be at least 0, found {n}")
        rows = self.metrics_rows
        if len(rows) < n:
            logger.warning("%s has %d rows, %d were expected", self.path / "metrics.csv", len(rows), n)
        elif len(rows) > n:
            self._write_rows(rows[:n])

    def _write_rows(self, rows: list[dict[str, Scalar]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "metrics.csv", buffer.getvalue() if columns else "")
        self._rows = rows

    # Checkpoints

    def checkpoint_path(self, name: str) -> Path:
        """Return where the checkpoint of that name lies, e.g. ``checkpoints/last.pt``."""
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"checkpoint name must be letters, digits, '_', '-' and '.', found {name!r}")
        return self.checkpoints / f"{name}.pt"

    def has_checkpoint(self, name: str) -> bool:
        """Whether there is a checkpoint of that name."""
        return self.checkpoint_path(name).is_file()

    def save_checkpoint(self, name: str, state: Mapping[str, Any]) -> Path:
        """Write ``checkpoints/<name>.pt``; whenever the process dies, a whole checkpoint stays behind.

        Args:
            name: ``"last"`` or ``"best"``.
            state: tensors, numbers, text, and lists, tuples and dictionaries of them. NumPy scalars and paths
                become plain values; anything else that safe loading would refuse is an error now, not later.

        Returns:
            The path of the file.

        Raises:
            TypeError: naming what safe loading would refuse.
            OSError: naming the file and the reason; the earlier checkpoint is then unchanged.
        """
        return save_checkpoint(self.checkpoint_path(name), state)

    def load_checkpoint(self, name: str, map_location: str | torch.device = "cpu") -> Any:
        """Read a checkpoint with ``weights_only=True``.

        Args:
            name: as given to `save_checkpoint`.
            map_location: device of the tensors.

        Returns:
            The state that was saved.

        Raises:
            medshared.weights.WeightsError: naming the file when it is missing or broken.
        """
        return load_checkpoint(self.checkpoint_path(name), map_location=map_location)

    # What an earlier run left

    def _set_aside(self) -> None:
        unfinished = self.path / "metrics.csv", *self.checkpoints.glob("*.pt")
        if not any(path.is_file() for path in unfinished):
            return
        number = 1
        while (self.path / f"interrupted-{number}").exists():
            number += 1
        aside = self.path / f"interrupted-{number}"
        aside.mkdir()
        for name in _ASIDE:
            if (self.path / name).exists():
                shutil.move(self.path / name, aside / name)
        logger.warning("%s held an unfinished run; its files are now in %s", self.path, aside.name)

    def _earlier_environments(self) -> list[Any]:
        try:
            earlier = read_json(self.path / "environment.json")
        except (OSError, ValueError):
            return []
        return [*earlier.pop("earlier", []), earlier] if isinstance(earlier, dict) else []

    def _compare(self, config: Mapping[str, Any]) -> None:
        """Say which keys differ from those the run started with."""
        try:
            before = _flatten(load_yaml_or_json(self.path / "config.yaml"))
        except (OSError, ValueError):
            return
        now = _flatten(to_plain(config, finite=False))
        for key in sorted(before.keys() | now.keys()):
            if repr(before.get(key)) != repr(now.get(key)):
                logger.warning("resuming with %s = %r, the run had %r", key, now.get(key), before.get(key))


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _read_rows(path: Path) -> list[dict[str, Scalar]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        return [{key: _scalar(cell) for key, cell in row.items() if key and cell} for row in reader]


def _scalar(cell: str) -> Scalar:
    if cell in ("True", "False"):
        return cell == "True"
    if re.fullmatch(r"-?[0-9]+", cell):
        return int(cell)
    try:
        return float(cell)
    except ValueError:
        return cell
