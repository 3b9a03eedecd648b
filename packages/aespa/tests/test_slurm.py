"""What the wrappers of slurm/ submit."""

from __future__ import annotations

from pathlib import Path

import pytest

from aespa.experiments import NAMES

SLURM = Path(__file__).parents[1] / "slurm"


def test_training(dry_run):
    lines, _ = dry_run(SLURM / "train.sh", "-b", "32", CONFIG="c.yaml", OUTPUT="o")
    assert lines[1:] == ["python train.py -config c.yaml -output o -resume -b 32"]


def test_evaluation(dry_run):
    variables = {"CONFIG": "c.yaml", "CHECKPOINT": "best.pt", "OUTPUT": "o"}
    lines, _ = dry_run(SLURM / "evaluate.sh", "-data_path", "d", **variables)
    assert lines[1:] == ["python val.py -config c.yaml -weights best.pt -output o -data_path d"]


def test_images(dry_run):
    variables = {"CHECKPOINT": "best.pt", "IMAGES": "in", "OUTPUT": "o", "SHARDS": "2"}
    lines, _ = dry_run(SLURM / "predict_array.sh", "-npy", **variables)
    predict = "python predict.py in -weights best.pt -output o"
    assert lines[2:] == [f"{predict} -shard 1/2 -npy", f"{predict} -shard 2/2 -npy", f"{predict} -npy"]


def test_volumes(dry_run):
    lines, _ = dry_run(SLURM / "prepare_array.sh", "-jobs", "4", VOLUMES="in", OUTPUT="o", SHARDS="2")
    prepare = "python process_mbhseg.py -in in -out o"
    assert lines[2:] == [
        f"{prepare} -shard 1/2 -jobs 4",
        f"{prepare} -shard 2/2 -jobs 4",
        f"{prepare} -jobs 4",
    ]
    assert "--gres" not in "".join(lines)


@pytest.mark.parametrize(("group", "runs"), [("main", 8), ("ablations", 12), ("all", 20)])
def test_an_experiment_a_task(group, runs, dry_run):
    lines, _ = dry_run(SLURM / "experiments_array.sh", "-data", "d", GROUP=group)
    command = f"python -m aespa.cli experiments {group}"
    assert lines[2:] == [*(f"{command} -only {k} -data d" for k in range(1, runs + 1)), f"{command} -data d"]
    assert {"main": 8, "ablations": 12, "all": len(NAMES)}[group] == runs


def test_another_group_is_refused(dry_run):
    lines, told = dry_run(SLURM / "experiments_array.sh", GROUP="some")
    assert lines == []
    assert "GROUP: expected main, ablations or all, found some" in told


MISSING = {
    "train.sh": "set CONFIG to a configuration file",
    "evaluate.sh": "set CONFIG to a configuration file",
    "predict_array.sh": "set CHECKPOINT to the trained network",
    "prepare_array.sh": "set VOLUMES to the folder",
    "experiments_array.sh": "set GROUP to main, ablations or all",
}


@pytest.mark.parametrize("script", [script.name for script in sorted(SLURM.glob("*.sh"))])
def test_a_missing_variable_is_named(script, dry_run):
    lines, told = dry_run(SLURM / script)
    assert lines == []
    assert MISSING[script] in told
