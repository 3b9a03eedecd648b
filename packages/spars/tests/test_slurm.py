"""Job scripts with a stand-in for Python and for SLURM's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from spars.presets import FAMILIES

ROOT = Path(__file__).parents[1]


def prepare(tmp_path: Path, python: str) -> dict[str, str]:
    """Make a copy of the package's folder and stand-ins; return the environment of a job."""
    home, tools = tmp_path / "package", tmp_path / "bin"
    home.mkdir()
    (home / "slurm").symlink_to(ROOT / "slurm")
    tools.mkdir()
    for name, code in (("python", python), ("scontrol", "exit 0")):
        (tools / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "{tmp_path}/calls"\n{code}\n')
        (tools / name).chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(home),
        "SLURM_JOB_ID": "17",
    }


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "calls"
    return file.read_text().splitlines() if file.exists() else []


def start(tmp_path: Path, script: str, *arguments: str, status: int = 0, **variables: str):
    """Run a job script; return its exit code and the calls it made."""
    environment = prepare(tmp_path, f"exit {status}")
    done = subprocess.run(
        ["bash", str(ROOT / "slurm" / script), *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, calls(tmp_path)


TRAIN = {"CONFIG": "c.yaml", "OUTPUT": "runs/a"}


@pytest.mark.parametrize(("status", "again"), [(75, True), (138, True), (1, False), (0, False)])
def test_only_a_run_stopped_by_the_time_limit_is_queued_again(tmp_path, status, again):
    done, made = start(tmp_path, "train.sh", "--data_dir", "d", status=status, **TRAIN)
    assert done.returncode == status
    command = "python best_RL.py --config c.yaml --output runs/a --resume --data_dir d"
    assert made == [command, *(["scontrol requeue 17"] if again else [])]


def test_outside_slurm_nothing_is_queued(tmp_path):
    done, made = start(tmp_path, "train.sh", status=75, SLURM_JOB_ID="", **TRAIN)
    assert done.returncode == 75
    assert len(made) == 1


def test_another_script_may_be_run(tmp_path):
    _, made = start(tmp_path, "train.sh", SCRIPT="net_global.py", **TRAIN)
    assert made == ["python net_global.py --config c.yaml --output runs/a --resume"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("index", [0, 4])
def test_a_job_of_an_experiment_takes_its_script(tmp_path, family, index):
    variables = {"FAMILY": family, "OUTPUT": "out", "SLURM_ARRAY_TASK_ID": str(index)}
    done, made = start(tmp_path, "ablate_array.sh", "--data_dir", "d", **variables)
    assert done.returncode == 0, done.stderr
    flags = "--config config/ablation.yaml --output out --resume --data_dir d"
    name = FAMILIES[family][index]
    assert made == [f"python -m spars.cli ablate --family {family} --only {name} {flags}"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_ARRAY_TASK_ID": "5"}, "must be 0 to 4"),
        ({"FAMILY": "size"}, "FAMILY must be"),
        ({}, "as an array"),
    ],
)
def test_a_job_outside_the_experiment_is_refused(tmp_path, variables, message):
    needed = {"FAMILY": "window", "OUTPUT": "out"}
    if "FAMILY" in variables:
        needed["SLURM_ARRAY_TASK_ID"] = "0"
    done, made = start(tmp_path, "ablate_array.sh", **needed | variables)
    assert done.returncode != 0
    assert message in done.stderr
    assert made == []


def test_prediction(tmp_path):
    done, made = start(tmp_path, "predict.sh", "--overwrite", AGENT="a", IMAGES="in", OUTPUT="out")
    assert done.returncode == 0, done.stderr
    assert made == ["python -m spars.cli predict in --agent a --output out --overwrite"]


MISSING = {
    "train.sh": "set CONFIG to a configuration file",
    "ablate_array.sh": "set FAMILY to classifier, threshold or window",
    "predict.sh": "set AGENT to the run directory",
}


@pytest.mark.parametrize("script", MISSING)
def test_a_missing_variable_is_named(script, tmp_path):
    done, made = start(tmp_path, script)
    assert done.returncode != 0
    assert MISSING[script] in done.stderr
    assert made == []


def test_the_warning_reaches_the_run_and_the_job_waits_for_it(tmp_path):
    worker = (
        f"trap 'echo saved >> \"{tmp_path}/calls\"; exit 75' USR1\n"
        f"touch '{tmp_path}/ready'\nwhile true; do sleep 0.05; done"
    )
    environment = prepare(tmp_path, worker) | TRAIN
    with subprocess.Popen(
        ["bash", str(ROOT / "slurm" / "train.sh")], env=environment, stdout=subprocess.DEVNULL
    ) as job:
        deadline = time.monotonic() + 30
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(30) == 75
    assert calls(tmp_path)[1:] == ["saved", "scontrol requeue 17"]
