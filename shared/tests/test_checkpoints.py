"""Checkpoints: old ones are read, unsafe and broken ones are refused in words."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medshared.checkpoints import WeightsError, load_checkpoint, save_checkpoint


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_old_checkpoints_with_numpy_scalars(tmp_path: Path, zipped: bool) -> None:
    metrics = {
        "auc": np.float32(0.1),
        "mae": np.float64(0.2),
        "n": np.int64(3),
        "ok": np.bool_(True),
        "half": np.float16(0.5),
    }
    state = {"model_state": {"w": torch.arange(3.0)}, "epoch": 4, "val_metrics": metrics}
    torch.save(state, tmp_path / "best.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "best.pt", weights_only=True)
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert loaded["val_metrics"] == metrics
    assert {key: type(value) for key, value in loaded["val_metrics"].items()} == {
        key: type(value) for key, value in metrics.items()
    }
    assert loaded["model_state"]["w"].tolist() == [0.0, 1.0, 2.0]


def test_checkpoints_written_with_numpy_1(tmp_path: Path) -> None:
    """NumPy 1 named the module ``numpy.core``: the same file with that name is read too."""
    torch.save({"auc": np.float32(0.25)}, tmp_path / "new.pt")
    with (
        zipfile.ZipFile(tmp_path / "new.pt") as source,
        zipfile.ZipFile(tmp_path / "old.pt", "w") as target,
    ):
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(item.filename, data)
    assert load_checkpoint(tmp_path / "old.pt") == {"auc": 0.25}


def test_the_allowance_ends_with_the_call(tmp_path: Path) -> None:
    torch.save({"auc": np.float32(0.25)}, tmp_path / "a.pt")
    before = list(torch.serialization.get_safe_globals())
    load_checkpoint(tmp_path / "a.pt")
    assert set(map(str, torch.serialization.get_safe_globals())) == set(map(str, before))


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_file_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "trap"
    torch.save(
        {"w": torch.ones(1), "x": np.float32(1), "bad": Malicious(trap)},
        tmp_path / "bad.pt",
        _use_new_zipfile_serialization=zipped,
    )
    message = r"bad\.pt: refused, because reading it could run code: it holds .*posix\.system"
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(tmp_path / "bad.pt")
    assert not trap.exists()


def test_numpy_arrays_are_not_among_the_allowed(tmp_path: Path) -> None:
    torch.save({"x": np.arange(3)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"numpy\._core\.multiarray\._reconstruct"):
        load_checkpoint(tmp_path / "a.pt")


def test_object_scalars_are_refused(tmp_path: Path) -> None:
    class Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            return np._core.multiarray.scalar, (np.dtype("O"), b"12345678")  # type: ignore[attr-defined]

    torch.save({"x": Forged()}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt: "):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = save_checkpoint(tmp_path / "a.pt", {"w": torch.zeros(1000)})
    data = path.read_bytes()[: int(path.stat().st_size * share)]
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"a\.pt: the checkpoint is cut off after {len(data):,} bytes"):
        load_checkpoint(path)


def test_truncated_file_of_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=r"a\.pt: .*damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; copying or downloading it was probably interrupted"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "this is a web page"),
        (b"epoch,loss\n", "no file of torch.save"),
        (b"\x80\x02garbage", "damaged"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_checkpoint(tmp_path / "a.pt")
    assert str(caught.value).startswith(str(tmp_path / "a.pt"))


def test_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("x.txt", "hello")
    with pytest.raises(WeightsError, match=r"a\.pt: the checkpoint could not be read"):
        load_checkpoint(tmp_path / "a.pt")


def test_missing_and_folder(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", {"a": 1})
    with pytest.raises(WeightsError, match=r"last\.pt: no such checkpoint; the folder has best\.pt"):
        load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "no" / "last.pt")
    with pytest.raises(WeightsError, match="this is a folder"):
        load_checkpoint(tmp_path)


def test_what_is_saved_can_be_loaded(tmp_path: Path) -> None:
    state = {
        "nested": [np.float32(0.5), (np.int64(1), Path("a")), OrderedDict(x=np.bool_(True))],
        np.int64(3): torch.Size([1, 2]),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a.pt", state))
    assert loaded["nested"] == [0.5, (1, "a"), {"x": True}]
    assert loaded[3] == torch.Size([1, 2])
    assert torch.equal(loaded["half"], state["half"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.arange(3),
            r"state\['x'\]\[1\] is a NumPy array, which safe loading refuses: use torch.as_tensor",
        ),
        (pytest.approx(1), r"safe loading would refuse _pytest\S*\.ApproxScalar"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, value: Any, message: str) -> None:
    save_checkpoint(tmp_path / "a.pt", {"old": 1})
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "a.pt", {"x": [1, value]})
    assert load_checkpoint(tmp_path / "a.pt") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
