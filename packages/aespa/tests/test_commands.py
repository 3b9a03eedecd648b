"""From flags and a file to one call."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aespa import cli
from aespa.config import Config
from medshared.leases import Shard


@pytest.fixture
def calls(monkeypatch) -> list:
    """Replace what the handlers call; record how."""
    made = []

    def stand_in(module: str, name: str, answer: object) -> None:
        def record(*values: object, **named: object) -> object:
            made.append((name, values, named))
            return answer

        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: record}))

    stand_in("aespa.training", "train_run", {})
    stand_in("aespa.evaluating", "evaluate_run", {"metrics": {"dice_r0": 0.5, "dice_late": 0.75}})
    stand_in("aespa.prepare.mbhseg", "process_mbhseg", 3)
    stand_in("aespa.synthetic", "make_demo_data", "folder")
    stand_in("aespa.reporting", "write_report", "report.html")
    monkeypatch.setattr("aespa.experiments.run_experiments", lambda *v, **n: made.append(("run", v, n)) or 75)
    return made


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_flags_win_over_the_file(calls, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("dataset: LIDC\nb: 8\nmode: SPA\n")
    assert run("train", "-config", file, "-b", 4, "-output", tmp_path / "run") == 0
    ((name, (config, folder), named),) = calls
    assert name == "train_run"
    assert config == Config(dataset="LIDC", b=4, mode="SPA")
    assert (folder, named) == (tmp_path / "run", {"resume": False})


def test_a_run_without_output_lies_in_the_log_root(calls, tmp_path):
    assert run("train", "-dataset", "LIDC", "-log_root", tmp_path, "-exp_name", "try") == 0
    folder = calls[0][1][1]
    assert folder.parent == tmp_path
    assert folder.name.startswith("try_2")


@pytest.mark.parametrize("form", ["folder", "output"])
def test_resume(calls, tmp_path, form):
    folder = tmp_path / "run"
    words = ["-resume", folder] if form == "folder" else ["-output", folder, "-resume"]
    assert run("train", "-dataset", "LIDC", *words) == 0
    assert calls[0][1][1] == folder
    assert calls[0][2] == {"resume": True}
    folder.mkdir()
    (folder / "results.json").write_text("{}")
    assert run("train", "-dataset", "LIDC", *words) == 0
    assert len(calls) == 1  # finished


def test_resume_of_nothing(calls, capsys):
    assert run("train", "-dataset", "LIDC", "-resume") == 1
    assert "-resume: give the directory of the run to continue" in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("text", "message"),
    [("dataset: isic", "run.yaml"), ("datasett: LIDC", "datasett"), ("dataset: [", "run.yaml")],
)
def test_a_file_that_is_wrong(calls, tmp_path, capsys, text, message):
    (tmp_path / "run.yaml").write_text(text)
    assert run("train", "-config", tmp_path / "run.yaml") == 1
    assert message in capsys.readouterr().err
    assert not calls


def test_evaluate(calls, tmp_path):
    words = ["-dataset", "LIDC", "-weights", "best.pth", "-output", tmp_path, "-plain", "sam.pt"]
    assert run("evaluate", *words) == 0
    ((_, (config, folder), named),) = calls
    assert (config.weights, folder, named) == (Path("best.pth"), tmp_path, {"plain": Path("sam.pt")})


def test_prepare(calls):
    assert (
        run("prepare", "mbhseg", "-in", "raw", "-out", "o", "-level", 30, "-shard", "2/3", "--overwrite") == 3
    )
    named = {"level": 30.0, "width": 80.0, "jobs": 1, "overwrite": True, "shard": Shard(1, 3)}
    assert calls == [("process_mbhseg", (Path("raw"), Path("o")), named)]
    assert run("prepare", "synthetic", "REFUGE", "-output", "o", "-n_train", 3, "-seed", 4) == 0
    assert calls[1] == ("make_demo_data", (Path("o"), "REFUGE", 3, 16, 4), {})


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["error"], 1), (["warning"], 0)])
def test_check(monkeypatch, capsys, problems, code):
    found = [SimpleNamespace(item="train", message="a.png: damaged", severity=each) for each in problems]
    monkeypatch.setitem(sys.modules, "aespa.data.checking", SimpleNamespace(check_data=lambda config: found))
    assert run("prepare", "check", "-dataset", "LIDC") == code


def test_report(calls, capsys):
    assert run("report", "run") == 0
    assert calls[0][1] == (Path("run"),)
    assert capsys.readouterr().out == "report.html\n"


def test_demo_data_of_a_script(calls, tmp_path, monkeypatch):
    import aespa.demo

    monkeypatch.setattr(aespa.demo, "_small_data", lambda home, dataset: home / dataset)
    assert run("train", "-demo", "-dataset", "REFUGE", "-b", 3, "-output", tmp_path / "run") == 0
    config = calls[0][1][0]
    assert (config.dataset, config.b, config.encoder) == ("REFUGE", 3, "tiny")
    assert config.data_path == tmp_path / "aespa-demo-data" / "REFUGE"


def test_the_exit_code_of_experiments(calls, tmp_path):
    assert run("experiments", "main", "-log_root", tmp_path, "-device", "cpu", "-dry_run") == 75
    (_, (names,), named) = calls[0]
    assert names == ["main"]
    assert named == {
        "data": Path("data"),
        "sam_ckpt": Path("checkpoint/medsam_vit_b.pth"),
        "log_root": tmp_path,
        "device": "cpu",
        "only": None,
        "dry_run": True,
    }


def test_dead_flags_are_told_of(calls, caplog, tmp_path):
    assert run("train", "-dataset", "LIDC", "-warm", 1, "-output", tmp_path) == 0
    assert json.dumps(caplog.messages).count("-warm") == 1
