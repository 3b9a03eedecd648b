"""Many slides or patients, one after the other: a bad one is recorded and left behind, never the end of the run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medshared.files import write_json
from medshared.leases import Shard, acquire_lease, sidecar_matches, write_sidecar
from medshared.process import progress

logger = logging.getLogger(__name__)

Status = Literal["done", "empty", "skipped", "busy", "failed"]
# What a broken slide, file or table raises; anything else is a mistake of the program and stops it.
EXPECTED = (OSError, ValueError, RuntimeError, KeyError, MemoryError)


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Attributes:
        step: Step of the preparation.
        item: Slide or patient.
        status: ``done``; ``empty`` (done, but nothing to write, such as a blank slide); ``skipped`` (was done);
            ``busy`` (another job holds it); ``failed``.
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


@dataclass(frozen=True)
class Task:
    """One item's work.

    Attributes:
        item: Name in logs and reports.
        output: File whose checksum proves that the item is done.
        inputs: What the output was made from; other inputs make it again.
        work: Does it and returns a word on what was made.
    """

    item: str
    output: Path
    inputs: Mapping[str, Any]
    work: Callable[[], str]


def run_batch(
    step: str,
    tasks: Sequence[Task],
    *,
    shard: Shard | None = None,
    jobs: int = 1,
    again: bool = False,
    accept_existing: bool = False,
) -> list[Outcome]:
    """Do the tasks of a step, safely beside other jobs on the same folder.

    Args:
        step: Name of the step.
        tasks: One an item.
        shard: The part of the items that this job does.
        jobs: Threads.
        again: Make outputs anew that are complete.
        accept_existing: Take an output without a checksum file as done (made by another tool).

    Returns:
        One outcome an item of the shard, in order.
    """
    chosen = (shard or Shard(0, 1)).select(list(tasks))

    def attempt(task: Task) -> Outcome:
        return _attempt(step, task, again, accept_existing)

    if jobs <= 1:
        outcomes: Iterable[Outcome] = map(attempt, chosen)
        return list(progress(outcomes, total=len(chosen), description=step))
    with ThreadPoolExecutor(jobs) as pool:
        return list(progress(pool.map(attempt, chosen), total=len(chosen), description=step))


def _is_done(task: Task, again: bool, accept_existing: bool) -> bool:
    if again:
        return False
    if sidecar_matches(task.output, task.inputs):
        return True
    sidecar = task.output.with_name(f"{task.output.name}.done.json")
    return accept_existing and task.output.is_file() and not sidecar.exists()


def _attempt(step: str, task: Task, again: bool, accept_existing: bool) -> Outcome:
    started = time.perf_counter()

    def outcome(status: Status, message: str = "") -> Outcome:
        return Outcome(step, task.item, status, message, time.perf_counter() - started)

    try:
        if _is_done(task, again, accept_existing):
            return outcome("skipped", "already done")
        lock = task.output.with_name(f".{task.output.name}.lock")
        with acquire_lease(lock) as lease:
            if lease is None:
                return outcome("busy", "another job works on it")
            if _is_done(task, again, accept_existing):  # finished by another job meanwhile
                return outcome("skipped", "already done")
            message = task.work()
            write_sidecar(task.output, task.inputs)
            return outcome("done", message)
    except EmptyResultError as reason:
        logger.info("%s: %s: %s", step, task.item, reason)
        return outcome("empty", str(reason))
    except EXPECTED as error:
        logger.error("%s: %s: %s", step, task.item, error)
        return outcome("failed", str(error))


def write_batch_report(path: Path, outcomes: Sequence[Outcome]) -> int:
    """Write the run report as JSON, log its totals, and return the exit code: 1 when an item failed.

    Args:
        path: The file.
        outcomes: Of all steps.
    """
    counts: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        by_status = counts.setdefault(outcome.step, {})
        by_status[outcome.status] = by_status.get(outcome.status, 0) + 1
    failed = [asdict(outcome) for outcome in outcomes if outcome.status == "failed"]
    write_json(path, {"counts": counts, "failed": failed, "outcomes": [asdict(o) for o in outcomes]})
    for step, by_status in counts.items():
        logger.info("%s: %s", step, ", ".join(f"{n} {status}" for status, n in by_status.items()))
    for entry in failed:
        logger.error("failed: %s %s: %s", entry["step"], entry["item"], entry["message"])
    return 1 if failed else 0
