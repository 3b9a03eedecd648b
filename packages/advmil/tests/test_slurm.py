"""What the wrappers of slurm/ submit."""

from __future__ import annotations

from pathlib import Path

import pytest

SLURM = Path(__file__).parents[1] / "slurm"


def test_training(dry_run):
    lines, _ = dry_run(SLURM / "train.sh", "--multi_run", CONFIG="c.yaml", GPUS="2")
    assert lines[1:] == ["python main.py --config c.yaml --handler adv --resume --multi_run"]
    assert "--job-name=advmil-train" in lines[0]
    assert "--ntasks-per-node=2 --cpus-per-task=8 --mem=64G --gres=gpu:2" in lines[0]


def test_folds(dry_run):
    lines, _ = dry_run(SLURM / "folds_array.sh", CONFIG="c.yaml", OUTPUT="o", FOLDS="2", HANDLER="base")
    train = "python main.py --config c.yaml --handler base --resume --set data_split_seed={0} --output o-data_split_seed_{0}"
    assert lines[2:] == [
        train.format(0),
        train.format(1),
        "python -m advmil.cli evaluate o-data_split_seed_0 o-data_split_seed_1 --output o",
    ]


def test_a_grid(dry_run):
    """The file holds a list of five folds."""
    config = "config/cfg_nlst.yaml"
    lines, told = dry_run(SLURM / "grid_array.sh", "--precision", "32", CONFIG=config)
    assert "--array=0-4" in lines[0], told
    run = f"python main.py --config {config} --handler adv --multi_run --resume"
    assert lines[2:] == [*(f"{run} --only {k} --precision 32" for k in range(1, 6)), f"{run} --precision 32"]


def test_slides(dry_run):
    lines, _ = dry_run(SLURM / "prepare_array.sh", "--half", SLIDES="my slides", OUTPUT="o", SHARDS="2")
    prepare = "python -m advmil.cli prepare 'my slides' --output o"
    assert lines[2:] == [
        f"{prepare} --shard 1/2 --half",
        f"{prepare} --shard 2/2 --half",
        f"{prepare} --half",
    ]


@pytest.mark.parametrize("script", [script.name for script in sorted(SLURM.glob("*.sh"))])
def test_a_missing_variable_is_named(script, dry_run):
    lines, told = dry_run(SLURM / script)
    assert lines == []
    assert "set CONFIG to" in told or "set SLIDES to" in told
