"""The original's scripts and the verbs of ``til-mtl``, one after the other, as a user starts them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medshared.runs import RunDirectory
from til_mtl import cli
from til_mtl.errors import CheckpointError
from til_mtl.models.weight_files import read_weights
from til_mtl.synthetic_slides import SyntheticTiger, TigerSettings, write_tiger

from .conftest import ToyNetwork, write_patches

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "MTL/main.py": ["--num_layers", "--gpus", "--loss_weights", "--test", "--ckpt_path", "--faithful"],
    "STL/Seg_main.py": ["--max_epochs", "--pretrained", "--resume_from_checkpoint"],
    "STL/det_main.py": ["--max_epochs", "--conf", "--nms"],
    "prepare_tiger.py": ["--tiger", "--all-folds", "--cell-shape"],
    "TIL_prediction/predict.py": ["--checkpoint", "--det-checkpoint", "--mpp-of", "--shard"],
    "TIL_prediction/evaluate.py": ["--pred", "--truth", "--survival", "--calibrate", "--bootstrap"],
    "TIL_prediction/evaluate_l1.py": ["--pred", "--truth", "--radius-px"],
}
QUICK = ["--device", "cpu", "--num_workers", "0"]
TRAIN = [*QUICK, "--img_size", "64", "64", "--batch_size", "4", "--lr", "0.03", "--t_max", "6"]


def load_toy(path, *, task=None, device="cpu"):
    """Load a toy network where the real ones are expected."""
    state, meta = read_weights(path)
    found = meta["config"]["task"]
    if task not in (None, found):
        raise CheckpointError(f"{path}: this is a checkpoint of {found}, {task} was asked for")
    network = ToyNetwork(found)
    network.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})
    return network.eval().to(device), meta


@pytest.fixture(scope="module", autouse=True)
def toy_networks() -> Iterator[None]:
    """Train, load and predict with toy networks."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("til_mtl.trainer.build_network", lambda config, **_: ToyNetwork(config.task))
        for place in ("til_mtl.models.checkpoint", "til_mtl.rescoring"):
            patched.setattr(f"{place}.load_network", load_toy)
        yield


def script(name: str, *arguments: str | Path, code: int = 0) -> str:
    """Run a script in this process, so that torch is imported once; return what it wrote to stderr."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(shown):
        patched.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / name), run_name="__main__")
    assert (stop.value.code or 0) == code, shown.getvalue()
    return shown.getvalue()


def verb(*arguments: str | Path, code: int = 0) -> str:
    """Run ``til-mtl``; return what it wrote to stderr."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        assert cli.main([str(each) for each in arguments]) == code, shown.getvalue()
    return shown.getvalue()


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


# ------------------------------------------------------------------ from the download to a score


@pytest.fixture(scope="module")
def tiger(tmp_path_factory) -> SyntheticTiger:
    settings = TigerSettings(
        patch_px=64, region_px=64, tissue_regions=14, cell_regions=14, held_out_regions=2, slides=5,
        tissue_px=(192, 160), margin_px=16, wsi_slides=2,
    )  # fmt: skip
    return write_tiger(tmp_path_factory.mktemp("tiger"), 0, settings)


