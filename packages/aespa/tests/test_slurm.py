"""Job scripts with a stand-in for Python and for SLURM's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

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
    done, made = start(tmp_path, "train.sh", "-b", "4", status=status, **TRAIN)
    assert done.returncode == status
    command = "python train.py -config c.yaml -output runs/a -resume -b 4"
    assert made == [command, *(["scontrol requeue 17"] if again else [])]


def test_outside_slurm_nothing_is_queued(tmp_path):
    done, made = start(tmp_path, "train.sh", status=75, SLURM_JOB_ID="", **TRAIN)
    assert done.returncode == 75
    assert len(made) == 1


def test_evaluation(tmp_path):
    variables = {"CONFIG": "c.yaml", "CHECKPOINT": "best.pt", "OUTPUT": "out"}
    done, made = start(tmp_path, "evaluate.sh", "-data_path", "d", **variables)
    assert done.returncode == 0, done.stderr
    assert made == ["python val.py -config c.yaml -weights best.pt -output out -data_path d"]


def test_prediction_takes_its_share(tmp_path):
    variables = {"CHECKPOINT": "best.pt", "IMAGES": "in", "OUTPUT": "out"}
    variables |= {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MAX": "8"}
    done, made = start(tmp_path, "predict_array.sh", "-npy", **variables)
    assert done.returncode == 0, done.stderr
    assert made == ["python predict.py in -weights best.pt -output out -shard 2/8 -npy"]


def test_preparation_takes_its_share(tmp_path):
    variables = {"VOLUMES": "in", "OUTPUT": "out", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "4"}
    done, made = start(tmp_path, "prepare_array.sh", "-jobs", "4", **variables)
    assert done.returncode == 0, done.stderr
    assert made == ["python process_mbhseg.py -in in -out out -shard 1/4 -jobs 4"]


def test_an_experiment_a_job(tmp_path):
    done, made = start(tmp_path, "experiments_array.sh", "-data", "d", GROUP="main", SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 0, done.stderr
    assert made == ["python -m aespa.cli experiments main -only 3 -data d"]


MISSING = {
    "train.sh": "set CONFIG to a configuration file",
    "evaluate.sh": "set CONFIG to the configuration",
    "predict_array.sh": "set CHECKPOINT to the trained network",
    "prepare_array.sh": "set VOLUMES to the folder",
    "experiments_array.sh": "set GROUP to main, ablations or all",
}


@pytest.mark.parametrize("script", MISSING)
def test_a_missing_variable_is_named(script, tmp_path):
    done, made = start(tmp_path, script)
    assert done.returncode != 0
    assert MISSING[script] in done.stderr
    assert made == []


def test_a_job_without_an_array_is_told_how(tmp_path):
    done, made = start(tmp_path, "experiments_array.sh", GROUP="all")
    assert done.returncode != 0
    assert "submit as an array" in done.stderr
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
