"""Grad-CAM of a checkpoint, a whole plate, and what every script has in common."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from infection_mt.studies.command_lines import SCRIPTS
from infection_mt.studies.plate import accuracy_by_window, by_condition, phase_bars
from medshared.files import write_text

ROOT = Path(__file__).parents[2]
FILES = {name: ROOT / ("analysis_scripts" if "montages" in name else "") / name for name in SCRIPTS}


def test_cam_of_a_multi_task_checkpoint(studio, script, tmp_path):
    command = ["--config", studio.config, "--checkpoint", studio.fixed / "fold_1" / "checkpoints" / "best.pt"]
    command += [
        "--split",
        "test",
        "--num-samples",
        2,
        "--num-folds",
        2,
        "--fold-index",
        1,
        "--output-dir",
        tmp_path,
    ]
    assert script("visualize_cam.py", *command, "--device", "cpu") == 0
    folder = tmp_path / "best" / "test_fold1"
    notes = json.loads((folder / "metadata.json").read_text())
    assert [note["label"] for note in notes] == [1, 0]
    names = {p.name for p in folder.glob("*.png")}
    kinds = ("raw", "input", "heatmap", "overlay", "time_heatmap", "time_overlay")
    assert names == {f"{note['files']}_{kind}.png" for note in notes for kind in kinds}
    assert re.fullmatch(r"cam_001_1_prob[01]\.\d\d", notes[0]["files"])


def test_cam_of_a_classifier(studio, script, tmp_path):
    checkpoint = studio.classifier.parents[2] / "checkpoints" / "base" / "run" / "fold_01of02" / "best.pt"
    command = ["--checkpoint", checkpoint, "--num-samples", 1, "--output-dir", tmp_path, "--cmap", "viridis"]
    assert script("visualize_cam.py", *command, "--device", "cpu") == 0
    assert len(list((tmp_path / "best" / "val_fold0").glob("*.png"))) == 4
    with pytest.raises(ValueError, match="--fold-index 3"):
        script("visualize_cam.py", *command, "--fold-index", 3)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        script("visualize_cam.py", "--checkpoint", tmp_path / "no.pt")


@pytest.fixture(scope="module")
def plate(studio, tmp_path_factory) -> Path:
    """Return a folder with two wells of two positions each."""
    folder = tmp_path_factory.mktemp("plate")
    for key in ("infected_dir", "uninfected_dir"):
        for path in sorted(Path(studio.settings["data"][key]).glob("*.tiff"))[:2]:
            (folder / path.name).symlink_to(path)
    return folder


def test_plate(studio, script, plate, tmp_path):
    command = ["--model-dir", studio.fixed, "--data-dir", plate, "--output-dir", tmp_path, "--device", "cpu"]
    command += ["--stride", 1, "--frames-per-hour", 0.125, "--plate-layout", "moi5=b2", "mock=c4"]
    assert script("validate_on_run2.py", *command) == 0
    content = json.loads((tmp_path / "run2_predictions.json").read_text())
    assert set(content) == {"b2", "c4"}
    keys = "condition n_positions n_folds hours cls_prob_mean cls_prob_std time_pred_mean time_pred_std"
    assert list(content["b2"]) == keys.split()
    assert (content["b2"]["condition"], content["b2"]["n_positions"], content["b2"]["n_folds"]) == (
        "moi5",
        2,
        2,
    )
    assert content["c4"]["hours"] == [0.0, 8.0, 16.0, 24.0, 32.0, 40.0]
    for name in ("condition_curves", "phase_bars", "accuracy_windows", "well_grid", "plate_map"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000, name
    assert script("validate_on_run2.py", *command, "--max-positions", 1) == 0
    assert json.loads((tmp_path / "run2_predictions.json").read_text())["c4"]["n_positions"] == 1


def test_plate_with_a_broken_stack_and_unknown_wells(studio, script, plate, tmp_path, caplog):
    data = tmp_path / "data"
    data.mkdir()
    for path in plate.iterdir():
        (data / path.name).symlink_to(path.resolve())
    (data / "x_s5_d1_p1_t0-5_ec.tiff").write_bytes(b"II*\0nothing")
    command = [
        "--model-dir",
        studio.fixed,
        "--data-dir",
        data,
        "--output-dir",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    assert script("validate_on_run2.py", *command, "--plate-layout", "mock=c4") == 1
    assert (tmp_path / "out" / "run2_predictions.json").exists()
    assert "wells b2 are in no condition" in caplog.text
    with pytest.raises(ValueError, match="both"):
        script("validate_on_run2.py", *command, "--plate-layout", "mock=c4", "moi5=c4")


def test_accuracy_windows_are_closed():
    hours = [0.0, 6.0, 12.0, 46.0, 47.0]
    rows = [
        {"condition": c, "hours_since_start": h, "infected": int(h > 6)}
        for c in ("mock", "moi5")
        for h in hours
    ]
    found = accuracy_by_window(pd.DataFrame(rows))
    assert [row["mock"]["n"] for row in found] == [2, 2, 1, 1]
    assert [row["mock"]["accuracy"] for row in found] == [1.0, 0.5, 0.0, 0.0]
    assert [row["moi5"]["accuracy"] for row in found] == [0.0, 0.5, 1.0, 1.0]


def test_conditions_average_wells_not_positions():
    rows = [
        {"condition": "moi5", "well": well, "hours_since_start": h, "probability_mean": p, "time_mean": h}
        for well, p in (("a1", 0.2), ("b1", 0.6))
        for h in (0.0, 30.0)
    ]
    curves = by_condition(pd.DataFrame(rows))
    assert curves["probability_mean"].tolist() == pytest.approx([0.4, 0.4])
    assert curves["probability_std"].tolist() == pytest.approx([0.2, 0.2])
    heights = [bar.get_height() for bar in phase_bars(pd.DataFrame(rows)).axes[0].patches]
    assert heights[0] == heights[3] == pytest.approx(0.4)


# ---------------------------------------------------------------- what all scripts have in common


def test_every_script_has_its_file():
    assert all(path.is_file() for path in FILES.values())
    for name, path in FILES.items():
        assert f'run("{name}")' in path.read_text()
        assert len(path.read_text().splitlines()) <= 10


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[name].run(name, ["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in SCRIPTS[name].options:
        assert option.name in shown


def test_help_of_all_scripts_is_light():
    """None of the modules that describe the scripts imports torch, matplotlib or pandas."""
    code = (
        "import sys, infection_mt.studies.command_lines as c\n"
        "[s.parser(n) for n, s in c.SCRIPTS.items()]\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_handler_exists():
    import importlib

    for script in SCRIPTS.values():
        module, function = script.handler.split(":")
        assert callable(getattr(importlib.import_module(f"infection_mt.studies.{module}"), function))


def start(path: Path, *arguments: object, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(path), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_scripts_as_a_user_starts_them(studio, copied):
    run = copied(studio.run)
    out = start(FILES["generate_temporal_analysis.py"], "--result-dir", run)
    assert "temporal_generalization.png" in out
    assert "--cls-topk" in start(FILES["extract_error_montages.py"], "--help")


def test_verbs(studio, copied, monkeypatch):
    from infection_mt.cli import main
    from infection_mt.studies import errors

    # Every picture is drawn; rendering them again would take seconds.
    monkeypatch.setattr(errors, "save_figure", lambda path, figure: write_text(path, str(len(figure.axes))))
    run = copied(studio.folds)
    (run / "cv_temporal_metrics.json").unlink()
    assert main(["temporal", str(run), "--window-size", "12"]) == 0
    assert json.loads((run / "cv_temporal_metrics.json").read_text())["window_size"] == 12.0
    assert main(["errors", str(run), "--output", str(run / "e")]) == 0
    assert len(list((run / "e").iterdir())) >= 25


def test_verb_on_a_classifier_leaves_out_what_it_lacks(studio, tmp_path):
    from infection_mt.cli import main

    assert main(["errors", str(studio.classifier), "--output", str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "cv_training_curves.png", "cv_fold_performance.png", "cv_confusion_matrices.png"
    }  # fmt: skip
    assert main(["errors", str(tmp_path / "nowhere")]) == 1


SHELLS = sorted((ROOT / "slurm").glob("*.sh"))


@pytest.mark.parametrize("path", SHELLS, ids=[path.name for path in SHELLS])
def test_job_scripts_name_what_is_missing(path, tmp_path):
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    done = subprocess.run(["bash", str(path)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode != 0
    assert re.search(r"set [A-Z_]+ to", done.stderr), done.stderr


def test_job_script_runs_in_the_foreground(studio, plate, tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment |= {"MODEL_DIR": str(studio.fixed), "DATA_DIR": str(plate), "OUTPUT": str(tmp_path / "out")}
    environment |= {"SUBMIT": "no", "SHARDS": "2"}
    command = [
        "bash",
        str(ROOT / "slurm" / "predict_array.sh"),
        "--device",
        "cpu",
        "--plate-layout",
        "mock=c4",
        "moi5=b2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "task 2 of 2" in done.stderr
    assert (tmp_path / "out" / "run2_predictions.json").exists()
