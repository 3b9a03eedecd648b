"""Atomic writes, JSON and NPZ."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medshared import files


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def write_half_and(path: Path, then: Callable[[], object]) -> None:
    with files.atomic_open(path, "w") as handle:
        handle.write("half of the n")
        then()


def raiser(error: BaseException) -> Callable[..., object]:
    def raise_it(*_args: object, **_kwargs: object) -> None:
        raise error

    return raise_it


def test_writes_create_folders_and_replace(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x.txt"
    assert files.write_text(target, "één\n") == target
    files.write_text(target, "two\n")
    assert target.read_bytes() == b"two\n"
    assert leftovers(target.parent) == []


def test_nothing_visible_before_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    with files.atomic_open(target) as handle:
        handle.write(b"abc")
        handle.flush()
        assert not target.exists()
        (name,) = leftovers(tmp_path)
        assert name.startswith(".x.bin.")
    assert target.read_bytes() == b"abc"


@pytest.mark.parametrize("stop", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
def test_exception_keeps_the_old_file(tmp_path: Path, stop: BaseException) -> None:
    target = files.write_text(tmp_path / "x.txt", "old")
    with pytest.raises(type(stop)):
        write_half_and(target, raiser(stop))
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("where", ["body", "fsync", "replace"])
def test_full_disk_keeps_the_old_file_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    target = files.write_text(tmp_path / "x.txt", "old")
    full = raiser(OSError(errno.ENOSPC, "No space left on device"))
    if where == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    if where == "replace":
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk is full") as caught:
        write_half_and(target, full if where == "body" else list)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(target)
    assert "earlier version, if any, is unchanged" in str(caught.value)
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a real full device needs /dev/full (Linux)")
def test_really_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = files.write_bytes(tmp_path / "x.bin", b"old")
    real_open = Path.open

    def open_full(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if "x" in mode:
            real_open(self, mode).close()
            return real_open(Path("/dev/full"), "wb")
        return real_open(self, mode, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="disk is full"):
        files.write_bytes(target, b"n" * 100_000)
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_error_without_errno_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"x\.txt: the file could not be written: odd"):
        write_half_and(tmp_path / "x.txt", raiser(OSError("odd")))


def test_error_about_another_file_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_half_and(tmp_path / "x.txt", (tmp_path / "other.txt").read_text)
    assert str(caught.value.filename).endswith("other.txt")


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    files.write_text(tmp_path / "plain", "x")
    with pytest.raises(OSError, match="a file lies where a folder of that path is needed") as caught:
        files.write_text(tmp_path / "plain" / "sub" / "x.txt", "y")
    assert caught.value.filename == str(tmp_path / "plain" / "sub" / "x.txt")


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError, match="a folder of that name is in the way"):
        files.write_text(tmp_path / "x", "y")
    assert leftovers(tmp_path) == []


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    target = files.write_text(tmp_path / "x.txt", "old")
    target.chmod(0o640)
    link = tmp_path / "link.txt"
    link.symlink_to("x.txt")
    files.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        target = files.write_text(tmp_path / "x.txt", "a")
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o640


def test_very_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250)
    files.write_text(target, "a")
    assert target.read_text() == "a"


def test_a_closed_handle_is_still_flushed(tmp_path: Path) -> None:
    with files.atomic_open(tmp_path / "x.bin") as handle:
        handle.write(b"abc")
        handle.close()
    assert (tmp_path / "x.bin").read_bytes() == b"abc"


def test_wrong_mode(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'wb' or 'w'"), files.atomic_open(tmp_path / "x", "a"):  # type: ignore[arg-type]
        pass


def test_concurrent_writers_leave_one_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys; from medshared.files import write_bytes\n"
        "for _ in range(30): write_bytes(sys.argv[1], sys.argv[2].encode() * 50_000)"
    )
    target = tmp_path / "x.bin"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(target), letter]) for letter in "abc"]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    assert target.read_bytes() in {letter * 50_000 for letter in (b"a", b"b", b"c")}
    assert leftovers(tmp_path) == []


@dataclass
class Point:
    x: float
    where: Path


def test_json_plain_values(tmp_path: Path) -> None:
    value = {
        "b": np.float32(0.5),
        "a": np.int64(3),
        "flag": np.bool_(True),
        "nan": math.nan,
        "inf": np.float64("-inf"),
        "tensor": torch.tensor([1.0, float("nan")]),
        "scalar": torch.tensor(2),
        "grad": torch.ones(1, requires_grad=True),
        "path": Path("a") / "b",
        "tuple": (1, "é"),
        "set": {2, 1},
        "point": Point(1.0, Path("c")),
        "when": np.datetime64("2024-02-03"),
        1: None,
    }
    path = files.write_json(tmp_path / "x.json", value)
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "b": 0.5,\n  "a": 3')
    assert "é" in text
    assert files.read_json(path) == {
        "b": 0.5,
        "a": 3,
        "flag": True,
        "nan": None,
        "inf": None,
        "tensor": [1.0, None],
        "scalar": 2,
        "grad": [1.0],
        "path": str(Path("a") / "b"),
        "tuple": [1, "é"],
        "set": [1, 2],
        "point": {"x": 1.0, "where": "c"},
        "when": "2024-02-03",
        "1": None,
    }


def test_json_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    target = files.write_json(tmp_path / "x.json", {"old": 1})
    with pytest.raises(TypeError, match=r"'a\.b\[1\]' has type complex"):
        files.write_json(target, {"a": {"b": [1, 2j]}})
    with pytest.raises(TypeError, match="occurs twice"):
        files.write_json(target, {1: "a", "1": "b"})
    assert files.read_json(target) == {"old": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_plain_values_stay_as_they_are(value: object) -> None:
    assert json.loads(json.dumps(files.to_plain(value))) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.json: line 1: the file is empty"),
        (b'{"a": 1,\n "b": ', r"x\.json: line 2, column \d+: .*ends too early"),
        (b'{"a": 1,\n "b" 2}', r"x\.json: line 2, column 6: Expecting ':'"),
        (b"\xff\xfe\x00", r"x\.json: not UTF-8 text"),
    ],
)
def test_broken_json_names_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read_json(tmp_path / "x.json")


def test_missing_json_and_byte_order_mark(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such JSON file"):
        files.read_json(tmp_path / "x.json")
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "bom.json") == {"a": 1}


def test_npz_round_trip_and_same_bytes(tmp_path: Path) -> None:
    arrays = {"path": np.arange(6.0).reshape(2, 3), "file": ["a", "bc"], "allow_pickle": np.float32(1)}
    first = files.write_npz(tmp_path / "a.npz", **arrays)
    second = files.write_npz(tmp_path / "b.npz", **arrays)
    assert first.read_bytes() == second.read_bytes()
    with np.load(first, allow_pickle=False) as loaded:
        assert sorted(loaded.files) == ["allow_pickle", "file", "path"]
        np.testing.assert_array_equal(loaded["path"], arrays["path"])
        assert loaded["file"].tolist() == ["a", "bc"]


def test_npz_refuses_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"x\.npz: array 'bad' holds Python objects"):
        files.write_npz(tmp_path / "x.npz", good=np.zeros(2), bad=np.array([None, {}], dtype=object))
    assert list(tmp_path.iterdir()) == []


def test_sha256(tmp_path: Path) -> None:
    path = files.write_bytes(tmp_path / "x", b"abc" * 1000)
    assert files.sha256_file(path) == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_light_imports() -> None:
    code = (
        "import sys, medshared.files, medshared.configuration, medshared.runs\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'rich', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_first_write_into_a_folder_clears_what_killed_writers_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of living processes, of other machines and of other programs stay; a day later the machine's go too."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, elsewhere = files._machine(), "0" * 8
    dead = f".x.json.{here}-{ended.pid}-0123abcd.tmp"
    kept = [f".x.json.{here}-{os.getpid()}-0123abcd.tmp", f".x.json.{elsewhere}-1-0123abcd.tmp", ".x.tmp"]
    for name in (dead, *kept):
        (tmp_path / name).write_text("half")
    files.write_text(tmp_path / "y.txt", "")
    assert sorted(leftovers(tmp_path)) == sorted(kept)
    (tmp_path / dead).write_text("half")
    files.write_text(tmp_path / "y.txt", "")
    assert (tmp_path / dead).exists()  # one look a process, as folders may hold 100,000 files
    monkeypatch.setattr(files, "_swept", set())
    os.utime(tmp_path / kept[1], (0, 0))
    files.write_text(tmp_path / "y.txt", "")
    assert sorted(leftovers(tmp_path)) == sorted([kept[0], kept[2]])


def test_a_second_name_is_given_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = files.write_text(tmp_path / "a.txt", "new"), tmp_path / "deep" / "b.txt"
    for _ in range(2):
        assert files.link_or_copy(source, target).samefile(source)
    files.write_text(source, "newer")
    assert target.read_text() == "new"
    assert files.link_or_copy(source, target).read_text() == "newer"
    monkeypatch.setattr(Path, "hardlink_to", raiser(OSError(errno.EPERM, "no links here")))
    copied = files.link_or_copy(source, tmp_path / "c.txt")
    assert copied.read_text() == "newer"
    assert not copied.samefile(source)
    with pytest.raises(FileNotFoundError):
        files.link_or_copy(tmp_path / "none", tmp_path / "d.txt")
    assert leftovers(tmp_path) + leftovers(target.parent) == []


def test_two_that_give_the_same_name_at_once_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = files.write_text(tmp_path / "a.txt", "x"), tmp_path / "b.txt"
    link = Path.hardlink_to

    def link_and_lose(self: Path, other: Path) -> None:
        link(self, other)
        if not target.exists():
            link(target, other)  # the other process was quicker

    monkeypatch.setattr(Path, "hardlink_to", link_and_lose)
    assert files.link_or_copy(source, target).samefile(source)
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(
    sys.platform != "linux", reason="left out: /proc tells the state of a process on Linux alone"
)
def test_what_a_killed_writer_left_goes_while_its_parent_has_not_asked(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from medshared.files import atomic_open\n"
        "with atomic_open(sys.argv[1]) as handle: os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")])
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table of processes
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    files.write_text(tmp_path / "b", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    killed.wait()
