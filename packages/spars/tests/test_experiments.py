"""A script from its preset to what it says at the end."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from medshared.command_line import RunInterruptedError
from medshared.files import write_json, write_npz
from spars import experiments
from spars.config import ClassifierConfig, GameConfig
from spars.data.splits import Splits, read_splits, write_splits
from spars.errors import DataError
from spars.experiments import classifier_config, game_config, run_classifier, run_game, with_n_train

NAMES = tuple(f"liver_{k}" for k in range(20))


@pytest.fixture
def split(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_splits(folder / "splits.json", Splits(NAMES[:14], NAMES[14:17], NAMES[17:], 3))
    return folder


def test_the_users_keys_win_over_the_preset():
    found = classifier_config("ex1_8in", {"epochs": 2, "val_end": 30})
    assert (found.train_end, found.val_start, found.val_end, found.epochs) == (8, 24, 30, 2)
    game = game_config("window-8_8_8", {"step_size": 2})
    assert (game.window_size, game.step_size) == ((8, 8, 8), 2)


def test_the_number_of_volumes_holds_within_the_training_part(split, tmp_path):
    config = ClassifierConfig(data_dir=split, **{"train_end": 8})
    found = with_n_train(config, tmp_path / "run", "ex1_8in")
    assert found.splits == tmp_path / "run" / "training_cases.json"
    cases = read_splits(found.splits)
    assert cases == Splits(NAMES[:8], NAMES[14:17], NAMES[17:], 3)
    assert with_n_train(config, tmp_path / "run", "ex1_8in") == found


def test_the_number_of_volumes_changes_nothing_elsewhere(split, tmp_path):
    faithful = ClassifierConfig(mode="faithful", data_dir=split)
    assert with_n_train(faithful, tmp_path, "ex1_8in") is faithful
    plain = ClassifierConfig(data_dir=split)
    assert with_n_train(plain, tmp_path, "net_global") is plain


def test_too_small_a_training_part_is_an_error(split, tmp_path):
    with pytest.raises(DataError, match="its training part has 14 cases, ex3_16in trains on 16"):
        with_n_train(ClassifierConfig(data_dir=split), tmp_path, "ex3_16in")


def test_faithful_experiments_warn_of_their_validation_cases(monkeypatch, caplog, tmp_path):
    import spars.classifier_training

    seen = []
    monkeypatch.setattr(
        spars.classifier_training, "train_classifier", lambda config, folder, **_: seen.append(config) or {}
    )
    for mode in ("standard", "faithful"):
        config = classifier_config("ex2_12in", {"mode": mode, "data_dir": tmp_path})
        if mode == "standard":
            (tmp_path / "imagesTr").mkdir()
            (tmp_path / "imagesTr" / "liver_0.nii.gz").touch()
        run_classifier(config, tmp_path / mode, preset="ex2_12in")
        assert ("validation cases of its own" in caplog.text) == (mode == "faithful")
    assert [config.val_start for config in seen] == [24, 12]


def test_a_finished_classifier_is_left_alone(tmp_path, monkeypatch):
    write_json(tmp_path / "results.json", {"metrics": {}})
    assert run_classifier(ClassifierConfig(), tmp_path, resume=True) == {"metrics": {}}


@pytest.fixture
def game(monkeypatch):
    """Stand-in for training and evaluation of a game; ``found`` is what training returns."""
    import spars.evaluation
    import spars.training

    found = {"iterations": 5, "dice_mean": 0.25, "dice_sd_population": None, "reward_mean": -0.5}
    calls: list[Path] = []

    def evaluate(config, folder, *, agent, **_):
        calls.append(agent)
        return {"verdict": "fine", "summary": {}}

    monkeypatch.setattr(spars.training, "train_game", lambda *_, **__: found)
    monkeypatch.setattr(spars.evaluation, "evaluate", evaluate)
    return found, calls


def test_a_faithful_game_says_what_the_original_prints(game, tmp_path, caplog):
    write_npz(tmp_path / "map.npz", map=np.array([0.2, 0.5, 0.51, 3.0], np.float32), threshold=0.5)
    with caplog.at_level(logging.INFO):
        run_game(GameConfig(mode="faithful", iterations=5), tmp_path, evaluate=True)
    assert caplog.messages == [
        "Number of voxels with cancer: 2",
        "Average of rewards: -0.5000",
        "Standard deviation of rewards: undefined",
        "Average of dice score: 0.2500",
        "Standard deviation of dice score: undefined",
    ]
    assert game[1] == []


def test_a_faithful_game_that_was_stopped_can_be_told_from_a_finished_one(game, tmp_path):
    with pytest.raises(RunInterruptedError, match="stopped after iteration 5 of 9; --resume continues"):
        run_game(GameConfig(mode="faithful", iterations=9), tmp_path)


def test_a_standard_game_is_evaluated_if_asked_to(game, tmp_path):
    assert "evaluation" not in run_game(GameConfig(), tmp_path)
    assert run_game(GameConfig(), tmp_path, evaluate=True)["evaluation"]["verdict"] == "fine"
    assert game[1] == [tmp_path / "agent.pt"]


def test_one_volume_has_no_held_out_patients(game, tmp_path, caplog):
    assert "evaluation" not in run_game(GameConfig(protocol="per_image"), tmp_path, evaluate=True)
    assert "no held-out patients" in caplog.text
    assert game[1] == []


def test_a_finished_evaluation_is_left_alone(game, tmp_path):
    write_json(tmp_path / "evaluation" / "results.json", {"verdict": "before"})
    assert run_game(GameConfig(), tmp_path, evaluate=True, resume=True)["evaluation"] == {"verdict": "before"}
    assert game[1] == []
    assert experiments.SPLIT_OF_RUN.endswith(".json")
