"""Many jobs on one folder: shards of the work, leases on single items, and proof of what is done.

A job takes its share with `Shard`, holds a lease while it works on one item, and leaves a sidecar with the output's
checksum. A job that was killed leaves a dead lock behind, which the next one takes over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from medshared.files import sha256_file, to_plain, write_error, write_json
from medshared.liveness import has_ended, process_birth

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

Item = TypeVar("Item")

logger = logging.getLogger(__name__)

_SETTLE_S = 1.0  # where files cannot be locked: time for a rival's write to become visible
_ROUNDS = 5
_CLOCK_TICK_NS = 20_000_000  # above the tick of any kernel's file times


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal shares of the work.

    Attributes:
        index: from 0.
        count: number of shards.

    Example:
        >>> Shard.parse("2/3").select(["a", "b", "c", "d", "e"])
        ['b', 'e']
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard {self.index + 1}/{self.count} does not exist: expected 1/{self.count} … "
                f"{self.count}/{self.count}"
                if self.count > 0
                else f"the number of shards must be at least 1, found {self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"i/n"``, counted from 1.

        Args:
            text: such as ``"2/8"``: the second of eight shards.

        Returns:
            The shard.

        Raises:
            ValueError: for another form or a shard that does not exist.
        """
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if match is None:
            raise ValueError(f"expected a shard as i/n, such as 2/8 for the second of eight, found {text!r}")
        return cls(int(match[1]) - 1, int(match[2]))

    def select(self, items: Sequence[Item]) -> list[Item]:
        """Return every ``count``-th item from ``index`` on, so that shards differ by at most one item."""
        return list(items[self.index :: self.count])

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


class Lease:
    """The right to work on one item, held by a lock file whose modification time a thread keeps fresh.

    Attributes:
        path: the lock file.
        lost: whether another job has taken the lease over, because this one was suspended for too long.
        inherited: whether it was taken over from a job that was killed, which may have left unfinished files.
    """

    def __init__(self, path: Path, ticket: str, heartbeat_s: float, *, inherited: bool = False) -> None:
        """Start the heartbeat of a lock file that holds the ticket; use `acquire_lease`."""
        self.path, self.lost, self.inherited = path, False, inherited
        self._ticket, self._process = ticket, os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, args=(heartbeat_s,), name=f"lease {path.name}", daemon=True
        )
        self._thread.start()

    def _beat(self, interval: float) -> None:
        while not self._ended.wait(interval):
            try:
                if _read_lock(self.path).get("ticket") != self._ticket:
                    raise FileNotFoundError
                os.utime(self.path)
            except FileNotFoundError:
                self.lost = True
                logger.warning(
                    "%s: the lease was taken over or removed while this job was working", self.path
                )
                return
            except OSError as error:  # a network file system that is away for a while
                logger.warning("%s: the lease could not be renewed: %s", self.path, error)

    def release(self) -> None:
        """End the heartbeat and remove the lock file, unless another job holds it by now."""
        if os.getpid() != self._process:
            return  # a forked child: the lease is its parent's
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(FileNotFoundError), self.path.open("r+b") as handle, _locked(handle):
            if _parse(handle.read()).get("ticket") == self._ticket and _is_at(handle, self.path):
                self.path.unlink()


