"""Network weights: finding them in a checkpoint, a report of what fits, downloads with a checksum."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.checkpoints import WeightsError, load_checkpoint, save_checkpoint
from medshared.files import sha256_file

if TYPE_CHECKING:
    import torch

__all__ = [
    "LoadReport",
    "WeightsError",
    "WeightsSource",
    "extract_state_dict",
    "fetch_weights",
    "load_checkpoint",
    "load_state_dict",
    "save_checkpoint",
]

STATE_KEYS = ("model_state", "model_state_dict", "state_dict", "model")
DOWNLOAD_FLAG = "--allow-download"  # what every command line calls `allow_download`

_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every key
_MOST_ROWS = 40  # of one group of the report's table


def extract_state_dict(obj: Any, keys: Sequence[str] = STATE_KEYS) -> dict[str, Any]:
    """Find the state dictionary of a network in what a checkpoint holds.

    Args:
        obj: a checkpoint mapping, or a bare state dictionary.
        keys: where to look, first match wins.

    Returns:
        Parameter names and tensors, without the prefixes ``module.`` (DataParallel) and ``_orig_mod.``
        (torch.compile) where all names share them.

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
        WeightsError: with the report's table when ``strict`` and something does not fit, or when two names
            become one; the network is unchanged then.
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
        WeightsError: when the file is not there and may not be downloaded (with the place to put it), when
            the download fails, and when the checksum is another; no wrong file stays behind a download.
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
    # Any: the annotations of pooch 1.9 leave out its own downloaders.
    downloader: Any = _copy_local if local else pooch.HTTPDownloader(timeout=60, progressbar=False)
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
