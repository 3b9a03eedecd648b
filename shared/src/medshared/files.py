"""Files that are either whole or absent: atomic writes, JSON and NPZ, checksums.

Every writer goes through [`atomic_open`][medshared.files.atomic_open]: the content is written to a hidden
sibling of the target, flushed to the disk, and moved over the target in one step. Whatever happens on the way
(full disk, exception, ``kill -9``), a reader finds the earlier version or the new one and nothing in between. What a
killed writer left of its hidden sibling goes with the next process that writes into the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import time
import zipfile
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, cast

from medshared.liveness import has_ended

_LONGEST_NAME = 120  # bytes of the target's name kept in the temporary name (file systems allow 255)
_TEMPORARY = ".{}.{}.tmp"
_WRITER = re.compile(r"([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.tmp")
_REMAINS = re.compile(rf"\..+\.{_WRITER.pattern}", re.DOTALL)
_ABANDONED_S = (
    86400.0  # another machine's unfinished file of that age: nobody writes for a day without a byte
)
_swept: set[str] = set()  # folders in which this process has looked for remains
_HINTS = {
    errno.ENOSPC: "the disk is full: free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space or write elsewhere",
    errno.EACCES: "no permission: change the folder's permissions or write elsewhere",
    errno.EPERM: "no permission: change the folder's permissions or write elsewhere",
    errno.EROFS: "the file system is read-only: write elsewhere",
    errno.ENOTDIR: "a file lies where a folder of that path is needed",
    errno.EEXIST: "a file lies where a folder of that path is needed",
    errno.EISDIR: "a folder of that name is in the way",
    errno.EFBIG: "the file system allows no file of that size",
}


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open a file whose content appears under its name only when the block ends without an error.

    Parent folders are created. A symbolic link is followed, and the permissions of an existing file are kept.
    Writers of the same path in several processes do not disturb each other: the last one to finish wins.

    Args:
        path: the file to write.
        mode: ``"wb"`` for bytes, ``"w"`` for UTF-8 text with line feeds as line ends.

    Yields:
        The open temporary file; its ``name`` is the temporary path.

    Raises:
        OSError: naming ``path`` and the likely cause; an earlier version of the file is then unchanged.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', found {mode!r}")
    shown = Path(path)
    target = Path(os.path.realpath(shown)) if shown.is_symlink() else shown
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        # "x" refuses to follow or overwrite anything that has the temporary name already.
        with (
            temporary.open("xb") if mode == "wb" else temporary.open("x", encoding="utf-8", newline="\n")
        ) as handle:
            yield handle
            if not handle.closed:
                handle.flush()
        _keep_permissions(target, temporary)
        _flush_to_disk(temporary)
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, temporary, target):
            raise write_error(shown, error, note="; an earlier version, if any, is unchanged") from error
        raise
    _flush_folder(target.parent)


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Give a file a second name in one step, or copy it where the file system has no hard links.

    Args:
        source: existing file.
        target: replaced if it is another file; parent folders are created.

    Returns:
        The target.

    Raises:
        OSError: naming the target when it cannot be written, or the source when it cannot be read.
    """
    source, target = Path(source), Path(target)
    with contextlib.suppress(FileNotFoundError):
        if target.samefile(source):
            return target
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        temporary.hardlink_to(source)
        temporary.replace(target)
    except OSError:
        with source.open("rb") as handle, atomic_open(target, "wb") as out:
            shutil.copyfileobj(handle, out)
    finally:
        # Renaming does nothing where another process has just made target the same file.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def _temporary(target: Path) -> Path:
    """Return a hidden sibling whose name tells who writes it."""
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(_TEMPORARY.format(_shortened(target.name), writer))


def _shortened(name: str) -> str:
    """Return a name that is short enough for an addition, and still that of one file alone."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: _LONGEST_NAME - 17].decode(errors='ignore')}-{digest}"


@cache
def _machine() -> str:
    """Return eight digits for what numbers the processes: this boot of this host, or a container on it."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:8]


