"""Items of a step: done once, by one job, whatever goes wrong with others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medshared.batch import (
    EmptyResultError,
    NotYetError,
    Outcome,
    Task,
    attempt,
    run_batch,
    write_batch_report,
)
from medshared.files import atomic_open, remove_remains, write_text
from medshared.leases import Shard, acquire_lease, sidecar_path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Task]:
    """Return a task that writes its name; a ``fault`` is raised instead."""

    def task(name: str, fault: BaseException | None = None, **changes: Any) -> Task:
        output = tmp_path / f"{name}.txt"

        def work() -> str:
            if fault is not None:
                raise fault
            write_text(output, name)
            return "made"

        return Task(**({"item": name, "output": output, "inputs": lambda: {"a": 1}, "work": work} | changes))

    return task


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_bad_item_stops_nothing(make, jobs, caplog):
    faults = [
        None,
        ValueError("bad"),
        TypeError("a mistake"),
        EmptyResultError("blank"),
        NotYetError("wait"),
        None,
    ]
    outcomes = run_batch("step", [make(f"t{i}", fault) for i, fault in enumerate(faults)], jobs=jobs)
    assert statuses(outcomes) == ["done", "failed", "failed", "empty", "busy", "done"]
    assert [outcome.message for outcome in outcomes][:3] == ["made", "bad", "a mistake"]
    assert "Traceback" not in next(r.exc_text or "" for r in caplog.records if "bad" in r.message)
    assert any("a mistake" in (record.exc_text or "") for record in caplog.records)  # with its traceback


def test_unreadable_inputs_concern_their_item_only(make):
    def missing() -> dict[str, Any]:
        raise FileNotFoundError("no such slide")

    outcomes = run_batch("step", [make("a", inputs=missing), make("b")])
    assert statuses(outcomes) == ["failed", "done"]


def test_ctrl_c_goes_through(make):
    with pytest.raises(KeyboardInterrupt):
        run_batch("step", [make("a", KeyboardInterrupt())])


def test_done_again_only_when_something_changed(make, tmp_path: Path):
    assert statuses(run_batch("step", [make("a")])) == ["done"]
    assert statuses(run_batch("step", [make("a")])) == ["skipped"]
    assert statuses(run_batch("step", [make("a")], again=True)) == ["done"]
    (tmp_path / "a.txt").write_text("tampered")
    assert statuses(run_batch("step", [make("a")])) == ["done"]
    assert (tmp_path / "a.txt").read_text() == "a"
    assert statuses(run_batch("step", [make("a", inputs=lambda: {"a": 2})])) == ["done"]


def test_files_beside_must_be_whole(make, tmp_path: Path):
    beside = tmp_path / "a.h5"
    output = tmp_path / "a.txt"

    def work() -> str:
        write_text(beside, "b")
        write_text(output, "a")
        return ""

    task = make("a", work=work, beside=(beside,))
    assert attempt("step", task).status == "done"
    assert attempt("step", task).status == "skipped"
    beside.write_text("cut")
    assert attempt("step", task).status == "done"
    assert beside.read_text() == "b"


def test_edited_outputs_are_kept_until_their_inputs_change(make, tmp_path: Path):
    task = make("a", keep_edited=lambda: True)
    attempt("step", task)
    (tmp_path / "a.txt").write_text("by hand")
    assert attempt("step", task).status == "skipped"
    assert attempt("step", make("a", keep_edited=lambda: False)).status == "done"
    (tmp_path / "a.txt").write_text("by hand")
    assert attempt("step", make("a", keep_edited=lambda: True, inputs=lambda: {"a": 2})).status == "done"


def test_outputs_of_other_tools(make, tmp_path: Path):
    (tmp_path / "a.txt").write_text("from elsewhere")
    assert attempt("step", make("a"), accept_existing=True).status == "skipped"
    assert attempt("step", make("a")).status == "done"
    (tmp_path / "a.txt").write_text("cut off")
    assert attempt("step", make("a"), accept_existing=True).status == "done"  # its checksum tells


def test_shards_cover_everything_once(make):
    tasks = [make(f"t{i}") for i in range(7)]
    parts = [run_batch("step", tasks, shard=Shard(i, 3)) for i in range(3)]
    items = [outcome.item for part in parts for outcome in part]
    assert sorted(items) == [task.item for task in tasks]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_item_held_by_another_job_is_left_to_it(make, tmp_path: Path):
    with acquire_lease(tmp_path / ".a.txt.lock"):
        assert attempt("step", make("a")).status == "busy"
    assert attempt("step", make("a")).status == "done"
    assert not (tmp_path / ".a.txt.lock").exists()


KILLED = """
import sys, time
from pathlib import Path
from medshared.batch import Task, attempt
from medshared.files import atomic_open
output = Path(sys.argv[1])
def work():
    with atomic_open(output) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
attempt("step", Task("a", output, dict, work))
"""


def test_a_killed_job_leaves_nothing_half_written(tmp_path: Path):
    """kill -9 in the middle of writing: no output, a dead lock that is taken over, and no remains afterwards."""
    output = tmp_path / "a.txt"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(output)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert not output.exists()
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock", ".tmp"}

    def work() -> str:
        write_text(output, "whole")
        return ""

    assert attempt("step", Task("a", output, dict, work)).status == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.done.json"]


def test_a_job_that_inherits_an_item_clears_every_folder_it_writes_into(tmp_path: Path):
    """The other job was killed after this one had looked into the folder."""
    further = tmp_path / "patches"

    def work(output: Path) -> str:
        write_text(further / f"{output.stem}.txt", "whole")
        write_text(output, "whole")
        return ""

    def task(name: str) -> Task:
        return Task(name, tmp_path / f"{name}.json", dict, partial(work, tmp_path / f"{name}.json"))

    assert attempt("step", task("a")).status == "done"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BESIDE, str(tmp_path)], capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    assert [path.suffix for path in further.iterdir() if path.name.startswith(".")] == [".tmp"]
    assert attempt("step", task("b")).status == "done"
    assert sorted(path.name for path in further.iterdir()) == ["a.txt", "b.txt"]


KILLED_BESIDE = """
import os, signal, sys
from pathlib import Path
from medshared.batch import Task, attempt
from medshared.files import atomic_open
output = Path(sys.argv[1]) / "b.json"
def work():
    with atomic_open(output.parent / "patches" / "b.txt", "w") as handle:
        handle.write("half")
        handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
