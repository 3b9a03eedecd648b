"""Many slides or patients, one after the other: a bad one is recorded and left behind, never the end of the run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from medshared.command_line import STOPPED
from medshared.files import look_for_remains_again, remove_remains, write_json
from medshared.leases import (
    Shard,
    acquire_lease,
    has_inputs,
    read_sidecar,
    sidecar_matches,
    sidecar_path,
    write_sidecar,
)
from medshared.process import progress

logger = logging.getLogger(__name__)

LAUNCH = "MEDSHARED_LAUNCH"  # names the launch that this process belongs to: see medshared.launch
_HELD = "another job works on it"
_DONE = "already done"
_PROBED, _SLOW_S, _READERS = (
    32,
    5e-4,
    16,
)  # items that tell how slow the file system is; seconds an item; threads

# What a broken slide, file or table of one item raises: a batch records its message and goes on.
ITEM_ERRORS = (OSError, ValueError, RuntimeError, KeyError, MemoryError)
Status = Literal["done", "empty", "skipped", "busy", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Attributes:
        step: Step of the preparation.
        item: Slide or patient.
        status: ``done``; ``empty`` (nothing to write, such as a blank slide); ``skipped`` (was done); ``busy``
            (another job works on it, or on what it needs); ``failed``.
        message: Why it failed or is empty; else what was made.
        seconds: Time taken.
    """

    step: str
    item: str
    status: Status
    message: str = ""
    seconds: float = 0.0


class EmptyResultError(Exception):
    """Raised by a step that has nothing to write for an item: no tissue, no patch."""


class NotYetError(Exception):
    """Raised by a step whose inputs another job has still to make."""