@contextlib.contextmanager
def acquire_lease(
    path: str | os.PathLike[str], *, stale_after_s: float = 600.0, heartbeat_s: float | None = None
) -> Iterator[Lease | None]:
    """Hold a lease while the block runs.

    The lock file is created exclusively, so that one of any number of jobs gets it. A lock is dead when its
    modification time is older than ``stale_after_s``, when it was made on this host by a process that is gone, or when
    its owner was killed before it could write its name; it is taken over with a log line, by one job only. Clocks of
    the hosts must agree to within ``stale_after_s``.

    Args:
        path: the lock file; parent folders are created.
        stale_after_s: age in seconds from which a lock counts as dead.
        heartbeat_s: seconds between renewals; by default a tenth of ``stale_after_s``, at most 30.

    Yields:
        The lease, or ``None`` when a live job holds it.

    Raises:
        OSError: naming the file when it cannot be written.
        ValueError: when the heartbeat is not faster than the lock goes stale.
    """
    beat = min(30.0, stale_after_s / 10) if heartbeat_s is None else heartbeat_s
    if not 0 < beat < stale_after_s:
        raise ValueError(
            f"heartbeat_s must lie between 0 and stale_after_s ({stale_after_s:g}), found {beat:g}"
        )
    path = Path(path)
    ticket = secrets.token_hex(8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = _take(path, ticket, stale_after_s)
    except OSError as error:
        raise write_error(path, error, "the lock file") from error
    if taken is None:
        yield None
        return
    lease = Lease(path, ticket, beat, inherited=taken == "inherited")
    try:
        yield lease
    finally:
        lease.release()


def _take(path: Path, ticket: str, stale_after_s: float) -> Literal["new", "inherited"] | None:
    """Return how the lock was got, or ``None`` when a live job holds it."""
    content = _content(ticket)
    for _ in range(_ROUNDS):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # released just now: try again
                return "inherited" if _take_over(path, content, ticket, stale_after_s) else None
            continue
        with os.fdopen(descriptor, "r+b", buffering=0) as handle, _locked(handle):
            # A rival that came before the name was written has taken the lock for one of a killed job.
            if not _is_at(handle, path):
                continue
            if os.fstat(handle.fileno()).st_size:
                return None
            handle.write(content)
            return "new"
    return None


def _take_over(path: Path, content: bytes, ticket: str, stale_after_s: float) -> bool:
    """Take a dead lock.

    The file stays where it is and gets a new content, under a lock that the system gives up with its process. So a
    rival that came to the same judgement finds a living owner when its turn comes.

    Raises:
        FileNotFoundError: when the lock is released meanwhile.
    """
    with path.open("r+b", buffering=0) as handle:
        # A first look without the lock: most leases that are held are alive.
        found = handle.read()
        if _parse(found) and _why_dead(handle, found, stale_after_s) is None:
            return False
        with _locked(handle) as certain:
            if not _is_at(handle, path):
                raise FileNotFoundError
            handle.seek(0)
            found = handle.read()
            reason = _why_dead(handle, found, stale_after_s)
            if reason is None and certain and not _parse(found):
                reason = "its owner was killed before it wrote its name"
            if reason is None:
                return False
            handle.seek(0)
            handle.write(content)
            handle.truncate()
            os.utime(path)
        if not certain:
            time.sleep(_SETTLE_S)
            if _read_lock(path).get("ticket") != ticket:
                return False
    owner = _parse(found)
    logger.info(
        "%s: took over the lease of process %s on %s: %s",
        path,
        owner.get("pid", "?"),
        owner.get("host", "?"),
        reason,
    )
    return True


def _why_dead(handle: Any, content: bytes, stale_after_s: float) -> str | None:
    """Return why a lock is dead, or ``None`` while its owner may live."""
    age = time.time() - os.fstat(handle.fileno()).st_mtime
    if age > stale_after_s:
        return f"it was not renewed for {age:.0f} s"
    owner, me = _parse(content), _identity()
    pid = owner.get("pid")
    if owner.get("host") != me["host"] or not isinstance(pid, int) or pid <= 0:
        return None
    if owner.get("boot") and me["boot"] and owner["boot"] != me["boot"]:
        return "the host was restarted"
    if owner.get("namespace") != me["namespace"]:
        return None  # another container of the same name numbers its processes anew
    if has_ended(pid):
        return "the process is gone"
    born = process_birth(pid)
    if owner.get("birth") and born and owner["birth"] != born:
        return "the process is gone and its number belongs to another one"
    return None


def _identity() -> dict[str, Any]:
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot, "namespace": namespace}


