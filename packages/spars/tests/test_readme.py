"""The README names every configuration key with the default that the code has, and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spars.flags import MODELS, key_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("stage", MODELS)
def test_every_key_is_documented_with_its_default_and_meaning(stage):
    """``python -m spars.flags`` prints the rows that must be there."""
    rows = [line for line in key_table(stage).splitlines() if line.startswith("| `")]
    lines = README.splitlines()
    assert [row for row in rows if row not in lines] == []


def test_no_key_is_documented_that_there_is_not():
    section = README[README.index("| key |") :]
    named = set(re.findall(r"^\| `(\w+)` \| `[^`]*` \| ", section, flags=re.MULTILINE))
    assert named - {key for model in MODELS.values() for key in model.model_fields} == set()


def test_scripts_and_configurations_that_the_readme_names_exist():
    scripts = re.findall(r"python ((?:\w+/)?[\w.]+\.py)\b", README)
    configs = re.findall(r"config/\w+\.yaml|slurm/\w+\.sh", README)
    assert [name for name in [*scripts, *configs] if not (ROOT / name).is_file()] == []
