"""What became of each task: a JSON file each, so that nothing that failed, was killed or never began is overlooked."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from medshared.files import read_json, write_json

State = Literal["running", "done", "failed", "requeued", "stopped", "waiting", "missing", "killed"]
DESCRIPTION_FILE = "job.json"
COLLECT = "collect"
_QUERY_S = 60
_CLOCKS_S = 300  # by which the clocks of hosts and file server may differ


@dataclass(frozen=True)
class TaskState:
    """What is known of one task.

    Attributes:
        task: Index in the array, ``0`` for a single job, or ``collect``.
        state: ``done``; ``failed``; ``stopped`` (saved its state and was not queued again); ``running``; ``requeued``
            or ``waiting`` (in the queue); ``missing`` (never began); ``killed`` (began and is gone).
        message: Exit code or reason.
        starts: How often it began.
        log: Its log file.
    """

    task: str
    state: State
    message: str
    starts: int
    log: str

    @property
    def is_done(self) -> bool:
        """Whether its work is complete."""
        return self.state == "done"

    @property
    def is_open(self) -> bool:
        """Whether it may still become complete by itself."""
        return self.state in ("running", "requeued", "waiting")

    def __str__(self) -> str:
        return f"task {self.task}: {self.message}; log: {self.log}"


class TaskRecord:
    """The file of one task, rewritten whenever something happens to it.

    Args:
        folder: Of the job.
        task: Index of the item, or ``collect``.
        content: What does not change: command, log, number of tasks.
    """

    def __init__(self, folder: Path, task: str, content: Mapping[str, Any]) -> None:
        self.path = folder / f"task-{task}.json"
        try:
            before = read_json(self.path)
        except (OSError, ValueError):
            before = {}
        starts = before.get("starts", []) if isinstance(before, dict) else []
        self._content: dict[str, Any] = {"task": task, **content, "state": "running", "starts": starts}

    def begin(self, **facts: Any) -> None:
        """Note a start on this host."""
        self._content["starts"].append({"host": socket.gethostname(), "began": _now(), **facts})
        self._content["state"] = "running"
        write_json(self.path, self._content)

    def end(self, state: State, exit_code: int) -> None:
        """Note how the last start ended."""
        self._content["starts"][-1].update(ended=_now(), exit_code=exit_code)
        self._content["state"] = state
        write_json(self.path, self._content)


def describe(folder: Path, **content: Any) -> Path:
    """Write what was submitted, for `task_states`.

    Args:
        folder: Of the job.
        content: Job numbers, number of tasks, command.
    """
    return write_json(folder / DESCRIPTION_FILE, content)


def forget_earlier(folder: Path, before: float) -> None:
    """Remove the records of an earlier job of the same number, as clusters that begin anew give it out again.

    Args:
        folder: Of the job.
        before: When the job was submitted, in seconds since the epoch.
    """
    for file in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime < before - _CLOCKS_S:
                file.unlink()


def task_states(folder: Path, count: int | None = None) -> list[TaskState]:
    """Return the state of each task of a job, in order, the collecting one last.

    Args:
        folder: Of the job.
        count: Number of tasks; by default as it was submitted.

    Raises:
        ValueError: for a folder without records.
    """
    records = {}
    for file in folder.glob("task-*.json"):
        found = read_json(file)
        records[str(found["task"])] = found
    file = folder / DESCRIPTION_FILE
    description = read_json(file) if file.exists() else {}
    if not records and not description:
        raise ValueError(
            f"{folder}: expected the records of a job ({DESCRIPTION_FILE}, task-0.json …), found none"
        )
    if count is None:
        count = int(description.get("count") or max(int(each.get("count", 1)) for each in records.values()))
    names = [str(k) for k in range(count)]
    if COLLECT in records or description.get("collecting_job"):
        names.append(COLLECT)
    queue = _queue(folder, description)
    return [_state(name, records.get(name), queue, description) for name in names]


def _state(
    name: str,
    record: Mapping[str, Any] | None,
    queue: Mapping[str, str] | None,
    description: Mapping[str, Any],
) -> TaskState:
    if record is None:
        log = str(description.get("collect_log" if name == COLLECT else "log", "none")).replace("%a", name)
        if queue and name in queue:
            return TaskState(name, "waiting", f"in the queue ({queue[name]})", 0, log)
        return TaskState(name, "missing", "never began", 0, log)
    starts: Sequence[Mapping[str, Any]] = record["starts"]
    last, log, state = starts[-1], str(record["log"]), record["state"]
    if state in ("done", "failed", "stopped"):
        code = last.get("exit_code")
        words = {
            "done": "done",
            "failed": f"failed with exit code {code}",
            "stopped": "stopped, to be resumed",
        }
        return TaskState(name, state, words[state], len(starts), log)
    # The queue tells running tasks from killed ones; without it the record is all there is.
    if queue is not None and name not in queue:
        where = f"on {last['host']} at {last['began']}"
        words = "was queued again and is gone" if state == "requeued" else "was killed or never ended"
        return TaskState(name, "killed", f"{words} (began {where})", len(starts), log)
    return TaskState(name, state, str((queue or {}).get(name, state)).lower(), len(starts), log)


def _queue(folder: Path, description: Mapping[str, Any]) -> dict[str, str] | None:
    """Return what the queue holds of a job, by task; ``None`` where there is no queue to ask."""
    job = str(description.get("job") or folder.name.rpartition("-")[2])
    jobs = [job, *([str(description["collecting_job"])] if description.get("collecting_job") else [])]
    if shutil.which("squeue") is None:
        return None
    found: dict[str, str] = {}
    for each in jobs:
        call = ["squeue", "--noheader", "--array", f"--jobs={each}", "--format=%i %T"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=_QUERY_S, check=False)
        if done.returncode != 0 and "Invalid job id" not in done.stderr:
            return None
        for line in done.stdout.splitlines():
            match = re.fullmatch(r"(\d+)(?:_(\d+))? (\w+)", line.strip())
            if match is not None:
                found[COLLECT if each != job else match[2] or "0"] = match[3]
    return found


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
