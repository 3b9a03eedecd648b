"""The original's scripts, one after the other, as a user starts them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from aespa.models.checkpoint import load_network
from aespa.synthetic import write_lidc, write_mbhseg
from medshared.runs import RunDirectory

ROOT = Path(__file__).parents[1]
SIZE = ["-image_size", "64", "-encoder", "tiny", "-runs", "2", "-b", "4", "-w", "1", "-device", "cpu"]
CLICKS = "image,slice,x,y,label\n"


def start(name: str, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a script as a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / name), *map(str, arguments)],
        cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def script(name: str, *arguments: object, cwd: Path, code: int = 0) -> str:
    """Run a script in this process, so that torch is imported once; return what it wrote to stderr."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(shown):
        patched.chdir(cwd)
        patched.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / name), run_name="__main__")
    assert (stop.value.code or 0) == code, shown.getvalue()
    return shown.getvalue()


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == code, shown
    return shown


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with drawn data."""
    folder = tmp_path_factory.mktemp("home")
    write_lidc(folder / "data" / "LIDC", 6, 4, 0)
    return folder


def lidc(home: Path) -> list[object]:
    return [*SIZE, "-dataset", "LIDC", "-data_path", home / "data" / "LIDC"]


@pytest.fixture(scope="module")
def runs(home) -> dict[str, str]:
    """Train all three methods; return what they said."""
    samples = ["-num_samples", "4", "-n_clusters", "2", "-epochs", "1"]
    demo = ["-demo", "-subset", "8", "-image_size", "64", "-runs", "2", "-device", "cpu"]
    return {
        "SPA": script("train.py", "-mode", "SPA", *lidc(home), *samples, "-output", "runs/SPA", cwd=home),
        "SAM": script("train.py", "-mode", "SAM", *demo, *samples, "-output", "runs/SAM", cwd=home),
        "AESPA": script(
            "train.py", *lidc(home), "-epochs", "2", "-exp_name", "try", "-val_freq", "1", cwd=home
        ),
    }


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def test_training_leaves_what_the_original_leaves(runs, home):
    (run,) = (home / "logs_new").glob("try_2*")
    (log,) = (run / "Log").glob("*_train.log")
    lines = log.read_text().splitlines()
    assert lines[0].endswith(" Logger is ready.")
    for words in ("Train loss: ", "Total score: "):
        assert [line.rsplit("@ epoch ")[1] for line in lines if words in line] == ["0.", "1."]
    assert "Train loss: " in runs["AESPA"]
    network, rest = load_network(run / "Model" / "checkpoint_best.pth")
    assert network.architecture.image_size == 64
    assert rest["model"] == "sam"
    assert rest["config"]["mode"] == "AESPA"
    for name in ("config.yaml", "environment.json", "metrics.csv", "summary.json", "report.html"):
        assert (run / name).is_file()
    assert len(RunDirectory(run).metrics_rows) == 2


@pytest.mark.parametrize("mode", ["SPA", "SAM"])
def test_the_other_methods(runs, home, mode):
    run = home / "runs" / mode
    found = results(run)
    assert found["mode"] == mode
    assert 0 <= found["metrics"]["dice_r0"] <= 1
    network, rest = load_network(run / "checkpoints" / "best.pt")
    assert network.architecture.preferences == (mode != "SAM")
    assert rest["config"]["mode"] == mode
    if mode == "SAM":
        assert found["images"]["train"] == 8
        assert (home / "runs" / "aespa-demo-data" / "LIDC" / "train").is_dir()


def test_a_finished_run_is_not_trained_again(runs, home, caplog):
    (run,) = (home / "logs_new").glob("try_2*")
    before = (run / "results.json").read_bytes()
    with caplog.at_level("INFO"):
        script("train.py", *lidc(home), "-epochs", "2", "-resume", run, cwd=home)
    assert "finished already" in caplog.text
    refused = script("train.py", *lidc(home), "-epochs", "2", "-output", run, cwd=home, code=1)
    assert "holds a finished run" in refused
    assert (run / "results.json").read_bytes() == before


def test_validation_and_prediction(runs, home):
    (run,) = (home / "logs_new").glob("try_2*")
    best = run / "Model" / "checkpoint_best.pth"
    assert "Total score: " in script("val.py", *lidc(home), "-weights", best, "-output", "val", cwd=home)
    assert results(home / "val")["metrics"] == pytest.approx(results(run)["metrics"], nan_ok=True)
    images = home / "data" / "LIDC" / "test" / "images"
    name = sorted(images.rglob("*.png"))[0].relative_to(images).as_posix().removesuffix(".png")
    (home / "clicks.csv").write_text(f"{CLICKS}{name},,90,80,1\n{name},,200,80,0\n")
    words = [images, "-weights", best, "-output", "predicted", "-clicks", "clicks.csv", "-device", "cpu"]
    shown = script("predict.py", *words, cwd=home, code=1)
    assert "the click (200, 80) lies outside of the image of 180 x 180 pixels" in shown
    masks = list((home / "predicted" / "masks").rglob("*.png"))
    assert len(masks) == len(list(images.rglob("*.png"))) - 1


def test_volumes(runs, home, tmp_path):
    raw = write_mbhseg(tmp_path / "raw", 1, 1, 0)
    for i, split in enumerate(("train", "test"), start=1):
        assert not (tmp_path / "data" / "MBHSeg-Multi" / split).exists()
        script("process_mbhseg.py", "-in", raw, "-out", tmp_path / "data", "-shard", f"{i}/2", cwd=tmp_path)
        assert (tmp_path / "data" / f"process_mbhseg-{i}.json").is_file()
        assert list((tmp_path / "data" / "MBHSeg-Multi" / split / "imgs").rglob("slice_*.png"))
    for name in ("MBHSeg-Binary", "MBHSeg-Multi"):
        assert list((tmp_path / "data" / name / "train" / "imgs").rglob("slice_*.png"))
    weights = home / "runs" / "SPA" / "checkpoints" / "best.pt"
    volume = sorted((raw / "test").rglob("*image*"))[0]
    words = [volume, "-weights", weights, "-output", "out", "-num_samples", "4", "-device", "cpu"]
    script("predict.py", *words, cwd=tmp_path)
    (mask,) = (tmp_path / "out" / "masks").iterdir()
    given, made = nibabel.load(volume), nibabel.load(mask)
    assert made.shape == given.shape
    np.testing.assert_array_equal(made.affine, given.affine)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("train.py", ["-data_path", "nowhere"], "error: nowhere"),
        ("train.py", ["-sam_ckpt", "none.pth"], "none.pth"),
        ("train.py", ["-pretrain", "none.pth"], "none.pth"),
        ("val.py", ["-weights", "0"], "-weights: give the checkpoint to evaluate"),
        ("val.py", ["-weights", "none.pth"], "none.pth"),
    ],
)
def test_mistakes_end_with_a_line(name, changes, message, home, tmp_path):
    shown = script(name, *lidc(home), *changes, "-output", tmp_path / "bad", cwd=home, code=1)
    assert message in shown.splitlines()[-1]
    assert "Traceback" not in shown
    assert not (tmp_path / "bad" / "results.json").exists()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["network"]


def test_a_stopped_run_goes_on_as_if_nothing_had_been(home):
    words = [*lidc(home), "-b", "1", "-epochs", "5", "-val_freq", "5"]
    stopped = start("train.py", *words, "-output", "stopped", cwd=home)
    log = home / "stopped" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not log.exists() and stopped.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    script("train.py", *words, "-output", "whole", cwd=home)
    assert "stopped by SIGTERM" in finish(stopped, code=75)
    assert not (home / "stopped" / "results.json").exists()
    script("train.py", *words, "-resume", "stopped", cwd=home)
    timed = ("seconds", "training_seconds", "peak_memory_mb")
    left, right = (
        {k: v for k, v in results(home / n).items() if k not in timed} for n in ("stopped", "whole")
    )
    assert left == right
    assert (home / "stopped" / "metrics.csv").read_text() == (home / "whole" / "metrics.csv").read_text()
    other = weights_of(home / "whole")
    assert all(torch.equal(value, other[key]) for key, value in weights_of(home / "stopped").items())


def test_two_processes_train_as_one(home):
    words = [*lidc(home), "-subset", "5", "-epochs", "2", "-val_freq", "2"]  # batches of 4 and 1
    two = start("train.py", *words, "-devices", "2", "-log_root", "logs_two", "-exp_name", "two", cwd=home)
    script("train.py", *words, "-output", "one", cwd=home)
    shown = finish(two)
    (folder,) = (home / "logs_two").iterdir()
    assert len(list((folder / "Log").iterdir())) == 1
    assert not list(folder.glob("interrupted*"))
    assert shown.count("Train loss: ") == 2
    left, right = (RunDirectory(run).metrics_rows for run in (home / "one", folder))
    for mine, other in zip(left, right, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
    assert results(folder)["metrics"] == pytest.approx(
        results(home / "one")["metrics"], abs=1e-3, nan_ok=True
    )
    other = weights_of(home / "one")
    for key, value in weights_of(folder).items():
        # Softmax does not feel a bias of the keys: its gradient is rounding, which Adam makes steps of.
        if "k_proj.bias" not in key:
            assert (value - other[key]).abs().max() <= 1e-5, key
