"""Epochs of a run: from the original's log lines, or from the history files of this package."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import read_json

_NUMBER = r"[-+]?(?:nan|inf(?:inity)?|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_PAIR = re.compile(rf"(\w+)\s*:\s*({_NUMBER})(?=\s*(?:\||$))", re.IGNORECASE)
_MESSAGE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+ \| \w+ \| (.*)$")
_EPOCH = re.compile(r"^Epoch (\d+)/\d+")
_TRAIN = re.compile(r"^train_e(\d+) - (.*)$")
_EVALUATION = re.compile(r"^(val|test): (.*)$")

# Where histories lie, best first; the original writes its log into a folder called train.log.
HISTORY_NAMES = ("history.csv", "history.json", "metrics.csv")
LOG_NAMES = (
    "train.log/multitask_train.log",
    "multitask_train.log",
    "train.log",
    "log.txt",
    "train_cv.log/multitask_cv.log",
)
FAITHFUL_SERIES = (
    "train_total_loss",
    "train_cls_loss",
    "train_reg_loss",
    "val_total_loss",
    "val_cls_loss",
    "val_reg_loss",
    "val_cls_accuracy",
    "val_cls_precision",
    "val_cls_recall",
    "val_cls_f1",
    "val_cls_auc",
    "val_reg_mae",
    "val_reg_rmse",
    "val_reg_mse",
)


@dataclass(frozen=True)
class TrainingLog:
    """Numbers of every epoch.

    Attributes:
        train: Epoch → numbers of the training pass.
        validation: Epoch → numbers of the validation pass.
        test: Numbers of the test pass, empty when there was none.
    """

    train: dict[int, dict[str, float]] = field(default_factory=dict)
    validation: dict[int, dict[str, float]] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> list[int]:
        """All epochs in order."""
        return sorted(set(self.train) | set(self.validation))

    def rows(self) -> list[dict[str, float]]:
        """Return one mapping per epoch: ``epoch``, ``train_…``, ``val_…``; what is missing is left out."""
        return [
            {
                "epoch": epoch,
                **{f"train_{name}": value for name, value in self.train.get(epoch, {}).items()},
                **{f"val_{name}": value for name, value in self.validation.get(epoch, {}).items()},
            }
            for epoch in self.epochs
        ]

    def series(self, name: str) -> NDArray[np.float64]:
        """Return one number per epoch, NaN where it is missing or was logged as NaN.

        Args:
            name: ``train_total_loss``, ``val_cls_auc``, …

        Returns:
            Shape ``[epochs]``, aligned with `epochs`.
        """
        split, _, metric = name.partition("_")
        source = self.train if split == "train" else self.validation
        return np.array([source.get(epoch, {}).get(metric, np.nan) for epoch in self.epochs])

    def best(self, name: str, *, largest: bool = True) -> tuple[int, float] | None:
        """Return epoch and value of the best defined entry (the first of equals), or None without any."""
        values = self.series(name)
        if not np.isfinite(values).any():
            return None
        filled = np.where(np.isfinite(values), values, -np.inf if largest else np.inf)
        index = int(np.argmax(filled) if largest else np.argmin(filled))
        return self.epochs[index], float(values[index])

    def faithful_series(self) -> dict[str, list[float]]:
        """Return the lists of the original's parser, which drops NaN and so shifts what follows."""
        lists = {name: self.series(name) for name in FAITHFUL_SERIES}
        return {name: [float(v) for v in values if np.isfinite(v)] for name, values in lists.items()}


def parse_training_log(text: str | Iterable[str]) -> TrainingLog:
    """Parse the log of a run.

    Args:
        text: The whole log or its lines. Lines are ``date | LEVEL | message``; the messages ``train_e3 -
            loss: x | …``, ``val: name:x | …`` and ``test: …`` count, everything else is passed over.

    Returns:
        The epochs; a validation line belongs to the epoch that was announced or trained last.

    Example:
        >>> log = parse_training_log(["train_e1 - total_loss: 2.5", "val: total_loss:2.0 | cls_auc:nan"])
        >>> log.epochs, log.validation[1]["total_loss"]
        ([1], 2.0)
    """
    lines = text.splitlines() if isinstance(text, str) else text
    log = TrainingLog()
    epoch = 0
    for line in lines:
        found = _MESSAGE.match(line.strip())
        message = found.group(1).strip() if found else line.strip()
        if match := _EPOCH.match(message):
            epoch = int(match.group(1))
        elif match := _TRAIN.match(message):
            epoch = int(match.group(1))
            log.train.setdefault(epoch, {}).update(_numbers(match.group(2)))
        elif match := _EVALUATION.match(message):
            numbers = _numbers(match.group(2))
            if numbers and match.group(1) == "test":
                log.test.update(numbers)
            elif numbers:
                log.validation.setdefault(max(epoch, 1), {}).update(numbers)
    return log


def _numbers(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in _PAIR.findall(text)}


def history_to_log(rows: Iterable[Mapping[str, Any]]) -> TrainingLog:
    """Turn rows of a history table into a log.

    Args:
        rows: Mappings with ``epoch`` and numbers named ``train_…`` and ``val_…`` (also ``train/…``); empty
            cells count as missing. Repeated epochs, as after a resumed run, are merged.

    Returns:
        The epochs.
    """
    log = TrainingLog()
    for number, row in enumerate(rows, start=1):
        given = row.get("epoch")
        epoch = number if given in (None, "") else int(float(given))  # type: ignore[arg-type]
        for name, value in row.items():
            split, _, metric = str(name).replace("/", "_").partition("_")
            target = {"train": log.train, "val": log.validation}.get(split)
            if target is None or not metric or value in (None, ""):
                continue
            try:
                target.setdefault(epoch, {})[metric] = float(value)
            except (TypeError, ValueError):
                continue
    return log


def read_training_log(run_dir: Path | str) -> TrainingLog | None:
    """Read the epochs of a run, whatever wrote it.

    Args:
        run_dir: Folder with ``history.csv``, ``history.json``, ``metrics.csv``, or a log file where the
            original puts it.

    Returns:
        The log, or None when the folder has none with an epoch in it.
    """
    run_dir = Path(run_dir)
    test: dict[str, float] = {}
    best: TrainingLog | None = None
    for name in LOG_NAMES:
        path = run_dir / name
        if path.is_file():
            log = parse_training_log(path.read_text(encoding="utf-8", errors="replace"))
            test = test or log.test
            best = best or (log if log.epochs else None)
    for name in HISTORY_NAMES:
        path = run_dir / name
        if path.is_file() and (log := history_to_log(_history_rows(path))).epochs:
            return TrainingLog(log.train, log.validation, test)
    return best


def _history_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    content = read_json(path)
    rows = content.get("epochs", []) if isinstance(content, dict) else content
    return [row for row in rows if isinstance(row, dict)]
