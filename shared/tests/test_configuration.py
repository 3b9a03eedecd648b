"""Configuration files: reading, overriding, and naming every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from medshared.configuration import (
    ConfigError,
    apply_overrides,
    load_config,
    load_yaml_or_json,
)
from medshared.files import to_plain


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Augment(Section):
    size: int = 32


class Data(Section):
    folder: Path
    augment: Augment = Augment()


class Optimizer(Section):
    lr: float = 1e-4


class Model(Section):
    run_id: str | None = None
    data: Data
    optimizer: Optimizer = Optimizer()


def test_read_files(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("a: 1\nb: {c: é}\n", encoding="utf-8")
    (tmp_path / "b.JSON").write_text('\ufeff{"a": 1, "b": {"c": "é"}}', encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "empty.json").write_text("")
    expected = {"a": 1, "b": {"c": "é"}}
    assert load_yaml_or_json(tmp_path / "a.yml") == load_yaml_or_json(str(tmp_path / "b.JSON")) == expected
    assert load_yaml_or_json(tmp_path / "empty.yaml") == load_yaml_or_json(tmp_path / "empty.json") == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "a = 1", r"a\.toml: expected a file ending in .yml, .yaml or .json, found '.toml'"),
        ("a", "a: 1", r"found 'no suffix'"),
        (
            "a.yaml",
            "- 1\n- 2\n",
            r"a\.yaml: expected keys with values at the top level, found \[1, 2\] \(a list\)",
        ),
        ("a.json", '"text"', r"a\.json: expected keys .* found 'text' \(text\)"),
        ("a.yaml", "a: 1\nb: {c: 2, c: 3}\na: 2\n", r"line 2: key 'c' is given twice \(first on line 2\)"),
        ("a.yaml", "a: 1\nb: {c: 2, c: 3}\na: 2\n", r"line 3: key 'a' is given twice \(first on line 1\)"),
        (
            "a.json",
            '{"a": 1,\n\t"b": 2,\n\t"a": 3}',
            r"a\.json: line 3: key 'a' is given twice \(first on line 1\)",
        ),
        ("a.json", '{"a": 1,\n "b" 2}', r"a\.json: line 2, column 6: Expecting"),
        ("a.yaml", "a: 1\n\tb: 2\n", r"a\.yaml: line 2, column 1: not valid YAML: .*; indent with spaces"),
        ("a.yaml", "a: [1, 2\nb: 3\n", r"a\.yaml: line 2, column 2: not valid YAML"),
        (
            "a.yaml",
            "a: 1\n---\nb: 2\n",
            r"a\.yaml: line 2, column 1: not valid YAML: but found another document",
        ),
        ("a.yaml", "1: a\n", r"a\.yaml: line 1: key '1' must be text; write it in quotes"),
        ("a.yaml", "? [a, b]\n: 1\n", r"a\.yaml: line 1"),
        (
            "a.yaml",
            "a: !!python/object/apply:os.getcwd []\n",
            r"a\.yaml: line 1, .* could not determine a constructor",
        ),
        ("a.yaml", "a: *b\n", r"a\.yaml: line 1, .* undefined alias"),
        ("a.yaml", "a: \x01\n", r"a\.yaml: .*special characters are not allowed"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_yaml_or_json(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'train.yaml'\?.*trains\.yaml"):
        load_yaml_or_json(tmp_path / "trains.yaml")
    with pytest.raises(FileNotFoundError, match="no such configuration file"):
        load_yaml_or_json(tmp_path / "no" / "x.yaml")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_yaml_or_json(tmp_path / "train.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="this is a folder"):
        load_yaml_or_json(tmp_path / "folder.yaml")


def test_overrides() -> None:
    source: dict[str, Any] = {"a": {"b": 1}, "c": None}
    result = apply_overrides(source, ["a.b=1e-4", "a.x = y=z", "c.d=[1, null]", "e=", "f.g.h={i: yes}"])
    assert result == {
        "a": {"b": 1e-4, "x": "y=z"},
        "c": {"d": [1, None]},
        "e": None,
        "f": {"g": {"h": {"i": "yes"}}},
    }
    assert source == {"a": {"b": 1}, "c": None}


def test_broken_overrides_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"a": {"b": [1, 2]}}, ["x", "=1", "a..b=1", "a.b.c=1", "a.b=[1", "ok=1"])
    lines = caught.value.problems
    assert len(lines) == 5
    assert lines[0] == "override 'x': expected key=value, such as training.epochs=5"
    assert lines[3] == "override 'a.b.c=1': 'a.b' is [1, 2] (a list), not a section; set 'a.b' itself"
    assert lines[4].startswith("override 'a.b=[1': line 1, column")


def test_a_good_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {folder: x, augment: {size: 16}}\noptimizer: {lr: 1e-3}\n")
    model = load_config(Model, tmp_path / "c.yaml", ["optimizer.lr=1e-05", "run_id='7'"])
    assert isinstance(model, Model)
    assert (model.data.folder, model.data.augment.size, model.optimizer.lr) == (Path("x"), 16, 1e-5)
    assert load_config(Model, to_plain(model)) == model
    (tmp_path / "c.json").write_text(json.dumps(to_plain(model)))
    assert load_config(Model, tmp_path / "c.json") == model
