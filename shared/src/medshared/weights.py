"""Network weights: safe loading, a readable report of what fits, downloads checked by their SHA-256."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.files import atomic_open, sha256_file

if TYPE_CHECKING:
    import torch

STATE_KEYS = ("model_state", "model_state_dict", "state_dict", "model")
DOWNLOAD_FLAG = "--allow-download"  # what every command line calls `allow_download`

_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every key
_MOST_ROWS = 40  # of one group of the report's table


class WeightsError(ValueError):
    """Weights that cannot be read, do not fit, or are not there."""


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint atomically that `load_checkpoint` is sure to read back.

    Args:
        path: the file to write.
        state: tensors, numbers, text, and lists, tuples and dictionaries of them. NumPy scalars and paths become
            plain values.

    Returns:
        The path.

    Raises:
        TypeError: naming what safe loading would refuse; nothing is written then.
        OSError: naming the file and the reason; an earlier checkpoint is then unchanged.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint

    ready = _loadable(state, "state")
    with atomic_open(path, "wb") as handle:
        try:
            torch.save(ready, handle)
            handle.flush()
        except RuntimeError as error:
            # torch's archive writer hides the system's error when it fails while closing.
            cause = error.__context__
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror) from error
            raise
        unsafe = get_unsafe_globals_in_checkpoint(handle.name)
        if unsafe:
            raise TypeError(
                f"{os.fspath(path)}: safe loading would refuse {', '.join(unsafe)}; store plain values"
            )
    return Path(path)


def _loadable(value: Any, where: str) -> Any:
    """Copy containers, turn NumPy scalars and paths into plain values, name arrays."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        raise TypeError(f"{where} is a NumPy array, which safe loading refuses: use torch.as_tensor")
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if type(value) in (dict, OrderedDict):
        copy = type(value)()
        if isinstance(value, OrderedDict):
            copy.__dict__.update(value.__dict__)  # the `_metadata` of state dictionaries
        for key, item in value.items():
            copy[_loadable(key, f"{where} key")] = _loadable(item, f"{where}[{key!r}]")
        return copy
    if type(value) in (list, tuple):
        return type(value)(_loadable(item, f"{where}[{index}]") for index, item in enumerate(value))
    return value


