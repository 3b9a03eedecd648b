"""Every original-style script, as a user starts it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(path.name for path in ROOT.glob("*.py")), "analysis_scripts/extract_error_montages.py"])


def start(*arguments: str, cwd: Path | None = None, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, timeout=300
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_help_is_light():
    """`--help` imports neither torch nor matplotlib, which is what keeps it under two seconds."""
    code = (
        "import runpy, sys\n"
        "for script in sys.argv[1:]:\n"
        "    sys.argv = [script, '--help']\n"
        "    try:\n"
        "        runpy.run_path(script, run_name='__main__')\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code in (0, None), script\n"
        "    heavy = {'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)\n"
        "    assert not heavy, (script, heavy)\n"
    )
    out = start("-c", code, *(str(ROOT / script) for script in SCRIPTS))
    assert out.count("show this help message") == len(SCRIPTS)


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


@pytest.fixture
def run_script(monkeypatch):
    """Run a script file as ``python script.py …`` would, in this process, so that torch is imported once."""

    def run(script: str, *arguments: str | Path, code: int = 0) -> None:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert (stop.value.code or 0) == code

    return run


def test_train_from_another_folder_then_analyze_and_rescore(config_file, tmp_path, run_script, monkeypatch):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    start(str(ROOT / "train_multitask.py"), "--config", str(config_file), "--output", "../run", cwd=elsewhere)
    (run / "training_curves.png").unlink()
    monkeypatch.chdir(elsewhere)
    run_script("analyze_multitask_results.py", "--result-dir", "../run")
    assert (run / "training_curves.png").exists()
    run_script("train_multitask.py", "--config", config_file, "--output", run, "--eval-only")
    first = json.loads((run / "results.json").read_text())["test_metrics"]
    again = json.loads((run / "evaluation" / "results.json").read_text())["test_metrics"]
    assert first == pytest.approx(again)


def test_analyzing_nothing_is_an_error(tmp_path, run_script, capsys):
    run_script("analyze_multitask_results.py", "--result-dir", tmp_path, code=1)
    assert "results.json" in capsys.readouterr().err


def test_folds(config_file, tmp_path, run_script):
    run = tmp_path / "cv"
    command = ["train_multitask_cv.py", "--config", config_file, "--num-folds", "2"]
    run_script(*command, "--output-dir", run, "--set", "training.epochs=1")
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
    tested = [
        json.loads(line)["path"] for i in (1, 2) for line in (run / f"fold_{i}/test_metadata.jsonl").open()
    ]
    assert len(set(tested)) == 16  # every stack is tested, and once
    assert summary["pooled"]["test_metrics"]["cls_auc"] is not None


def test_one_fold_alone_equals_that_fold_of_all(config_file, tmp_path, run_script):
    command = ["--config", config_file, "--num-folds", "2", "--set", "training.epochs=1"]
    run_script("train_multitask_cv.py", *command, "--output", tmp_path / "all")
    run_script("train_multitask_cv.py", *command, "--output", tmp_path / "alone", "--fold", "2")
    assert not (tmp_path / "alone" / "fold_1").exists()
    both = [
        json.loads((tmp_path / n / "fold_2" / "results.json").read_text())["test_metrics"]
        for n in ("all", "alone")
    ]
    assert both[0] == both[1]


def test_fixed_test_set_gives_an_ensemble(config_file, tmp_path, run_script):
    run = tmp_path / "cv"
    command = ["train_multitask_cv.py", "--config", config_file, "--num-folds", "2", "--faithful"]
    run_script(*command, "--output", run, "--set", "training.epochs=1")
    summary = json.loads((run / "cv_summary.json").read_text())
    assert summary["test"] == "fixed"
    assert (run / "ensemble" / "test_predictions.npz").exists()
    assert summary["ensemble"]["reg_mae"] > 0


def test_regression_folds(config_file, tmp_path, run_script):
    run = tmp_path / "cv"
    command = ["train_regression_cv.py", "--config", config_file, "--num-folds", "2"]
    run_script(
        *command, "--output-dir", run, "--set", "training.epochs=1", "--set", "regression.target_class=1"
    )
    summary = json.loads((run / "cv_summary.json").read_text())
    assert {"loss", "reg_mae", "reg_rmse", "reg_mse"} <= set(summary["aggregated_metrics"])
    lines = (run / "fold_1" / "test_metadata.jsonl").read_text().splitlines()
    assert {json.loads(line)["label"] for line in lines} == {1}  # metadata and predictions of the same frames


@pytest.mark.slow
def test_example_configuration_runs_on_demo_data(tmp_path, run_script):
    overrides = ["--set", "training.epochs=1", "--set", "metrics.bootstrap_resamples=0"]
    run = tmp_path / "run"
    config = ROOT / "configs" / "multitask_example.yaml"
    run_script(
        "train_multitask.py", "--config", config, "--demo", "--device", "cpu", "--output", run, *overrides
    )
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "word"), [(["--help"], 0, "--resume"), (["--set", "data.nonsens=1"], 1, "nonsens")]
)
def test_shell_wrapper_passes_flags_and_exit_code(config_file, arguments, code, word):
    environment = {**os.environ, "PYTHON": sys.executable, "CONFIG": str(config_file)}
    command = ["bash", str(ROOT / "shells" / "train_multitask.sh"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert word in done.stdout + done.stderr
    assert f"exit code {code}" in done.stderr
