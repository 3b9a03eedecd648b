"""The original's scripts as a user starts them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medshared.configuration import load_yaml_or_json
from spars import cli
from spars.presets import FAMILIES, PRESETS
from spars.synthetic import write_synthetic

ROOT = Path(__file__).parents[1]
SIZE, WINDOW = ["24", "24", "16"], ["6", "6", "6"]
GAMES = [name for name, preset in PRESETS.items() if preset.stage == "game"]
CLASSIFIERS = {preset.script: name for name, preset in PRESETS.items() if preset.stage == "classifier"}
CLASSIFIERS |= dict.fromkeys(
    ["RL_threshold_experiments/net_threshold.py", "RL_window_size_experiments/net_window_size.py"],
    "net_global",
)
GRID = ["--full_image_size", *SIZE, "--device", "cpu"]
TRAIN = [
    *GRID,
    "--crop_size",
    *WINDOW,
    "--epochs",
    "1",
    "--crop_no",
    "4",
    "--val_batches",
    "1",
    "--train_batches",
    "2",
]
PLAY = [
    *GRID,
    "--window_size",
    *WINDOW,
    "--iterations",
    "1",
    "--n_games",
    "2",
    "--n_steps",
    "8",
    "--eval_seeds",
    "1",
]


@contextlib.contextmanager
def said(stream: io.StringIO) -> Iterator[None]:
    """Send what the package logs to a stream; pytest has taken the root logger, which a command would set up."""
    handler, logger = logging.StreamHandler(stream), logging.getLogger("spars")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def script(name: str, *arguments: str | Path, code: int = 0) -> str:
    """Run a script in this process, so that torch is imported once; return what it wrote to stderr."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(shown), said(shown):
        patched.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / name), run_name="__main__")
    assert (stop.value.code or 0) == code, shown.getvalue()
    return shown.getvalue()


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """As many volumes as the index ranges reach; split."""
    folder = tmp_path_factory.mktemp("data")
    write_synthetic(folder, 24, 16, 2, size=(24, 24, 16), geometry="plain")
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """Volumes for games."""
    folder = tmp_path_factory.mktemp("few")
    write_synthetic(folder, 6, 1, 2, size=(24, 24, 16), geometry="plain")
    return folder


@pytest.fixture(scope="module")
def weights(few, tmp_path_factory) -> dict[str, Path]:
    """A classifier for games on [0, 1], and one for games on HU."""
    home = tmp_path_factory.mktemp("weights")
    for mode in ("standard", "paper"):
        raw = [] if mode == "standard" else ["--architecture", "window", "--target_size", "native"]
        script("net_global.py", "--data_dir", few, "--output", home / mode, "--mode", mode, *TRAIN, *raw)
    return {mode: home / mode / "ex4_24in_weights.pth" for mode in ("standard", "paper")}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_script_trains(name, data, tmp_path):
    preset = PRESETS[CLASSIFIERS[name]]
    script(name, "--data_dir", data, "--output", tmp_path / "run", *TRAIN)
    cases = results(tmp_path / "run")["cases"]
    assert len(cases["train"]) == (preset.n_train or 24)
    assert len(cases["val"]) == 16
    assert (tmp_path / "run" / preset.keys["weights_out"]).is_file()
    assert "finished already" in script(
        name, "--data_dir", data, "--output", tmp_path / "run", *TRAIN, "--resume"
    )


