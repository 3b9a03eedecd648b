"""Every mistake of a configuration has its own line."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medshared.configuration import (
    ConfigError,
    load_config,
)


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
