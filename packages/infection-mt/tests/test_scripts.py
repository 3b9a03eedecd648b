"""Every original-style script, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))


def start(*arguments: str, cwd: Path | None = None, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, timeout=300
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_light(script):
    """`--help` imports neither torch nor matplotlib, which is what keeps it under two seconds."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{script!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code in (0, None)\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert "--help" in start("-c", code)


def test_every_verb_has_a_light_help():
    code = (
        "import sys\n"
        "from infection_mt.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)\n"
    )
    from infection_mt.cli import build_parser

    verbs = build_parser()._subparsers._group_actions[0].choices
    assert {"demo", "prepare", "train", "evaluate", "predict", "report", "doctor"} <= set(verbs)
    for verb in verbs:
        assert "--help" in start("-c", code, verb, "--help")


@pytest.fixture
def config_file(tiny_settings, tmp_path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_settings))
    return path


def test_train_and_analyze(config_file, tmp_path):
    run = tmp_path / "run"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    start(str(ROOT / "train_multitask.py"), "--config", str(config_file), "--output", str(run), cwd=elsewhere)
    (run / "training_curves.png").unlink()
    start(str(ROOT / "analyze_multitask_results.py"), "--result-dir", "../run", cwd=elsewhere)
    assert (run / "training_curves.png").exists()
    start(str(ROOT / "train_multitask.py"), "--config", str(config_file), "--output", str(run), "--eval-only")
    first = json.loads((run / "results.json").read_text())["test_metrics"]
    again = json.loads((run / "evaluation" / "results.json").read_text())["test_metrics"]
    assert first == pytest.approx(again)


def test_analyzing_nothing_is_an_error(tmp_path):
    out = start(str(ROOT / "analyze_multitask_results.py"), "--result-dir", str(tmp_path), code=1)
    assert "results.json" in out


def test_folds(config_file, tmp_path):
    run = tmp_path / "cv"
    command = [str(ROOT / "train_multitask_cv.py"), "--config", str(config_file), "--num-folds", "2"]
    start(*command, "--output-dir", str(run), "--set", "training.epochs=1")
    summary = json.loads((run / "cv_summary.json").read_text())
    assert summary["num_folds"] == 2
    for name in (
        "cv_temporal_metrics.json",
        "cv_temporal_generalization.png",
        "fold_2/results.json",
        "report.html",
    ):
        assert (run / name).exists(), name
    assert set(summary["aggregated_metrics"]["reg_mae"]) == {"mean", "std", "min", "max", "values"}


def test_regression_folds(config_file, tmp_path):
    run = tmp_path / "cv"
    command = [str(ROOT / "train_regression_cv.py"), "--config", str(config_file), "--num-folds", "2"]
    start(
        *command, "--output-dir", str(run), "--set", "training.epochs=1", "--set", "regression.target_class=1"
    )
    summary = json.loads((run / "cv_summary.json").read_text())
    assert {"loss", "reg_mae", "reg_rmse", "reg_mse"} <= set(summary["aggregated_metrics"])


@pytest.mark.slow
def test_example_configuration_runs_on_demo_data(tmp_path):
    config = ROOT / "configs" / "multitask_example.yaml"
    overrides = ["--set", "training.epochs=1", "--set", "metrics.bootstrap_resamples=0"]
    run = tmp_path / "run"
    start(
        str(ROOT / "train_multitask.py"), "--config", str(config), "--demo", "--device", "cpu", "--output", str(run),
        *overrides,
    )  # fmt: skip
    assert (run / "report.html").exists()


def test_shell_wrapper(config_file, tmp_path):
    """The SLURM wrapper also runs in the foreground, and returns the script's exit code."""
    environment = {**os.environ, "PYTHON": sys.executable, "CONFIG": str(config_file), "OMP_NUM_THREADS": "2"}
    command = ["bash", str(ROOT / "shells" / "train_multitask.sh"), "--output", str(tmp_path / "run")]
    good = subprocess.run(
        [*command, "--set", "training.epochs=1"], env=environment, capture_output=True, text=True
    )
    assert good.returncode == 0, good.stderr
    assert "exit code 0" in good.stdout
    bad = subprocess.run(
        [*command, "--set", "data.nonsense=1"], env=environment, capture_output=True, text=True
    )
    assert bad.returncode == 1
    assert "nonsense" in bad.stderr
    time.sleep(0)
