"""Flags made from a configuration."""

from __future__ import annotations

import argparse
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from medshared.config_flags import field_types, key_comments, parse_bool, parse_value


class Base(BaseModel):
    seed: int = 0  # of every choice
    plain: int = 1


class Derived(Base):
    rate: Annotated[float, Field(gt=0)] | None = None  # of learning: small
    # seedling: no key
    mode: Literal["a", "b"] = "a"  # which


@pytest.mark.parametrize(("text", "value"), [("Yes", True), ("1", True), ("OFF", False), ("f", False)])
def test_booleans(text, value):
    assert parse_bool(text) is value


@pytest.mark.parametrize("text", ["maybe", "", "none", "2"])
def test_what_is_no_boolean_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected true or false"):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.0", 1.0), ("1e-3", 0.001), ("None", None), ("null", None), ("cpu", "cpu")],
)
def test_values(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_comments_are_those_of_the_keys_and_of_inherited_ones_in_their_order():
    assert key_comments(Derived) == {"seed": "of every choice", "rate": "of learning: small", "mode": "which"}
    assert list(key_comments(Derived)) == ["seed", "rate", "mode"]


def test_types_without_null_and_bounds():
    assert field_types(Derived.model_fields["rate"].annotation) == (float,)
    assert field_types(int | str | None) == (int, str)
    assert field_types(Derived.model_fields["mode"].annotation) == (Literal["a", "b"],)
