"""What a run was made with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from medshared import environment


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_everything_is_plain_json() -> None:
    found = environment.describe_environment(["a", "b"], 3)
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["numpy"]
    assert list(found["packages"]) == sorted(found["packages"])


def test_git_state(tmp_path: Path) -> None:
    assert environment.git_state(tmp_path) is None
    git(tmp_path, "init", "-q", "-b", "trunk")
    assert environment.git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "x")
    state = environment.git_state(tmp_path)
    assert state is not None
    assert (len(state["commit"]), state["branch"], state["dirty"]) == (40, "trunk", False)
    (tmp_path / "a").write_text("2")
    assert environment.git_state(tmp_path) == {**state, "dirty": True}


def test_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_state() is None
    assert environment.describe_environment()["git"] is None


def test_git_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: object, **_kwargs: object) -> None:
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(subprocess, "run", hang)
    assert environment.git_state() is None
