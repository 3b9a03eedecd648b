"""The run directory: what it holds, and what stays when a process dies."""

from __future__ import annotations

import csv
import json
import logging
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.files import read_json
from medshared.gpu import capture_rng, restore_rng
from medshared.runs import RunDirectory
from medshared.weights import WeightsError

CONFIG = {"run_id": "1e-4", "lr": 1e-4, "data": {"folder": Path("a"), "clamp": (0.0, None)}}


def new_run(tmp_path: Path, **options: Any) -> RunDirectory:
    return RunDirectory(tmp_path / "run").create(CONFIG, ["train", "--x"], 7, **options)


def test_layout(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert sorted(entry.name for entry in run.path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "environment.json",
        "figures",
    ]
    assert (run.checkpoints, run.figures) == (run.path / "checkpoints", run.path / "figures")
    assert yaml.safe_load((run.path / "config.yaml").read_text())["run_id"] == "1e-4"
    environment = read_json(run.path / "environment.json")
    assert environment["command"] == ["train", "--x"]
    assert environment["seed"] == 7
    assert environment["packages"]["numpy"] == np.__version__
    assert not run.is_complete


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert not run.is_complete
    assert not run.has_checkpoint("last")
    assert run.metrics_rows == []
    assert list(tmp_path.iterdir()) == []


def test_results_mark_completion(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.write_results({"auc": np.float32(0.5), "mae": math.nan})
    assert run.is_complete
    assert read_json(run.path / "results.json") == {"auc": 0.5, "mae": None}
    with pytest.raises(FileExistsError, match=r"holds a finished run; choose another one, or resume.*run'"):
        new_run(tmp_path)
    assert new_run(tmp_path, resume=True).is_complete


def test_a_new_run_is_not_mixed_with_an_interrupted_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        run = new_run(tmp_path)
        run.log_metrics({"loss": number})
        run.save_checkpoint("last", {"number": number})
    again = new_run(tmp_path)
    assert "held an unfinished run; its files are now in interrupted-2" in caplog.text
    assert again.metrics_rows == []
    assert not again.has_checkpoint("last")
    for number in (1, 2):
        kept = RunDirectory(again.path / f"interrupted-{number}")
        assert kept.load_checkpoint("last") == {"number": number}
        assert kept.metrics_rows == [{"loss": number}]
        assert (kept.path / "config.yaml").is_file()


def test_resuming_keeps_everything_and_names_changed_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = new_run(tmp_path)
    first.log_metrics({"loss": 1})
    first.save_checkpoint("last", {"step": 1})
    (first.checkpoints / ".last.pt.1-ab.tmp").write_bytes(b"half")
    for seed in (8, 9):
        run = RunDirectory(first.path).create({**CONFIG, "lr": 2e-4}, ["again"], seed, resume=True)
    assert caplog.messages == ["resuming with lr = 0.0002, the run had 0.0001"]
    assert run.metrics_rows == [{"loss": 1}]
    assert run.load_checkpoint("last") == {"step": 1}
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.pt"]
    environment = read_json(run.path / "environment.json")
    assert [environment["seed"], *(each["seed"] for each in environment["earlier"])] == [9, 7, 8]


def test_resume_where_nothing_is(tmp_path: Path) -> None:
    run = new_run(tmp_path, resume=True)
    assert run.metrics_rows == []
    assert read_json(run.path / "environment.json")["earlier"] == []


def test_rows_that_no_checkpoint_knows_of_go_when_the_run_starts_again(tmp_path: Path) -> None:
    new_run(tmp_path).log_metrics({"epoch": 1})
    run = new_run(tmp_path, resume=True)
    run.log_metrics({"epoch": 1})
    assert RunDirectory(run.path).metrics_rows == [{"epoch": 1}]
    run.write_results({})
    assert new_run(tmp_path, resume=True).metrics_rows == [{"epoch": 1}]


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    target = tmp_path / "plain" / "run"
    with pytest.raises(NotADirectoryError, match="the output folder could not be written") as caught:
        RunDirectory(target).create({})
    assert caught.value.filename == str(target)
    assert "a file lies where a folder" in str(caught.value)


def test_no_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match="change the folder's permissions or write elsewhere") as caught:
        RunDirectory(tmp_path / "run").create({})
    assert caught.value.filename == str(tmp_path / "run")


# Metrics


def test_metrics_union_of_columns(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.log_metrics({"epoch": 1, "loss": np.float32(0.1), "note": "a,b"})
    run.log_metrics({"epoch": torch.tensor(2), "auc": math.nan, "flag": True, "none": None})
    with (run.path / "metrics.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows == [
        ["epoch", "loss", "note", "auc", "flag"],
        ["1", "0.10000000149011612", "a,b", "", ""],
        ["2", "", "", "nan", "True"],
    ]
    first, second = RunDirectory(run.path).metrics_rows
    assert first == {"epoch": 1, "loss": 0.10000000149011612, "note": "a,b"}
    assert (second["epoch"], second["flag"], set(second)) == (2, True, {"epoch", "auc", "flag"})
    assert math.isnan(second["auc"])  # type: ignore[arg-type]


@given(st.lists(st.floats() | st.integers(), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_metrics_read_back_to_the_same_bits(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        RunDirectory(folder).log_metrics({str(index): value for index, value in enumerate(values)})
        (row,) = RunDirectory(folder).metrics_rows
    assert [repr(value) for value in row.values()] == [repr(value) for value in values]


def test_metrics_refuse_lists_and_rows_are_copies(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with pytest.raises(TypeError, match=r"metric 'x' must be one number or text, found \[1, 2\]"):
        run.log_metrics({"x": [1, 2]})
    run.log_metrics({"x": 1})
    run.metrics_rows[0]["x"] = 5
    assert run.metrics_rows == [{"x": 1}]


def test_truncation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = new_run(tmp_path)
    for step in range(4):
        run.log_metrics({"step": step})
    resumed = RunDirectory(run.path)
    resumed.truncate_metrics(2)
    resumed.log_metrics({"step": 20})
    assert RunDirectory(run.path).metrics_rows == [{"step": 0}, {"step": 1}, {"step": 20}]
    resumed.truncate_metrics(9)
    assert "has 3 rows, 9 were expected" in caplog.text
    resumed.truncate_metrics(0)
    assert RunDirectory(run.path).metrics_rows == []
    with pytest.raises(ValueError, match="at least 0"):
        resumed.truncate_metrics(-1)


# Checkpoints


def test_checkpoint_round_trip_with_random_state(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    network = torch.nn.BatchNorm1d(3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    state = {
        "model_state": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "val_metrics": {"auc": np.float64(0.75), "n": np.int64(3)},
        "path": Path("a"),
        "rng": capture_rng(),
    }
    assert run.save_checkpoint("last", state) == run.checkpoints / "last.pt"
    expected = torch.rand(2).tolist()
    loaded = run.load_checkpoint("last")
    restore_rng(loaded["rng"])
    assert torch.rand(2).tolist() == expected
    assert loaded["val_metrics"] == {"auc": 0.75, "n": 3}
    assert [type(value) for value in loaded["val_metrics"].values()] == [float, int]
    assert loaded["path"] == "a"
    assert loaded["model_state"]._metadata == network.state_dict()._metadata  # type: ignore[attr-defined]
    torch.nn.BatchNorm1d(3).load_state_dict(loaded["model_state"])
    torch.optim.AdamW(network.parameters()).load_state_dict(loaded["optimizer_state"])


def test_checkpoint_names(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert not run.has_checkpoint("best")
    with pytest.raises(WeightsError, match=r"best\.pt: no such checkpoint"):
        run.load_checkpoint("best")
    for name in ("", "../x", "a/b", ".x"):
        with pytest.raises(ValueError, match="checkpoint name must be letters"):
            run.save_checkpoint(name, {})


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from medshared.runs import RunDirectory
run = RunDirectory(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for n in (49_900, 60_000, 1_000_000):  # fails while closing, near the end, early
    try:
        run.save_checkpoint("last", {"step": 2, "x": torch.zeros(n)})
    except OSError as error:
        print(error)
"""


@pytest.mark.slow
def test_file_system_that_takes_no_more(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint("last", {"step": 1})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(run.path)], capture_output=True, text=True, check=True
    )
    messages = done.stdout.splitlines()
    assert len(messages) == 3
    for message in messages:
        assert "the file system allows no file of that size" in message
        assert message.endswith(f"{str(run.checkpoints / 'last.pt')!r}")
    assert run.load_checkpoint("last") == {"step": 1}
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("size", [10, 100_000])
def test_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint("last", {"step": 1})
    real_open = Path.open

    def open_full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "x" in mode:
            real_open(self, mode).close()
            return real_open(Path("/dev/full"), "wb")
        return real_open(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="the disk is full: free some space") as caught:
        run.save_checkpoint("last", {"step": 2, "x": torch.zeros(size)})
    assert caught.value.filename == str(run.checkpoints / "last.pt")
    assert run.load_checkpoint("last") == {"step": 1}
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.pt"]


KILLED = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from medshared.runs import RunDirectory
run = RunDirectory(sys.argv[1]).create({})
draw, steps, torn = random.Random(5), [], 0
for _ in range(15):
    resumed = run.load_checkpoint("last")["step"] if run.has_checkpoint("last") else 0
    child = os.fork()
    if child == 0:
        step = resumed
        while True:
            step += 1
            run.log_metrics({"step": step})
            run.save_checkpoint("last", {"step": step, "x": torch.full((200_000,), float(step))})
    while not run.has_checkpoint("last"):
        time.sleep(0.001)
    time.sleep(draw.uniform(0.005, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    torn += any(run.checkpoints.glob(".*.tmp"))
    run = RunDirectory(sys.argv[1]).create({}, resume=True)
    state = run.load_checkpoint("last")
    assert bool((state["x"] == state["step"]).all())
    run.truncate_metrics(state["step"])
    assert [row["step"] for row in run.metrics_rows] == list(range(1, state["step"] + 1))
    assert not any(run.checkpoints.glob(".*.tmp"))
    steps.append(state["step"])
print(json.dumps([steps, torn]))
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    steps, torn = json.loads(done.stdout)
    assert len(steps) == 15
    assert steps == sorted(steps)
    assert torn > 0, "no kill hit a write: the test has lost its point"


def test_logging_of_this_module_is_quiet_in_the_normal_case(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        new_run(tmp_path)
    assert caplog.messages == []
