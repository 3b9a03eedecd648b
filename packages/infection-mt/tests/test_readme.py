"""The README names every configuration key with the default that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from infection_mt.config import Config

README = (Path(__file__).parents[1] / "README.md").read_text()


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        inner = [
            a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)
        ]
        sections = [a for a in inner if issubclass(a, BaseModel)]
        if sections and not (prefix.startswith("data.frames.")):
            keys |= keys_of(sections[0], f"{prefix}{name}.")
        else:
            keys.add(prefix + name)
    return keys


def test_every_key_is_documented():
    documented = set(re.findall(r"^\| `([\w.]+)` \|", README, flags=re.MULTILINE))
    assert keys_of(Config) - documented == set()


def test_no_key_is_documented_that_does_not_exist():
    documented = set(re.findall(r"^\| `([\w.]+)` \| `", README, flags=re.MULTILINE))
    sections = {key.rsplit(".", 1)[0] for key in keys_of(Config)}
    assert {key for key in documented if key not in keys_of(Config) and key not in sections} == set()
