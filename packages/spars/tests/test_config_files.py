"""The configurations that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medshared.configuration import load_config, load_yaml_or_json
from spars.config import ClassifierConfig, GameConfig
from spars.flags import MODELS, Stage, key_yaml
from spars.presets import classifier_keys, game_keys

FOLDER = Path(__file__).parents[1] / "config"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "ablation")
# What the manuals have that is not the default.
CHANGES: dict[Stage, dict[str, Any]] = {
    "classifier": {"data_dir": "data/Task03_Liver", "crop_size": (48, 48, 24)},
    "game": {
        "data_dir": "data/Task03_Liver",
        "classifier_weights": "runs/classifier/ex4_24in_weights.pth",
        "cache_dir": "data/cache",
    },
}


def model(path: Path) -> type[ClassifierConfig] | type[GameConfig]:
    return ClassifierConfig if path.stem.startswith("classifier") else GameConfig


def test_they_are_there():
    assert {path.stem for path in FILES} == {
        "classifier", "classifier_faithful", "classifier_image_labels", "game", "game_faithful",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_sound(path):
    found = load_config(model(path), path)
    assert found.data_dir is not None
    assert not found.data_dir.is_absolute()
    assert found.resolved().mode == found.mode


@pytest.mark.parametrize("stage", MODELS)
def test_the_manuals_have_every_key_with_its_default_and_meaning(stage):
    """``python -m spars.flags classifier`` prints what the file must have below its head."""
    text = (FOLDER / f"{stage}.yaml").read_text()
    head, _, body = text.partition("\n\n")
    assert all(line.startswith("#") for line in head.splitlines())
    assert body == key_yaml(stage, CHANGES[stage])


def test_the_window_that_the_classifier_learns_is_the_one_that_the_game_moves():
    classifier = load_config(ClassifierConfig, FOLDER / "classifier.yaml")
    game = load_config(GameConfig, FOLDER / "game.yaml")
    assert classifier.crop_size == game.window_size
    assert game.classifier_weights.name == classifier.weights_out
    assert classifier.data_dir == game.data_dir


def test_the_faithful_files_are_the_original_scripts():
    found = load_config(ClassifierConfig, FOLDER / "classifier_faithful.yaml")
    keys = {"mode": "faithful", "data_dir": found.data_dir}
    assert (
        found.resolved() == ClassifierConfig(**keys, **classifier_keys("net_global", "faithful")).resolved()
    )
    game = load_config(GameConfig, FOLDER / "game_faithful.yaml")
    assert game.resolved() == GameConfig(**keys, **game_keys("best_RL", "faithful")).resolved()


def test_image_labels_are_what_the_classifier_learns_from():
    assert load_config(ClassifierConfig, FOLDER / "classifier_image_labels.yaml").label_source == "csv"


def test_the_sections_of_the_ablation_leave_the_constants_of_scripts_alone():
    found = load_yaml_or_json(FOLDER / "ablation.yaml")
    assert set(found) == {"classifier", "game"}
    ClassifierConfig(**found["classifier"])
    GameConfig(**found["game"])
    assert not set(found["game"]) & {
        "window_size",
        "termination_threshold",
        "termination",
        "classifier_weights",
    }
    assert not set(found["classifier"]) & set(classifier_keys("ex1_8in", "faithful"))
