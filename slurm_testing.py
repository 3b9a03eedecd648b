"""A user of the cluster that ``slurm_cluster.py`` starts: submits wrappers, disturbs jobs, awaits them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

PATIENCE_S = 240.0  # of one wait; jobs share the cores that the machine has
_POLL_S = 0.1
# Small jobs: the declared cores are more than the machine has, its memory is not.
RESOURCES = {"PARTITION": "cpu", "ACCOUNT": "", "TIME": "10", "GPUS": "0", "CPUS": "1", "MEMORY": "1G"}


@dataclass
class SlurmUser:
    """A user with a folder of their own, in which a package's scripts and configurations lie as links.

    Attributes:
        home: The folder; logs are written here and not into the package.
        package: The package's folder.
        variables: For every call.
    """

    home: Path
    package: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for entry in self.package.iterdir():
            if (
                entry.name not in ("tests", "src", "slurm_LOG", ".venv")
                and not (self.home / entry.name).exists()
            ):
                (self.home / entry.name).symlink_to(entry)
        self.variables = {
            **os.environ,
            **RESOURCES,
            "SLURM_CONF": os.environ["MEDPAPERS_SLURM"],
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            **self.variables,
        }

    # ------------------------------------------------------------------ wrappers

    def submit(self, script: str, *arguments: object, **variables: object) -> list[str]:
        """Submit a wrapper; returns the numbers of its jobs, the collecting one last."""
        done = self._wrapper(script, arguments, variables).communicate(timeout=PATIENCE_S)
        jobs = done[0].split()
        assert jobs, done[1]
        return jobs

    def serial(self, script: str, *arguments: object, **variables: object) -> subprocess.Popen[str]:
        """Start a wrapper in the foreground, beside the jobs; its results are what theirs must equal."""
        return self._wrapper(script, arguments, {**variables, "SUBMIT": "no"})

    def python(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command of the package without its wrapper, beside the jobs."""
        return self._start([sys.executable, *map(str, arguments)], {})

    def _wrapper(
        self, script: str, arguments: tuple[object, ...], variables: Mapping[str, object]
    ) -> subprocess.Popen[str]:
        return self._start(["bash", str(self.home / script), *map(str, arguments)], variables)

    def _start(self, command: list[str], variables: Mapping[str, object]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.home,
            env=self.variables | {name: str(value) for name, value in variables.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str) -> str:
        """Run one of SLURM's commands; returns its output."""
        done = subprocess.run(
            arguments,
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    # ------------------------------------------------------------------ jobs

    def states(self, job: str) -> dict[str, str]:
        """Return the state of each task of a job, by ``17`` or ``17_0``."""
        shown = self.command(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %T"
        )
        return dict(line.split() for line in shown.splitlines())

    def wait(self, *jobs: str) -> dict[str, str]:
        """Wait until jobs have ended for good; returns the last states."""
        found: dict[str, str] = {}

        def ended() -> bool:
            found.clear()
            for job in jobs:
                found.update(self.states(job))
            return bool(found) and not {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"} & set(
                found.values()
            )

        self.wait_for(ended, lambda: f"jobs {found} have not ended\n{self.logs()}")
        return found

    def wait_for(self, condition: Callable[[], object], what: Callable[[], str] | str) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: It does not within `PATIENCE_S`.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, what if isinstance(what, str) else what()
            time.sleep(_POLL_S)

    def wait_running(self, job: str) -> None:
        """Wait until a job runs."""
        self.wait_for(lambda: set(self.states(job).values()) == {"RUNNING"}, f"job {job} does not run")

    def warn(self, job: str) -> None:
        """Send what SLURM sends before the time limit (``--signal=B:USR1``)."""
        self.command("scancel", "--signal=USR1", "--batch", job)

    def limit(self, job: str, log: Path) -> None:
        """Let a running job reach its time limit; submit it with ``WARNING=90``.

        The limit is set a minute or two ahead, so that SLURM's next look, within half a minute, finds it near. Until
        then the job is suspended, so that no machine is fast enough to finish first.

        Args:
            job: Its number.
            log: Where the launcher says that it was warned.
        """
        self.command("scancel", "--signal=STOP", "--full", job)
        began = datetime.fromisoformat(
            self.command("squeue", "--noheader", f"--jobs={job}", "--format=%S").strip()
        )
        minutes = math.ceil((time.time() - began.timestamp()) / 60) + 1
        self.command("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
        self.wait_for(lambda: "SIGUSR1" in log.read_text(), self.logs)
        self.command("scancel", "--signal=CONT", "--full", job)

    def kill(self, job: str) -> None:
        """Kill a job's launcher, and thereby its run, with SIGKILL, as a crash would; and queue it again."""
        self.command("scancel", "--signal=KILL", "--batch", job)
        self.wait_for(lambda: set(self.states(job).values()) == {"FAILED"}, f"job {job} survived SIGKILL")
        self.command("scontrol", "requeue", job)

    def disturb(self, name: str, job: str, checkpoint: Path) -> None:
        """Warn a training once it has saved something, and kill it once it is under way again.

        Raises:
            AssertionError: It ended before that: make it longer.
        """
        self.wait_for(checkpoint.exists, self.logs)
        self.warn(job)
        self.wait_for(lambda: len(self.codes(name, job)) == 2, self.logs)
        before = checkpoint.stat().st_mtime_ns
        self.wait_for(lambda: checkpoint.stat().st_mtime_ns != before, self.logs)
        self.kill(job)

    # ------------------------------------------------------------------ what they leave

    def records(self, name: str, job: str) -> dict[str, dict[str, Any]]:
        """Return the records of a job's tasks, by task."""
        files = (self.home / "slurm_LOG" / f"{name}-{job}").glob("task-*.json")
        return {file.stem.removeprefix("task-"): json.loads(file.read_text()) for file in files}

    def codes(self, name: str, job: str, task: str = "0") -> list[int | None]:
        """Return the exit code of each start of a task; ``None`` where it was killed."""
        return [start.get("exit_code") for start in self.records(name, job)[task]["starts"]]

    def done(self, name: str) -> dict[str, int]:
        """Return how many items all jobs of a wrapper did, by step, as the totals in their logs say."""
        found: dict[str, int] = {}
        for log in (self.home / "slurm_LOG").glob(f"{name}[-_]*.err"):
            for step, number in re.findall(
                r"INFO(?: \||:) ([\w-]+): (?:[\w ,]+, )?(\d+) done", log.read_text()
            ):
                found[step] = found.get(step, 0) + int(number)
        return found

    def logs(self) -> str:
        """Return the end of every log, for messages."""
        texts = []
        for file in sorted((self.home / "slurm_LOG").glob("*.*")):
            if file.is_file():
                texts.append(f"--- {file.name}\n" + "\n".join(file.read_text().splitlines()[-8:]))
        return "\n".join(texts)


def results(run: Path, *dropped: str) -> Any:
    """Return what ``results.json`` of a run says, without what differs between equal runs.

    Args:
        run: The run directory.
        dropped: Parts of further keys to leave out.
    """
    words = ("seconds", "memory", "path", "folder", "output", *dropped)

    def steady(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: steady(item) for key, item in value.items() if not any(word in key for word in words)
            }
        return [steady(item) for item in value] if isinstance(value, list) else value

    # As text: nan equals nan there.
    return json.dumps(steady(json.loads((run / "results.json").read_text())), indent=1, sort_keys=True)


def finished(process: subprocess.Popen[str], code: int = 0) -> None:
    """Wait for a process started by `SlurmUser.serial` or `SlurmUser.python`.

    Raises:
        AssertionError: It ended with another exit code.
    """
    told = ""
    if process.returncode is None:  # several tests may ask for one run
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, told[-4000:]


def tensors(path: Path) -> dict[str, Any]:
    """Return every tensor of a weight file by its place."""
    import torch

    found: dict[str, Any] = {}

    def walk(place: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[place] = value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{place}/{key}", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(f"{place}/{index}", item)

    walk("", torch.load(path, map_location="cpu", weights_only=True))
    assert found, f"{path}: no tensors"
    return found


def same_weights(one: Path, other: Path) -> bool:
    """Whether two weight files hold bit-identical tensors."""
    import torch

    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