def _content(ticket: str) -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    owner = {**_identity(), "birth": process_birth(os.getpid()), "started": started, "ticket": ticket}
    return (json.dumps(owner) + "\n").encode()


def _parse(content: bytes) -> dict[str, Any]:
    """Return what a lock file says; nothing when it was cut off, as by a killed job."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read_lock(path: Path) -> dict[str, Any]:
    return _parse(path.read_bytes())


def _is_at(handle: Any, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(handle: Any) -> Iterator[bool]:
    """Keep other jobs from judging or removing the same lock; yields whether the system guarantees it."""
    if fcntl is None:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK):
            raise
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def sidecar_path(output: str | os.PathLike[str]) -> Path:
    """Return ``<output>.done.json``."""
    return Path(f"{os.fspath(output)}.done.json")


def write_sidecar(
    output: str | os.PathLike[str], inputs: Mapping[str, Any], *, made_by: str | None = None
) -> Path:
    """Record that an output is complete, and what it was made from.

    Args:
        output: the finished file.
        inputs: everything the output depends on: files, settings, versions; any value that JSON can hold.
        made_by: name of the launch that made a complete output anew.

    Returns:
        The sidecar's path: ``<output>.done.json`` with sha256, size and modification time of the output, and the
        inputs.

    Raises:
        OSError: naming the file that cannot be read or written.
    """
    output = Path(output)
    before = output.stat()
    content = {"sha256": sha256_file(output), "size": before.st_size, "inputs": to_plain(inputs)}
    # A file changed twice within a tick of the clock keeps its modification time: only an older one proves anything.
    coarse = before.st_mtime_ns % 1_000_000_000 == 0
    if time.time_ns() - before.st_mtime_ns > (2_000_000_000 if coarse else _CLOCK_TICK_NS):
        content["mtime_ns"] = before.st_mtime_ns
    if made_by is not None:
        content["made_by"] = made_by
    return write_json(sidecar_path(output), content)


def read_sidecar(output: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the sidecar of an output says.

    Args:
        output: the finished file.

    Raises:
        OSError: when there is none.
        ValueError: when it is cut off or something else.
    """
    # Bytes: there may be a hundred thousand of them, and they are read at every start of every job.
    found = json.loads(sidecar_path(output).read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{sidecar_path(output)}: expected a mapping, found {type(found).__name__}")
    return found


def has_inputs(sidecar: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether a sidecar names the same inputs.

    Args:
        sidecar: as `read_sidecar` returns it.
        inputs: as given to `write_sidecar`.
    """
    found = sidecar.get("inputs")
    with contextlib.suppress(ValueError):  # arrays have no single answer
        if found == inputs:
            return True
    return found == to_plain(inputs)


def sidecar_matches(output: str | os.PathLike[str], inputs: Mapping[str, Any]) -> bool:
    """Whether an output is complete, unchanged, and made from the same inputs.

    An output of the recorded size and modification time is unchanged; at another time, as after copying, its checksum
    decides.

    Args:
        output: the file.
        inputs: as given to `write_sidecar`.

    Returns:
        False when output or sidecar is missing, cut off or changed, or the inputs differ.
    """
    try:
        found = read_sidecar(output)
        if not has_inputs(found, inputs):
            return False
        status = Path(output).stat()
        if status.st_size != found.get("size"):
            return False
        return status.st_mtime_ns == found.get("mtime_ns") or sha256_file(output) == found.get("sha256")
    except (OSError, ValueError):
        return False


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file: from its sidecar where that is of the file's size and time, else by reading it.

    Args:
        path: the file.

    Raises:
        OSError: naming the file that cannot be read.
    """
    with contextlib.suppress(OSError, ValueError):
        found, status = read_sidecar(path), Path(path).stat()
        known = (found.get("size"), found.get("mtime_ns"))
        if known == (status.st_size, status.st_mtime_ns) and isinstance(found.get("sha256"), str):
            return found["sha256"]
    return sha256_file(path)
