"""What a user sees when something is wrong: one table of broken inputs with the text on the command line.

Every case ends with exit code 1 and a message that names the file, row or key, what was expected and what to do;
there is no traceback, and nothing half-written stays behind.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from infection_mt import cli
from medshared.files import read_json
from medshared.runs import RunDirectory

SCRIPT = Path(__file__).parents[1] / "train_multitask.py"


class Box:
    """A private copy of the tiny data with its configuration, to be broken."""

    def __init__(self, root: Path, data: Any, settings: dict[str, Any]) -> None:
        self.root = root
        shutil.copytree(data.folder, root / "data")
        self.infected = root / "data" / data.infected_dir.relative_to(data.folder)
        self.uninfected = root / "data" / data.uninfected_dir.relative_to(data.folder)
        self.manifest = root / "data" / "manifest.csv"
        self.settings = copy.deepcopy(settings)
        self.settings["data"] |= {"infected_dir": str(self.infected), "uninfected_dir": str(self.uninfected)}
        self.settings["training"]["epochs"] = 1
        self.run = root / "run"

    @property
    def data(self) -> dict[str, Any]:
        return self.settings["data"]

    @property
    def stack(self) -> Path:
        return sorted(self.infected.iterdir())[0]

    def set(self, key: str, value: Any) -> None:
        *sections, last = key.split(".")
        where = self.settings
        for section in sections:
            where = where.setdefault(section, {})
        where[last] = value

    def rewrite(self, pages: Any, **keys: Any) -> None:
        """Replace the first infected stack."""
        tifffile.imwrite(self.stack, pages, **keys)

    def use_manifest(self, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table) -> None:
        table = change(pd.read_csv(self.manifest, dtype=str))
        table.to_csv(self.manifest, index=False)
        self.data.pop("infected_dir")
        self.data.pop("uninfected_dir")
        self.data["manifest"] = str(self.manifest)

    def config(self) -> Path:
        path = self.root / "config.json"
        path.write_text(json.dumps(self.settings))
        return path

    def train(self, *flags: str, output: bool = True) -> int:
        command = ["train", "--config", str(self.config()), "--device", "cpu", *flags]
        return cli.main(command + (["--output", str(self.run)] if output else []))


@pytest.fixture
def box(tmp_path, tiny_data, tiny_settings):
    return Box(tmp_path, tiny_data, tiny_settings)


@pytest.fixture
def no_pictures(monkeypatch):
    """Finished runs draw nothing where pictures are not the subject."""
    monkeypatch.setattr("infection_mt.analysis.run_analysis.analyze_run", lambda *arguments, **keys: [])


def leftovers(folder: Path) -> list[str]:
    """Results, checkpoints and temporary files below a folder."""
    names = [
        path
        for path in folder.rglob("*")
        if path.name == "results.json" or path.name.endswith((".pt", ".tmp"))
    ]
    return sorted(str(path.relative_to(folder)) for path in names)


# ------------------------------------------------------------------ the table


def a_link(box: Box) -> None:
    (box.infected / "link_s5_b2_p99_.tif").symlink_to(box.stack)


def a_truncated_stack(box: Box) -> None:
    box.stack.write_bytes(box.stack.read_bytes()[:3000])


def mixed_pages(box: Box) -> None:
    with tifffile.TiffWriter(box.stack) as file:
        for side in (32, 32, 16, 32, 32, 32):
            file.write(np.arange(side * side, dtype=np.uint16).reshape(side, side), contiguous=False)


def nan_pixels(box: Box) -> None:
    pages = np.random.default_rng(0).random((6, 32, 32), np.float32)
    pages[2, 5, 5] = np.nan
    box.rewrite(pages)


def a_file_twice(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(split="train")
    twice = table.iloc[[0]].assign(split="test", position="77")
    return pd.concat([table, twice])


def divided_wells(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(split=[("train", "val", "test")[i % 3] for i in range(len(table))])


def few_stacks(box: Box) -> None:
    for folder in (box.infected, box.uninfected):
        for path in sorted(folder.iterdir())[2:]:
            path.unlink()


def other_weights(box: Box) -> None:
    torch.save({"fc1.weight": torch.zeros(3, 3), "fc1.bias": torch.zeros(3)}, box.root / "other.pt")
    box.set("model.weights", str(box.root / "other.pt"))


def deeper_weights(box: Box) -> None:
    from infection_mt.config import ModelConfig
    from infection_mt.models.checkpoint import build_model

    model = build_model(ModelConfig(name="resnet18", pretrained=False, hidden_dim=16), "multitask")
    torch.save({"model_state": model.state_dict()}, box.root / "deep.pt")
    box.set("model.weights", str(box.root / "deep.pt"))


NO_OUTPUT = ["--resume"]
LATE = {"NaN pixels without a cache"}  # found only where the page is read: whole checkpoints may be there
Break = Callable[[Box], Any]
CASES: dict[str, tuple[Break, list[str]]] = {
    # --- files
    "missing folder": (
        lambda b: b.set("data.infected_dir", str(b.root / "nowhere")),
        [r"data\.infected_dir: folder .*nowhere does not exist"],
    ),
    "empty folder": (
        lambda b: [path.unlink() for path in b.uninfected.iterdir()],
        [r"data\.uninfected_dir: folder .* holds no \*\.tif or \*\.tiff file"],
    ),
    "missing TIFF in a manifest": (
        lambda b: b.use_manifest(lambda t: t.assign(file=["gone.tif", *t["file"][1:]])),
        [r"manifest\.csv:2: column 'file': .*gone\.tif does not exist", "relative to the manifest"],
    ),
    "truncated TIFF": (a_truncated_stack, [r"synth_s5_b2_p1_\S+: page \d", "cut off"]),
    "TIFF without a page": (
        lambda b: b.stack.write_bytes(b"II*\0" + bytes(4)),
        [r"synth_s5_b2_p1_\S+: the TIFF file holds no page"],
    ),
    "empty file": (lambda b: b.stack.write_bytes(b""), [r"synth_s5_b2_p1_\S+: the file is empty"]),
    "not a TIFF": (
        lambda b: b.stack.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(90)),
        [r"synth_s5_b2_p1_\S+: this is no TIFF file; it is a PNG image"],
    ),
    "RGBA": (
        lambda b: b.rewrite(
            np.zeros((6, 32, 32, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]
        ),
        [r"synth_s5_b2_p1_\S+: page 0: expected a gray \[H, W\] or RGB", "RGBA; drop the alpha channel"],
    ),
    "two channels": (
        lambda b: b.rewrite(
            np.zeros((6, 32, 32, 2), np.uint8),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=[0],
        ),
        [r"synth_s5_b2_p1_\S+: page 0", "two channels; keep one of them"],
    ),
    "channel-first colours": (
        lambda b: b.rewrite(np.zeros((6, 3, 32, 32), np.uint8), photometric="rgb", planarconfig="separate"),
        [r"synth_s5_b2_p1_\S+: page 0", "the channels come first; move them to the end"],
    ),
    "complex pixels": (
        lambda b: b.rewrite(np.zeros((6, 32, 32), np.complex64)),
        [
            r"synth_s5_b2_p1_\S+: page 0: expected integer or float pixels, found complex64",
            "save the stack as 8 or 16",
        ],
    ),
    "mixed page sizes": (
        mixed_pages,
        [r"synth_s5_b2_p1_\S+: page 2: its shape \(16, 16\) differs from \(32, 32\) of the first page"],
    ),
    "NaN pixels": (
        nan_pixels,
        [
            r"1 pages that data\.frames chooses cannot be used",
            r"_p1_\S+: page 2: 1 of 1024 pixels are not finite",
        ],
    ),
    "NaN pixels without a cache": (
        lambda b: (nan_pixels(b), b.set("data.cache", "off")),
        [r"_p1_\S+: page 2: 1 of 1024 pixels are not finite"],
    ),
    # --- time windows
    "window beyond the recording": (
        lambda b: b.set("data.frames.infected_window_hours", [60, 70]),
        ["data.frames: none of the 4 infected stacks gives a frame", "60"],
    ),
    "reversed window": (
        lambda b: b.set("data.frames.infected_window_hours", [30, 20]),
        ["data.frames", r"window \[30\.0,20\.0\] h is reversed \(its end lies before its start\)"],
    ),
    # --- configuration
    "unknown key": (
        lambda b: b.set("data.batchsize", 4),
        [r"key 'data\.batchsize': unknown key", "did you mean 'batch_size'"],
    ),
    "key in the wrong section": (
        lambda b: b.set("training.image_size", 64),
        [r"key 'training\.image_size': unknown key", r"data\.transforms"],
    ),
    "wrong type": (
        lambda b: b.set("training.epochs", "many"),
        [r"key 'training\.epochs'", "expected a whole number|expected an integer", "many"],
    ),
    "wrong choice": (
        lambda b: b.set("model.name", "resnet51"),
        [r"key 'model\.name'", "resnet50", "resnet51"],
    ),
    "clamp range reversed": (
        lambda b: b.set("multitask.clamp_range", [48, 0]),
        [r"key 'multitask\.clamp_range'", r"the lower end 48(\.0)? is not below the upper end 0"],
    ),
    "ratios that do not sum to 1": (
        lambda b: b.set("data.split_ratios", [0.5, 0.3, 0.3]),
        [r"key 'data\.split_ratios'", r"sum to 1, found \[0\.5, 0\.3, 0\.3\]"],
    ),
    "equal labels": (
        lambda b: b.set("data.uninfected_label", 1),
        ["infected_label and uninfected_label are both 1"],
    ),
    "manifest and folders": (
        lambda b: b.set("data.manifest", str(b.manifest)),
        ["give either a manifest or infected_dir and uninfected_dir, not both"],
    ),
    "missing configuration": (
        lambda b: ["--set", "data.cache=always"],
        [r"data\.cache", "'disk'", "always"],
    ),
    # --- splits
    "the same file twice in a manifest": (
        lambda b: b.use_manifest(a_file_twice),
        [r"are the same file: list it once", r"synth_s5_b2_p1_"],
    ),
    "a symbolic link to a stack": (a_link, [r"link_s5_b2_p99_\.tif", "are the same file: list it once"]),
    "a well divided by the split column": (
        lambda b: (b.use_manifest(divided_wells), b.set("split.group", "well")),
        [r"well plate1/b2 is divided between train and (val|test)"],
    ),
    "too few stacks for a validation set": (
        few_stacks,
        ["the (train|val|test) side has no stack", r"data\.split_ratios"],
    ),
    "more folds than stacks": (
        lambda b: ["--folds", "20"],
        ["20 rotating folds need at least 20 groups", "there are 16", "fewer folds"],
    ),
    # --- output, weights, resume
    "a file where the output folder should be": (
        lambda b: (b.root / "run").write_text("in the way") and None,
        [r"run", "file lies where a folder|Not a directory|File exists"],
    ),
    "resume of a run without a name": (
        lambda b: NO_OUTPUT,
        ["--resume needs to know which run: give --output RUN, or set run_id"],
    ),
    "weights of something else": (other_weights, [r"other\.pt", r"'backbone\.'", r"fc1\.bias"]),
    "weights of a deeper network": (
        deeper_weights,
        [
            r"deep\.pt: model\.weights does not fit model\.name resnet10",
            r"key +\| expected +\| found",
            r"backbone\.layer4\.1\.conv1\.weight +\| - +\| \[512, 512, 3, 3\]",
        ],
    ),
    "pretrained weights absent": (
        lambda b: (b.set("model.name", "resnet18"), b.set("model.pretrained", True)),
        [
            "the ImageNet weights of resnet18 are not at .*resnet18.*pth",
            "--download",
            "model.pretrained: false",
        ],
    ),
    "an absent device": (
        lambda b: ["--device", "cuda:7"],
        ["cuda:7"],
    ),
}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("case", CASES)
def test_what_the_user_sees(box, case, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    breaks, expected = CASES[case]
    found = breaks(box)
    flags = found if isinstance(found, list) and all(isinstance(flag, str) for flag in found) else []
    code = box.train(*flags, output=flags is not NO_OUTPUT)
    shown = capfd.readouterr().err
    assert code == 1, shown
    assert "Traceback" not in shown
    message = shown[shown.index("error: ") :]
    for pattern in expected:
        assert re.search(pattern, message), message
    left = leftovers(tmp_path)
    assert [name for name in left if not name.endswith(".pt")] == []
    assert case in LATE or [name for name in left if name.startswith("run")] == []


# ------------------------------------------------------------------ what is no error, but must be said


@pytest.mark.usefixtures("no_pictures")
def test_resuming_nothing_starts_a_run_and_says_so(box, capfd):
    assert box.train("--resume") == 0
    assert "nothing to resume, the run starts at its beginning" in capfd.readouterr().err
    assert RunDirectory(box.run).is_complete


def one_class_validation(table: pd.DataFrame) -> pd.DataFrame:
    infected = table["condition"] == "infected"
    order = table.groupby("condition").cumcount()
    split = np.where(order < 5, "train", np.where(order < 7, "test", "val"))
    return table.assign(split=split)[infected | (split != "val")]


def test_an_undefined_auc_is_null_and_said_to_be_undefined(box, capfd):
    """A validation and a test side of infected stacks only: no AUC, and no crash."""

    def infected_only(table: pd.DataFrame) -> pd.DataFrame:
        table = one_class_validation(table)
        return table[(table["split"] != "test") | (table["condition"] == "infected")]

    box.use_manifest(infected_only)
    box.set("selection.metric", "cls_auc")
    assert box.train() == 0
    shown = capfd.readouterr().err
    assert "The val side has no stack of label 0: its AUC is undefined" in shown
    results = read_json(box.run / "results.json")
    assert results["best_val_metric"] is None
    assert results["test_metrics"]["cls_auc"] is None
    assert results["test_metrics"]["reg_mae"] > 0
    assert "undefined" in (box.run / "report.html").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_heads_that_do_not_fit_are_named(box, capfd):
    from infection_mt.config import ModelConfig
    from infection_mt.models.checkpoint import build_model

    model = build_model(ModelConfig(name="resnet10", pretrained=False, hidden_dim=24), "classification")
    torch.save(model.state_dict(), box.root / "classifier.pt")
    box.set("model.weights", str(box.root / "classifier.pt"))
    assert box.train() == 0
    shown = capfd.readouterr().err
    assert "used without the layers that do not fit" in shown
    assert re.search(r"regressor\.1\.weight +\| \[16, 512\]", shown)


# ------------------------------------------------------------------ interruptions


@pytest.mark.usefixtures("no_pictures")
def test_a_full_disk_leaves_the_checkpoint_before(box, capfd, monkeypatch):
    """The disk is full from the second epoch on: the message names the file, and the run can be resumed."""
    box.set("training.epochs", 2)
    real, written = os.fsync, []

    def fsync(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if "last.pt" in name:
            written.append(name)
            if len(written) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert box.train() == 1
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert re.search(
        r"error: .*No space left on device \(the disk is full: free some space.*last\.pt", shown
    ), shown
    assert [path for path in box.run.rglob(".*") if path.name.endswith(".tmp")] == []
    assert not (box.run / "results.json").exists()
    assert RunDirectory(box.run).load_checkpoint("last")["epoch"] == 1
    assert box.train("--resume") == 0
    assert len(RunDirectory(box.run).metrics_rows) == 2


def run_script(box: Box, *flags: str, limit: int | None = None) -> subprocess.Popen[str]:
    def lower() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [
        sys.executable,
        str(SCRIPT),
        "--config",
        str(box.config()),
        "--output",
        str(box.run),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *flags],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lower if limit else None,
    )


@pytest.mark.slow
def test_a_file_size_limit_is_named(box):
    process = run_script(box, limit=3_000_000)
    _, shown = process.communicate(timeout=120)
    assert process.returncode == 1, shown
    assert "Traceback" not in shown
    assert re.search(r"error: .*File too large.*(best|last)\.pt", shown), shown
    assert leftovers(box.run) == []


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(box):
    box.set("training.epochs", 200)
    process = run_script(box)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if RunDirectory(box.run).metrics_rows:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 75, shown
    assert "Traceback" not in shown
    assert "stopped by SIGINT" in shown
    assert "--resume continues" in shown
    assert RunDirectory(box.run).load_checkpoint("last")["epoch"] >= 1
    assert not (box.run / "results.json").exists()


# ------------------------------------------------------------------ prediction


@pytest.fixture
def weights(tmp_path) -> Path:
    from infection_mt.config import ModelConfig
    from infection_mt.models.checkpoint import build_model

    torch.manual_seed(0)
    model = build_model(ModelConfig(name="resnet10", pretrained=False, hidden_dim=16), "multitask")
    config = {"data": {"transforms": {"image_size": 32}}}
    torch.save({"model_state": model.state_dict(), "config": config}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_a_bad_stack_among_good_ones(box, weights, capfd):
    a_truncated_stack(box)
    output = box.root / "predictions"
    command = [
        "predict",
        str(box.infected),
        "--weights",
        str(weights),
        "--output",
        str(output),
        "--device",
        "cpu",
    ]
    assert cli.main(command) == 1
    failed = pd.read_csv(output / "failed.csv")
    assert failed["stack"].tolist() == [str(box.stack)]
    assert "cut off" in failed["reason"][0]
    assert pd.read_csv(output / "predictions.csv")["stack"].nunique() == 7
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "patterns"),
    [
        (["nowhere"], ["nowhere: no such file or folder"]),
        (["DATA", "--plate-layout", "mock"], [r"--plate-layout 'mock': expected condition=well,well"]),
        (["DATA", "--weights", "gone.pt"], [r"gone\.pt: no such checkpoint"]),
    ],
)
def test_predictions_that_cannot_start(box, weights, capfd, flags, patterns, monkeypatch):
    monkeypatch.chdir(box.root)
    flags = [str(box.infected) if flag == "DATA" else flag for flag in flags]
    flags = flags if "--weights" in flags else [*flags, "--weights", str(weights)]
    assert cli.main(["predict", *flags, "--output", str(box.root / "predictions"), "--device", "cpu"]) == 1
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    for pattern in patterns:
        assert re.search(pattern, shown[shown.index("error: ") :]), shown
    assert not (box.root / "predictions" / "predictions.csv").exists()
