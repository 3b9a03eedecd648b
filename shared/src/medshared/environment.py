"""What a run was made with: versions, command, git state, platform and device."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def describe_environment(command: Sequence[str] | None = None, seed: int | None = None) -> dict[str, Any]:
    """Collect what someone needs to repeat a run.

    Args:
        command: the program and its arguments; by default those of this process.
        seed: the run's seed.

    Returns:
        A plain mapping: start time, command, seed, versions, all installed packages, git state (null without
        git or outside a repository), platform, device and SLURM job. No host name and no user name.
    """
    return {
        "started": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        "command": list(command) if command is not None else list(sys.argv),
        "seed": seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": _devices(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "git": git_state(),
        "packages": installed_packages(),
    }


def installed_packages() -> dict[str, str]:
    """Return name and version of every installed distribution, by name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.name  # None for broken leftovers of an interrupted installation
        if name:
            found.setdefault(name.lower(), distribution.version)
    return dict(sorted(found.items()))


def git_state(folder: str | os.PathLike[str] | None = None) -> dict[str, Any] | None:
    """Return commit, branch and whether files differ from the commit.

    Args:
        folder: a folder in the repository; by default that of this code when git tracks it (a development
            install), else the working directory.

    Returns:
        ``{"commit", "branch", "dirty"}``, or ``None`` without git, outside a repository, or before a commit.
    """
    if folder is None:
        here = Path(__file__)
        tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name) is not None
        folder = here.parent if tracked else Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def _git(folder: str | os.PathLike[str], *arguments: str) -> str | None:
    """Output of a git command, or ``None`` when git is missing, fails or hangs: a run never stops for it."""
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _devices() -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        return {"torch": None, "cuda": None, "gpus": []}
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append({"name": properties.name, "memory_bytes": properties.total_memory})
    return {"torch": str(torch.__version__), "cuda": torch.version.cuda, "gpus": gpus}
