"""Arrays kept on disk, so that compressed volumes are unpacked once."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import to_plain, write_npz

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


def source_key(paths: Iterable[Path | None], settings: Mapping[str, Any]) -> str:
    """Return a key that changes with the files and with what was done to them.

    Args:
        paths: Files, or folders of files; null = there is none. Their names, sizes and times count, their place does
            not.
        settings: Plain values.

    Returns:
        20 hexadecimal digits.
    """
    stamps: list[Any] = []
    for path in paths:
        files = sorted(path.iterdir()) if path is not None and path.is_dir() else [path]
        stamps.append([_stamp(file) for file in files if file is not None])
    text = json.dumps([stamps, to_plain(settings, finite=False)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _stamp(file: Path) -> list[Any]:
    state = file.stat()
    return [file.name, state.st_size, state.st_mtime_ns]


def cached_arrays(path: Path | None, names: Iterable[str], make: Callable[[], Arrays]) -> Arrays:
    """Return what a cache file holds, making it where it is absent or damaged.

    Args:
        path: The file, ``.npz``; null = no cache.
        names: Arrays that it must hold.
        make: Makes them.

    Returns:
        The arrays by name.
    """
    if path is None:
        return make()
    found = _read(path, set(names))
    if found is None:
        found = make()
        write_npz(path, **found)
    return found


def _read(path: Path, names: set[str]) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            if names <= set(archive.files):
                return {name: archive[name] for name in names}
            reason = f"lacks {', '.join(sorted(names - set(archive.files)))}"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error) or type(error).__name__
    logger.warning("%s: the cached file is damaged (%s) and made anew", path, reason)
    return None
