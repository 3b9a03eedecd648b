"""Shards, leases and sidecars, with jobs that race and jobs that are killed."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medshared import leases
from medshared.leases import Shard, acquire_lease, checksum, sidecar_matches, sidecar_path, write_sidecar


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_shards_share_everything_once(items: list[int], count: int) -> None:
    parts = [Shard(index, count).select(items) for index in range(count)]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shard_in_text() -> None:
    assert Shard.parse(" 2/8 ") == Shard(1, 8)
    assert str(Shard(1, 8)) == "2/8"
    assert Shard().select((1, 2)) == [1, 2]
    for text, message in (
        ("0/8", "shard 0/8 does not exist: expected 1/8 … 8/8"),
        ("9/8", "shard 9/8 does not exist"),
        ("1/0", "at least 1, found 0"),
        ("2 of 8", "expected a shard as i/n, such as 2/8"),
        ("-1/8", "expected a shard as i/n"),
    ):
        with pytest.raises(ValueError, match=message):
            Shard.parse(text)


def owner(**changes: object) -> dict[str, object]:
    """Return the content of a lock that this process made."""
    return {**json.loads(leases._content("t")), **changes}


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.lock"
    with acquire_lease(path) as first:
        assert first is not None
        assert not first.lost
        content = json.loads(path.read_text())
        assert (content["host"], content["pid"]) == (socket.gethostname(), os.getpid())
        assert content["started"]
        with acquire_lease(path) as second:
            assert second is None
        assert path.exists()
    assert not path.exists()
    with acquire_lease(path) as third:
        assert third is not None


def test_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), acquire_lease(tmp_path / "a.lock"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_heartbeat_keeps_the_lease_fresh(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with acquire_lease(path, stale_after_s=30, heartbeat_s=0.02):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 20
    assert not any(thread.name.startswith("lease") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("change", "age_s", "reason"),
    [
        ({}, 700, "not renewed for 700 s"),
        ({"host": "elsewhere"}, 700, "not renewed"),
        ({"pid": 2**22 + 5}, 0, "the process is gone"),
        ({"birth": "1"}, 0, "its number belongs to another one"),
        ({"boot": "another"}, 0, "the host was restarted"),
        ("cut off {", 700, "not renewed"),
        ("", 700, "not renewed"),
        ({}, 0, None),
        ({"host": "elsewhere", "pid": 2**22 + 5}, 0, None),
        ({"namespace": "another", "pid": 2**22 + 5}, 0, None),
        ({"pid": "text"}, 0, None),
        ("cut off {", 0, "before it wrote its name"),
        ("", 0, "before it wrote its name"),
        ("[]", 0, "before it wrote its name"),
        ({"host": "elsewhere"}, -5000, None),  # a clock that is ahead
    ],
)
def test_only_dead_locks_are_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict | str, age_s: float, reason: str | None
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.lock"
    before = change if isinstance(change, str) else json.dumps(owner(**change))
    path.write_text(before)
    made = time.time() - age_s
    os.utime(path, (made, made))
    with acquire_lease(path, stale_after_s=600) as lease:
        assert (lease is not None) == (reason is not None)
        if reason is None:
            assert path.read_text() == before
        else:
            assert json.loads(path.read_text())["ticket"] != "t"
            assert reason in caplog.text
            assert caplog.text.count("took over") == 1
            with acquire_lease(path) as rival:
                assert rival is None
    assert path.exists() == (reason is None)


def test_a_lease_that_was_taken_over_is_lost_and_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with acquire_lease(path, stale_after_s=30, heartbeat_s=0.02) as lease:
        assert lease is not None
        path.write_text(json.dumps(owner(ticket="another")))
        deadline = time.monotonic() + 10
        while not lease.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.lost
    assert json.loads(path.read_text())["ticket"] == "another"


@pytest.mark.parametrize("locking", [True, False])
def test_rivals_for_a_dead_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locking: bool) -> None:
    if not locking:  # as on file systems without locks: the last writer wins
        monkeypatch.setattr(leases, "fcntl", None)
        monkeypatch.setattr(leases, "_SETTLE_S", 0.3)
    path = tmp_path / "a.lock"
    path.write_text(json.dumps(owner(pid=2**22 + 5)))
    results: list[bool] = []
    start, end = threading.Barrier(4), threading.Barrier(4)

    def take() -> None:
        start.wait()
        with acquire_lease(path) as lease:
            results.append(lease is not None)
            end.wait(20)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]


def _work(folder: str, names: list[str], start) -> None:
    start.wait()
    for name in names:
        with acquire_lease(Path(folder, f"{name}.lock")) as lease:
            if lease is None or Path(folder, name).exists():
                continue
            # "x": a second holder at the same time would fail here.
            with Path(folder, name + ".working").open("x"):
                time.sleep(0.002)
            Path(folder, name).write_text(str(os.getpid()))
            Path(folder, name + ".working").unlink()


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names = [f"item{i}" for i in range(40)]
    for name in names[::3]:  # and some locks of a job that was killed
        (tmp_path / f"{name}.lock").write_text(json.dumps(owner(pid=2**22 + 5)))
    start = context.Barrier(2)
    jobs = [context.Process(target=_work, args=(str(tmp_path), names, start)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_job_is_taken_over_at_once(tmp_path: Path, reaped: bool) -> None:
    """Also while its parent has not asked how it ended: a container's first process may never do."""
    path = tmp_path / "a.lock"
    code = (
        "import sys, time; from medshared.leases import acquire_lease\n"
        "with acquire_lease(sys.argv[1]) as lease: print(lease is not None, flush=True); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "True\n"
    with acquire_lease(path) as lease:
        assert lease is None
    job.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, job.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    job.stdout.close()
    assert path.exists()
    with acquire_lease(path) as lease:
        assert lease is not None
    assert not path.exists()
    job.wait()


@pytest.mark.parametrize("call", ["open", "flock", "fstat", "stat", "write"])
def test_a_job_killed_while_it_takes_a_lock(tmp_path: Path, call: str) -> None:
    """Whatever the last thing was that it did: the next job gets the lease at once."""
    path = tmp_path / "a.lock"
    code = (
        "import fcntl, os, signal, sys\n"
        "from medshared import leases\n"
        "def dying(function):\n"
        "    def call(*arguments, **named):\n"
        "        result = function(*arguments, **named)\n"
        "        os.path.exists(sys.argv[1]) and os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return result\n"
        "    return call\n"
        f"name = {call!r}\n"
        "owner = {'flock': fcntl, 'stat': leases.Path}.get(name, os)\n"
        "if name == 'write':\n"
        "    leases.Lease = dying(leases.Lease)\n"
        "else:\n"
        "    setattr(owner, name, dying(getattr(owner, name)))\n"
        "leases.acquire_lease(sys.argv[1]).__enter__()"
    )
    job = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert job.returncode == -signal.SIGKILL, job.stderr
    assert path.exists()
    with acquire_lease(path) as lease:
        assert lease is not None
        assert lease.inherited
    assert not path.exists()


def test_a_rival_that_comes_before_the_name_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rival = tmp_path / "a.lock", []
    lock = leases._locked

    def late(handle):
        if not rival:  # between the making of the file and the first word in it
            monkeypatch.setattr(leases, "_locked", lock)
            other = acquire_lease(path)
            rival.append((other, other.__enter__()))
        return lock(handle)

    monkeypatch.setattr(leases, "_locked", late)
    with acquire_lease(path) as lease:
        assert lease is None
    other, held = rival[0]
    assert held is not None
    other.__exit__(None, None, None)
    assert not path.exists()


def test_a_forked_child_does_not_release(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with acquire_lease(path) as lease:
        assert lease is not None
        child = multiprocessing.get_context("fork").Process(target=lease.release)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert path.exists()


def test_lease_arguments_and_places(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 0 and stale_after_s"), acquire_lease("a", stale_after_s=0):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"lock file could not be written.*b\.lock"):
        acquire_lease(tmp_path / "file" / "b.lock").__enter__()


def test_sidecar(tmp_path: Path) -> None:
    output = tmp_path / "a.h5"
    inputs = {"slide": Path("x.svs"), "size": np.int64(3), "levels": (1, 2)}
    assert not sidecar_matches(output, inputs)
    output.write_bytes(b"12345")
    assert not sidecar_matches(output, inputs)
    path = write_sidecar(output, inputs)
    assert path == sidecar_path(output) == tmp_path / "a.h5.done.json"
    assert {"sha256", "size", "inputs"} <= set(json.loads(path.read_text()))
    assert sidecar_matches(output, inputs)
    assert not sidecar_matches(output, {**inputs, "size": 4})
    output.write_bytes(b"12354")  # same size
    assert not sidecar_matches(output, inputs)
    output.write_bytes(b"123")
    assert not sidecar_matches(output, inputs)
    output.write_bytes(b"12345")
    assert sidecar_matches(output, inputs)
    whole = path.read_text()
    for broken in (whole[: len(whole) // 2], "[]", "{}", ""):
        path.write_text(broken)
        assert not sidecar_matches(output, inputs)
    with pytest.raises(OSError, match="none"):
        write_sidecar(tmp_path / "none", {})


def test_an_output_that_was_not_touched_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.h5"
    output.write_bytes(b"12345")
    now = time.time_ns()
    os.utime(output, ns=(now, now - 10**9 + 1))
    whole = leases.sha256_file(output)
    write_sidecar(output, {})
    read: list[Path] = []
    monkeypatch.setattr(leases, "sha256_file", lambda path: read.append(Path(path)) or whole)
    assert sidecar_matches(output, {})
    assert checksum(output) == whole
    assert read == []
    os.utime(output, ns=(now, now))  # as after copying
    assert sidecar_matches(output, {})
    assert checksum(output) == whole
    assert read == [output, output]
    assert checksum(sidecar_path(output)) == whole  # it has no sidecar itself
    assert len(read) == 3


@pytest.mark.parametrize(("age_ns", "proves"), [(1_000, False), (10**8 + 1, True), (3 * 10**9, True)])
def test_a_time_proves_nothing_while_the_clock_has_not_ticked(
    tmp_path: Path, age_ns: int, proves: bool
) -> None:
    """Two writes within a tick have the same time, so a change right after would not be seen."""
    output = tmp_path / "a.h5"
    output.write_bytes(b"12345")
    made = time.time_ns() - age_ns
    os.utime(output, ns=(made, made))
    made = output.stat().st_mtime_ns
    recorded = "mtime_ns" in json.loads(write_sidecar(output, {}).read_text())
    assert recorded == proves
    output.write_bytes(b"12354")
    if not proves:
        os.utime(output, ns=(made, made))
    assert not sidecar_matches(output, {})