@pytest.fixture(scope="module")
def patches(tiger, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "patches"
    flags = ["--patch", "64", "--cell-size", "14", "--folds", "2", "--all-folds", "--test-fraction", "0.2"]
    script("prepare_tiger.py", "--tiger", tiger.tiger, "--out", out, *flags)
    return out


@pytest.fixture(scope="module")
def runs(patches, tmp_path_factory) -> Path:
    """One run of each training script."""
    home = tmp_path_factory.mktemp("runs")
    for name, folder in (("MTL/main.py", "mtl"), ("STL/Seg_main.py", "seg"), ("STL/det_main.py", "det")):
        script(name, "--data_dir", patches, "--output", home / folder, "--max_epochs", "6", *TRAIN)
    return home


def best(runs: Path, name: str) -> Path:
    return runs / name / "checkpoints" / "best.pt"


TILES = ["--patch", "64", "--margin", "8", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def scores(tiger, runs, tmp_path_factory) -> dict[str, Path]:
    """Slides through the multi-task network, and through both single-task ones."""
    home = tmp_path_factory.mktemp("scores")
    files = ["--slides", tiger.slides, "--masks", tiger.tissue_masks, *TILES]
    script("TIL_prediction/predict.py", "--checkpoint", best(runs, "mtl"), "--out", home / "mtl", *files)
    pair = ["--checkpoint", best(runs, "seg"), "--det-checkpoint", best(runs, "det")]
    script("TIL_prediction/predict.py", *pair, "--out", home / "stl", *files)
    return {name: home / name for name in ("mtl", "stl")}


def test_every_task_leaves_a_run(runs, patches):
    for name in ("mtl", "seg", "det"):
        found = results(runs / name)
        assert found["task"] == name
        assert set(found["metrics"]) == {"val", "test"}
        assert (runs / name / "report.html").is_file()
    sides = pd.read_csv(patches / "manifest.csv").groupby("slide")["split"].nunique()
    assert (sides == 1).all()


@pytest.mark.parametrize("side", ["mtl", "stl"])
def test_slides_get_scores_that_can_be_judged(side, tiger, scores, tmp_path):
    table = pd.read_csv(scores[side] / "til_scores.csv")
    assert sorted(table["image-id"]) == sorted(each.slide for each in tiger.slide_truth)
    assert table["tils-score"].between(0, 100).all()
    for slide in table["image-id"]:
        names = {path.name for path in (scores[side] / slide).iterdir()}
        assert names >= {"segmentation.tif", "detected-lymphocytes.json", "til-score.json", "report.html"}
    flags = ["--bootstrap", "20", "--output", tmp_path]
    script(
        "TIL_prediction/evaluate.py",
        "--pred",
        scores[side] / "til_scores.csv",
        "--truth",
        tiger.scores,
        *flags,
    )
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["n"] == len(table) == 5
    truth = pd.read_csv(tiger.scores).set_index("image-id")["tils-score"]
    error = np.abs(table["tils-score"] - truth.loc[table["image-id"]].to_numpy()).mean()
    assert found["agreement"]["mae"]["estimate"] == pytest.approx(error)
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.json", "predictions.csv", "scatter.png", "bland_altman.png",
    }  # fmt: skip


def test_leaderboard_1_over_regions_of_whole_slides(tiger, runs, tmp_path):
    whole = tiger.tiger / "wsirois" / "wsi-level-annotations"
    out = tmp_path / "whole"
    flags = ["--slides", whole / "images", "--out", out, "--masks", whole / "tissue-masks", *TILES]
    script("TIL_prediction/predict.py", "--checkpoint", best(runs, "mtl"), *flags)
    slides = [path.stem for path in (whole / "images").glob("*.tif")]
    truth = tmp_path / "truth"
    (truth / "masks").mkdir(parents=True)
    cells = tiger.tiger / "wsirois" / "roi-level-annotations" / "tissue-cells"
    coco = json.loads((cells / "tiger-coco.json").read_text())
    coco["images"] = [each for each in coco["images"] if any(slide in each["file_name"] for slide in slides)]
    kept = {each["id"] for each in coco["images"]}
    coco["annotations"] = [each for each in coco["annotations"] if each["image_id"] in kept]
    (truth / "tiger-coco.json").write_text(json.dumps(coco))
    for image in coco["images"]:
        shutil.copy(cells / "masks" / Path(image["file_name"]).name, truth / "masks")
    script("TIL_prediction/evaluate_l1.py", "--pred", out, "--truth", truth)
    found = json.loads((out / "l1_metrics.json").read_text())
    assert found["dice"]["n_regions"] == len(kept) == 2
    assert found["left_out"] == {}
    assert 0 <= found["froc"]["score"] <= 1
    assert {"froc.csv", "froc.png"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize("side", ["mtl", "stl"])
def test_leaderboard_1_over_pictures_of_regions(side, tiger, runs, tmp_path):
    networks = {
        "mtl": ["--checkpoint", best(runs, "mtl")],
        "stl": ["--checkpoint", best(runs, "seg"), "--det-checkpoint", best(runs, "det")],
    }
    files = ["--regions", tiger.held_out / "images", "--out", tmp_path / "out"]
    script("TIL_prediction/predict.py", *networks[side], *files, *TILES)
    script("TIL_prediction/evaluate_l1.py", "--pred", tmp_path / "out", "--truth", tiger.held_out)
    found = json.loads((tmp_path / "out" / "l1_metrics.json").read_text())
    assert found["dice"]["n_regions"] == 2
    masks = sorted((tiger.held_out / "masks").glob("*.png"))
    truth = np.concatenate([np.asarray(Image.open(path)).ravel() for path in masks])
    guess = np.concatenate([np.asarray(Image.open(tmp_path / "out" / path.name)).ravel() for path in masks])
    guess = guess[truth > 0]
    truth = truth[truth > 0]
    for name, labels in (("tumour", [1]), ("stroma", [2, 6])):
        a, b = np.isin(guess, labels), np.isin(truth, labels)
        assert found["dice"][name] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert 0 <= found["froc"]["score"] <= 1


# ------------------------------------------------------------------ what one does with a run


def test_a_run_is_scored_again(runs, tmp_path):
    for name in ("mtl", "det"):
        verb("evaluate", "run", runs / name, "--output", tmp_path / name, "--device", "cpu")
        found = json.loads((tmp_path / name / "metrics.json").read_text())
        assert found["metrics"] == pytest.approx(results(runs / name)["metrics"]["test"])
        assert (tmp_path / name / "predictions_test.npz").is_file()


@pytest.mark.parametrize(("name", "folder"), [("MTL/main.py", "mtl"), ("STL/Seg_main.py", "seg")])
def test_a_checkpoint_is_tested_by_the_script_that_made_it(name, folder, runs, patches, tmp_path):
    (twin,) = (runs / folder / "checkpoints").glob("epoch=*.ckpt")
    flags = ["--data_dir", patches, "--test", "--ckpt_path", twin, "--output", tmp_path / "test"]
    script(name, *flags, *TRAIN)
    found = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert found["metrics"] == pytest.approx(results(runs / folder)["metrics"]["test"])


def test_a_checkpoint_of_another_task_is_refused(runs, patches, tmp_path):
    flags = ["--data_dir", patches, "--test", "--ckpt_path", best(runs, "det"), "--output", tmp_path / "test"]
    assert "error: " in script("STL/Seg_main.py", *flags, *TRAIN, code=1)
    assert not (tmp_path / "test").exists()


def test_the_page_is_written_again(runs):
    page = runs / "mtl" / "report.html"
    before = page.read_text()
    page.unlink()
    verb("report", runs / "mtl")
    after = page.read_text()
    assert after.count("<img") == before.count("<img") == 3


def test_a_finished_run_is_not_overwritten(runs, patches):
    before = (runs / "seg" / "results.json").read_text()
    flags = ["--data_dir", patches, "--output", runs / "seg", *TRAIN]
    shown = script("STL/Seg_main.py", *flags, code=1)
    assert "error: " in shown
    assert "the folder holds a finished run; choose another one, or resume to go on with it" in shown
    assert (runs / "seg" / "results.json").read_text() == before
    script("STL/Seg_main.py", *flags, "--resume")  # nothing is left to do
    assert (runs / "seg" / "results.json").read_text() == before


def test_an_interrupted_run_is_put_aside(runs, patches, tmp_path):
    shutil.copytree(runs / "seg", tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    flags = ["--data_dir", patches, "--output", tmp_path / "run", "--max_epochs", "1", *TRAIN]
    script("STL/Seg_main.py", *flags)
    assert (tmp_path / "run" / "interrupted-1" / "checkpoints" / "last.pt").is_file()
    assert results(tmp_path / "run")["best_epoch"] == 0


def test_a_checkpoint_is_trained_on(runs, patches, tmp_path):
    last = runs / "seg" / "checkpoints" / "last.pt"
    flags = ["--data_dir", patches, "--output", tmp_path / "run", "--max_epochs", "8", *TRAIN]
    script("STL/Seg_main.py", *flags, "--resume_from_checkpoint", last)
    assert [row["epoch"] for row in RunDirectory(tmp_path / "run").metrics_rows] == [6, 7]


# ------------------------------------------------------------------ folds, demo, folders


def test_folds_are_averaged(patches, tmp_path, caplog):
    flags = ["--data_dir", patches, "--output", tmp_path / "cv", "--max_epochs", "1", *TRAIN]
    script("MTL/main.py", *flags, "--folds", "1", "2")
    values = [results(tmp_path / "cv" / f"fold{k}")["metrics"]["val"]["dice_mean"] for k in (1, 2)]
    summary = json.loads((tmp_path / "cv" / "summary.json").read_text())
    assert summary["val"]["dice_mean"]["mean"] == pytest.approx(np.mean(values))
    assert summary["val"]["dice_mean"]["std"] == pytest.approx(np.std(values))
    assert len(pd.read_csv(tmp_path / "cv" / "folds.csv").query("set == 'val'")) == 2
    with caplog.at_level(logging.ERROR):
        script("MTL/main.py", *flags, "--folds", "2", "9", "--resume", code=1)
    assert "fold9 failed: " in caplog.text
    assert f"1 of 2 folds failed: {tmp_path / 'cv' / 'fold9'}" in caplog.text


def test_networks_are_compared_on_the_same_folds(patches, tmp_path):
    flags = ["--data_dir", patches, "--output", tmp_path, "--max_epochs", "1", "--resamples", "20", *TRAIN]
    verb("compare", "--folds", "2", "--only", "1", *flags)
    assert not (tmp_path / "comparison.json").exists()
    verb("compare", "--folds", "2", "--resume", *flags)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert {row["metric"] for row in content["table"]} >= {"dice_tumor", "dice_stroma", "froc", "cell_f1"}
    assert (tmp_path / "report.html").is_file()


def test_a_signal_between_two_folds_starts_no_further_one(patches, tmp_path, monkeypatch):
    from til_mtl import training

    inner = training.train_run

    def stopped_at_the_end(*arguments, **keys):
        found = inner(*arguments, **keys)
        signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(training, "train_run", stopped_at_the_end)
    flags = ["--data_dir", patches, "--output", tmp_path / "cv", "--max_epochs", "1", *TRAIN]
    shown = script("STL/Seg_main.py", *flags, "--folds", "1", "2", code=75)
    assert "stopped by SIGTERM before" in shown
    assert (tmp_path / "cv" / "fold1" / "results.json").is_file()
    assert not (tmp_path / "cv" / "fold2").exists()


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.mark.parametrize("name", ["MTL/main.py", "STL/Seg_main.py", "STL/det_main.py"])
def test_demo(name, demo_home):
    script(name, "--demo", "--output", demo_home / Path(name).stem, "--max_epochs", "1", *QUICK)
    found = results(demo_home / Path(name).stem)
    assert found["steps"] == 4
    assert (demo_home / "til-mtl-demo-data" / "patches" / "manifest.csv").is_file()


def test_demo_with_folds_in_the_current_folder(demo_home, monkeypatch):
    (demo_home / "here").mkdir()
    monkeypatch.chdir(demo_home / "here")
    script("STL/det_main.py", "--demo", "--output", ".", "--folds", "1", "--max_epochs", "1", *QUICK)
    assert results(demo_home / "here" / "fold1")["steps"] == 4


def test_without_output_runs_count_up(patches, tmp_path, monkeypatch):
    """From inside ``MTL/``-like folders with relative paths, as the original is started."""
    inside = tmp_path / "MTL"
    inside.mkdir()
    monkeypatch.chdir(inside)
    data = os.path.relpath(patches, inside)
    for _ in range(2):
        script("MTL/main.py", "--data_dir", data, "--fast_dev_run", *TRAIN)
    assert sorted(path.name for path in (inside / "logs" / "default").iterdir()) == ["version_0", "version_1"]
    script("MTL/main.py", "--data_dir", data, "--default_root_dir", "there", "--fast_dev_run", *TRAIN)
    assert (inside / "there" / "logs" / "default" / "version_0" / "results.json").is_file()


def test_the_working_directory_is_the_default_data(patches, tmp_path, monkeypatch):
    monkeypatch.chdir(patches)
    script("STL/det_main.py", "--output", tmp_path / "run", "--fast_dev_run", *TRAIN)
    assert results(tmp_path / "run")["steps"] == 1


def test_tensorboard_files_lie_in_the_run(patches, tmp_path):
    pytest.importorskip("tensorboard")
    flags = ["--data_dir", patches, "--output", tmp_path / "run", "--max_epochs", "1", *TRAIN]
    script("STL/Seg_main.py", *flags, "--logger")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


# ------------------------------------------------------------------ help


HELP = (
    "import runpy, sys\n"
    "sys.argv = [sys.argv[1], '--help']\n"
    "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    "except SystemExit as stop:\n    assert stop.code == 0\n"
    "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn', 'timm', 'openslide'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_light(name, tmp_path):
    command = [sys.executable, "-c", HELP, str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    missing = [flag for flag in SCRIPTS[name] if flag not in done.stdout]
    assert missing == []


@pytest.mark.parametrize(
    "words", [[], ["demo"], ["prepare"], ["train"], ["compare"], ["evaluate", "l1"], ["predict"], ["doctor"]]
)
def test_every_verb_has_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0
    assert "usage: til-mtl" in capsys.readouterr().out


# ------------------------------------------------------------------ stopping a process

TOY_PROCESS = """
import importlib.util, runpy, sys, torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("toys", {conftest!r})
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
from til_mtl import trainer
trainer.build_network = lambda config, **_: toys.ToyNetwork(config.task)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[list[str], Path]:
    """Flags of a run, and the run that nothing stopped."""
    home = tmp_path_factory.mktemp("whole")
    write_patches(home / "patches", {"train": (6, 6), "val": (2, 2)})
    flags = ["--data_dir", str(home / "patches"), "--img_size", "16", "16", "--batch_size", "4"]
    flags += ["--max_epochs", "40", "--augment", "d4", "--nms", "3", *QUICK]
    script("MTL/main.py", *flags, "--output", home / "run")
    return flags, home / "run"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_is_ended_goes_on_bit_for_bit(number, code, uninterrupted, tmp_path):
    flags, whole = uninterrupted
    output = tmp_path / "run"
    code_text = TOY_PROCESS.format(conftest=str(Path(__file__).with_name("conftest.py")))
    command = [
        sys.executable,
        "-c",
        code_text,
        str(ROOT / "MTL" / "main.py"),
        *flags,
        "--output",
        str(output),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (output / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(number)
        shown = process.communicate(timeout=60)[1]
    assert process.returncode == code, shown
    assert not (output / "results.json").exists()
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM" in shown
        assert "--resume continues" in shown
        assert "Traceback" not in shown
    state = RunDirectory(output).load_checkpoint("last")
    assert 0 <= state["progress"]["epoch"] < 40
    script("MTL/main.py", *flags, "--output", output, "--resume")
    without_time = [path.read_text() for path in (output / "metrics.csv", whole / "metrics.csv")]
    assert without_time[0] == without_time[1]
    assert results(output)["metrics"] == results(whole)["metrics"]
    a, b = (RunDirectory(folder).load_checkpoint("last")["state_dict"] for folder in (output, whole))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not list(output.rglob("*.tmp"))


# ------------------------------------------------------------------ the real network


@pytest.mark.slow
def test_the_real_network_from_patches_to_a_score(patches, tiger, tmp_path):
    """In processes of their own, without any stand-in."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    small = ["--img_size", "64", "64", "--batch_size", "2", "--limit_train_batches", "2", "--max_epochs", "1"]
    small += ["--limit_val_batches", "1", "--num_sanity_val_steps", "0", "--normalize", "lunit", *QUICK]
    slides = tmp_path / "slides"
    slides.mkdir()
    first = sorted(tiger.slides.glob("*.tif"))[0]
    shutil.copy(first, slides)
    checkpoint = tmp_path / "run" / "checkpoints" / "best.pt"
    commands = [
        ["MTL/main.py", "--data_dir", patches, "--output", tmp_path / "run", *small],
        [
            *("TIL_prediction/predict.py", "--checkpoint", checkpoint, "--slides", slides),
            *("--masks", tiger.tissue_masks, "--out", tmp_path / "scores", *TILES),
        ],
    ]
    for name, *arguments in commands:
        command = [sys.executable, str(ROOT / name), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run")["steps"] == 2
    facts = json.loads((tmp_path / "scores" / first.stem / "slide.json").read_text())
    assert facts["n_tiles"] > 0
