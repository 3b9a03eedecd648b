"""What lies in an output folder: is every visible file whole, and do two folders hold the same results?"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# What tells when, where and by which command a run was made, or how fast it was, and not what came out of it.
NARRATIVE = ("log.txt", "*.log", "environment.json", "report.html", "*events.out.tfevents*")
PASSING = frozenset(
    {
        "seconds",
        "mtime",
        "mtime_ns",
        "modified",
        "started",
        "finished",
        "created",
        "command",
        "peak_memory_mb",
    }
)


def is_hidden(name: str) -> bool:
    """Whether any part of a relative path starts with a dot: unfinished files and locks are named so."""
    return any(part.startswith(".") for part in Path(name).parts)


def listing(folder: Path) -> list[str]:
    """Return the relative paths of all files of a folder, hidden ones included, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------- is it whole?


def _whole_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _whole_jsonl(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def _whole_csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise ValueError("the last line has no end")
    widths = {len(row) for row in csv.reader(text.splitlines())}
    if len(widths) > 1:
        raise ValueError(f"rows of {sorted(widths)} cells")


def _whole_numpy(path: Path) -> None:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return
    with loaded:
        for key in loaded.files:
            loaded[key]


def _whole_torch(path: Path) -> None:
    from medshared.checkpoints import load_checkpoint

    load_checkpoint(path)


def _whole_hdf5(path: Path) -> None:
    _hdf5_content(path)


def _whole_picture(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()


def _whole_tiff(path: Path) -> None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            for _ in page.segments():
                pass


def _whole_nifti(path: Path) -> None:
    import nibabel

    np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def _whole_page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the page does not end in </html>")


def _whole_yaml(path: Path) -> None:
    import yaml

    text = path.read_text(encoding="utf-8")
    yaml.safe_load(text)
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")


def _whole_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("a member of the archive is damaged")


_WHOLE: dict[str, Callable[[Path], None]] = {
    ".json": _whole_json,
    ".geojson": _whole_json,
    ".jsonl": _whole_jsonl,
    ".csv": _whole_csv,
    ".npy": _whole_numpy,
    ".npz": _whole_numpy,
    ".pt": _whole_torch,
    ".pth": _whole_torch,
    ".h5": _whole_hdf5,
    ".png": _whole_picture,
    ".jpg": _whole_picture,
    ".tif": _whole_tiff,
    ".tiff": _whole_tiff,
    ".nii": _whole_nifti,
    ".gz": _whole_nifti,
    ".html": _whole_page,
    ".yaml": _whole_yaml,
    ".zip": _whole_archive,
}


class Watch:
    """Looks at a folder after every kill; a file that was seen whole is read again only when it changed.

    Args:
        expected: Patterns of the relative paths that may be visible; ``None`` for any.
    """

    def __init__(self, expected: Iterable[str] | None = None) -> None:
        self._expected = None if expected is None else tuple(expected)
        self._seen: dict[str, tuple[int, int, int]] = {}

    def check(self, folder: Path) -> None:
        """Raise for the first visible file that is half written, unexpected, or not what its sidecar says.

        Raises:
            AssertionError: Naming the file and what is wrong with it.
        """
        from medshared.leases import sidecar_path

        for name in listing(folder):
            if is_hidden(name):
                if not name.endswith((".tmp", ".lock")):
                    raise AssertionError(f"{name}: a hidden file that is neither a lock nor unfinished")
                continue
            if self._expected is not None and not _matches(name, self._expected):
                raise AssertionError(f"{name}: visible midway, but no file of a finished run")
            path = folder / name
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._seen.get(name) == stamp:
                continue
            try:
                _WHOLE.get(path.suffix, lambda _: None)(path)
            except Exception as error:
                raise AssertionError(f"{name} ({status.st_size} bytes) is not whole: {error}") from error
            sidecar = sidecar_path(path)
            if sidecar.is_file():
                recorded = json.loads(sidecar.read_text())["sha256"]
                if recorded != hashlib.sha256(path.read_bytes()).hexdigest():
                    raise AssertionError(f"{name}: the checksum differs from that of {sidecar.name}")
            self._seen[name] = stamp


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


# ---------------------------------------------------------------------- is it the same?


def _plain(value: Any) -> Any:
    """Return a value that compares bit for bit: arrays as their bytes, mappings without passing entries."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key not in PASSING}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous()
        return (str(value.dtype), tuple(value.shape), hashlib.sha256(_tensor_bytes(value)).hexdigest())
    if isinstance(value, (np.ndarray, np.generic)):
        return (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
    if isinstance(value, float):
        return value.hex()
    return value


def _tensor_bytes(tensor: Any) -> bytes:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _hdf5_content(path: Path) -> Any:
    import h5py

    content: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        content["/"] = _plain(dict(file.attrs))

        def visit(name: str, node: Any) -> None:
            data = node[()] if isinstance(node, h5py.Dataset) else None
            content[name] = (_plain(dict(node.attrs)), _plain(data))

        file.visititems(visit)
    return content


def _torch_content(path: Path) -> Any:
    from medshared.checkpoints import load_checkpoint

    return _plain(load_checkpoint(path))


def _csv_content(path: Path) -> Any:
    with path.open(encoding="utf-8", newline="") as handle:
        return [
            {key: cell for key, cell in row.items() if key not in PASSING} for row in csv.DictReader(handle)
        ]


def _sidecar_content(path: Path) -> Any:
    """The inputs of a sidecar may hold times of files that were made anew: their names count."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {"sha256": content["sha256"], "size": content["size"], "inputs": sorted(content["inputs"])}


_CONTENT: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: _plain(json.loads(path.read_text(encoding="utf-8"))),
    ".csv": _csv_content,
    ".pt": _torch_content,
    ".pth": _torch_content,
    ".h5": _hdf5_content,
}


def content_of(path: Path) -> Any:
    """Return what a file says, without what changes from one undisturbed run to the next."""
    read = _sidecar_content if path.name.endswith(".done.json") else _CONTENT.get(path.suffix)
    return read(path) if read is not None else hashlib.sha256(path.read_bytes()).hexdigest()


def differences(expected: Path, found: Path, unlike: Sequence[str] = ()) -> list[str]:
    """Compare two finished folders, file by file.

    Args:
        expected: Folder of the undisturbed run.
        found: The other folder.
        unlike: Patterns of files that both must have (or lack) and whose content may differ.

    Returns:
        One line for each difference; nothing hidden may be left in either.
    """
    names = {folder: listing(folder) for folder in (expected, found)}
    shown: list[str] = [f"{name}: left over" for name in names[found] if is_hidden(name)]
    before, after = (
        {name for name in each if not is_hidden(name) and not _matches(name, ("interrupted-*",))}
        for each in names.values()
    )
    shown += [f"{name}: missing" for name in sorted(before - after)]
    shown += [f"{name}: not there in an undisturbed run" for name in sorted(after - before)]
    for name in sorted(before & after):
        if _matches(name, unlike) or _matches(Path(name).name, (*NARRATIVE, *unlike)):
            continue
        if (expected / name).read_bytes() == (found / name).read_bytes():
            continue
        one, other = content_of(expected / name), content_of(found / name)
        if one != other:
            shown.append(f"{name}: {_first_difference(one, other)}")
    return shown


def _first_difference(one: Any, other: Any, where: str = "") -> str:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return f"{where or 'content'}: keys {sorted(one.keys() ^ other.keys())} in one only"
        for key in one:
            if one[key] != other[key]:
                return _first_difference(one[key], other[key], f"{where}.{key}" if where else str(key))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                return _first_difference(a, b, f"{where}[{index}]")
    return f"{where or 'content'}: {str(one)[:200]} became {str(other)[:200]}"