def test_without_a_split_the_index_ranges_of_the_script_hold(data, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("imagesTr", "labelsTr"):
        (plain / name).symlink_to(data / name)
    found = {}
    for name in FAMILIES["classifier"][:2]:
        script(f"classifier_experiments/{name}.py", "--data_dir", plain, "--output", tmp_path / name, *TRAIN)
        found[name] = results(tmp_path / name)["cases"]
    assert found["ex1_8in"]["train"] == [f"liver_{k}" for k in range(8)]
    assert found["ex2_12in"]["train"] == [f"liver_{k}" for k in range(12)]
    assert found["ex1_8in"]["val"] == found["ex2_12in"]["val"] == [f"liver_{k}" for k in range(24, 40)]


def test_a_faithful_classifier_prints_the_originals_lines(data, tmp_path):
    small = ["--architecture", "window", "--target_size", "native", "--batch_size", "2"]
    flags = ["--data_dir", data, "--output", tmp_path / "run", "--faithful", *TRAIN, *small]
    shown = script("classifier_experiments/ex1_8in.py", *flags)
    for line in (
        "epoch: 1",
        "iter: 1",
        "Epoch 1 - Average Training Loss: ",
        "Evaluating the network",
        "Accuracy: ",
    ):
        assert line in shown
    assert "Found 42 training files and 42 label files." in shown
    assert "validation cases of its own" in shown
    assert results(tmp_path / "run")["cases"] == {"train": [0, 8], "val": [8, 24]}


@pytest.mark.parametrize("name", GAMES)
def test_every_game_script_plays(name, few, weights, tmp_path):
    flags = ["--data_dir", few, "--classifier_weights", weights["standard"], "--output", tmp_path / "run"]
    script(PRESETS[name].script, *flags, *PLAY, "--no-evaluate")
    config = load_yaml_or_json(tmp_path / "run" / "config.yaml")
    assert config["termination_threshold"] == PRESETS[name].keys["termination_threshold"]
    assert config["termination"] is (name in FAMILIES["threshold"])
    for file in ("agent.pt", "agent.json", "reading.json", "curve.csv", "results.json"):
        assert (tmp_path / "run" / file).is_file()


@pytest.mark.parametrize("mode", ["paper", "faithful"])
def test_games_of_the_other_modes_say_what_the_original_prints(mode, few, weights, tmp_path):
    flags = ["--data_dir", few, "--classifier_weights", weights["paper"], "--output", tmp_path / "run", *PLAY]
    shown = script(
        "best_RL.py", *flags, "--n_games", "1", "--mode", mode, "--target_size", "native", "--verbose", "0"
    )
    for line in (
        "Number of voxels with cancer: ",
        "Average of rewards: ",
        "Standard deviation of dice score: ",
    ):
        assert line in shown
    assert (tmp_path / "run" / "map.npz").is_file()
    assert results(tmp_path / "run")["iterations"] == 1


def test_a_game_is_evaluated_and_its_agent_used_again(few, weights, tmp_path):
    flags = ["--data_dir", few, "--classifier_weights", weights["standard"], "--output", tmp_path / "run"]
    shown = script("best_RL.py", *flags, *PLAY)
    assert "the agent reaches Dice" in shown
    found = results(tmp_path / "run" / "evaluation")
    assert {"agent", "random_walk", "score_map"} <= set(found["summary"])
    image = few / "imagesTr" / "liver_7.nii.gz"
    words = ["predict", str(image), "--agent", str(tmp_path / "run"), "--output", str(tmp_path / "predicted")]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert cli.main(words) == 0, said.getvalue()
    assert (tmp_path / "predicted" / "pred" / "liver_7.nii.gz").is_file()


def test_wrong_weights_are_told_in_one_line(few, weights, tmp_path):
    flags = ["--data_dir", few, "--output", tmp_path / "run", *PLAY]
    assert "no such" in script("best_RL.py", *flags, "--classifier_weights", tmp_path / "none.pth", code=1)
    other = ["--window_size", "8", "8", "8", "--classifier_weights", weights["standard"]]
    shown = script("best_RL.py", *flags, *other, code=1)
    assert "was trained on windows of 6×6×6 voxels, asked to score 8×8×8" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "folder",
    ["", "RL_threshold_experiments/net_threshold.py", "RL_window_size_experiments/net_window_size.py"],
)
def test_the_libraries_have_the_names_that_other_code_imports(folder):
    found = runpy.run_path(str(ROOT / (folder or "net_global.py")), run_name="library")
    names = [
        "resize_image",
        "NRandomCrop",
        "Net",
        "CustomDataset",
        "NIfTIDataset",
        "train_network",
        "test_network",
    ]
    assert [name for name in names if name not in found] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["net_global.py", "--epochs", "1"],
        ["best_RL.py", "--iterations", "2", "--n_games", "4", "--n_steps", "8", "--no-evaluate"],
    ],
    ids=lambda command: command[0],
)
def test_the_demonstration_of_a_script_needs_nothing_but_the_script(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script(*command, "--demo", "--device", "cpu")
    run = Path("runs") / Path(command[0]).stem
    assert results(run)
    assert (run / "data" / "splits.json").is_file()
    if command[0] == "best_RL.py":
        assert results(run / "classifier")["metrics"]["val_auc"] > 0.7
        assert (run / "agent.pt").is_file()
