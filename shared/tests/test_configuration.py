"""Configuration files: reading, overriding, and naming every mistake."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medshared.configuration import (
    ConfigError,
    apply_overrides,
    dump_yaml,
    load_config,
    load_yaml_or_json,
    parse_yaml,
)
from medshared.files import to_plain


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Augment(Section):
    size: Annotated[int, Field(ge=8, le=64)] = 32
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)


class Data(Section):
    folder: Path | None = None
    manifest: Path | None = None
    batch_size: Annotated[int, Field(ge=1)] = 4
    cache: Literal["disk", "memory", "off"] = "disk"
    clamp: tuple[float | None, float | None] = (0.0, 48.0)
    augment: Augment = Augment()
    extra: Augment | None = None

    @field_validator("clamp")
    @classmethod
    def _ordered(cls, value: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
        if None not in value and value[0] >= value[1]:  # type: ignore[operator]
            raise ValueError("the lower end is not below the upper end")
        return value

    @model_validator(mode="after")
    def _source(self) -> Data:
        if self.folder is None and self.manifest is None:
            raise ValueError("give a folder or a manifest")
        return self


class Optimizer(Section):
    lr: Annotated[float, Field(gt=0)] = 1e-4
    amsgrad: bool = False


class Model(Section):
    run_id: str | None = None
    weights: int | Literal["best", "last"] | None = None
    data: Data
    optimizer: Optimizer = Optimizer()
    test: Optimizer | None = None


def problems(source: Any, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(Model, source, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


GOOD = {"data": {"folder": "a"}}


def test_yaml_1_2_types() -> None:
    text = """{a: 1e-4, b: 1e-06, c: -1E+3, d: .5, e: 5., f: 010, g: 0x1F, h: .inf, i: .nan, j: yes,
        k: 2024-01-31, l: 20250101_120000, m: 12:30, n: ~, o: , p: 'null', q: True, r: 1e, s: 0o17,
        t: -.INF, u: '1e-4', v: +7}"""
    value = parse_yaml(text)
    assert math.isnan(value.pop("i"))
    assert value == {
        "a": 1e-4, "b": 1e-6, "c": -1000.0, "d": 0.5, "e": 5.0, "f": 10, "g": 31, "h": math.inf, "j": "yes",
        "k": "2024-01-31", "l": "20250101_120000", "m": "12:30", "n": None, "o": None, "p": "null", "q": True,
        "r": "1e", "s": 15, "t": -math.inf, "u": "1e-4", "v": 7,
    }  # fmt: skip
    assert isinstance(value["c"], float)
    assert isinstance(value["f"], int)


@given(st.floats(allow_nan=False))
def test_every_float_comes_back(number: float) -> None:
    if math.isfinite(number):
        assert parse_yaml(f"a: {number!r}") == {"a": number}
    assert parse_yaml(dump_yaml({"a": number})) == {"a": number}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=5))
def test_dump_and_parse_round_trip(value: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(value)) == value


@pytest.mark.parametrize(
    "text", ["1e-4", "yes", "no", "0x1F", "010", "12:30", "2024-01-31", "null", "<<", "~", "1_0"]
)
def test_dumped_text_stays_text_for_old_readers_too(text: str) -> None:
    dumped = dump_yaml({"a": text})
    assert parse_yaml(dumped) == {"a": text}
    assert yaml.safe_load(dumped) == {"a": text}


def test_dump_takes_paths_tuples_and_shared_parts() -> None:
    shared = [1, 2]
    assert dump_yaml({"b": Path("x/y"), "a": (1, 2), "c": shared, "d": shared}) == (
        "b: x/y\na:\n- 1\n- 2\nc:\n- 1\n- 2\nd:\n- 1\n- 2\n"
    )


def test_read_files(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("a: 1\nb: {c: é}\n", encoding="utf-8")
    (tmp_path / "b.JSON").write_text('\ufeff{"a": 1, "b": {"c": "é"}}', encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "empty.json").write_text("")
    expected = {"a": 1, "b": {"c": "é"}}
    assert load_yaml_or_json(tmp_path / "a.yml") == load_yaml_or_json(str(tmp_path / "b.JSON")) == expected
    assert load_yaml_or_json(tmp_path / "empty.yaml") == load_yaml_or_json(tmp_path / "empty.json") == {}


def test_merge_keys_work_and_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: &b {lr: 1, x: 2}\nother:\n  <<: *b\n  lr: 3\nagain: *b\n")
    value = load_yaml_or_json(tmp_path / "a.yaml")
    assert value["other"] == {"lr": 3, "x": 2}
    assert value["again"] == {"lr": 1, "x": 2}


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
    with pytest.raises(FileNotFoundError, match=r"did you mean 'train.yaml'\?.*trian\.yaml"):
        load_yaml_or_json(tmp_path / "trian.yaml")
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


def test_every_problem_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "lr: 1\ndata: {batchsize: 1, cache: dsk, clamp: [3, 1], augment: {size: 4, mean: [1, 2]}, lr: 2}\n"
        "optimizer: {amsgrad: maybe, lr: fast}\ntest: 3\n"
    )
    lines = set(problems(path))
    expected = {
        "key 'lr': unknown key here; 'lr' belongs under 'optimizer' or 'test'",
        "key 'data.batchsize': unknown key; did you mean 'batch_size'?",
        "key 'data.lr': unknown key here; 'lr' belongs under 'optimizer' or 'test'",
        "key 'data.cache': expected 'disk', 'memory' or 'off', found 'dsk' (text); did you mean 'disk'?",
        "key 'data.clamp': the lower end is not below the upper end",
        "key 'data.augment.size': expected a value at least 8, found 4 (a number)",
        "key 'data.augment.mean[2]': entry 3 is missing: expected a longer list",
        "key 'optimizer.amsgrad': expected true or false, found 'maybe' (text)",
        "key 'optimizer.lr': expected a number, found 'fast' (text)",
        "key 'test': expected a section (keys with values), found 3 (a number)",
    }
    assert lines == {f"{path}: {line}" for line in expected}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"data": {}}, "key 'data': give a folder or a manifest"),
        ({"data": None}, "key 'data': expected a section (keys with values), found null"),
        ({"data": {"folder": 3}}, "key 'data.folder': expected a path, found 3 (a number)"),
        ({"run_id": 7}, "key 'run_id': expected text, found 7 (a number)"),
        ({"run_id": [1] * 99}, f"key 'run_id': expected text, found {repr([1] * 99)[:57]}... (a list)"),
        (
            {"data": {"folder": "a", "batch_size": 1.5}},
            "key 'data.batch_size': expected a whole number, found 1.5 (a number)",
        ),
        ({"optimizer": {"lr": 0}}, "key 'optimizer.lr': expected a value above 0, found 0 (a number)"),
        (
            {"data": {"folder": "a", "augment": {"mean": [1, 2, 3, 4]}}},
            "key 'data.augment.mean': expected at most 3 entries, found 4",
        ),
        (
            {"data": {"folder": "a", "augment": {"mean": 1}}},
            "key 'data.augment.mean': expected a list, found 1 (a number)",
        ),
        ({"optimizer": {"zzz": 1}}, "key 'optimizer.zzz': unknown key; known keys here: amsgrad, lr"),
        ({"batch_sizes": 1}, "key 'batch_sizes': unknown key; did you mean 'data.batch_size'?"),
        (
            {"optimizer": {"run_id": 1}},
            "key 'optimizer.run_id': unknown key here; 'run_id' belongs under the top level",
        ),
    ],
)
def test_one_mistake_one_line(change: dict[str, Any], line: str) -> None:
    assert problems({**GOOD, **change}) == (f"configuration: {line}",)


def test_missing_required_key() -> None:
    assert problems({}) == ("configuration: key 'data': required, but not given",)


def test_unknown_keys_do_not_hide_what_whole_sections_check() -> None:
    assert problems({"data": {"foldr": "a"}}) == (
        "configuration: key 'data.foldr': unknown key; did you mean 'folder'?",
        "configuration: key 'data': give a folder or a manifest",
    )


def test_union_members_are_not_shown_as_keys() -> None:
    lines = problems({**GOOD, "weights": "worst"})
    assert all(line.startswith("configuration: key 'weights': expected") for line in lines)


def test_problems_of_overrides_name_the_override() -> None:
    assert problems(GOOD, "optimizer.lr=fast", "optimizer.lrr=1") == (
        "override 'optimizer.lr=fast': key 'optimizer.lr': expected a number, found 'fast' (text)",
        "override 'optimizer.lrr=1': key 'optimizer.lrr': unknown key; did you mean 'lr'?",
    )


def test_other_values_are_described() -> None:
    (line,) = problems({**GOOD, "run_id": datetime.date(2024, 1, 2)})
    assert line.endswith("expected text, found datetime.date(2024, 1, 2) (date)")
