"""Whether a process of this machine still runs: what decides over its locks and its unfinished files."""

from __future__ import annotations

import os
from pathlib import Path


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or has ended and its parent has not asked for its exit code.

    Args:
        pid: number of the process, as this process sees it.

    Returns:
        False also where the system does not tell.
    """
    if os.name == "nt":
        return False  # os.kill would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _status(pid)[:1] in (["Z"], ["X"])


def process_birth(pid: int) -> str:
    """Return the start of a process in ticks since boot, which tells it from a later one of its number.

    Args:
        pid: number of the process.

    Returns:
        The number as text; empty where the system does not tell.
    """
    found = _status(pid)
    return found[19] if len(found) > 19 else ""


def _status(pid: int) -> list[str]:
    try:
        # The command's name, in parentheses, may hold spaces itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
