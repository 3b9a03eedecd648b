"""What jobs over many slides or pictures share: finding them, one model for all threads, proof of what is done."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from medshared.batch import NotYetError, Outcome, Status, Task, run_batch, write_batch_report
from medshared.files import read_json, sha256_file
from medshared.leases import has_inputs, read_sidecar
from til_mtl.errors import DataError
from til_mtl.slides.maps import SlideModel, load_model

if TYPE_CHECKING:
    from til_mtl.slides.options import SlideOptions

logger = logging.getLogger(__name__)

ModelFactory = Callable[[], SlideModel]
State = TypeVar("State")


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


def find_files(
    path: Path, suffixes: Collection[str], what: str, out: Path, besides: str | None = None
) -> list[Path]:
    """Return the files of a folder sorted by name, or the one file.

    Where the folder itself has none, its subfolders are searched, in which some archives deliver slides.

    Args:
        path: Folder or file.
        suffixes: Endings in small letters.
        what: "slide" or "picture", for messages.
        out: Folder of the results, which is not searched.
        besides: Ending of the names of files that belong to others, such as masks beside slides.

    Raises:
        DataError: None there, or two of one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such {what} or folder of {what}s")
    found = _ending_in(suffixes, path.iterdir()) or _ending_in(suffixes, path.rglob("*"), out)
    if not found:
        raise DataError(f"{path}: no {what}s here; expected files ending in {', '.join(suffixes)}")
    if besides is not None:
        others = {f"{file.stem}{besides}" for file in found}
        found = [file for file in found if file.stem not in others]
    stems = Counter(file.stem for file in found)
    doubled = [str(file.relative_to(path)) for file in found if stems[file.stem] > 1]
    if doubled:
        raise DataError(
            f"{path}: several {what}s of one name ({', '.join(doubled[:6])}); their results would collide"
        )
    return found


def _ending_in(suffixes: Collection[str], files: Iterable[Path], out: Path | None = None) -> list[Path]:
    return sorted(
        file
        for file in files
        if file.suffix.lower() in suffixes
        and not file.name.startswith(".")
        and not file.is_dir()
        and (out is None or out.resolve() not in file.resolve().parents)
    )


def run_tasks(tasks: Sequence[Task], options: SlideOptions, model: ModelOnce) -> int:
    """Do the tasks and write the report.

    Args:
        tasks: One an item.
        options: Shard, jobs, and the folder of the report.
        model: What the tasks share.

    Returns:
        Exit code: 1 when an item failed.

    Raises:
        Exception: What went wrong when the model was made, which is no item's fault.
    """
    shard = options.shard
    outcomes = run_batch("predict", tasks, shard=shard, jobs=options.jobs, again=options.again)
    if model.error is not None:
        raise model.error
    part = "" if shard.count == 1 else f"-{shard.index + 1}-of-{shard.count}"
    # A job beside this one writes the same report; what it said of the items that it held is not to be lost.
    known = reported(options.out)
    of_others = {
        each.item: replace(each, status=known[each.item][0], message=known[each.item][1])
        for each in outcomes
        if each.status == "busy" and each.item in known
    }
    listed = [of_others.get(each.item, each) for each in outcomes]
    code = write_batch_report(options.out / f"predict-report{part}.json", listed, shard)
    # A failure that the job beside this one had is its own to tell.
    return 0 if code == 1 and not any(each.status == "failed" for each in outcomes) else code


def items_done(tasks: Sequence[Task]) -> set[str]:
    """Return the items with a result that is made from the same files and settings as the tasks would make it."""
    return {task.item for task in tasks if _is_current(task)}


def _is_current(task: Task) -> bool:
    try:
        return has_inputs(read_sidecar(task.output), task.inputs())
    except (OSError, ValueError):
        return False


def write_until_settled(state: Callable[[], State], write: Callable[[State], None]) -> None:
    """Write tables of all items again until none was finished by another job meanwhile.

    Without it, the table of a job that read first and wrote last would lack the other's last item for good.

    Args:
        state: Returns what the tables are made from.
        write: Writes them.
    """
    written: list[State] = []
    while (found := state()) not in written[-1:]:
        write(found)
        written.append(found)


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


def reported(out: Path) -> dict[str, tuple[Status, str]]:
    """Return status and reason of items without a result, from the reports of all jobs, the latest last.

    Args:
        out: Folder of the results.
    """
    found: dict[str, tuple[Status, str]] = {}
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