attempt("step", Task("b", output, dict, work))
"""
TOGETHER = """
import sys, time
from pathlib import Path
from medshared.batch import Task, run_batch
from medshared.files import atomic_open, remove_remains, write_text
folder, name = Path(sys.argv[1]), sys.argv[2]
def task(i):
    output = folder / f"{i}.txt"
    def work():
        (folder / f"{i}-by-{name}.log").touch()
        time.sleep(0.02)
        write_text(output, name)
        return ""
    return Task(str(i), output, dict, work)
(folder / f"{name}.ready").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
for o in run_batch("step", [task(i) for i in range(12)]):
    print(o.status)
"""


def test_two_jobs_never_do_an_item_twice(tmp_path: Path):
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(tmp_path), name], stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.ready"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "go").touch()
    said = [job.communicate(timeout=60)[0].split() for job in jobs]
    assert all(job.returncode == 0 for job in jobs)
    assert len(list(tmp_path.glob("*-by-*.log"))) == 12
    assert said[0].count("done") + said[1].count("done") == 12
    assert set(said[0] + said[1]) <= {"done", "busy", "skipped"}


def test_what_another_job_held_is_tried_once_more(tmp_path: Path):
    """The other job dies or ends while this one does the rest: its items are not left for a later run."""
    outputs = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"]
    held, busy = ExitStack(), ExitStack()
    held.enter_context(acquire_lease(tmp_path / ".a.txt.lock"))
    busy.enter_context(acquire_lease(tmp_path / ".b.txt.lock"))

    def work(output: Path) -> str:
        write_text(output, "whole")
        if output == outputs[2]:
            held.close()
        return ""

    outcomes = run_batch("step", [Task(o.stem, o, dict, partial(work, o)) for o in outputs])
    assert [(o.item, o.status) for o in outcomes] == [("a", "done"), ("b", "busy"), ("c", "done")]
    busy.close()


def test_remains_of_a_long_name_are_found(tmp_path: Path):
    output = tmp_path / ("x[1]" * 40)
    with atomic_open(output) as handle:
        name = Path(handle.name).name
    output.unlink()
    (tmp_path / name).touch()
    (tmp_path / name.replace("[1]", "1")).touch()
    assert [path.name for path in remove_remains(output)] == [name]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "names", [("a", "a.npz"), ("x" * 150 + "1", "x" * 150 + "2"), ("腫" * 79 + "1", "腫" * 79 + "2")]
)
def test_remains_of_one_file_are_not_taken_for_those_of_another(names, tmp_path: Path):
    """Another job may be writing the other one."""
    mine, other = (tmp_path / name for name in names)
    with atomic_open(sidecar_path(mine)) as handle:
        remains = Path(handle.name).name
    (tmp_path / remains).touch()
    with atomic_open(other) as handle:
        handle.write(b"whole")
        assert [path.name for path in remove_remains(mine)] == [remains]
    assert other.read_bytes() == b"whole"


def test_what_a_launch_made_anew_is_not_made_once_more(make, monkeypatch):
    """A task that was queued again goes on, and the job that collects finds all done."""
    assert statuses(run_batch("step", [make("a")])) == ["done"]
    for launch in ("predict-7", "predict-8"):
        monkeypatch.setenv("MEDSHARED_LAUNCH", launch)
        assert statuses(run_batch("step", [make("a")], again=True)) == ["done"]
        assert statuses(run_batch("step", [make("a")], again=True)) == ["skipped"]
        assert statuses(run_batch("step", [make("a", inputs=lambda: {"a": 2})], again=True)) == ["done"]
        assert statuses(run_batch("step", [make("a")])) == ["done"]
    monkeypatch.delenv("MEDSHARED_LAUNCH")
    assert statuses(run_batch("step", [make("a")], again=True)) == ["done"]


def test_report(tmp_path: Path, caplog):
    outcomes = [Outcome("a", "x", "done"), Outcome("a", "y", "failed", "broken"), Outcome("b", "x", "empty")]
    assert write_batch_report(tmp_path / "r.json", outcomes) == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"] == {"a": {"done": 1, "failed": 1}, "b": {"empty": 1}}
    assert [entry["item"] for entry in report["failed"]] == ["y"]
    assert "failed: a y: broken" in caplog.text
    assert write_batch_report(tmp_path / "r.json", outcomes[:1]) == 0


@pytest.mark.parametrize(("shard", "code"), [(None, 75), (Shard(0, 1), 75), (Shard(0, 2), 0)])
def test_a_job_over_all_items_says_that_another_one_holds_some(shard, code, tmp_path: Path, caplog):
    """The table that it wrote lacks them; a job of a shard is followed by one that collects."""
    outcomes = [Outcome("a", "x", "done"), Outcome("a", "y", "busy", "another job works on it")]
    assert write_batch_report(tmp_path / "r.json", outcomes, shard) == code
    assert ("run the same again" in caplog.text) == (code == 75)
