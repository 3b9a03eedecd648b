"""What the verbs hand on, and what a user sees when something is wrong."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from medshared.configuration import dump_yaml
from medshared.files import read_json, write_json
from spars import cli
from spars.config import GameConfig


@pytest.fixture
def stand_in(monkeypatch):
    """Put a function where a verb imports it from; return the calls it gets."""

    def place(module: str, name: str, result: Any = 0) -> list[tuple[tuple, dict]]:
        calls: list[tuple[tuple, dict]] = []

        def record(*args, **kwargs):
            calls.append((args, kwargs))
            return result

        try:
            found = __import__(module, fromlist=[name])
        except ImportError:
            found = types.ModuleType(module)
            monkeypatch.setitem(sys.modules, module, found)
        monkeypatch.setattr(found, name, record, raising=False)
        return calls

    return place


@pytest.fixture
def agent(tmp_path) -> Path:
    """A run directory as training leaves it, with an agent that is never read."""
    run = tmp_path / "game"
    run.mkdir()
    (run / "agent.pt").touch()
    keys = GameConfig(window_size=(8, 8, 8), classifier_weights=Path("w.pth"), data_dir=Path("d"))
    (run / "config.yaml").write_text(dump_yaml(keys.resolved().model_dump(mode="json")))
    return run


def test_an_evaluation_takes_the_keys_beside_the_agent_unless_flags_change_them(stand_in, agent, tmp_path):
    calls = stand_in("spars.evaluation", "evaluate", {"verdict": ""})
    out = tmp_path / "out"
    words = ["evaluate", "--agent", str(agent), "--output", str(out), "--budget", "0.2", "--part", "val"]
    assert cli.main(words) == 0
    ((config, folder), named) = calls[0]
    assert (config.window_size, config.budget, config.data_dir) == ((8, 8, 8), 0.2, Path("d"))
    assert folder == out
    assert named == {"agent": agent / "agent.pt", "part": "val"}
    assert cli.main(["evaluate", "--agent", str(agent / "agent.pt"), "--output", str(out)]) == 0
    assert calls[1][1]["agent"] == agent / "agent.pt"
    assert calls[1][0][0].window_size == (8, 8, 8)


def test_baselines_are_an_evaluation_without_an_agent(stand_in):
    calls = stand_in("spars.evaluation", "evaluate", {"verdict": ""})
    assert cli.main(["baselines", "--preset", "window-8_8_8", "--data_dir", "d"]) == 0
    ((config, folder), named) = calls[0]
    assert named == {"agent": None, "part": "test"}
    assert (config.window_size, folder) == ((8, 8, 8), Path("runs/baselines"))


def test_score_maps(stand_in, tmp_path):
    calls = stand_in("spars.evaluation", "score_maps", {})
    assert cli.main(["score-map", "--data_dir", "d", "--output", str(tmp_path), "--part", "train"]) == 0
    ((config, folder, part), _) = calls[0]
    assert (config.data_dir, folder, part) == (Path("d"), tmp_path, "train")


def test_prediction_finds_what_lies_beside_the_agent(stand_in, agent, tmp_path):
    calls = stand_in("spars.prediction", "predict", 3)
    words = ["predict", "a.nii.gz", "b", "--agent", str(agent), "--output", str(tmp_path)]
    assert cli.main([*words, "--budget", "0.5"]) == 3
    assert cli.main([*words, "--overwrite", "--full", "--classifier_weights", "other.pth"]) == 3
    (images, output), named = calls[0]
    assert (images, output) == ([Path("a.nii.gz"), Path("b")], tmp_path)
    assert named == {
        "agent": agent / "agent.pt", "classifier_weights": Path("w.pth"), "reading": None,
        "budget": 0.5, "full": False, "largest_component": False, "min_volume_ml": 0.0,
        "overwrite": False, "jobs": 1, "shard": None,
    }  # fmt: skip
    named = calls[1][1]
    assert (named["classifier_weights"], named["overwrite"], named["full"]) == (Path("other.pth"), True, True)


def test_the_demonstration(stand_in, tmp_path):
    calls = stand_in("spars.demo", "run_demo", {})
    words = ["demo", "--output", str(tmp_path), "--seed", "3", "--labels", "image", "--device", "cpu"]
    assert cli.main(words) == 0
    assert calls == [((tmp_path,), {"seed": 3, "labels": "image", "device": "cpu"})]


def test_a_report_is_written_of_a_finished_run(stand_in, tmp_path, capsys):
    calls = stand_in("spars.reporting", "write_report", tmp_path / "report.html")
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "no results.json; give the directory of a finished run" in capsys.readouterr().err
    write_json(tmp_path / "results.json", {})
    assert cli.main(["report", str(tmp_path)]) == 0
    assert calls == [((tmp_path,), {})]


def test_synthetic_data_are_written_and_prepared(tmp_path, capsys):
    data = tmp_path / "data"
    small = ["--cases", "7", "--size", "16", "16", "16"]
    assert cli.main(["make-synthetic", str(data), *small]) == 0
    splits = read_json(data / "splits.json")
    assert [len(splits[part]) for part in ("train", "val", "test")] == [4, 1, 2]
    assert cli.main(["make-synthetic", str(data), *small]) == 1
    assert "holds a data set already; --overwrite writes over it" in capsys.readouterr().err
    words = ["prepare", "--data_dir", str(tmp_path / "new"), "--make-synthetic", "--cases", "4", "1", "2"]
    assert cli.main([*words, "--size", "16", "16", "16", "--labels-from-voxels", "--overwrite"]) == 0
    assert read_json(tmp_path / "new" / "splits.json")["seed"] == 0


@pytest.mark.parametrize("cases", [["2"], ["4", "1"], ["4", "0", "1"]])
def test_a_wrong_number_of_cases_is_refused(cases, tmp_path, capsys):
    assert cli.main(["make-synthetic", str(tmp_path / "x"), "--cases", *cases]) == 1
    assert "--cases takes a number from 3" in capsys.readouterr().err


BAD = {
    "train without data": (["train"], "data_dir is not set"),
    "classifier without data": (["train-classifier"], "data_dir is not set"),
    "missing data": (["train-classifier", "--data_dir", "{tmp}/none"], "none: no such folder"),
    "unknown layout": (["train-classifier", "--data_dir", "{tmp}"], "expected imagesTr/ and labelsTr/"),
    "unknown key": (["train", "--config", "{tmp}/bad.yaml"], "did you mean 'window_size'"),
    "missing config": (["train", "--config", "{tmp}/none.yaml"], "no such configuration file"),
    "bad value": (["train", "--window_size", "8", "8"], "window_size"),
    "missing weights": (["train", "--data_dir", "{data}", "--classifier_weights", "{tmp}/w.pth"], "w.pth"),
    "wrong weights": (
        ["train", "--data_dir", "{data}", "--classifier_weights", "{tmp}/other.pth"],
        "other.pth",
    ),
    "missing agent": (["predict", "x.nii.gz", "--agent", "{tmp}/agent.pt"], "give --classifier_weights"),
    "unknown preset": (["ablate", "--family", "window", "--only", "best_RL"], "--only best_RL: not among"),
    "prepare nothing": (["prepare"], "required"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_in_one_line(case, tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    (data / "imagesTr").mkdir(parents=True)
    (data / "imagesTr" / "liver_0.nii.gz").touch()
    (tmp_path / "bad.yaml").write_text("windowsize: [8, 8, 8]\n")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    words, message = BAD[case]
    code = 2
    try:
        code = cli.main([word.format(tmp=tmp_path, data=data) for word in words])
    except SystemExit:
        assert case == "prepare nothing"
    err = capsys.readouterr().err
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err
    if code == 1:
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert not list(tmp_path.rglob("results.json"))
