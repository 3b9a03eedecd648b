"""The configurations that come with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aespa.config import SWITCHES, Config
from medshared.config_flags import key_comments
from medshared.configuration import load_config, load_yaml_or_json

FOLDER = Path(__file__).parents[1] / "config"
FILES = sorted(FOLDER.glob("*.yaml"))


def config(name: str) -> Config:
    return load_config(Config, FOLDER / f"{name}.yaml")


def test_they_are_there():
    assert [path.stem for path in FILES] == ["aespa", "aespa_faithful", "spa", "tiny"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_sound(path):
    found = load_config(Config, path)
    assert found.dataset is not None
    assert not found.data_path.is_absolute()
    assert f"python train.py -config config/{path.name}" in path.read_text()


def test_the_manual_has_every_key_in_order_with_its_default_and_comment():
    text = (FOLDER / "aespa.yaml").read_text()
    rows = re.findall(r"^(\w+): \S.*?  # (.+)$", text, re.MULTILINE)
    assert dict(rows) == key_comments(Config)
    assert [key for key, _ in rows] == list(Config.model_fields)
    given = load_yaml_or_json(FOLDER / "aespa.yaml")
    examples = {key: given[key] for key in ("dataset", "data_path", "sam_ckpt")}
    assert config("aespa") == Config.model_validate(examples)


def test_what_the_others_change():
    faithful = config("aespa_faithful").resolved()
    assert {key: getattr(faithful, key) for key in SWITCHES} == {
        key: old for key, (_, old) in SWITCHES.items()
    }
    spa = config("spa")
    assert (spa.mode, spa.num_samples, spa.n_clusters, spa.n_components) == ("SPA", 48, 4, 16)
    tiny = config("tiny")
    assert (tiny.encoder, tiny.image_size, tiny.sam_ckpt) == ("tiny", 64, None)
