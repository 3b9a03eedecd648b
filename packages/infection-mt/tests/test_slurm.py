"""What the wrappers of slurm/ and shells/ submit."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "slurm"


def test_training(dry_run):
    variables = {"SCRIPT": "train_multitask.py", "CONFIG": "c.yaml", "OUTPUT": "o"}
    lines, _ = dry_run(SLURM / "train.sh", "--faithful", TASKS="2", GPUS="0", **variables)
    assert lines[1:] == ["python train_multitask.py --config c.yaml --output o --resume --faithful"]
    assert "--ntasks-per-node=2" in lines[0]


def test_folds(dry_run):
    lines, _ = dry_run(SLURM / "folds_array.sh", CONFIG="c.yaml", OUTPUT="o", FOLDS="2")
    train = "python train_multitask_cv.py --config c.yaml --num-folds 2 --output o --resume"
    assert lines[2:] == [f"{train} --fold 1", f"{train} --fold 2", train]


def test_a_sweep(dry_run):
    lines, _ = dry_run(SLURM / "sweep_array.sh", HOURS="7 13", CONFIG="c.yaml", OUTPUT="o")
    sweep = "python analyze_interval_sweep_train.py --config c.yaml --mode train-test --start-hour 1 --checkpoint-dir o/checkpoints"
    assert lines[2:] == [
        f"{sweep} --resume --upper-hours 7 --output-dir o/hour_7",
        f"{sweep} --resume --upper-hours 13 --output-dir o/hour_13",
        f"{sweep} --eval-only --save-data --upper-hours 7 13 --output-dir o",
    ]


def test_a_plate(dry_run):
    variables = {"MODEL_DIR": "m", "DATA_DIR": "d", "OUTPUT": "o", "SHARDS": "2"}
    lines, _ = dry_run(SLURM / "predict_array.sh", "--plate-layout", "mock=a4,b4", **variables)
    plate = "python validate_on_run2.py --model-dir m --data-dir d --output-dir o --resume"
    layout = "--plate-layout mock=a4,b4"
    assert lines[2:] == [
        f"{plate} --shard 1/2 {layout}",
        f"{plate} --shard 2/2 {layout}",
        f"{plate} {layout}",
    ]


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({}, "--config configs/multitask_example.yaml"),
        ({"OUTPUT": "o", "CONFIG": "c"}, "--config c --output o --resume"),
    ],
)
def test_the_script_of_the_original_runs_in_the_foreground(variables, flags, dry_run):
    lines, _ = dry_run(ROOT / "shells" / "train_multitask.sh", "--faithful", **variables)
    assert lines == [f"python train_multitask.py {flags} --faithful"]


@pytest.mark.parametrize("script", [script.name for script in sorted(SLURM.glob("*.sh"))])
def test_a_missing_variable_is_named(script, dry_run):
    lines, told = dry_run(SLURM / script)
    assert lines == []
    assert any(f"set {name} to" in told for name in ("SCRIPT", "CONFIG", "HOURS", "MODEL_DIR"))