@dataclass(frozen=True)
class Task:
    """One item's work.

    Attributes:
        item: Name in logs and reports.
        output: File whose checksum proves that the item is done; it is to be written last.
        inputs: Returns what the output is made from; an output of other inputs is made again. Called when it is
            the item's turn, so that an unreadable input concerns this item alone.
        work: Does it and returns a word on what was made.
        beside: Further files of the item that must be whole as well.
        keep_edited: Whether an output that was changed by hand since is good as it is, and not to be made again.
    """

    item: str
    output: Path
    inputs: Callable[[], Mapping[str, Any]]
    work: Callable[[], str]
    beside: tuple[Path, ...] = ()
    keep_edited: Callable[[], bool] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that prove the item done, the output last."""
        return (*self.beside, self.output)

    @property
    def lock(self) -> Path:
        """Lock file of whoever works on the item."""
        return self.output.with_name(f".{self.output.name}.lock")


def run_batch(
    step: str,
    tasks: Sequence[Task],
    *,
    shard: Shard | None = None,
    jobs: int = 1,
    again: bool = False,
) -> list[Outcome]:
    """Do the tasks of a step, safely beside other jobs on the same folder.

    Args:
        step: Name of the step.
        tasks: One an item; the same ones in the same order for every shard.
        shard: The part of the items that this job does.
        jobs: Threads.
        again: Make outputs anew that are complete; those that this launch of an array made are not made once more by
            a task that was queued again, or by the job that collects.

    Returns:
        One outcome an item of the shard, in order.
    """
    chosen = (shard or Shard(0, 1)).select(list(tasks))

    launch = os.environ.get(LAUNCH)

    def one(task: Task) -> Outcome:
        return attempt(step, task, again=again, launch=launch)

    finished = [False] * len(chosen) if again else _finished(chosen)
    outcomes = [Outcome(step, task.item, "skipped", _DONE) for task in chosen]
    left = [n for n, is_finished in enumerate(finished) if not is_finished]
    if len(left) < len(chosen):
        logger.info("%s: %d of %d are done already", step, len(chosen) - len(left), len(chosen))
    for _ in range(2):
        for n, outcome in zip(left, _do(step, one, [chosen[n] for n in left], jobs), strict=True):
            outcomes[n] = outcome
        # By then another job may have finished what it held, or may have died over it.
        left = [n for n in left if outcomes[n].message == _HELD]
    return outcomes


def _finished(tasks: Sequence[Task]) -> list[bool]:
    """Return which tasks are done and need no second look, in order.

    A network file system that takes a millisecond for each file takes it for several files at once; a local one is
    read fastest by one thread.
    """

    def is_finished(task: Task) -> bool:
        try:
            return not task.lock.exists() and _is_done(task, task.inputs(), accept_existing=False)
        except Exception:  # said when it is the task's turn
            return False

    started = time.perf_counter()
    first = [is_finished(task) for task in tasks[:_PROBED]]
    rest = tasks[_PROBED:]
    if not rest or (time.perf_counter() - started) / _PROBED < _SLOW_S:
        return first + [is_finished(task) for task in rest]
    with ThreadPoolExecutor(_READERS) as pool:
        return first + list(pool.map(is_finished, rest))


def _do(step: str, one: Callable[[Task], Outcome], tasks: Sequence[Task], jobs: int) -> list[Outcome]:
    if jobs <= 1:
        return list(progress(map(one, tasks), total=len(tasks), description=step))
    pool = ThreadPoolExecutor(jobs)
    try:
        return list(progress(pool.map(one, tasks), total=len(tasks), description=step))
    finally:
        # After Ctrl-C, what is in work is finished and the rest is left for a later run.
        pool.shutdown(cancel_futures=True)


def attempt(
    step: str,
    task: Task,
    *,
    again: bool = False,
    accept_existing: bool = False,
    launch: str | None = None,
) -> Outcome:
    """Do one task unless it is done or another job holds it; whatever goes wrong becomes the outcome.

    Args:
        step: Name of the step.
        task: The task.
        again: Make the output anew even if it is complete.
        accept_existing: Take an output without a checksum file, as other tools leave it, for done.
        launch: Name of the launch that ``again`` is said to; what it made already is complete.
    """
    started = time.perf_counter()

    def outcome(status: Status, message: str = "") -> Outcome:
        return Outcome(step, task.item, status, message, time.perf_counter() - started)

    try:
        inputs = task.inputs()
        anew = again and not _is_of(launch, task)
        # A lock beside a finished output was left by a job that was killed just then: taking it removes it.
        if not anew and not task.lock.exists() and _is_done(task, inputs, accept_existing):
            return outcome("skipped", _DONE)
        with acquire_lease(task.lock) as lease:
            anew = again and not _is_of(launch, task)
            if not anew and _is_done(task, inputs, accept_existing):  # perhaps by another job meanwhile
                return outcome("skipped", _DONE)
            if lease is None:
                return outcome("busy", _HELD)
            if lease.inherited:
                look_for_remains_again()
                for remains in chain.from_iterable(map(remove_remains, task.files)):
                    logger.info("%s: removed, left by a job that was killed", remains)
            message = task.work()
            for file in task.files:
                write_sidecar(file, inputs, made_by=launch if again else None)
            return outcome("done", message)
    except (EmptyResultError, NotYetError) as reason:
        logger.info("%s: %s: %s", step, task.item, reason)
        return outcome("busy" if isinstance(reason, NotYetError) else "empty", str(reason))
    except Exception as error:  # one bad item never stops the others
        logger.error("%s: %s: %s", step, task.item, error, exc_info=not isinstance(error, ITEM_ERRORS))
        return outcome("failed", str(error) or type(error).__name__)


def _is_of(launch: str | None, task: Task) -> bool:
    """Whether the output was made anew by a launch already."""
    if launch is None:
        return False
    try:
        return read_sidecar(task.output).get("made_by") == launch
    except (OSError, ValueError):
        return False


def _is_done(task: Task, inputs: Mapping[str, Any], accept_existing: bool) -> bool:
    if all(sidecar_matches(file, inputs) for file in task.files):
        return True
    if accept_existing and task.output.is_file() and not sidecar_path(task.output).exists():
        return True
    if task.keep_edited is None or not _has_inputs(task.output, inputs) or not task.keep_edited():
        return False
    logger.info("%s: was changed by hand and is kept", task.output)
    return True


def _has_inputs(output: Path, inputs: Mapping[str, Any]) -> bool:
    try:
        return output.is_file() and has_inputs(read_sidecar(output), inputs)
    except (OSError, ValueError):
        return False


def write_batch_report(path: Path, outcomes: Sequence[Outcome], shard: Shard | None = None) -> int:
    """Write the run report as JSON, log its totals, and return the exit code.

    Args:
        path: The file.
        outcomes: Of all steps.
        shard: The part of the items that this job did.

    Returns:
        1 when an item failed; 75 when a job that does all items leaves some to another one, so that what it made of
        them is not whole, and it is to be started again: a job of a shard leaves that to the one that collects.
    """
    counts: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        by_status = counts.setdefault(outcome.step, {})
        by_status[outcome.status] = by_status.get(outcome.status, 0) + 1
    rows = [vars(outcome) for outcome in outcomes]
    failed = [row for row in rows if row["status"] == "failed"]
    write_json(path, {"counts": counts, "failed": failed, "outcomes": rows})
    for step, by_status in counts.items():
        logger.info("%s: %s", step, ", ".join(f"{n} {status}" for status, n in by_status.items()))
    for entry in failed:
        logger.error("failed: %s %s: %s", entry["step"], entry["item"], entry["message"])
    if failed:
        return 1
    left = [row for row in rows if row["status"] == "busy"]
    if not left or (shard is not None and shard.count > 1):
        return 0
    logger.error("not complete: another job works on %d item(s); run the same again", len(left))
    return STOPPED
