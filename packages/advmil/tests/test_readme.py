"""The README names every configuration key with the default that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from advmil.config import Config

README = (Path(__file__).parents[1] / "README.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \| .+ \|$", README, flags=re.MULTILINE))


def shown(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value) if value == "" else str(value)


def test_every_key_is_documented_with_its_default():
    assert {name: shown(field.default) for name, field in Config.model_fields.items()} == ROWS


def test_scripts_and_configurations_that_the_readme_names_exist():
    folder = Path(__file__).parents[1]
    named = re.findall(r"(?:python |^\| `)((?:tools/)?\w+\.py)", README, flags=re.MULTILINE)
    assert {"main.py", "tools/big_to_small_patching.py", "create_patches_fp.py"} <= set(named)
    assert [name for name in named if not (folder / name).is_file()] == []
    configs = re.findall(r"config/\w+\.yaml", README)
    assert configs
    assert [name for name in configs if not (folder / name).is_file()] == []