def load_checkpoint(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Read a file of ``torch.save`` without running code that it may hold.

    Older checkpoints hold NumPy scalars among their metrics; exactly those are allowed besides what
    ``torch.load(weights_only=True)`` reads.

    Args:
        path: the file.
        map_location: device of the tensors.

    Returns:
        What was saved.

    Raises:
        WeightsError: naming the file, when it is missing, cut off, something else, or unsafe.
    """
    import pickle

    import torch

    path = Path(path)
    _check_format(path)
    try:
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError:
            with torch.serialization.safe_globals(_numpy_scalars()):
                return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_why_refused(path, error)}") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path}: the checkpoint could not be read, it may be damaged: {reason}"
        ) from error


def _check_format(path: Path) -> None:
    """Name the usual reasons why a file is no checkpoint, which torch reports in riddles."""
    if path.is_dir():
        raise WeightsError(f"{path}: this is a folder; give the checkpoint file in it")
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            head = handle.read(64)
    except FileNotFoundError:
        nearby = sorted(entry.name for entry in path.parent.glob("*.pt*")) if path.parent.is_dir() else []
        hint = f"; the folder has {', '.join(nearby[:5])}" if nearby else ""
        raise WeightsError(f"{path}: no such checkpoint{hint}") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise WeightsError(f"{path}: the file is empty; copying or downloading it was probably interrupted")
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path}: the checkpoint is cut off after {size:,} bytes (its end is missing); "
            "copy or download it again"
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: this is a pointer of Git LFS, not the file itself; run `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise WeightsError(
            f"{path}: this is a web page, not a checkpoint; the download link needs another form"
        )
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise WeightsError(f"{path}: this is no file of torch.save (it starts with {head[:8]!r})")


def _numpy_scalars() -> list[Any]:
    """Return what pickled NumPy numbers refer to, under the names of NumPy 1 and 2, and nothing else."""
    import numpy as np

    def scalar(dtype: Any, data: bytes) -> Any:
        if not isinstance(dtype, np.dtype) or dtype.kind not in "biufc":
            raise WeightsError(f"a NumPy scalar of dtype {dtype} is refused")
        return np.frombuffer(data, dtype=dtype, count=1)[0]

    numbers = (np.bool_, *np.sctypeDict.values())
    kinds = {type(np.dtype(number)) for number in numbers if np.dtype(number).kind in "biufc"}
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [np.dtype, *kinds, *((scalar, name) for name in names)]


def _why_refused(path: Path, error: Exception) -> str:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []  # files of torch < 1.6 cannot be listed
    if not names:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"safe loading refused the file, or it is damaged: {reason}"
    return (
        f"refused, because reading it could run code: it holds {', '.join(names)}. If you trust where it comes "
        "from, save its tensors anew: torch.save(model.state_dict(), ...)"
    )


def extract_state_dict(obj: Any, keys: Sequence[str] = STATE_KEYS) -> dict[str, Any]:
    """Find the state dictionary of a network in what a checkpoint holds.

    Args:
        obj: a checkpoint mapping, or a bare state dictionary.
        keys: where to look, first match wins.

    Returns:
        Parameter names and tensors, without the prefixes ``module.`` (DataParallel) and ``_orig_mod.``
        (torch.compile) that all names share.

    Raises:
        WeightsError: naming what the checkpoint holds instead.
    """
    import torch

    if not isinstance(obj, Mapping):
        raise WeightsError(f"expected a checkpoint with a state dictionary, found {type(obj).__name__}")
    state: Mapping[str, Any] | None = None
    for key in keys:
        if isinstance(obj.get(key), Mapping):
            state = obj[key]
            break
    if state is None and any(isinstance(value, torch.Tensor) for value in obj.values()):
        state = obj
    if state is None:
        found = ", ".join(map(repr, list(obj)[:10])) or "nothing"
        raise WeightsError(
            f"no state dictionary: expected one of {', '.join(map(repr, keys))}, found {found}"
        )
    result = dict(state)
    while True:
        names = [name for name in result if name != "n_averaged"]  # AveragedModel's counter beside `module.`
        prefix = next((each for each in _WRAPPERS if names and all(n.startswith(each) for n in names)), None)
        if prefix is None:
            return result
        result = {name.removeprefix(prefix): result[name] for name in names}


@dataclass(frozen=True)
class LoadReport:
    """What of a state dictionary fitted a network.

    Attributes:
        matched: keys that were loaded.
        missing: keys of the network that the state dictionary lacks.
        unexpected: keys of the state dictionary that the network lacks.
        reshaped: (key, shape in the network, shape in the state dictionary) where they differ.
        shapes: shapes of the missing and unexpected keys, for the table.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything fitted."""
        return not (self.missing or self.unexpected or self.reshaped)

    def table(self) -> str:
        """Return aligned text: one line for each key that did not fit, in groups."""
        groups = {
            "missing in the file": [(key, self._shape(key), "-") for key in self.missing],
            "unexpected in the file": [(key, "-", self._shape(key)) for key in self.unexpected],
            "of another shape": [(key, _show(a), _show(b)) for key, a, b in self.reshaped],
        }
        rows = [("key", "expected", "found")]
        headings: dict[int, str] = {}
        for title, entries in groups.items():
            if entries:
                headings[len(rows)] = f"{title} ({len(entries)}):"
                rows.extend(entries[:_MOST_ROWS])
                if len(entries) > _MOST_ROWS:
                    rows.append((f"… and {len(entries) - _MOST_ROWS} more", "", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines: list[str] = []
        for index, row in enumerate(rows):
            if index in headings:
                lines.append(headings[index])
            cells = " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {cells}".rstrip(" |"))
        lines.append(f"{len(self.matched)} keys fit")
        return "\n".join(lines)

    def _shape(self, key: str) -> str:
        return _show(self.shapes[key]) if key in self.shapes else "?"


def _show(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def load_state_dict(
    module: torch.nn.Module,
    state: Mapping[str, Any],
    strict: bool = True,
    rename: Callable[[str], str | None] | None = None,
) -> LoadReport:
    """Copy weights into a network and say what fitted.

    Args:
        module: the network.
        state: parameter names and tensors, e.g. of `extract_state_dict`.
        strict: raise unless everything fits; else load what fits.
        rename: from a name in ``state`` to the name in the network; ``None`` drops the entry.

    Returns:
        The report.

    Raises:
        WeightsError: with the report's table when ``strict`` and something does not fit, or when two names become
            one; the network is unchanged then.
    """
    renamed: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in state.items():
        name = key if rename is None else rename(key)
        if name is None:
            continue
        if name in renamed:
            raise WeightsError(f"keys {origin[name]!r} and {key!r} are both renamed to {name!r}")
        renamed[name], origin[name] = value, key
    own = module.state_dict()
    shapes = {key: _shape_of(value) for key, value in {**renamed, **own}.items()}
    common = [key for key in own if key in renamed]
    reshaped = [
        (key, _shape_of(own[key]), _shape_of(renamed[key]))
        for key in common
        if _shape_of(own[key]) != _shape_of(renamed[key])
    ]
    differing = {key for key, _, _ in reshaped}
    report = LoadReport(
        matched=[key for key in common if key not in differing],
        missing=[key for key in own if key not in renamed],
        unexpected=[key for key in renamed if key not in own],
        reshaped=reshaped,
        shapes=shapes,
    )
    if strict and not report.ok:
        raise WeightsError(f"the weights do not fit {type(module).__name__}:\n{report.table()}")
    module.load_state_dict({key: renamed[key] for key in report.matched}, strict=False)
    return report


def _shape_of(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from.

    Attributes:
        name: what users call them, e.g. ``"resnet50-imagenet-v1"``.
        url: ``https://``, ``http://`` or ``file://``.
        sha256: 64 hexadecimal digits that the file must have.
        file_name: its name in the cache.
    """

    name: str
    url: str
    sha256: str
    file_name: str


def default_cache_dir() -> Path:
    """Return the folder of downloaded weights: ``MEDPAPERS_CACHE``, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("MEDPAPERS_CACHE") or pooch.os_cache("medpapers")) / "weights"


def fetch_weights(
    source: WeightsSource, cache_dir: str | os.PathLike[str] | None = None, allow_download: bool = False
) -> Path:
    """Return the path of weights in the cache, downloading them only if that is allowed.

    Args:
        source: where they come from and what their checksum is.
        cache_dir: the cache; by default `default_cache_dir`.
        allow_download: whether the network may be used.

    Returns:
        A file whose SHA-256 is ``source.sha256``.

    Raises:
        WeightsError: when the file is not there and may not be downloaded (with the place to put it), when the
            download fails, and when the checksum is another; no wrong file stays behind a download.
    """
    if Path(source.file_name).name != source.file_name:
        raise ValueError(f"file_name must be a name without folders, found {source.file_name!r}")
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    target = folder / source.file_name
    found = sha256_file(target) if target.is_file() else None
    if found == source.sha256.lower():
        return target
    if not allow_download:
        state = "is not in the cache" if found is None else f"has the wrong SHA-256 {found} in the cache"
        raise WeightsError(
            f"weights {source.name!r}: {target} {state}. Put the file with SHA-256 {source.sha256} there, "
            f"or pass {DOWNLOAD_FLAG} to download it from {source.url}"
        )
    return _download(source, folder)


def _download(source: WeightsSource, folder: Path) -> Path:
    import pooch

    local = source.url.startswith("file://")
    downloader = _copy_local if local else pooch.HTTPDownloader(timeout=60, progressbar=False)
    try:
        path = pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256.lower()}",
            fname=source.file_name,
            path=folder,
            downloader=downloader,
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"weights {source.name!r}: downloading {source.url} failed: {reason}. "
            f"Put the file with SHA-256 {source.sha256} at {folder / source.file_name}"
        ) from error
    return Path(path)


def _copy_local(url: str, output_file: Any, _pooch: Any) -> None:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    shutil.copyfile(url2pathname(urlsplit(url).path), output_file)
