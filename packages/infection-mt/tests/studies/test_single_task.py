"""train.py: layout, lists, logs, checkpoints, summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medshared.checkpoints import load_checkpoint

SCHEMAS = json.loads((Path(__file__).parents[1] / "golden" / "schemas.json").read_text())["classification"]


def test_layout_and_summary(studio):
    summary = json.loads((studio.classifier / "cv_summary.json").read_text())
    [_, schema] = SCHEMAS["cv_summary.json"]
    assert [list(entry) for entry in summary] == [list(schema)] * 2
    for i, entry in enumerate(summary, 1):
        assert set(schema["val"]) == set(entry["val"]) == set(entry["test"])
        assert entry["fold"] == i
        assert entry["primary_metric"] == "auc"
        folder = Path(entry["log_dir"])
        assert folder == studio.classifier / f"fold_0{i}of02"
        sides = {
            s: (folder / f"{s}_stacks.txt").read_text().split("\n")[:-1] for s in ("train", "val", "test")
        }
        assert sum(map(len, sides.values())) == 16 == len(set().union(*sides.values()))
        log = (folder / f"base_fold_0{i}of02.log").read_text()
        assert "val threshold sweep:" in log
        assert "test threshold sweep:" in log
        assert "val time bin [24.0h, 48.0h): samples=" in log
        assert entry["val"]["auc"] == pytest.approx(entry["best_metric"])


def test_checkpoint(studio):
    summary = json.loads((studio.classifier / "cv_summary.json").read_text())
    path = Path(summary[1]["checkpoint"])
    assert path.parts[-4:] == ("base", "run", "fold_02of02", "best.pt")
    state = load_checkpoint(path)
    schema = SCHEMAS["fold_01of02/best.pt"]
    assert set(schema) <= set(state)
    assert set(schema["val_metrics"]) == set(state["val_metrics"])
    assert state["fold"] == 2
    assert [k for k in state["model_state"] if k.startswith("classifier")] == [
        "classifier.1.weight",
        "classifier.1.bias",
    ]
    assert state["model_state"]["classifier.1.weight"].shape[0] == 1


def test_regression_counts_from_its_own_onset(studio, script, tmp_path):
    config = json.loads(studio.baseline.read_text())
    config["task"] = {
        "type": "regression",
        "regression": {"infection_onset_hour": 20.0, "uninfected_target": 7.0},
    }
    config["model"].pop("num_classes")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    out = tmp_path / "out"
    assert script("train.py", "--config", path, "--output", out, "--device", "cpu") == 0
    results = json.loads((out / "fold_01of01" / "results.json").read_text())
    assert results["config"]["selection"]["metric"] == "reg_rmse"
    from infection_mt.prediction_table import Predictions

    p = Predictions.load(out / "fold_01of01")
    assert set(p.time_target[p.label == 0]) == {7.0}
    assert p.hours[p.label == 1].min() >= 20.0
    assert p.time_target[p.label == 1].min() == pytest.approx(p.hours[p.label == 1].min() - 20.0)
    assert not (out / "cv_summary.json").exists()


def test_one_fold_of_an_array_and_resume(studio, script, tmp_path):
    command = ["--config", studio.baseline, "--k-folds", 2, "--output", tmp_path / "out", "--device", "cpu"]
    assert script("train.py", *command, "--fold", 2) == 0
    assert (tmp_path / "out" / "fold_02of02" / "results.json").exists()
    assert not (tmp_path / "out" / "fold_01of02").exists()
    before = (tmp_path / "out" / "fold_02of02" / "log.txt").read_text()
    assert script("train.py", *command, "--fold", 2, "--resume") == 0
    assert (tmp_path / "out" / "fold_02of02" / "log.txt").read_text() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--k-folds", "2", "--fold", "3"], "expected 1 to 2"), (["--set", "data.nonsense=1"], "nonsense")],
)
def test_wrong_input(studio, script, capsys, flags, message):
    assert script("train.py", "--config", studio.baseline, *flags, debug=False) == 1
    assert message in capsys.readouterr().err


def test_a_multi_task_configuration_is_refused(studio, script, capsys, tmp_path):
    config = {**studio.settings, "task": {"type": "multitask"}}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(config))
    assert script("train.py", "--config", path, debug=False) == 1
    assert "train_multitask.py" in capsys.readouterr().err
