"""YAML 1.2 types in, quoted text out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medshared.configuration import (
    dump_yaml,
    load_yaml_or_json,
    parse_yaml,
)


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


def test_merge_keys_work_and_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: &b {lr: 1, x: 2}\nother:\n  <<: *b\n  lr: 3\nagain: *b\n")
    value = load_yaml_or_json(tmp_path / "a.yaml")
    assert value["other"] == {"lr": 3, "x": 2}
    assert value["again"] == {"lr": 1, "x": 2}
