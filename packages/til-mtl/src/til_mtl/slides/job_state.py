"""What jobs over many slides or regions share: one model for all threads, and what a result depends on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medshared.batch import NotYetError, Outcome
from medshared.files import read_json, sha256_file
from til_mtl.errors import DataError
from til_mtl.slides.maps import SlideModel, load_model

if TYPE_CHECKING:
    from til_mtl.slides.options import SlideOptions

logger = logging.getLogger(__name__)

ModelFactory = Callable[[], SlideModel]


class ModelOnce:
    """Makes the model when it is first needed, once for all threads; its error ends the run, not an item.

    Attributes:
        error: What went wrong when the model was made.
    """

    def __init__(self, options: SlideOptions, factory: ModelFactory | None = None) -> None:
        """Prepare.

        Args:
            options: Name the checkpoints.
            factory: Makes the model; by default the checkpoints are loaded.

        Raises:
            DataError: A checkpoint does not exist.
        """
        for file in _checkpoints(options):
            if not file.is_file():
                raise DataError(f"{file}: no such checkpoint")
        self._factory = factory or (lambda: load_model(options))
        self._lock = threading.Lock()
        self._model: SlideModel | None = None
        self.error: Exception | None = None

    def __call__(self) -> SlideModel:
        """Return the model.

        Raises:
            NotYetError: It cannot be made, as was said before.
        """
        with self._lock:
            if self.error is not None:  # said once; the run is about to end
                raise NotYetError("the network cannot be loaded")
            if self._model is None:
                try:
                    self._model = self._factory()
                except Exception as error:
                    self.error = error
                    raise
            return self._model


def file_stamp(path: Path) -> list[float]:
    """Return size and time of a file: enough to notice another one without reading gigabytes."""
    state = path.stat()
    return [state.st_size, round(state.st_mtime, 3)]


def network_checksums(options: SlideOptions) -> list[str]:
    """Return the checksums of the checkpoints."""
    return [_checksum(file) for file in _checkpoints(options)]


def _checkpoints(options: SlideOptions) -> list[Path]:
    return [file for file in (options.checkpoint, options.det_checkpoint) if file is not None]


@cache
def _checksum(path: Path) -> str:
    return sha256_file(path)


def report_path(options: SlideOptions) -> Path:
    """Return the file of this job's report."""
    shard = options.shard
    part = "" if shard.count == 1 else f"-{shard.index + 1}-of-{shard.count}"
    return options.out / f"predict-report{part}.json"


def reported(out: Path) -> dict[str, tuple[str, str]]:
    """Return status and reason of items without a result, from the reports of all jobs, the latest last.

    Args:
        out: Folder of the results.
    """
    found: dict[str, tuple[str, str]] = {}
    for report in sorted(out.glob("predict-report*.json"), key=lambda file: file.stat().st_mtime):
        try:
            outcomes = [Outcome(**each) for each in read_json(report)["outcomes"]]
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s: cannot be read and is passed over", report)
            continue
        found |= {
            each.item: (each.status, each.message) for each in outcomes if each.status in ("failed", "empty")
        }
    return found
