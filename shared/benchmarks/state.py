"""State at the size of a cohort: what a job that starts on 100,000 finished items does; one JSON line a workload.

* listing: which of them are done, against reading every output for its checksum; both find the same items done;
* the same on a file system that answers after a millisecond, by one reader and by several: a stand-in that waits
  before each file it opens or looks up;
* report: the JSON report of as many items;
* new items: a hundred that are left among them.

``--items`` for another number, ``--quick`` for 5,000; outputs hold 16 KB each.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medshared import batch, leases
from medshared.batch import Outcome, Task, run_batch, write_batch_report
from medshared.files import sha256_file, write_bytes

CONTENT = os.urandom(1 << 14)
INPUTS = {
    "slide": [1234, 5.0],
    "weights": "0123456789abcdef" * 4,
    "settings": {"mpp": 0.5, "tile": 256, "levels": [0, 2]},
}
LATENCY_S = 1e-3


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def seconds(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def make(folder: Path, items: int) -> list[Task]:
    """Write outputs with sidecars, as if finished a minute ago, and return the tasks that they are the results of."""
    whole = folder / "whole"
    whole.write_bytes(CONTENT)
    checksum, finished = sha256_file(whole), time.time() - 60.0
    for i in range(items):
        output = folder / f"item{i:06}.h5"
        output.write_bytes(CONTENT)
        os.utime(output, (finished, finished))
        status = output.stat()
        known = {"sha256": checksum, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "inputs": INPUTS}
        leases.sidecar_path(output).write_text(json.dumps(known))
    return [task(folder, i) for i in range(items)]


def task(folder: Path, i: int) -> Task:
    output = folder / f"item{i:06}.h5"

    def work() -> str:
        write_bytes(output, CONTENT)
        return ""

    return Task(output.stem, output, lambda: INPUTS, work)


def skip_all(tasks: list[Task]) -> None:
    assert {outcome.status for outcome in run_batch("state", tasks)} == {"skipped"}


def hash_all(tasks: list[Task]) -> None:
    """The plain side: an output is done when its bytes have the recorded checksum."""
    for each in tasks:
        known: Mapping[str, Any] = leases.read_sidecar(each.output)
        assert known["inputs"] == INPUTS
        assert known["sha256"] == sha256_file(each.output)


def far_away(tasks: list[Task], readers: int) -> float:
    """Return the seconds with a wait before each request for a file."""
    read, exists, stat = leases.read_sidecar, Path.exists, Path.stat

    def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            time.sleep(LATENCY_S)
            return function(*arguments, **named)

        return call

    known = batch._READERS
    try:
        leases.read_sidecar, Path.exists, Path.stat = slowly(read), slowly(exists), slowly(stat)  # type: ignore[method-assign]
        batch._READERS = readers
        return seconds(lambda: skip_all(tasks))
    finally:
        leases.read_sidecar, Path.exists, Path.stat = read, exists, stat  # type: ignore[method-assign]
        batch._READERS = known


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    items = 5_000 if arguments.quick else arguments.items
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = make(folder, items)
        skip_all(tasks[:100])
        ours, plain = seconds(lambda: skip_all(tasks)), seconds(lambda: hash_all(tasks))
        mb = items * len(CONTENT) / 1e6
        line("listing", items=items, seconds=ours, plain_seconds=plain, ratio=plain / ours, plain_reads_mb=mb)
        few = tasks[: max(200, items // 50)]
        one, several = far_away(few, 1), far_away(few, batch._READERS)
        line(
            "listing, a millisecond a request",
            items=len(few),
            seconds=several,
            one_reader_seconds=one,
            ratio=one / several,
            seconds_for_all=several * items / len(few),
        )
        outcomes = [Outcome("state", each.item, "skipped", "already done") for each in tasks]
        report = seconds(lambda: write_batch_report(folder / "report.json", outcomes))
        line("report", items=items, seconds=report, mb=(folder / "report.json").stat().st_size / 1e6)
        for each in tasks[:: max(1, items // 100)][:100]:
            each.output.unlink()
        again = seconds(lambda: run_batch("state", tasks))
        line("a hundred new items", items=items, seconds=again, seconds_above_listing=again - ours)


if __name__ == "__main__":
    main()