def _sweep(folder: Path) -> None:
    """Remove, at this process's first write into a folder, what killed processes left there unfinished."""
    if str(folder) in _swept:
        return
    _swept.add(str(folder))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            writer = _REMAINS.fullmatch(entry.name) if entry.name.startswith(".") else None
            if writer is not None and _is_abandoned(entry, writer[1], int(writer[2])):
                with contextlib.suppress(OSError):
                    os.unlink(entry)  # noqa: PTH108


def look_for_remains_again() -> None:
    """Let the next write into each folder remove what killed writers left there: one was killed meanwhile."""
    _swept.clear()


def _is_abandoned(entry: os.DirEntry[str], machine: str, pid: int) -> bool:
    if machine == _machine():
        return has_ended(pid)
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S
    except FileNotFoundError:
        return False


def remove_remains(path: str | os.PathLike[str]) -> list[Path]:
    """Remove what writers of a file, or of its sidecar, that were killed left beside it.

    To be called only while nobody writes the file: remains look like the work of a living writer.

    Args:
        path: the file that `atomic_open` was writing.

    Returns:
        The temporary files that were removed.
    """
    target = Path(path)
    names = (_shortened(target.name), _shortened(f"{target.name}.done.json"))
    found = [
        each
        for name in names
        for each in sorted(target.parent.glob(_TEMPORARY.format(glob.escape(name), "*")))
        if each.name.startswith(f".{name}.") and _WRITER.fullmatch(each.name[len(name) + 2 :])
    ]
    for remains in found:
        remains.unlink(missing_ok=True)
    return found


def write_error(
    path: str | os.PathLike[str], cause: OSError, what: str = "the file", note: str = ""
) -> OSError:
    """Return an ``OSError`` of the same kind that names the path, the reason and what to do.

    Args:
        path: the file that could not be written.
        cause: the system's error.
        what: what the path is, for the message.
        note: added at the end of the message.

    Returns:
        An error whose class follows from ``cause.errno`` (``PermissionError``, ``NotADirectoryError``, …).
    """
    reason = cause.strerror or str(cause) or type(cause).__name__
    hint = _HINTS.get(cause.errno or 0)
    message = f"{what} could not be written: {reason}" + (f" ({hint})" if hint else "")
    message += note
    if cause.errno is None:
        return OSError(f"{os.fspath(path)}: {message}")
    return OSError(cause.errno, message, os.fspath(path))


def _is_about(error: OSError, temporary: Path, target: Path) -> bool:
    """Whether the error came from writing this file, and not from something else done in the block."""
    if type(error).__module__ != "builtins":  # a reader's own kind of error, such as StackError
        return False
    named = error.filename
    if named is None:
        return True
    if not isinstance(named, (str, bytes, os.PathLike)):
        return False
    path = Path(os.fsdecode(named))
    return path in (temporary, target, target.parent) or path in target.parents


def _keep_permissions(target: Path, temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))


