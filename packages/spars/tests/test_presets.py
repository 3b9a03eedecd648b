"""The constants of the original's scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from spars.config import ClassifierConfig, GameConfig
from spars.errors import DataError
from spars.presets import (
    FAMILIES,
    PRESETS,
    classifier_keys,
    faithful_validation_warning,
    find_preset,
    game_keys,
)

ROOT = Path(__file__).parents[1]
GAMES = [name for name, preset in PRESETS.items() if preset.stage == "game"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_script_which_names_it(name):
    script = ROOT / PRESETS[name].script
    assert f'("{name}")' in script.read_text()


# Script, training range, batches of an epoch, validation range, weights: constants of the five copies of one file.
EXPERIMENTS = [
    ("ex1_8in", (0, 8), 2, (8, 24), "ex1_8in_weights.pth"),
    ("ex2_12in", (0, 12), 3, (12, 28), "ex2_12in_weights.pth"),
    ("ex3_16in", (0, 16), 4, (16, 32), "model_weights.pth"),
    ("ex4_20in", (0, 20), 5, (20, 36), "ex3_20in_weights.pth"),
    ("ex5_24in", (0, 24), 6, (24, 40), "ex4_24in_weights.pth"),
    ("net_global", (0, 24), 6, (24, 40), "ex4_24in_weights.pth"),
]


@pytest.mark.parametrize(("name", "training", "batches", "validation", "weights"), EXPERIMENTS)
def test_a_faithful_classifier_has_the_constants_of_its_script(name, training, batches, validation, weights):
    config = ClassifierConfig(mode="faithful", **classifier_keys(name, "faithful")).resolved()
    assert (config.train_start, config.train_end) == training
    assert (config.val_start, config.val_end) == validation
    assert (config.train_batches, config.weights_out) == (batches, weights)
    found = (
        config.crop_size,
        config.crop_no,
        config.batch_size,
        config.epochs,
        config.val_batches,
        config.lr,
    )
    assert found == ((96, 96, 64), 10, 4, 32, 4, 0.001)
    assert (config.select, config.architecture, config.target_size) == ("last", "net", (256, 256, 180))


@pytest.mark.parametrize("mode", ["standard", "paper"])
@pytest.mark.parametrize("name", FAMILIES["classifier"])
def test_otherwise_all_experiments_validate_on_the_same_cases(name, mode):
    config = ClassifierConfig(mode=mode, **classifier_keys(name, mode))
    assert (config.val_start, config.val_end) == (24, 40)
    assert config.train_end == find_preset(name).n_train


# Script, window, threshold.
GAME_CONSTANTS = [
    ("best_RL", (48, 48, 24), 0.3),
    *((f"threshold-0.{digit}", (64, 64, 32), digit / 10) for digit in (2, 3, 4, 5, 6)),
    ("window-8_8_8", (8, 8, 8), 0.3),
    ("window-16_16_8", (16, 16, 8), 0.3),
    ("window-32_32_16", (32, 32, 16), 0.3),
    ("window-48_48_24", (48, 48, 24), 0.3),
    ("window-64_64_32", (64, 64, 32), 0.3),
]


@pytest.mark.parametrize(("name", "window", "threshold"), GAME_CONSTANTS)
def test_a_faithful_game_has_the_constants_of_its_script(name, window, threshold):
    config = GameConfig(mode="faithful", **game_keys(name, "faithful")).resolved()
    assert (config.window_size, config.termination_threshold) == (window, threshold)
    fixed = {
        "case": "liver_5", "full_image_size": (256, 256, 180), "target_size": (256, 256, 180), "step_size": 4,
        "segmentation_threshold": 0.5, "n_steps": 32, "batch_size": 8, "n_epochs": 1, "policy": "mlp", "verbose": 2,
        "competitor_update_frequency": 32, "iterations": 10000, "log_interval": 20, "termination": True,
        "classifier_weights": Path("ex4_24in_weights.pth"), "learning_rate": 3e-4, "gamma": 0.99,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in fixed} == fixed


def test_all_games_are_listed():
    assert {name for name, *_ in GAME_CONSTANTS} == set(GAMES)


def test_thresholds_end_episodes_in_every_mode_or_they_would_be_no_experiment():
    for mode in ("standard", "paper", "faithful"):
        for name in FAMILIES["threshold"]:
            assert GameConfig(mode=mode, **game_keys(name, mode)).resolved().termination is True


@pytest.mark.parametrize("name", GAMES)
def test_the_classifier_of_a_standard_game_learns_windows_of_its_size(name):
    window = PRESETS[name].keys["window_size"]
    assert classifier_keys(name, "standard")["crop_size"] == window
    assert "crop_size" not in classifier_keys(name, "faithful")


def test_families_hold_every_experiment():
    assert {family: len(names) for family, names in FAMILIES.items()} == {
        "classifier": 5, "threshold": 5, "window": 5,
    }  # fmt: skip


def test_faithful_experiments_are_said_to_have_other_validation_cases():
    for name in FAMILIES["classifier"]:
        text = faithful_validation_warning(name)
        assert text is not None
        assert "ex1_8in 8–24" in text
        assert "ex5_24in 24–40" in text
    assert faithful_validation_warning("net_global") is None
    assert faithful_validation_warning("best_RL") is None


def test_an_unknown_preset_is_answered_with_those_that_there_are():
    with pytest.raises(DataError, match=r"no preset 'best'; there are best_RL, net_global"):
        find_preset("best")
    with pytest.raises(DataError, match="'net_global' trains a classifier and plays no game"):
        game_keys("net_global", "standard")
