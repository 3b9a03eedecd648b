"""The launcher with stand-ins for SLURM's commands; on a real cluster, tests/test_launch_cluster.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medshared.launch import main
from medshared.launch_records import describe, task_states

SUBMITTING = {"PARTITION": "gpu", "ACCOUNT": "", "TIME": "24:00:00"}
# Notes its arguments and what it reads, and answers with a number as sbatch --parsable does.
NOTING = '#!/bin/sh\necho "NAME $*" >> "$CALLS"\n'
SBATCH = NOTING + '/bin/cat >> "$CALLS.scripts"\necho 17\n'
SRUN = NOTING + 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return how to put stand-ins on PATH; all that SLURM and a user may have set is gone, the folder is empty."""
    tools = tmp_path / "bin"
    tools.mkdir()
    names = (
        "GPUS",
        "CPUS",
        "MEMORY",
        "NODES",
        "TASKS",
        "WARNING",
        "MAX_TASKS",
        "MAX_REQUEUES",
        "SUBMIT",
        "DRY_RUN",
    )
    for name in [*os.environ]:
        if name.startswith(("SLURM", "SBATCH")) or name in (*names, *SUBMITTING, "OMP_NUM_THREADS", "PYTHON"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    home = tmp_path / "package"
    home.mkdir()
    monkeypatch.chdir(home)

    def install(name: str, text: str = NOTING) -> None:
        (tools / name).write_text(text.replace("NAME", name))
        (tools / name).chmod(0o755)

    return install


@pytest.fixture
def calls(tmp_path):
    """Return the calls that stand-ins noted."""

    def read() -> list[str]:
        file = tmp_path / "calls"
        return file.read_text().splitlines() if file.exists() else []

    return read


@pytest.fixture
def job(machine, monkeypatch):
    """Make this process a job of SLURM."""
    machine("scontrol")
    monkeypatch.setenv("SLURM_JOB_ID", "17")

    def array(index: int, count: int, number: str = "16") -> None:
        for name, value in (("JOB_ID", number), ("TASK_ID", index), ("TASK_MAX", count - 1)):
            monkeypatch.setenv(f"SLURM_ARRAY_{name}", str(value))

    return array


def python(code: str) -> list[str]:
    return ["--", "-c", code]


def records(folder: str) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in Path("slurm_LOG", folder).glob("*.json")}


# ---------------------------------------------------------------------- submitting