def _flush_to_disk(path: Path) -> None:
    # Reopened, because libraries that are given the handle may have closed it.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no fsync
            raise
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable where the platform allows to (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes atomically and return the path."""
    with atomic_open(path, "wb") as handle:
        handle.write(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    with atomic_open(path, "w") as handle:
        handle.write(text)
    return Path(path)


def write_json(path: str | os.PathLike[str], obj: Any) -> Path:
    """Write JSON atomically, indented by 2, keys in the order given.

    NumPy and torch scalars and arrays, paths, dates, enumerations, dataclasses and pydantic models become
    plain values; numbers that JSON does not know (NaN, ±infinity) become ``null``.

    Args:
        path: the file to write.
        obj: what to write.

    Returns:
        The path.

    Raises:
        TypeError: naming the key of a value that has no JSON form; nothing is written then.
        OSError: as for `atomic_open`.
    """
    text = json.dumps(to_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def to_plain(obj: Any, *, finite: bool = True, _key: str = "") -> Any:
    """Return the value built of ``dict``, ``list``, ``str``, ``int``, ``float``, ``bool`` and ``None`` only.

    Args:
        obj: any nesting of mappings, sequences, NumPy and torch values, paths, dates, enumerations,
            dataclasses and pydantic models.
        finite: turn NaN and ±infinity into ``None``.

    Returns:
        The plain value.

    Raises:
        TypeError: naming the key of a value that has no plain form.
    """
    if obj is None or isinstance(obj, bool):
        return obj
    if isinstance(obj, Enum):
        return to_plain(obj.value, finite=finite, _key=_key)
    if isinstance(obj, str):
        return str(obj)
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) or not finite else None
    if isinstance(obj, os.PathLike):
        return os.fsdecode(obj)
    if isinstance(obj, (datetime, date)):
        return obj.isoformat()
    if hasattr(obj, "model_dump"):
        obj = obj.model_dump()
    elif dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        obj = {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        plain: dict[str, Any] = {}
        for key, value in obj.items():
            name = key if isinstance(key, str) else str(to_plain(key, finite=False, _key=f"{_key}[{key!r}]"))
            if name in plain:
                raise TypeError(f"key {_key + '.' + name!r} occurs twice once keys are text")
            plain[name] = to_plain(value, finite=finite, _key=f"{_key}.{name}" if _key else name)
        return plain
    if isinstance(obj, (list, tuple)):
        return [to_plain(item, finite=finite, _key=f"{_key}[{i}]") for i, item in enumerate(obj)]
    if isinstance(obj, AbstractSet):
        return sorted((to_plain(item, finite=finite, _key=_key) for item in obj), key=repr)
    if hasattr(obj, "tolist"):  # NumPy and torch, without importing either
        values = cast(Any, obj).tolist()
        if type(values) is not type(obj):
            return to_plain(values, finite=finite, _key=_key)
    raise TypeError(
        f"value of key {_key or '(top level)'!r} has type {type(obj).__name__}, which JSON cannot hold"
    )


def write_npz(path: str | os.PathLike[str], /, **arrays: Any) -> Path:
    """Write named arrays atomically as an uncompressed ``.npz`` that loads with ``allow_pickle=False``.

    The same arrays give the same bytes.

    Args:
        path: the file to write.
        **arrays: anything that ``numpy.asanyarray`` takes, except arrays of Python objects.

    Returns:
        The path.

    Raises:
        TypeError: naming an array of Python objects; nothing is written then.
        OSError: as for `atomic_open`.
    """
    import numpy as np

    ready: dict[str, Any] = {}
    for name, value in arrays.items():
        array = np.asanyarray(value)
        if array.dtype.hasobject:
            raise TypeError(
                f"{os.fspath(path)}: array {name!r} holds Python objects (dtype {array.dtype}); "
                "give numbers, or text of one dtype such as numpy.array(names, dtype=str)"
            )
        ready[name] = array
    with atomic_open(path, "wb") as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
        for name, array in ready.items():
            # ZipInfo without a date: the archive does not depend on the time of writing.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return Path(path)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file (UTF-8, with or without byte-order mark).

    Args:
        path: the file to read.

    Returns:
        The parsed value.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: naming the file, line and column where it stops being JSON.
    """
    shown = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "no such JSON file", shown) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown}: not UTF-8 text (byte {error.start}); is it really a JSON file?"
        ) from error
    if not text.strip():
        raise ValueError(f"{shown}: line 1: the file is empty; writing it was probably interrupted")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        end = error.pos >= len(text.rstrip())
        cause = "; the file ends too early, writing it was probably interrupted" if end else ""
        raise ValueError(f"{shown}: line {error.lineno}, column {error.colno}: {error.msg}{cause}") from error


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 lower-case hexadecimal digits, reading it in small pieces."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
