"""What the wrappers of slurm/ submit."""

from __future__ import annotations

from pathlib import Path

import pytest

SLURM = Path(__file__).parents[1] / "slurm"


def test_training(dry_run):
    lines, _ = dry_run(SLURM / "train.sh", "--data_dir", "d", CONFIG="c.yaml", OUTPUT="o")
    assert lines[1:] == ["python MTL/main.py --config c.yaml --output o --resume --data_dir d"]
    lines, _ = dry_run(SLURM / "train.sh", SCRIPT="STL/det_main.py", CONFIG="c.yaml", OUTPUT="o")
    assert lines[1:] == ["python STL/det_main.py --config c.yaml --output o --resume"]


def test_a_comparison(dry_run):
    lines, _ = dry_run(SLURM / "compare_array.sh", "--max_epochs", "2", OUTPUT="o", FOLDS="2")
    compare = "python -m til_mtl.cli compare --folds 2 --config config/mtl.yaml --output o --resume"
    assert lines[2:] == [
        *(f"{compare} --only {fold} --max_epochs 2" for fold in (1, 2)),
        f"{compare} --max_epochs 2",
    ]


def test_slides(dry_run):
    variables = {"CHECKPOINT": "best.pt", "SLIDES": "in", "OUTPUT": "o", "SHARDS": "2"}
    lines, _ = dry_run(SLURM / "predict_array.sh", "--save-maps", **variables)
    predict = "python TIL_prediction/predict.py --checkpoint best.pt --slides in --out o"
    shards = [f"{predict} --shard {k}/2 --save-maps" for k in (1, 2)]
    assert lines[2:] == [*shards, f"{predict} --save-maps"]


def test_regions(dry_run):
    lines, _ = dry_run(SLURM / "prepare_array.sh", "--all-folds", TIGER="in", OUTPUT="o", SHARDS="2")
    prepare = "python prepare_tiger.py --tiger in --out o"
    assert lines[2:] == [*(f"{prepare} --shard {k}/2 --all-folds" for k in (1, 2)), f"{prepare} --all-folds"]
    assert "--gres" not in "".join(lines)


MISSING = {
    "train.sh": "set CONFIG to a configuration file",
    "compare_array.sh": "set OUTPUT to the folder of the comparison",
    "predict_array.sh": "set CHECKPOINT to the trained network",
    "prepare_array.sh": "set TIGER to the root of the download",
}


@pytest.mark.parametrize("script", [script.name for script in sorted(SLURM.glob("*.sh"))])
def test_a_missing_variable_is_named(script, dry_run):
    lines, told = dry_run(SLURM / script)
    assert lines == []
    assert MISSING[script] in told
