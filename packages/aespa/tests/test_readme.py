"""The README names every configuration key with the default that the code has, and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from aespa.config import SWITCHES, Config
from aespa.flags import DEAD_FLAGS, key_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_key_is_documented_with_its_default_and_meaning():
    """``aespa.flags.key_table`` returns the rows that must be there."""
    rows = [line for line in key_table().splitlines() if line.startswith("| `")]
    lines = README.splitlines()
    assert [row for row in rows if row not in lines] == []


def test_no_key_is_documented_that_there_is_not():
    section = README[README.index("| key |") :]
    named = set(re.findall(r"^\| `(\w+)` \| `[^`]*` \| ", section, flags=re.MULTILINE))
    assert named == set(Config.model_fields)


def test_every_switch_and_dead_flag_is_told():
    differences = README[README.index("## Differences") : README.index("## Results")]
    missing = [name for name in SWITCHES if f"| `{name}` |" not in differences]
    assert missing == []
    assert [name for name in DEAD_FLAGS if not re.search(rf"-{name}\b", differences)] == []


def test_scripts_configurations_and_documents_that_the_readme_names_exist():
    scripts = re.findall(r"python ([\w.]+\.py)\b", README)
    others = re.findall(r"config/\w+\.yaml|slurm/\w+\.sh|(?:\.\./)*docs/[\w.]+|bash\w*\.sh", README)
    assert [name for name in [*scripts, *others] if not (ROOT / name).is_file()] == []
