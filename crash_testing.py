"""Runs that are killed on purpose: at random moments, and before each of the steps that change a folder.

A command starts in seconds because it imports torch, but a killed attempt should take as long as its work. So a
process of its own (`serve`) imports what the command needs, with one thread, and forks a child for each attempt. A
child is killed after a time, or by itself before its n-th change of the watched folder: a file opened for writing,
renamed, removed or flushed, a folder made. Then the folder is looked at, and the next attempt goes on with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import importlib.util
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["CrashTester", "Ended", "Job", "Moment", "draw_quickly", "mounted", "scratch_folder"]

_CHANGES = {
    "open": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PR_SET_PDEATHSIG = 1
_NOTE = 240  # bytes kept of the description of the last change
_LONGEST_S = 300.0


@dataclass(frozen=True)
class Job:
    """A command that is to give the same files however often it is killed.

    Attributes:
        target: ``module:function`` or ``file.py:function``, called with the list of arguments; returns an exit code.
        arguments: Makes the arguments from the output folder.
        unlike: Patterns of files whose content differs between two undisturbed runs.
        midway: Patterns of files that may be visible while the command runs and are gone at its end.
        prepare: Fills a fresh output folder before the first attempt.
    """

    target: str
    arguments: Callable[[Path], Sequence[str]]
    unlike: tuple[str, ...] = ()
    midway: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Moment:
    """When an attempt is disturbed.

    Attributes:
        after_s: Killed after so many seconds.
        at_change: Disturbed before the change of that number, counted from 1.
        fault: Number of the system error that the change raises, in place of the kill; all later changes that
            need space raise it too.
    """

    after_s: float | None = None
    at_change: int | None = None
    fault: int | None = None


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: exit code (negative: the signal), seconds, changes of the folder, the last one, output."""

    code: int
    seconds: float
    changes: int
    last_change: str
    log: str

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


# ---------------------------------------------------------------------- the process that forks


@dataclass
class _Child:
    pid: int
    started: float
    deadline: float
    counter: mmap.mmap
    log: Path
    code: int | None = None
    seconds: float = 0.0


def serve() -> None:
    """Read requests as JSON lines from standard input, run the attempts, answer with JSON lines."""
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _die_with_parent()
    draw_quickly()
    for line in sys.stdin:
        request = json.loads(line)
        children = [_fork(each) for each in request["attempts"]]
        _await(children)
        answers = [_answer(child) for child in children]
        # What a child had to import, the next ones find here; a thread would not survive the fork.
        for name in dict.fromkeys(name for answer in answers for name in answer.pop("modules")):
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
        threads = len(list(Path("/proc/self/task").iterdir()))
        reply.write(json.dumps({"ended": answers, "threads": threads}) + "\n")
        reply.flush()


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def draw_quickly() -> None:
    """Let figures be written as one dot: drawing takes longer than all the rest and changes nothing here."""
    with contextlib.suppress(ImportError):
        import io

        from matplotlib.figure import Figure
        from PIL import Image

        dot = io.BytesIO()
        Image.new("RGB", (1, 1)).save(dot, "PNG")

        def savefig(_figure: Figure, target: Any, **_options: Any) -> None:
            if hasattr(target, "write"):
                target.write(dot.getvalue())
            else:
                Path(target).write_bytes(dot.getvalue())

        Figure.savefig = savefig  # type: ignore[method-assign,assignment]


def _fork(attempt: dict[str, Any]) -> _Child:
    counter = mmap.mmap(-1, 4096)
    log = Path(attempt["log"])
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _attempt(attempt, counter, log)
        finally:
            sys.stderr.flush()
            os._exit(code)
    now = time.monotonic()
    after = attempt["after_s"]
    return _Child(pid, now, now + (_LONGEST_S if after is None else after), counter, log)


def _attempt(attempt: dict[str, Any], counter: mmap.mmap, log: Path) -> int:
    """Do the work in the child."""
    os.setsid()
    _die_with_parent()
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    before = set(sys.modules)
    module, _, name = attempt["target"].partition(":")
    try:
        work = getattr(_load(module), name)
        _watch_changes(attempt["folder"], attempt["at_change"], attempt["fault"], counter)
        code = work(list(attempt["arguments"]))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    if attempt["list_modules"]:
        names = [name for name in list(sys.modules) if name not in before]
        log.with_suffix(".modules").write_text("\n".join(names))
    # As the interpreter does at its end: pools are told to stop, and threads at work finish it.
    threading._shutdown()  # type: ignore[attr-defined]
    sys.stdout.flush()
    return int(code or 0)


