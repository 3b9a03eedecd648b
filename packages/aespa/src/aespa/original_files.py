"""The names under which the original leaves its results: run folder, log, best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from medshared.files import link_or_copy

LOG_FORMAT = "%(asctime)s %(message)s"


def run_folder(log_root: Path, exp_name: str, now: datetime | None = None) -> Path:
    """Return the folder of a new run, ``<log_root>/<exp_name>_<YYYY_mm_dd_HH_MM_SS>``.

    A folder of that name gets a number, so that two runs may start within one second.

    Args:
        log_root: Folder of all runs.
        exp_name: Name of the run.
        now: Time of its start.
    """
    stem = f"{exp_name}_{(now or datetime.now()):%Y_%m_%d_%H_%M_%S}"
    folder, number = log_root / stem, 2
    while folder.exists():
        folder, number = log_root / f"{stem}_{number}", number + 1
    return folder


@contextmanager
def original_log(run: Path, now: datetime | None = None) -> Iterator[Path]:
    """Also write the package's messages to ``Log/<YYYY-mm-dd-HH-MM>_train.log`` while the context lasts.

    Args:
        run: Run folder.
        now: Time of the start.
    """
    path = run / "Log" / f"{(now or datetime.now()):%Y-%m-%d-%H-%M}_train.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    package = logging.getLogger("aespa")
    package.addHandler(handler)
    try:
        yield path
    finally:
        package.removeHandler(handler)
        handler.close()


def link_best(checkpoint: Path, run: Path) -> Path:
    """Give the best checkpoint its name in the original too, ``Model/checkpoint_best.pth``.

    Args:
        checkpoint: ``checkpoints/best.pt``.
        run: Run folder.
    """
    return link_or_copy(checkpoint, run / "Model" / "checkpoint_best.pth")