def test_everything_that_is_missing_is_named_at_once(machine, calls, capsys):
    machine("sbatch", SBATCH)
    assert main(["--name", "fold", "--", "main.py"]) == 2
    told = capsys.readouterr().err
    assert all(f"set {name} to" in told for name in SUBMITTING)
    assert calls() == []
    assert not Path("slurm_LOG").exists()


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({"GPUS": "two"}, [], "GPUS: expected a whole number from 0 on, found 'two'"),
        ({"TIME": ""}, [], "set TIME to"),
        ({"TIME": "2"}, [], "TIME: 2 is no longer than the warning before its end, WARNING=120 seconds"),
        ({"TIME": "0:01:00", "WARNING": "60"}, [], "WARNING=60"),
        ({"TASKS": "2"}, [], "fold runs as one process"),
        ({"MAX_TASKS": "0"}, ["--array", "2"], "MAX_TASKS: expected a whole number from 1 on"),
        ({"SUBMIT": "maybe"}, [], "SUBMIT: expected yes, no or nothing"),
    ],
)
def test_what_does_not_fit_is_refused(variables, arguments, message, machine, calls, monkeypatch, capsys):
    machine("sbatch", SBATCH)
    for name, value in (SUBMITTING | variables).items():
        monkeypatch.setenv(name, value)
    assert main(["--name", "fold", *arguments, "--", "main.py"]) == 2
    assert message in capsys.readouterr().err
    assert calls() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "fold"], "no command"),
        (["--name", "fold", "--collect", "x.py", "--", "main.py"], "--collect belongs to an array"),
        (
            ["--name", "fold", "--array", "2", "--collect", "x.py", "--", "a", "--", "main.py", "--", "a"],
            "an argument -- cannot be told",
        ),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(arguments, message, machine, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_job_is_submitted_with_what_it_needs_to_survive_its_limit(
    machine, calls, tmp_path, monkeypatch, capsys
):
    machine("sbatch", SBATCH)
    given = SUBMITTING | {"GPUS": "2", "MEMORY": "10G", "SBATCH_EXTRA": "--qos='my own'"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["--name", "fold", "--gpus", "1", "--distributed", "--", "main.py", "--set", "a b"]) == 0
    assert capsys.readouterr().out == "17\n"
    logs = Path("slurm_LOG").resolve()
    assert calls() == [
        "sbatch --parsable --job-name=fold --partition=gpu --time=24:00:00 --nodes=1 --ntasks-per-node=2 --cpus-per-task=8 "
        f"--mem=10G --gres=gpu:2 --signal=B:USR1@120 --requeue --open-mode=append --chdir={Path.cwd()} --qos=my own "
        f"--output={logs}/%x_%j.out --error={logs}/%x_%j.err"
    ]
    script = (tmp_path / "calls.scripts").read_text().splitlines()
    again = "-m medshared.launch --in-job --name fold --gpus 1 --distributed -- main.py --set 'a b'"
    assert script == ["#!/usr/bin/env bash", f"exec {sys.executable} {again}"]
    assert records("fold-17")["job"]["count"] == 1


def test_an_array_is_followed_by_its_collecting_job(machine, calls, tmp_path, monkeypatch, capsys):
    machine("sbatch", SBATCH)
    for name, value in (SUBMITTING | {"MAX_TASKS": "3", "ACCOUNT": "lab"}).items():
        monkeypatch.setenv(name, value)
    plan = [
        "--name",
        "fold",
        "--gpus",
        "1",
        "--array",
        "5",
        "--collect",
        "mean.py",
        "--",
        "main.py",
        "{index}",
    ]
    assert main(plan) == 0
    assert capsys.readouterr().out == "17\n17\n"
    array, collecting = calls()
    assert "--account=lab" in array
    assert " --array=0-4%3 " in array
    assert "--job-name=fold-collect" in collecting
    assert "--dependency=afterany:17 --kill-on-invalid-dep=no" in collecting
    assert "--gres" not in collecting
    assert "--array" not in collecting
    assert "--in-job --collecting 17 --name fold" in (tmp_path / "calls.scripts").read_text()


def test_a_job_that_does_the_leftovers_gets_what_the_tasks_get(machine, calls, monkeypatch):
    machine("sbatch", SBATCH)
    for name, value in SUBMITTING.items():
        monkeypatch.setenv(name, value)
    assert (
        main(["--name", "a", "--gpus", "1", "--array", "2", "--leftovers", "--collect", "b.py", "--", "b.py"])
        == 0
    )
    assert "--gres=gpu:1" in calls()[1]


def test_a_refusal_of_sbatch_is_told(machine, monkeypatch, capsys):
    machine("sbatch", '#!/bin/sh\necho "invalid partition specified" >&2\nexit 1\n')
    for name, value in SUBMITTING.items():
        monkeypatch.setenv(name, value)
    assert main(["--name", "fold", "--", "main.py"]) == 2
    assert "invalid partition specified" in capsys.readouterr().err


def test_a_dry_run_shows_the_commands_and_does_nothing(machine, monkeypatch, capsys):
    for name, value in (SUBMITTING | {"DRY_RUN": "1", "PYTHON": "python"}).items():
        monkeypatch.setenv(name, value)
    items = ["--items", "a b", "c", "--collect", "mean.py", "out-{item}", "all"]
    assert main(["--name", "fold", *items, "--", "main.py", "{item}", "{index}", "{number}/{count}"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:2]] == ["sbatch", "sbatch"]
    assert shown[2:] == [
        "python main.py 'a b' 0 1/2",
        "python main.py c 1 2/2",
        "python mean.py 'out-a b' out-c all",
    ]
    assert not Path("slurm_LOG").exists()


def test_records_of_an_earlier_job_of_that_number_are_forgotten(machine, monkeypatch):
    """A cluster that was set up anew counts from 1: what its first array never began is not done."""
    machine("sbatch", SBATCH)
    for name, value in SUBMITTING.items():
        monkeypatch.setenv(name, value)
    folder = Path("slurm_LOG/fold-17")
    folder.mkdir(parents=True)
    for task, age in (("0", 86400), ("1", 0)):
        file = folder / f"task-{task}.json"
        file.write_text(json.dumps({"task": task, "log": "", "state": "done", "starts": [{"exit_code": 0}]}))
        os.utime(file, (time.time() - age,) * 2)
    assert main(["--name", "fold", "--array", "2", "--", "main.py"]) == 0
    assert [state.state for state in task_states(folder)] == ["missing", "done"]


def test_a_command_keeps_its_own_flags_and_separators(machine, tmp_path, monkeypatch):
    machine("sbatch", SBATCH)
    for name, value in SUBMITTING.items():
        monkeypatch.setenv(name, value)
    assert main(["--name", "fold", "--", "main.py", "--dry-run", "", "--", "é b"]) == 0
    script = (tmp_path / "calls.scripts").read_text()
    assert script.endswith("--in-job --name fold -- main.py --dry-run '' -- 'é b'\n")


# ---------------------------------------------------------------------- inside a job


@pytest.mark.parametrize(("status", "state"), [(0, "done"), (3, "failed")])
def test_a_worker_that_ends_by_itself_is_not_queued_again(status, state, job, calls):
    assert main(["--name", "t", *python(f"raise SystemExit({status})")]) == status
    assert calls() == []
    found = records("t-17")["task-0"]
    assert (found["state"], [start["exit_code"] for start in found["starts"]]) == (state, [status])


@pytest.mark.parametrize("code", ["raise SystemExit(75)", "import os; os.kill(os.getpid(), 10)"])
def test_a_stopped_worker_is_queued_again(code, job, calls):
    assert main(["--name", "t", *python(code)]) == 75
    assert calls() == ["scontrol requeue 17"]
    assert records("t-17")["task-0"]["state"] == "requeued"


def test_a_killed_worker_is_not_queued_again(job, calls):
    """Out of memory it would be killed again and again."""
    assert main(["--name", "t", *python("import os; os.kill(os.getpid(), 9)")]) == 137
    assert calls() == []


def test_a_task_is_queued_again_without_the_rest_of_its_array(job, calls):
    """The number of an array is also that of one of its tasks."""
    job(2, 3, number="17")
    assert main(["--name", "t", "--array", "3", *python("raise SystemExit(75)")]) == 75
    assert calls() == ["scontrol requeue 17_2"]
    assert list(records("t-17")) == ["task-2"]


def test_there_is_an_end_to_queueing_again(job, calls, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "5")
    monkeypatch.setenv("MAX_REQUEUES", "5")
    assert main(["--name", "t", *python("raise SystemExit(75)")]) == 75
    assert calls() == []
    assert records("t-17")["task-0"]["state"] == "stopped"
    assert "MAX_REQUEUES=5 is reached" in capsys.readouterr().err


def test_a_cluster_that_does_not_queue_again_is_told(job, machine, capsys):
    machine("scontrol", '#!/bin/sh\necho "Requested operation is presently disabled" >&2\nexit 1\n')
    assert main(["--name", "t", *python("raise SystemExit(75)")]) == 75
    assert "presently disabled" in capsys.readouterr().err
    assert records("t-17")["task-0"]["state"] == "stopped"


def test_a_task_takes_its_item(job, tmp_path):
    job(1, 2)
    code = f"import sys; open({str(tmp_path / 'out')!r}, 'w').write(' '.join(sys.argv[1:]))"
    assert main(["--name", "t", "--items", "a", "b", "--", "-c", code, "{item}", "{number}/{count}"]) == 0
    assert (tmp_path / "out").read_text() == "b 2/2"


def test_collecting_that_waits_for_another_job_is_queued_again(job, calls):
    plan = ["--name", "t", "--array", "2", "--leftovers", "--collect", "-c", "raise SystemExit(75)"]
    assert main([*plan, *python("pass")]) == 75
    assert calls() == ["scontrol requeue 17"]
    assert records("t-17")["task-collect"]["state"] == "requeued"


def test_the_tasks_of_an_array_and_its_collecting_job_are_one_launch(job, tmp_path):
    note = f"import os; open({str(tmp_path / 'out')!r}, 'a').write(os.environ['MEDSHARED_LAUNCH'] + ' ')"
    job(1, 2)
    plan = ["--name", "t", "--array", "2", "--leftovers", "--collect", "-c", note, *python(note)]
    assert main(plan) == 0
    assert main(["--in-job", "--collecting", "16", *plan]) == 0
    assert (tmp_path / "out").read_text() == "t-16 t-16 "


def test_an_array_of_another_length_is_refused(job, capsys):
    job(1, 6)
    assert main(["--name", "t", "--array", "5", "--", "main.py"]) == 2
    assert "submit with --array=0-4" in capsys.readouterr().err


def test_a_job_that_is_no_array_does_all_in_turn(job, tmp_path):
    note = f"import sys; open({str(tmp_path / 'out')!r}, 'a').write(sys.argv[1])"
    assert (
        main(["--name", "t", "--array", "3", "--collect", "-c", note, "!", "--", "-c", note, "{index}"]) == 0
    )
    assert (tmp_path / "out").read_text() == "012!"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "None"),
        ({"SLURM_CPUS_PER_TASK": "4"}, "4"),
        ({"SLURM_CPUS_PER_TASK": "4", "OMP_NUM_THREADS": "3"}, "3"),
    ],
)
def test_a_worker_takes_the_cores_that_it_was_given(given, expected, job, tmp_path, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code = f"import os; open({str(tmp_path / 'out')!r}, 'w').write(str(os.environ.get('OMP_NUM_THREADS')))"
    assert main(["--name", "t", *python(code)]) == 0
    assert (tmp_path / "out").read_text() == expected


@pytest.mark.parametrize(
    ("distributed", "step", "expected"),
    [(True, "", ["srun --kill-on-bad-exit=1 --cpus-per-task=4"]), (True, "2", []), (False, "", [])],
)
def test_processes_that_train_together_are_started_by_srun(
    distributed, step, expected, job, machine, calls, monkeypatch
):
    machine("srun", SRUN)
    for name, value in (("NTASKS", "2"), ("CPUS_PER_TASK", "4"), ("STEP_NUM_TASKS", step)):
        monkeypatch.setenv(f"SLURM_{name}", value)
    flags = ["--distributed"] if distributed else []
    assert main(["--name", "t", *flags, *python("pass")]) == 0
    assert [call.partition(f" {sys.executable}")[0] for call in calls()] == expected


# ---------------------------------------------------------------------- signals

WAITING = """
import os, pathlib, signal, sys, time
def heard(number, frame):
    pathlib.Path('heard').write_text(signal.Signals(number).name)
    if sys.argv[1] == 'obeys':
        sys.exit(75)
for name in ('SIGUSR1', 'SIGTERM') if sys.argv[1] != 'begins' else ():
    signal.signal(getattr(signal, name), heard)
pathlib.Path('pid').write_text(str(os.getpid()))
pathlib.Path('ready').touch()
while True:
    time.sleep(0.02)
"""


def signalled(number: signal.Signals, how: str, **variables: str) -> int:
    """Send a signal to a launcher whose worker is ready; return its exit code."""
    command = [sys.executable, "-m", "medshared.launch", "--name", "t", "--", "-c", WAITING, how]
    with subprocess.Popen(command, env={**os.environ, **variables}) as process:
        deadline = time.monotonic() + 30
        while not Path("ready").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        return process.wait(30)


def test_the_warning_reaches_the_worker_and_the_job_is_queued_again(job, calls):
    assert signalled(signal.SIGUSR1, "obeys") == 75
    assert Path("heard").read_text() == "SIGUSR1"
    assert calls() == ["scontrol requeue 17"]


def test_a_worker_that_does_not_stop_is_killed_before_the_limit(job, calls):
    """Its work so far is on the disk, and the job is queued again while there is time."""
    assert signalled(signal.SIGUSR1, "ignores", WARNING="2") == 75
    assert calls() == ["scontrol requeue 17"]
    assert records("t-17")["task-0"]["starts"][0]["exit_code"] == 137


@pytest.mark.parametrize(("by_srun", "state"), [(True, "requeued"), (False, "failed")])
def test_a_process_that_srun_killed_while_all_stopped_is_no_failure(
    by_srun, state, job, machine, calls, monkeypatch
):
    """With ``--kill-on-bad-exit`` the first process to end with 75 may cost the others their lives."""
    machine("srun", SRUN)
    code = "import os, signal; os.kill(os.getppid(), signal.SIGUSR1); signal.pause()"
    killed = f"import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(143)); {code}"
    monkeypatch.setenv("SLURM_NTASKS", "2" if by_srun else "1")
    assert main(["--name", "t", "--distributed", *python(killed)]) == (75 if by_srun else 143)
    assert records("t-17")["task-0"]["state"] == state
    assert ("scontrol requeue 17" in calls()) == by_srun


@pytest.mark.parametrize(("how", "heard", "code"), [("obeys", ["SIGTERM"], 75), ("begins", [], 143)])
def test_a_cancelled_job_stays_cancelled(how, heard, code, job, calls):
    assert signalled(signal.SIGTERM, how) == 75
    assert [file.read_text() for file in Path().glob("heard")] == heard
    assert calls() == []
    assert records("t-17")["task-0"]["starts"][0]["exit_code"] == code
    assert records("t-17")["task-0"]["state"] == "stopped"


@pytest.mark.skipif(sys.platform != "linux", reason="a feature of Linux")
def test_a_worker_does_not_outlive_a_killed_launcher(job):
    """The job is queued again, and two would write into one folder."""
    assert signalled(signal.SIGKILL, "ignores") == -signal.SIGKILL
    status = Path("/proc", Path("pid").read_text(), "status")
    deadline = time.monotonic() + 30
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone
        while "State:\tZ" not in status.read_text():
            assert time.monotonic() < deadline, "it goes on"
            time.sleep(0.01)


# ---------------------------------------------------------------------- collecting and status


def collecting(*flags: str) -> list[str]:
    note = "open('collected', 'w').write('all')"
    return [
        "--in-job",
        "--collecting",
        "16",
        "--name",
        "t",
        "--array",
        "3",
        *flags,
        "--collect",
        "-c",
        note,
        "--",
        "x.py",
    ]


@pytest.fixture
def array_of_three(job, monkeypatch):
    """Run tasks 0 and 1 of three; return how to run one."""

    def run(index: int, status: int = 0) -> None:
        with monkeypatch.context() as patched:
            for name, value in (("JOB_ID", "16"), ("TASK_ID", index), ("TASK_MAX", 2)):
                patched.setenv(f"SLURM_ARRAY_{name}", str(value))
            assert main(["--name", "t", "--array", "3", *python(f"raise SystemExit({status})")]) == status

    run(0)
    run(1)
    return run


def test_what_is_complete_is_collected(array_of_three):
    array_of_three(2)
    assert main(collecting()) == 0
    assert Path("collected").exists()
    assert [(state.task, state.state) for state in task_states(Path("slurm_LOG/t-16"))] == [
        *((str(index), "done") for index in range(3)), ("collect", "done"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", ["failed", "missing", "killed"])
def test_one_failing_task_does_not_hide(case, array_of_three, machine, capsys):
    if case != "missing":
        array_of_three(2, status=4)
    if case == "killed":  # the record of a task that began and could not say how it ended
        file = Path("slurm_LOG/t-16/task-2.json")
        content = json.loads(file.read_text())
        del content["starts"][0]["exit_code"]
        file.write_text(json.dumps({**content, "state": "running", "log": "slurm_LOG/t_16_2.err"}))
        machine("squeue", "#!/bin/sh\necho '17 RUNNING'\n")
    assert main(collecting()) == 1
    told = capsys.readouterr().err
    words = {
        "failed": "failed with exit code 4",
        "missing": "never began",
        "killed": "was killed or never ended",
    }
    assert f"task 2: {words[case]}" in told
    assert "1 of 3 tasks of job 16 are not done" in told
    assert not Path("collected").exists()
    assert main(["status", "slurm_LOG/t-16"]) == 1
    if case == "killed":
        assert "log: slurm_LOG/t_16_2.err" in told


def test_leftovers_are_done_and_the_failure_is_named_all_the_same(array_of_three, capsys):
    array_of_three(2, status=4)
    assert main(collecting("--leftovers")) == 0
    assert "task 2: failed with exit code 4" in capsys.readouterr().err
    assert Path("collected").exists()


def test_the_state_of_a_job_that_is_on_its_way(array_of_three, machine, capsys):
    describe(
        Path("slurm_LOG/t-16"),
        job="16",
        count=3,
        log="logs/t_16_%a.err",
        collecting_job="20",
        collect_log="c.err",
    )
    machine("squeue", '#!/bin/sh\ncase "$*" in *=16*) echo "16_2 PENDING" ;; *) echo "20 PENDING" ;; esac\n')
    capsys.readouterr()
    assert main(["status", "slurm_LOG/t-16"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["0", "done", "1"], ["1", "done", "1"], ["2", "waiting", "0"], ["collect", "waiting", "0"],
    ]  # fmt: skip
    assert rows[2][4] == "logs/t_16_2.err"


def test_a_folder_without_records_is_refused(machine, tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert "expected the records of a job" in capsys.readouterr().err


# ---------------------------------------------------------------------- without a cluster


def test_without_slurm_everything_runs_here_in_turn(machine, tmp_path):
    note = f"import sys; open({str(tmp_path / 'out')!r}, 'a').write(sys.argv[1])"
    assert (
        main(["--name", "t", "--array", "3", "--collect", "-c", note, "!", "--", "-c", note, "{index}"]) == 0
    )
    assert (tmp_path / "out").read_text() == "012!"
    assert not Path("slurm_LOG").exists()


@pytest.mark.parametrize(("leftovers", "expected", "status"), [(False, "02", 1), (True, "02!", 0)])
def test_a_failure_here_is_told_at_the_end(leftovers, expected, status, machine, tmp_path, capsys):
    note = f"import sys; sys.argv[1] == '1' and sys.exit(5); open({str(tmp_path / 'out')!r}, 'a').write(sys.argv[1])"
    flags = ["--leftovers"] if leftovers else []
    assert (
        main(
            ["--name", "t", "--array", "3", *flags, "--collect", "-c", note, "!", "--", "-c", note, "{index}"]
        )
        == status
    )
    assert (tmp_path / "out").read_text() == expected
    assert "task 1 failed with exit code 5" in capsys.readouterr().err


def test_a_single_command_here_keeps_its_exit_code(machine, monkeypatch):
    machine("sbatch", SBATCH)
    monkeypatch.setenv("SUBMIT", "no")
    assert main(["--name", "t", *python("raise SystemExit(75)")]) == 75


def test_several_processes_here_are_for_torchrun(machine, monkeypatch, capsys):
    monkeypatch.setenv("TASKS", "2")
    assert main(["--name", "t", "--distributed", *python("pass")]) == 2
    assert "torchrun" in capsys.readouterr().err


def test_the_launcher_is_light():
    code = "import sys, medshared.launch; print(sorted({'numpy', 'torch', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
