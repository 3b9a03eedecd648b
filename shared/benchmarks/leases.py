"""A thousand real workers on one folder: the leases themselves, not a model of them; one JSON line.

Threads of several processes share one list of items, each worker a dozen from its own place in it on, through
`medshared.batch.attempt`; an item takes a moment of waiting. Every second one process is killed and another is started
in its place. Each item writes a line into a log of its own when its work begins and ends: an item that two workers had at
one time, or that was finished twice, is an error. ``--quick`` for 64 workers.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from medshared.batch import Task, attempt
from medshared.files import write_text

PROCESSES = 8
REACH = 12  # items that a worker looks at: each item is wanted by as many workers, more or less


def append(path: Path, word: str) -> None:
    """Add a line, all of it or nothing."""
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, f"{word} {os.getpid()}\n".encode())
    finally:
        os.close(descriptor)


def work_all(folder: Path, threads: int, items: int, wait_s: float, seed: int) -> None:
    """Be some of the workers until every item is done."""

    def task(i: int) -> Task:
        output = folder / "out" / f"{i}.txt"

        def work() -> str:
            append(folder / "log" / str(i), "begin")
            time.sleep(wait_s)
            write_text(output, str(i))
            append(folder / "log" / str(i), "end")
            return ""

        return Task(str(i), output, dict, work)

    tasks = [task(i) for i in range(items)]

    def worker(start: int, reach: int = REACH) -> None:
        left = [(start + k) % items for k in range(reach)]
        while left:
            outcomes = [(i, attempt("stress", tasks[i])) for i in left]
            left = [i for i, outcome in outcomes if outcome.status == "busy"]
            if left:
                time.sleep(0.2)

    starts = np.random.default_rng(seed).integers(items, size=threads).tolist()
    crowd = [threading.Thread(target=worker, args=(each,)) for each in starts]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    worker(0, items)  # what nobody wanted, and what a killed process left


def run(folder: Path, workers: int, items: int, wait_s: float, kills: int) -> None:
    """Start the workers, kill some, and look at what they did."""
    (folder / "log").mkdir()
    threads = workers // PROCESSES

    def start(seed: int) -> subprocess.Popen[bytes]:
        numbers = [str(threads), str(items), str(wait_s), str(seed)]
        return subprocess.Popen([sys.executable, __file__, "--be", str(folder), *numbers])

    started = time.perf_counter()
    running = [start(seed) for seed in range(PROCESSES)]
    rng = np.random.default_rng(0)
    killed = 0
    while any(job.poll() is None for job in running):
        time.sleep(1.0)
        alive = [n for n, job in enumerate(running) if job.poll() is None]
        begun = any((folder / "log").iterdir())
        if begun and alive and killed < kills:
            chosen = int(rng.choice(alive))
            running[chosen].send_signal(signal.SIGKILL)
            running[chosen].wait()
            killed += 1
            running[chosen] = start(PROCESSES + killed)
    seconds = time.perf_counter() - started
    broken = twice = lost = 0
    for i in range(items):
        words = [entry.split() for entry in (folder / "log" / str(i)).read_text().splitlines()]
        # A begin whose worker was killed has no end; the next begin is another process's.
        open_by: str | None = None
        for word, pid in words:
            if word == "end":
                twice += open_by != pid
                open_by = None
            else:
                lost += open_by is not None
                open_by = pid
        ends = sum(word == "end" for word, _ in words)
        # Killed between its last word and the checksum file: done again, which is not at one time.
        broken += ends < 1 or open_by is not None
    remains = [path.name for path in (folder / "out").iterdir() if path.name.endswith((".lock", ".tmp"))]
    result = {
        "workload": "leases",
        "workers": workers,
        "processes": PROCESSES,
        "items": items,
        "seconds": round(seconds, 2),
        "processes_killed": killed,
        "begun_and_lost": lost,
        "held_by_two_at_once": twice,
        "unfinished": broken,
        "remains": len(remains),
    }
    print(json.dumps(result), flush=True)
    if twice or broken or remains or any(job.returncode for job in running):
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--be", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        folder, threads, items, wait_s, seed = arguments.be
        work_all(Path(folder), int(threads), int(items), float(wait_s), int(seed))
        return
    workers, items, kills = (64, 600, 2) if arguments.quick else (1000, 1000, 8)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), workers, items, 0.1, kills)


if __name__ == "__main__":
    main()
