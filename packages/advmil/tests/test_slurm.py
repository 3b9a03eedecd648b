"""Job scripts with a stand-in for Python and for SLURM's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(tmp_path: Path, script: str, *arguments: str, status: int = 0, **variables: str):
    """Run a job script in a copy of its folder; return its exit code and the calls it made."""
    home = tmp_path / "package"
    home.mkdir(exist_ok=True)
    (home / "slurm").symlink_to(ROOT / "slurm")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, code in (("python", status), ("scontrol", 0)):
        (tools / name).write_text(
            f'#!/usr/bin/env bash\necho "{name} $*" >> "{tmp_path}/calls"\nexit {code}\n'
        )
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(home),
        "SLURM_JOB_ID": "17",
    }
    done = subprocess.run(
        ["bash", str(ROOT / "slurm" / script), *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    calls = tmp_path / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_a_run_stopped_by_the_time_limit_is_queued_again(tmp_path):
    done, calls = start(tmp_path, "train.sh", "--multi_run", status=75, CONFIG="c.yaml")
    assert done.returncode == 75
    assert calls == [
        "python main.py --config c.yaml --handler adv --resume --multi_run",
        "scontrol requeue 17",
    ]


def test_a_failed_run_is_not_queued_again(tmp_path):
    done, calls = start(tmp_path, "train.sh", status=1, CONFIG="c.yaml", HANDLER="base")
    assert done.returncode == 1
    assert calls == ["python main.py --config c.yaml --handler base --resume"]


@pytest.mark.parametrize("finished", [1, 2])
def test_the_last_fold_averages_them_all(finished, tmp_path):
    for k in range(finished):
        folder = tmp_path / "package" / f"out-data_split_seed_{k}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
    variables = {"CONFIG": "c.yaml", "OUTPUT": "out", "FOLDS": "2", "SLURM_ARRAY_TASK_ID": "1"}
    done, calls = start(tmp_path, "folds_array.sh", **variables)
    assert done.returncode == 0, done.stderr
    train = "python main.py --config c.yaml --handler adv --resume --set data_split_seed=1 --output out-data_split_seed_1"
    evaluate = "python -m advmil.cli evaluate out-data_split_seed_0 out-data_split_seed_1 --output out"
    assert calls == [train, evaluate][:finished]


def test_prepare_takes_its_share(tmp_path):
    variables = {"SLIDES": "in", "OUTPUT": "out", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MAX": "8"}
    done, calls = start(tmp_path, "prepare_array.sh", "--half", **variables)
    assert done.returncode == 0, done.stderr
    assert calls == ["python -m advmil.cli prepare in --output out --shard 2/8 --half"]


@pytest.mark.parametrize("script", ["train.sh", "folds_array.sh", "prepare_array.sh"])
def test_a_missing_variable_is_named(script, tmp_path):
    done, calls = start(tmp_path, script)
    assert done.returncode != 0
    assert "set CONFIG" in done.stderr or "set SLIDES" in done.stderr
    assert calls == []
