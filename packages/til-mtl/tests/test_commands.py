"""From arguments to the one call that a verb makes."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from medshared.command_line import RunInterruptedError
from til_mtl import cli, commands, scripts
from til_mtl.config import Config
from til_mtl.errors import DataError
from til_mtl.trainer import RunOptions


@pytest.fixture
def trained(monkeypatch) -> list[tuple[Config, Path, RunOptions]]:
    """Record what would be trained."""
    calls: list[tuple[Config, Path, RunOptions]] = []

    def train_run(config: Config, folder: Path, options: RunOptions, **_: Any) -> dict[str, Any]:
        calls.append((config, folder, options))
        return {"metrics": {"val": {"dice_mean": 0.5}}}

    monkeypatch.setattr("til_mtl.training.train_run", train_run)
    return calls


@pytest.mark.parametrize(
    ("script", "task"), [(scripts.main_mtl, "mtl"), (scripts.main_seg, "seg"), (scripts.main_det, "det")]
)
def test_a_script_trains_its_network(script, task, trained, tmp_path):
    assert script(["--log_dir", str(tmp_path), "--max_epochs", "2"]) == 0
    ((config, folder, options),) = trained
    assert (config.task, config.max_epochs) == (task, 2)
    assert folder == tmp_path / "default" / "version_0"
    assert options == RunOptions()


@pytest.mark.parametrize("task", ["mtl", "seg", "det"])
def test_the_verb_trains_what_is_asked_for(task, trained, tmp_path):
    assert cli.main(["train", "--task", task, "--output", str(tmp_path / "run")]) == 0
    assert trained[0][0].task == task
    assert trained[0][1] == tmp_path / "run"


def test_options_of_a_run_arrive(trained, tmp_path):
    checkpoint = tmp_path / "last.pt"
    flags = ["--output", str(tmp_path), "--resume", "--resume_from_checkpoint", str(checkpoint), "--download"]
    assert scripts.main_mtl(flags) == 0
    assert trained[0][2] == RunOptions(resume=True, resume_from_checkpoint=checkpoint, download=True)


def test_a_configuration_of_another_task_is_told(trained, tmp_path, caplog):
    file = tmp_path / "stl_seg.yaml"
    file.write_text("task: seg\nlr: 0.5\n")
    assert scripts.main_mtl(["--config", str(file), "--output", str(tmp_path / "run")]) == 0
    assert (trained[0][0].task, trained[0][0].lr) == ("mtl", 0.5)
    assert caplog.messages == [f"{file} has task: seg, but this trains mtl"]
    caplog.clear()
    scripts.main_seg(["--config", str(file), "--output", str(tmp_path / "run")])
    assert caplog.messages == []


def test_flags_without_effect_are_named(trained, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        scripts.main_mtl(["--num_layers", "5", "--auto_lr_find", "--output", str(tmp_path)])
    assert caplog.messages == ["ignored, no effect: --num_layers, --auto_lr_find"]


def test_folds_go_to_folders_of_their_own(trained, tmp_path):
    assert scripts.main_det(["--folds", "3", "1", "--output", str(tmp_path)]) == 0
    assert [(config.fold_det, folder) for config, folder, _ in trained] == [
        ("fold3", tmp_path / "fold3"),
        ("fold1", tmp_path / "fold1"),
    ]
    assert (tmp_path / "summary.json").is_file()


def test_a_failed_fold_stops_no_other(monkeypatch, tmp_path, caplog):
    def train_run(config, folder, options, **_):
        if folder.name == "fold1":
            raise DataError("patches: no such folder")
        return {"metrics": {"val": {"dice_mean": 0.5}}}

    monkeypatch.setattr("til_mtl.training.train_run", train_run)
    assert scripts.main_mtl(["--folds", "1", "2", "--output", str(tmp_path)]) == 1
    assert "fold1 failed: patches: no such folder" in caplog.text
    assert (tmp_path / "summary.json").is_file()


def test_an_interrupted_fold_stops_all(monkeypatch, tmp_path, capfd):
    started = []

    def train_run(config, folder, options, **_):
        started.append(folder.name)
        raise RunInterruptedError("stopped by SIGTERM; --resume continues")

    monkeypatch.setattr("til_mtl.training.train_run", train_run)
    assert scripts.main_mtl(["--folds", "1", "2", "--output", str(tmp_path)]) == 75
    assert started == ["fold1"]
    assert "stopped by SIGTERM" in capfd.readouterr().err


def test_a_finished_run_is_left_alone_on_resume(trained, tmp_path):
    (tmp_path / "results.json").write_text('{"metrics": {}}')
    assert scripts.main_mtl(["--output", str(tmp_path), "--resume"]) == 0
    assert trained == []


@pytest.fixture
def rescored(monkeypatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr("til_mtl.rescoring.rescore", lambda *args, **keys: calls.append((args, keys)))
    return calls


def test_testing_writes_beside_the_checkpoint(rescored, tmp_path):
    checkpoint = tmp_path / "best.pt"
    assert scripts.main_seg(["--test", "--ckpt_path", str(checkpoint)]) == 0
    ((args, keys),) = rescored
    assert args == (checkpoint, tmp_path / "test")
    assert keys["set_name"] == "test"
    assert keys["config"].task == "seg"


@pytest.mark.parametrize("is_run", [True, False])
def test_a_run_or_a_file_is_evaluated(is_run, rescored, tmp_path):
    given = tmp_path if is_run else tmp_path / "epoch=1-step=2.ckpt"
    assert cli.main(["evaluate", "run", str(given), "--set-name", "val", "--device", "cpu"]) == 0
    ((args, keys),) = rescored
    checkpoint = tmp_path / "checkpoints" / "best.pt" if is_run else given
    assert args == (checkpoint, tmp_path / "evaluation")
    assert keys == {"changes": {"device": "cpu"}, "set_name": "val"}


def test_tables_of_scores_are_written_beside_the_predictions(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("til_mtl.score_evaluation.evaluate_scores", calls.append)
    files = ["--pred", str(tmp_path / "til_scores.csv"), "--truth", "visual.csv"]
    assert scripts.evaluate_scores([*files, "--calibrate", "isotonic", "--cv", "3"]) == 0
    (found,) = calls
    assert (found.output, found.calibrate, found.folds, found.resamples) == (tmp_path, "isotonic", 3, 1000)


def test_regions_are_written_beside_the_predictions(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("til_mtl.leaderboard.evaluate_l1", lambda *given: calls.append(given))
    assert scripts.evaluate_l1(["--pred", str(tmp_path), "--truth", "t", "--mpp", "0.25"]) == 0
    assert calls == [(tmp_path, Path("t"), 0.25, 8.0, tmp_path)]


def test_exit_codes_of_preparation_and_prediction_are_passed_on(monkeypatch):
    given: list[Any] = []
    monkeypatch.setattr(
        "til_mtl.prepare.tiger_patches.prepare_tiger", lambda options: given.append(options) or 1
    )
    monkeypatch.setattr("til_mtl.slides.pipeline.run_slides", lambda options: given.append(options) or 1)
    assert scripts.prepare_tiger(["--tiger", "in", "--out", "out", "--all-folds"]) == 1
    words = ["--checkpoint", "best.pt", "--slides", "in", "--out", "out", "--faithful", "--shard", "2/4"]
    assert scripts.predict(words) == 1
    assert (given[0].tiger, given[0].all_folds) == (Path("in"), True)
    assert (given[1].nms, given[1].shard.index, given[1].shard.count) == (18.0, 1, 4)


def test_comparisons_arrive(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("til_mtl.compare.run_comparison", lambda comparison: calls.append(comparison) or 0)
    words = [
        "compare",
        "--folds",
        "5",
        "--only",
        "2",
        "4",
        "--output",
        str(tmp_path),
        "--lr",
        "0.5",
        "--resume",
    ]
    assert cli.main([*words, "--faithful"]) == 0
    (found,) = calls
    assert (found.folds, tuple(found.only), found.resume) == (5, (2, 4), True)
    assert (found.config.lr, found.config.faithful) == (0.5, True)


def test_errors_show_their_traceback_on_request(tmp_path):
    with pytest.raises(DataError, match=r"no results\.json"):
        cli.main(["report", str(tmp_path), "--debug"])
    assert cli.main(["report", str(tmp_path)]) == 1


def test_every_verb_has_a_handler():
    for _, handler, _ in cli._VERBS.values():
        assert callable(getattr(commands, handler))


@pytest.mark.parametrize("words", [[], ["trian"], ["evaluate"], ["compare"], ["predict", "--slides", "x"]])
def test_words_that_are_no_command_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert "usage: til-mtl" in capsys.readouterr().err


def test_a_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("til-mtl ")


def test_without_a_file_the_flags_are_the_configuration():
    arguments = Namespace(config=None, default_root_dir=None, lr=0.25)
    assert commands.read_config(arguments, {"task": "det"}) == Config(lr=0.25, task="det")
