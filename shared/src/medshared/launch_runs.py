"""The part of the launcher that runs inside a job: starts the worker, hears SLURM's signals, queues the job again."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType

from medshared.command_line import STOPPED
from medshared.launch_plan import LaunchError, NumberReader, Plan, interpreter, record_folder
from medshared.launch_records import COLLECT, TaskRecord, task_states

logger = logging.getLogger(__name__)

WARNING_S = 120  # seconds before the time limit at which SLURM sends USR1
_RESERVE = 0.25  # share of the warning time that is kept for queueing a job again whose worker does not stop
_QUERY_S = 60
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ending:
    """How a worker ended.

    Attributes:
        exit_code: Of the worker; 128 + number for a signal that killed it.
        warned: Whether SLURM announced the time limit.
        terminated: Whether the job was asked to end, as by scancel.
        overdue: Whether the worker had to be killed because the time limit was near.
    """

    exit_code: int
    warned: bool = False
    terminated: bool = False
    overdue: bool = False

    @property
    def is_resumable(self) -> bool:
        """Whether the work was cut short and continues when it is started again.

        A worker that has just begun does not heed signals yet, and dies of them.
        """
        died_of_it = self.terminated and self.exit_code == 128 + signal.SIGTERM
        return self.overdue or died_of_it or self.exit_code in (STOPPED, 128 + signal.SIGUSR1)

    @property
    def is_cut_by_srun(self) -> bool:
        """Whether processes that were asked to stop may have been killed by srun, since one had ended before them."""
        killed = (128 + signal.SIGTERM, 128 + signal.SIGKILL)
        return (self.warned or self.terminated) and self.exit_code in killed


class Worker:
    """One command as a child process; signals to this process reach it.

    Args:
        command: Program and arguments.
        environment: Of the process.
        warning_s: Seconds between SLURM's warning and the time limit; the worker is killed when only a quarter is left.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], warning_s: float) -> None:
        self._command, self._environment, self._warning_s = list(command), dict(environment), warning_s
        self._child: subprocess.Popen[bytes] | None = None
        self._received: set[int] = set()

    def run(self) -> Ending:
        """Start the worker and wait until it has ended.

        Raises:
            OSError: when the program cannot be started.
        """
        heard = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
        before = {number: signal.signal(number, self._hear) for number in heard}
        try:
            self._child = subprocess.Popen(
                self._command, env=self._environment, preexec_fn=_ending_with(os.getpid())
            )
            # What came before there was a worker.
            for number in self._received - {signal.SIGINT}:
                self._child.send_signal(number)
            code = self._child.wait()
        finally:
            signal.alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)
        return Ending(
            code if code >= 0 else 128 - code,
            warned=signal.SIGUSR1 in self._received,
            terminated=bool(self._received & {signal.SIGTERM, signal.SIGINT}),
            overdue=signal.SIGALRM in self._received,
        )

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGALRM and number not in self._received:
            logger.info("received %s", signal.Signals(number).name)
        self._received.add(number)
        if number == signal.SIGUSR1:
            signal.alarm(max(1, round(self._patience())))
        # A terminal sends Ctrl-C to the worker itself, which takes a second one for impatience.
        if self._child is not None and number != signal.SIGINT:
            self._child.send_signal(signal.SIGKILL if number == signal.SIGALRM else number)

    def _patience(self) -> float:
        """Return the seconds that the worker has for saving its state."""
        reserve = _RESERVE * self._warning_s
        left = _time_left(self._environment)
        return (self._warning_s if left is None else left) - reserve


def _ending_with(parent: int) -> Callable[[], None] | None:
    """Return what a child does before its program starts, so that SIGKILL to its parent ends it too.

    Else it would go on beside the one that the queued job starts, in the same folder. Linux alone offers this.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return die_with_parent


def _time_left(environment: Mapping[str, str]) -> float | None:
    """Return the seconds until the job's time limit; ``None`` where SLURM does not tell.

    The warning comes up to a minute early, and that minute is the worker's.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        call = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
        found = subprocess.run(call, capture_output=True, text=True, timeout=5, check=True).stdout.split()
        return datetime.fromisoformat(found[0]).timestamp() - time.time()
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


