"""What the wrappers of slurm/ submit."""

from __future__ import annotations

from pathlib import Path

import pytest

from spars.presets import FAMILIES

SLURM = Path(__file__).parents[1] / "slurm"


def test_training(dry_run):
    lines, _ = dry_run(SLURM / "train.sh", "--data_dir", "d", CONFIG="c.yaml", OUTPUT="o")
    assert lines[1:] == ["python best_RL.py --config c.yaml --output o --resume --data_dir d"]
    lines, _ = dry_run(SLURM / "train.sh", SCRIPT="net_global.py", CONFIG="c.yaml", OUTPUT="o")
    assert lines[1:] == ["python net_global.py --config c.yaml --output o --resume"]


def test_several_processes_are_for_classifiers(dry_run):
    known = {"CONFIG": "c.yaml", "OUTPUT": "o", "TASKS": "2"}
    for script in ("net_global.py", "classifier_experiments/ex1_8in.py"):
        lines, _ = dry_run(SLURM / "train.sh", SCRIPT=script, **known)
        assert "--ntasks-per-node=2" in lines[0]
    lines, told = dry_run(SLURM / "train.sh", **known)
    assert lines == []
    assert "TASKS, NODES: spars-train runs as one process" in told


@pytest.mark.parametrize("family", FAMILIES)
def test_an_experiment_runs_all_its_scripts(dry_run, family):
    lines, _ = dry_run(SLURM / "ablate_array.sh", "--data_dir", "d", FAMILY=family, OUTPUT="o")
    ablate = f"python -m spars.cli ablate --family {family} --config config/ablation.yaml --output o --resume"
    assert lines[2:] == [
        *(f"{ablate} --only {name} --data_dir d" for name in FAMILIES[family]),
        f"{ablate} --data_dir d",
    ]


def test_another_family_is_refused(dry_run):
    lines, told = dry_run(SLURM / "ablate_array.sh", FAMILY="size", OUTPUT="o")
    assert lines == []
    assert "FAMILY: expected classifier, threshold or window, found size" in told


def test_volumes(dry_run):
    lines, _ = dry_run(SLURM / "predict_array.sh", "--full", AGENT="a", IMAGES="in", OUTPUT="o", SHARDS="2")
    predict = "python -m spars.cli predict in --agent a --output o"
    assert lines[2:] == [
        f"{predict} --shard 1/2 --full",
        f"{predict} --shard 2/2 --full",
        f"{predict} --full",
    ]


MISSING = {
    "train.sh": "set CONFIG to a configuration file",
    "ablate_array.sh": "set FAMILY to classifier, threshold or window",
    "predict_array.sh": "set AGENT to the run directory",
}


@pytest.mark.parametrize("script", [script.name for script in sorted(SLURM.glob("*.sh"))])
def test_a_missing_variable_is_named(script, dry_run):
    lines, told = dry_run(SLURM / script)
    assert lines == []
    assert MISSING[script] in told