def _load(module: str) -> Any:
    if not module.endswith(".py"):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location("crashing", module)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module}: no Python file")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _watch_changes(folder: str, at_change: int | None, fault: int | None, counter: mmap.mmap) -> None:
    """Count the changes of a folder, and kill this process, or let the change fail, before the given one."""
    lock = threading.Lock()
    inside = folder.rstrip("/") + "/"

    def change(text: str, needs_space: bool = True) -> None:
        with lock:
            number = struct.unpack_from("q", counter, 0)[0] + 1
            struct.pack_into("q", counter, 0, number)
            note = text.replace(inside, "").encode()[:_NOTE]
            counter[8 : 8 + _NOTE] = note.ljust(_NOTE, b"\0")
        if at_change is None or number < at_change:
            return
        if fault is None:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        elif needs_space or fault == errno.EROFS:
            raise OSError(fault, os.strerror(fault), text.rpartition(" ")[2])

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        positions = _CHANGES.get(event)
        if positions is None:
            return
        if event == "open" and not arguments[2] & _WRITES:
            return
        for position in positions:
            path = arguments[position]
            if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(inside):
                change(f"{event} {os.fsdecode(path)}", needs_space=event not in ("os.remove", "os.rmdir"))
                return

    flush = os.fsync

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        if path.startswith(inside):
            change(f"os.fsync {path}")
        flush(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def _await(children: list[_Child]) -> None:
    """Wait for all children, and kill each at its time."""
    waiting = list(children)
    while waiting:
        now = time.monotonic()
        for child in list(waiting):
            if now >= child.deadline:
                os.kill(child.pid, signal.SIGKILL)
                child.deadline = now + 60.0
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.seconds = time.monotonic() - child.started
                child.code = os.waitstatus_to_exitcode(status)
                waiting.remove(child)
        time.sleep(0.0005)


def _answer(child: _Child) -> dict[str, Any]:
    modules = child.log.with_suffix(".modules")
    names = modules.read_text().split("\n") if modules.is_file() else []
    modules.unlink(missing_ok=True)
    return {
        "pid": child.pid,
        "code": child.code,
        "seconds": child.seconds,
        "changes": struct.unpack_from("q", child.counter, 0)[0],
        "last_change": bytes(child.counter[8 : 8 + _NOTE]).rstrip(b"\0").decode(errors="replace"),
        "log": child.log.read_text(errors="replace") if child.log.is_file() else "",
        "modules": [name for name in names if name],
    }


# ---------------------------------------------------------------------- the tests' side


class CrashTester:
    """Runs jobs, kills them and compares what they leave; one forking process serves all jobs of a suite.

    Args:
        folder: Scratch folder.
        kills: Kills of each job.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, kills: int, seed: int = 0) -> None:
        self.folder, self.kills, self.seed = folder, kills, seed
        self.totals: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        threads = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VIPS", "BLOSC")
        environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in threads}
        environment |= {"VIPS_CONCURRENCY": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "MPLBACKEND": "agg"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._number = 0

    def close(self) -> None:
        """End the forking process and whatever it still runs."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def attempt(
        self, job: Job, output: Path, *moments: Moment, arguments: Sequence[Sequence[str]] | None = None
    ) -> list[Ended]:
        """Run a job once for each moment, side by side.

        Args:
            job: The job.
            output: Its output folder.
            *moments: When each is disturbed; one undisturbed attempt by default.
            arguments: Of each attempt, in place of the job's own.

        Raises:
            AssertionError: A process outlived the attempt that started it.
        """
        moments = moments or (Moment(),)
        requests = []
        for index, moment in enumerate(moments):
            self._number += 1
            given = job.arguments(output) if arguments is None else arguments[index]
            requests.append(
                {
                    "target": job.target,
                    "arguments": [str(each) for each in given],
                    "folder": str(output),
                    "log": str(self.folder / f"attempt-{self._number}.log"),
                    "after_s": moment.after_s,
                    "at_change": moment.at_change,
                    "fault": moment.fault,
                    "list_modules": moment == Moment(),
                }
            )
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps({"attempts": requests}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the forking process ended with {self._process.wait()}")
        answer = json.loads(line)
        if answer["threads"] != 1:
            raise AssertionError(f"the forking process has {answer['threads']} threads: forking is not safe")
        for request in requests:
            Path(request["log"]).unlink(missing_ok=True)
        ended = []
        for each in answer["ended"]:
            _no_process_left(each.pop("pid"))
            ended.append(Ended(**each))
        return ended

    def reference(self, job: Job, name: str) -> Reference:
        """Run a job undisturbed, twice: the two must agree, and the second tells how long it takes."""
        output = self.folder / name / "out"
        folders = []
        ended = Ended(0, 0.0, 0, "", "")
        for number in (1, 2):
            _fresh(job, output)
            ended = self.attempt(job, output)[0]
            if ended.code != 0:
                raise AssertionError(f"undisturbed, the job ended with {ended.code}:\n{ended.log}")
            folders.append(output.rename(output.with_name(f"undisturbed-{number}")))
        _same(folders[0], folders[1], job, "two undisturbed runs")
        return Reference(job, output, folders[0], ended.seconds, ended.changes)

    def kill_loop(self, reference: Reference, *, kills: int | None = None) -> int:
        """Kill a job again and again, each attempt going on where the last one was killed; return the kills.

        Half of the moments are random times, half random changes of the folder. Whenever an attempt gets to the
        end, its folder is compared with the undisturbed one and the next attempt starts in a fresh one.

        Raises:
            AssertionError: A visible file was half written, an attempt failed, or a result differs.
        """
        wanted, job, output = kills or self.kills, reference.job, reference.output
        rng = random.Random(f"{self.seed} {output.parent.name}")  # noqa: S311
        done = finished = 0
        history: list[str] = []
        while done < wanted:
            _fresh(job, output)
            watch, history = reference.watch(), []
            while True:
                moment = Moment() if done >= wanted else reference.moment(rng, aimed=done % 2 == 0)
                ended = self.attempt(job, output, moment)[0]
                history.append(f"{moment}: code {ended.code} at {ended.last_change}")
                if ended.killed:
                    done += 1
                    if output.exists():
                        _explained(partial(watch.check, output), history, ended.log)
                    continue
                if ended.code != 0:
                    raise AssertionError("\n".join([*history[-8:], ended.log]))
                break
            finished += 1
            _explained(lambda: _same(reference.folder, output, job, "a killed run"), history, ended.log)
        self.totals.append(
            f"{output.parent.name}: {done} kills, {finished} finished runs of {reference.seconds:.1f} s and "
            f"{reference.changes} changes"
        )
        return done

    def each_change(self, reference: Reference, numbers: Sequence[int]) -> int:
        """Kill a fresh run before each of these changes of the folder, and let the next attempt finish it."""
        job, output = reference.job, reference.output
        for number in numbers:
            _fresh(job, output)
            ended = self.attempt(job, output, Moment(at_change=number))[0]
            if not ended.killed:
                raise AssertionError(f"change {number} never came: code {ended.code}\n{ended.log}")
            history = [f"killed before change {number}: {ended.last_change}"]
            if output.exists():
                _explained(lambda: reference.watch().check(output), history, ended.log)
            self._finish(reference, history)
        self.totals.append(f"{output.parent.name}: {len(numbers)} kills before a chosen change")
        return len(numbers)

    def kill_one_of_two(self, reference: Reference, *, kills: int) -> int:
        """Kill one of two attempts that work on one folder; the other goes on, and a third one finishes."""
        job, output = reference.job, reference.output
        rng = random.Random(f"{self.seed} {output.parent.name} two")  # noqa: S311
        done = 0
        for _ in range(kills):
            _fresh(job, output)
            moment = reference.moment(rng, aimed=done % 2 == 0, share=0.5)
            first, second = self.attempt(job, output, moment, Moment())
            history = [f"{moment}: {first.code} at {first.last_change}; the other one: {second.code}"]
            done += first.killed
            # 75: the first one still held an item when the second had done all others.
            if second.code not in (0, 75):
                raise AssertionError("\n".join([*history, first.log, second.log]))
            _explained(lambda: reference.watch().check(output), history, second.log)
            self._finish(reference, history)
        self.totals.append(f"{output.parent.name}: {done} kills of one of two")
        return done

    def faults(self, reference: Reference, numbers: Sequence[int], error: int = errno.ENOSPC) -> None:
        """Let all changes from the given ones on fail; the attempt says why and the next one finishes the work."""
        job, output = reference.job, reference.output
        for number in numbers:
            _fresh(job, output)
            ended = self.attempt(job, output, Moment(at_change=number, fault=error))[0]
            history = [f"error {error} from change {number} on: code {ended.code} at {ended.last_change}"]
            _told(ended, error, history)
            _explained(lambda: reference.watch().check(output), history, ended.log)
            self._finish(reference, history)

    def full_disk(self, reference: Reference, share: float = 0.5) -> None:
        """Run in a file system that holds a share of the results; free space; finish.

        Args:
            reference: The job and its undisturbed run.
            share: Of the bytes of the undisturbed run that fit.
        """
        from crash_files import bytes_on_disk

        job, output = reference.job, reference.output
        size = bytes_on_disk(reference.folder)
        _fresh(job, output)
        with mounted(output, f"size={max(int(size * share), 32768)}"):
            if job.prepare is not None:
                job.prepare(output)
            ended = self.attempt(job, output)[0]
            history = [f"disk of {share:.0%} of {size} bytes: code {ended.code}"]
            _told(ended, errno.ENOSPC, history)
            _explained(lambda: reference.watch().check(output), history, ended.log)
            _remount(output, "size=1g")
            self._finish(reference, history)

    def read_only(self, reference: Reference) -> None:
        """Run where nothing can be written: fresh, and on top of a finished run; then finish."""
        job, output = reference.job, reference.output
        _fresh(job, output)
        with mounted(output, "size=1g"):
            if job.prepare is not None:
                job.prepare(output)
            _remount(output, "ro")
            ended = self.attempt(job, output)[0]
            _told(ended, errno.EROFS, ["a read-only folder"])
            _remount(output, "rw")
            self._finish(reference, ["read-only before"])

    def _finish(self, reference: Reference, history: list[str]) -> None:
        job, output = reference.job, reference.output
        ended = self.attempt(job, output)[0]
        if ended.code != 0:
            raise AssertionError("\n".join([*history, f"the next attempt: code {ended.code}", ended.log]))
        _explained(lambda: _same(reference.folder, output, job, "the run after it"), history, ended.log)


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its folder, how long it takes, and how often it changes the folder."""

    job: Job
    output: Path
    folder: Path
    seconds: float
    changes: int
    names: list[str] = field(default_factory=list)

    def watch(self) -> Any:
        """Return what looks at the folder midway."""
        from crash_files import Watch, is_hidden, listing

        names = [name.replace("[", "[[]") for name in listing(self.folder) if not is_hidden(name)]
        return Watch([*names, *self.job.midway])

    def moment(self, rng: random.Random, *, aimed: bool, share: float = 1.0) -> Moment:
        """Draw when to kill."""
        if aimed:
            return Moment(at_change=rng.randint(1, max(1, int(share * self.changes))))
        return Moment(after_s=rng.uniform(0.0, share * self.seconds))

    def spread(self, count: int) -> list[int]:
        """Return numbers of changes, spread over the whole run."""
        step = max(1, self.changes // count)
        return list(range(1, self.changes + 1, step))[:count]


@contextlib.contextmanager
def scratch_folder(factory: Any) -> Iterator[Path]:
    """Make a folder in memory where there is room, since every attempt flushes all it writes to the disk.

    Args:
        factory: pytest's ``tmp_path_factory``, for where there is none.
    """
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir() or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2**28:
        yield factory.mktemp("crashes")
        return
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=memory, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _fresh(job: Job, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    if job.prepare is not None:
        job.prepare(output)


def _same(expected: Path, found: Path, job: Job, what: str) -> None:
    from crash_files import Watch, differences

    Watch().check(found)
    unlike = differences(expected, found, job.unlike)
    if unlike:
        raise AssertionError(f"{what} differs:\n  " + "\n  ".join(unlike[:20]))


def _explained(check: Callable[[], None], history: list[str], log: str) -> None:
    try:
        check()
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *history[-8:], log[-6000:]])) from error


def _told(ended: Ended, number: int, history: list[str]) -> None:
    """Check that a failed attempt named the reason in words, with no traceback."""
    reason = os.strerror(number)
    if ended.code in (0, 70) or ended.killed or reason not in ended.log or "Traceback" in ended.log:
        raise AssertionError(
            "\n".join([*history, f"expected an error that says {reason!r}, found:", ended.log])
        )


def _no_process_left(session: int, patience_s: float = 10.0) -> None:
    """Check that nothing of an attempt's session runs on.

    Raises:
        AssertionError: Naming the process; it is killed then.
    """
    deadline = time.monotonic() + patience_s
    while True:
        left = _of_session(session)
        if not left:
            return
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"processes outlived the one that was killed: {left}")
        time.sleep(0.005)


def _of_session(session: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount an empty file system in memory on a folder while the block runs; the test is left out where it may not."""
    folder.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, text=True
    )
    if tried.returncode:
        import pytest

        pytest.skip(f"left out: this process may not mount a file system ({tried.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


if __name__ == "__main__":
    serve()
