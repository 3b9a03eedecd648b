"""The launcher on a real cluster, with a worker whose state is a number in a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medshared.launch_records import task_states

pytestmark = pytest.mark.slurm
# Counts to a number of tenths of a second; saves where it is when it is told to stop, or always.
WORKER = """\
import sys, time
from pathlib import Path
from medshared.files import write_text
from medshared.process import StopSignal
file, end, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with StopSignal() as stop:
    at = int(file.read_text()) if file.exists() else 0
    while at < end:
        time.sleep(0.1)
        at += 1
        if how == "deaf":
            write_text(file, str(at))
        elif stop.requested:
            write_text(file, str(at))
            sys.exit(75)
write_text(file, f"{at} done")
"""


LIMIT = {"TIME": 1, "WARNING": 20}  # SLURM warns after 10 to 40 s
OBEYS, DEAF = 450, 600  # tenths of a second: longer than until the warning, longer than the limit


def at_home(slurm_testing, folder: Path):
    (folder / "package").mkdir()
    (folder / "package" / "worker.py").write_text(WORKER)
    (folder / "package" / "job.sh").write_text(
        f'#!/bin/bash\ncd "$SLURM_SUBMIT_DIR"\nexec {sys.executable} -m medshared.launch "$@"\n'
    )
    return slurm_testing.SlurmUser(folder / "home", folder / "package")


@pytest.fixture
def user(slurm_testing, tmp_path):
    return at_home(slurm_testing, tmp_path)


@pytest.fixture(scope="module", autouse=True)
def limited(slurm_testing, tmp_path_factory):
    """Runs that reach a limit of a minute while the other tests go on: the user, and the jobs by name."""
    user = at_home(slurm_testing, tmp_path_factory.mktemp("limited"))

    def submit(name: str, tenths: int, *flags: str, **variables: int) -> str:
        work = ["--", "worker.py", f"{name}.txt", tenths, name]
        (job,) = user.submit("job.sh", "--name", name, *flags, *work, **LIMIT, **variables)
        return job

    return user, {
        "obeys": submit("obeys", OBEYS),
        "deaf": submit("deaf", DEAF),
        "pair": submit("pair", OBEYS, "--distributed", TASKS=2),
    }


def test_one_task_of_an_array_is_queued_again_and_the_collecting_job_waits_for_it(user, tmp_path):
    work = ["--", "worker.py", "{item}.txt", "40", "obeys"]
    text = "import pathlib, sys; print(*(pathlib.Path(p).read_text() for p in sys.argv[1:]), sep=',')"
    collect = ["--collect", "-c", text, "{item}.txt"]
    array, collecting = user.submit("job.sh", "--name", "three", "--items", "a", "b", "c", *collect, *work)
    task = f"{array}_2"
    user.wait_for(lambda: user.states(array).get(task) == "RUNNING", user.logs)
    user.wait_for(lambda: "2" in user.records("three", array), user.logs)
    user.warn(task)
    states = user.wait(array, collecting)
    assert set(states.values()) == {"COMPLETED"}, user.logs()
    starts = {name: len(record["starts"]) for name, record in user.records("three", array).items()}
    assert starts == {"0": 1, "1": 1, "2": 2, "collect": 1}
    told = (user.home / f"slurm_LOG/three-collect_{collecting}.out").read_text()
    assert told == "40 done,40 done,40 done\n"


def test_what_was_killed_failed_or_cancelled_is_named(user, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", user.variables["SLURM_CONF"])
    work = ["--", "worker.py", "{item}.txt", "30", "obeys"]
    (user.home / "b.txt").write_text("no number")
    collect = ["--collect", "-c", "raise SystemExit('never')"]
    array, collecting = user.submit(
        "job.sh", "--name", "four", "--items", "a", "b", "c", "d", *collect, *work
    )
    user.wait_for(lambda: {"2", "3"} <= set(user.records("four", array)), user.logs)
    user.command("scancel", "--signal=KILL", "--batch", f"{array}_2")
    user.command("scancel", f"{array}_3")
    states = user.wait(array, collecting)
    assert states[f"{array}_0"] == "COMPLETED"
    assert states[f"{array}_3"] == "CANCELLED"
    assert states[collecting] == "FAILED"
    told = (user.home / f"slurm_LOG/four-collect_{collecting}.err").read_text()
    logs = Path(user.home, "slurm_LOG")
    for task, words in (
        ("1", "failed with exit code 1"),
        ("2", "was killed or never ended"),
        ("3", "stopped"),
    ):
        assert f"task {task}: {words}" in told, told
        assert str(logs / f"four_{array}_{task}.err") in told
    assert "3 of 4 tasks" in told
    found = {state.task: state.state for state in task_states(logs / f"four-{array}")}
    assert [found[task] for task in "0123"] == ["done", "failed", "killed", "stopped"]


def test_a_job_that_the_user_submits_by_hand_runs_its_task(user):
    """``sbatch --array=0-1 job.sh …`` with options of one's own."""
    call = ["sbatch", "--parsable", "--array=0-1", "--mem=100M", f"--chdir={user.home}"]
    log = f"--output={user.home}/slurm_LOG/%A_%a.log"
    (user.home / "slurm_LOG").mkdir()
    job = [
        str(user.package / "job.sh"),
        "--name",
        "own",
        "--items",
        "a",
        "b",
        "--",
        "worker.py",
        "{item}.txt",
        "1",
        "obeys",
    ]
    array = user.command(*call, log, *job).strip()
    assert set(user.wait(array).values()) == {"COMPLETED"}, user.logs()
    assert [(user.home / f"{item}.txt").read_text() for item in "ab"] == ["1 done"] * 2


def test_runs_that_reach_the_time_limit_go_on(limited):
    """One saves its state, one is killed in time, one are two processes that srun started and tells to save."""
    user, jobs = limited
    states = user.wait(*jobs.values())
    assert set(states.values()) == {"COMPLETED"}, user.logs()
    # The first of a pair that ends may cost the other its life.
    for name, expected in (("obeys", {75}), ("deaf", {137}), ("pair", {75, 137, 143})):
        codes = user.codes(name, jobs[name])
        assert codes[-1] == 0
        assert len(codes) > 1
        assert set(codes[:-1]) <= expected, name
        assert (user.home / f"{name}.txt").read_text() == f"{DEAF if name == 'deaf' else OBEYS} done"
    command = user.records("pair", jobs["pair"])["0"]["command"]
    assert command[:3] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=1"]