class Job:
    """This process's job on the cluster.

    Args:
        plan: What to run.
        environment: Of the process.

    Raises:
        LaunchError: when the job is not one of the plan's array.
    """

    def __init__(self, plan: Plan, environment: Mapping[str, str]) -> None:
        self.plan, self.environment = plan, environment
        number = NumberReader(environment)
        self._max_requeues = number("MAX_REQUEUES", 100, 0)
        self._warning_s = number("WARNING", WARNING_S, 1)
        self._processes = number("SLURM_NTASKS", 1, 1)
        number.check()
        self.id = environment["SLURM_JOB_ID"]
        self.array = environment.get("SLURM_ARRAY_JOB_ID")
        self.index = int(environment["SLURM_ARRAY_TASK_ID"]) if self.array is not None else None
        last = int(environment.get("SLURM_ARRAY_TASK_MAX", self.index or 0))
        if self.index is not None and (plan.items is None or last >= plan.count):
            expected = "no array" if plan.items is None else f"--array=0-{plan.count - 1}"
            raise LaunchError(
                f"SLURM_ARRAY_TASK_ID: this job is number {self.index} of an array up to {last}, but {plan.name} has "
                f"{plan.count} item(s), counted from 0: submit with {expected}"
            )

    @property
    def own_name(self) -> str:
        """The job's name for scontrol.

        An array's number is also the number of one of its tasks, and would queue all of them again.
        """
        return self.id if self.index is None else f"{self.array}_{self.index}"

    def run(self, collecting: str | None) -> int:
        """Do this job's part: one task, all of them in turn, or collecting.

        Args:
            collecting: Job number of the array to collect; ``None`` for a task.

        Returns:
            The exit code.
        """
        if collecting is not None:
            return self._collect(collecting)
        folder = record_folder(self.plan.name, self.array or self.id)
        if self.plan.items is None or self.index is not None:
            return self._task(folder, str(self.index or 0), self.plan.task_command(self.index or 0))
        codes = []
        for index in range(self.plan.count):
            codes.append(self._task(folder, str(index), self.plan.task_command(index)))
            if codes[-1] == STOPPED:
                return STOPPED
        if self.plan.collect and (not any(codes) or self.plan.leftovers):
            codes.append(self._task(folder, COLLECT, self.plan.collect_command()))
        if STOPPED in codes:
            return STOPPED
        return 1 if any(codes) else 0

    def _collect(self, job: str) -> int:
        folder = record_folder(self.plan.name, job)
        problems = [
            state
            for state in task_states(folder, self.plan.count)
            if not state.is_done and state.task != COLLECT
        ]
        for state in problems:
            logger.error("%s", state)
        if problems and not self.plan.leftovers:
            logger.error(
                "%d of %d tasks of job %s are not done, so that nothing is collected. Mend the cause and submit "
                "the same again: what is done is left alone",
                len(problems),
                self.plan.count,
                job,
            )
            return 1
        if problems:
            logger.info("doing what they left undone")
        return self._task(folder, COLLECT, self.plan.collect_command())

    def _task(self, folder: Path, task: str, arguments: Sequence[str]) -> int:
        srun = self._srun() if task != COLLECT else []
        command = [*srun, interpreter(self.environment), *arguments]
        log = _log_file(self.environment)
        record = TaskRecord(folder, task, {"command": command, "log": log, "count": self.plan.count})
        restarts = int(self.environment.get("SLURM_RESTART_COUNT") or 0)
        record.begin(job=self.own_name, restarts=restarts)
        logger.info("start, job %s, time %d: %s", self.own_name, restarts + 1, shlex.join(command))
        try:
            ending = Worker(command, worker_environment(self.environment, folder.name), self._warning_s).run()
        except OSError as error:
            logger.error("%s could not be started: %s", command[0], error)
            record.end("failed", 127)
            return 127
        logger.info(
            "end, exit code %d%s", ending.exit_code, ", killed before the limit" if ending.overdue else ""
        )
        if not (ending.is_resumable or (srun and ending.is_cut_by_srun)):
            record.end("failed" if ending.exit_code else "done", ending.exit_code)
            return ending.exit_code
        # Who ends a job with scancel, or by preemption, decides what becomes of it.
        is_ours = ending.warned or not ending.terminated
        if not is_ours or restarts >= self._max_requeues:
            record.end("stopped", ending.exit_code)
            if is_ours:
                logger.error("not queued again: MAX_REQUEUES=%d is reached", self._max_requeues)
            return STOPPED
        record.end("requeued", ending.exit_code)
        if not self._requeue():
            record.end("stopped", ending.exit_code)
        return STOPPED

    def _srun(self) -> list[str]:
        # Inside a step of several processes srun has been called already.
        if self._processes == 1 or int(self.environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
            return []
        if not self.plan.distributed:
            logger.warning(
                "%s runs as one process: the other %d are idle", self.plan.name, self._processes - 1
            )
            return []
        # srun does not take the job's own --cpus-per-task since SLURM 22.05.
        cpus = self.environment.get("SLURM_CPUS_PER_TASK")
        return ["srun", "--kill-on-bad-exit=1", *([f"--cpus-per-task={cpus}"] if cpus else [])]

    def _requeue(self) -> bool:
        call = ["scontrol", "requeue", self.own_name]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=_QUERY_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            logger.error("%s: %s", shlex.join(call), error)
            return False
        if done.returncode != 0:
            logger.error("%s: %s; submit the same again to go on", shlex.join(call), done.stderr.strip())
        return done.returncode == 0


def worker_environment(environment: Mapping[str, str], launch: str) -> dict[str, str]:
    """Return a worker's environment: output at once, and no more threads than the job has cores.

    Args:
        environment: Of the process.
        launch: The same for all tasks of an array, each time that they start, and for the job that collects: what one
            of them made anew, as ``--again`` asks, the others leave alone.
    """
    cpus = environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE")
    added = {"PYTHONUNBUFFERED": "1", "MEDSHARED_LAUNCH": launch}
    if cpus and not environment.get("OMP_NUM_THREADS"):
        added["OMP_NUM_THREADS"] = cpus
    return {**environment, **added}


def _log_file(environment: Mapping[str, str]) -> str:
    """Return where standard error of this job goes, which SLURM tells by no variable."""
    try:
        return str(Path("/proc/self/fd/2").readlink())
    except OSError:
        return environment.get("SLURM_SUBMIT_DIR", "unknown")


def run_here(plan: Plan, environment: Mapping[str, str]) -> int:
    """Run all tasks in this process's place, one after the other, and then the collecting command.

    Args:
        plan: What to run.
        environment: Of the process.

    Returns:
        The worker's own exit code for a single command; else 1 when a task failed, 75 when a signal stopped one.
    """
    failed: list[str] = []
    ending = Ending(0)
    adapted = worker_environment(environment, f"{plan.name}-{uuid.uuid4().hex}")
    for index in range(plan.count):
        command = [interpreter(environment), *plan.task_command(index)]
        logger.info("task %d of %d: %s", index + 1, plan.count, shlex.join(command))
        ending = Worker(command, adapted, WARNING_S).run()
        logger.info("end, exit code %d", ending.exit_code)
        if ending.is_resumable or ending.warned or ending.terminated:
            return ending.exit_code or STOPPED
        if ending.exit_code:
            failed.append(f"task {index} failed with exit code {ending.exit_code}: {shlex.join(command)}")
    if plan.items is None:
        return ending.exit_code
    for line in failed:
        logger.error("%s", line)
    if plan.collect and (not failed or plan.leftovers):
        command = [interpreter(environment), *plan.collect_command()]
        logger.info("collecting: %s", shlex.join(command))
        return Worker(command, adapted, WARNING_S).run().exit_code
    return 1 if failed else 0
