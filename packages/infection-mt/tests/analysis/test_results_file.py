import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infection_mt.analysis.results_file import read_results, recover_json

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=4), v, max_size=4)
)


def is_part(found: Any, whole: Any) -> bool:
    """Whether a value is what was complete of another one."""
    if isinstance(whole, dict) and isinstance(found, dict):
        return all(key in whole and is_part(value, whole[key]) for key, value in found.items())
    if isinstance(whole, list) and isinstance(found, list):
        return len(found) <= len(whole) and all(is_part(a, b) for a, b in zip(found, whole, strict=False))
    return found == whole and type(found) is type(whole)


@given(st.dictionaries(st.text(max_size=4), values, max_size=5), st.floats(0, 1), st.sampled_from([None, 2]))
def test_a_cut_anywhere_invents_nothing(content: dict, share: float, indent: int | None) -> None:
    text = json.dumps(content, indent=indent)
    assert recover_json(text) == content
    cut = recover_json(text[: int(len(text) * share)])
    assert cut is None or is_part(cut, content)


def test_every_complete_value_is_kept() -> None:
    text = '{"a": {"x": 1, "y": [1, 2, {"z": "s"}], "w": nu'
    assert recover_json(text) == {"a": {"x": 1, "y": [1, 2, {"z": "s"}]}}
    assert recover_json('{"a": 1, "b": 12') == {"a": 1}
    assert recover_json('{"a": "closed"') == {"a": "closed"}
    assert recover_json('{"a": "open') == {}
    assert recover_json('{"a": tensor(3), "b": 2}') == {}


def test_whole_files_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"auc": NaN, "n": 3}')
    results = read_results(path)
    assert results.complete
    assert results.content["n"] == 3


def test_cut_files_say_where(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{\n"a": 1,\n"b": ')
    results = read_results(path)
    assert (results.content, results.complete) == ({"a": 1}, False)
    assert "results.json: cut at line 3" in results.problem


@pytest.mark.parametrize(
    ("text", "message"), [("", "not a JSON object"), ("[1]", "found list"), ("x", "not a JSON")]
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_results(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.json: no results there"):
        read_results(tmp_path / "results.json")
