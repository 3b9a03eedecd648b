"""The README names every configuration key with the default that the code has, and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from medshared.config_flags import key_comments
from til_mtl.config import SWITCHES, Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = {
    k: (d, m) for k, d, m in re.findall(r"^\| `(\w+)` \| `([^`]*)` \| (.+) \|$", README, flags=re.MULTILINE)
}


def shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_key_is_documented_with_its_default_and_meaning():
    comments = {
        k: v.replace("|", "/").replace("<", "&lt;").replace(">", "&gt;")
        for k, v in key_comments(Config).items()
    }
    assert {
        name: (shown(field.default), comments[name]) for name, field in Config.model_fields.items()
    } == ROWS


def test_every_switch_is_listed_as_a_difference():
    section = README.split("## Differences from the original")[1].split("## Configuration")[0]
    assert [name for name in SWITCHES if f"| `{name}` |" not in section] == []


def test_scripts_and_configurations_that_the_readme_names_exist():
    named = set(re.findall(r"(?:python |`)((?:[A-Z]\w+/)?\w+\.py)\b", README))
    assert {"MTL/main.py", "STL/Seg_main.py", "prepare_tiger.py", "TIL_prediction/predict.py"} <= named
    bare = {"main.py", "det_main.py", "evaluate.py", "evaluate_l1.py"}  # in sentences, without their folder
    assert [name for name in named - bare if not (ROOT / name).is_file()] == []
    configs = re.findall(r"config/\w+\.yaml", README)
    assert [name for name in configs if not (ROOT / name).is_file()] == []
