"""The configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from medshared.configuration import load_config, load_yaml_or_json
from til_mtl.config import Config

FOLDER = Path(__file__).parents[1] / "config"
FILES = sorted(FOLDER.glob("*.yaml"))


def config(name: str) -> Config:
    return load_config(Config, FOLDER / f"{name}.yaml")


def test_they_are_there():
    assert {path.stem for path in FILES} == {
        "mtl", "mtl_faithful", "mtl_finetuned", "mtl_frozen_cached", "stl_det", "stl_seg",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_sound(path):
    found = load_config(Config, path)
    assert path.stem.removeprefix("stl_").split("_")[0] == found.task
    assert found.data_dir is not None
    assert not found.data_dir.is_absolute()
    assert found.resolved().task == found.task


@pytest.mark.parametrize(("name", "task"), [("mtl", "mtl"), ("stl_seg", "seg"), ("stl_det", "det")])
def test_the_three_scripts_have_the_defaults_written_out(name, task):
    found = config(name)
    defaults = Config(task=task, data_dir=found.data_dir)
    assert found == defaults
    assert {"lr", "weight_decay", "t_max", "max_epochs", "batch_size"} <= set(
        load_yaml_or_json(FOLDER / f"{name}.yaml")
    )


def test_what_the_others_change():
    assert config("mtl_faithful").resolved().epoch_values == "batch"
    assert config("mtl_frozen_cached").cache_features
    tuned = config("mtl_finetuned")
    assert (tuned.freeze_until, tuned.augment, tuned.balancing) == ("layer2", "d4+stain", "uncertainty")
