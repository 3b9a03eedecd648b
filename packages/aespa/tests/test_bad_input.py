"""What a person does wrong, through the command line: one line that names the file or the flag and the mend."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aespa.cli import main
from aespa.config import Config
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import save_network
from aespa.synthetic import make_demo_data

TINY = [
    "-encoder",
    "tiny",
    "-image_size",
    "32",
    "-device",
    "cpu",
    "-n_components",
    "4",
    "-w",
    "0",
    "-epochs",
    "1",
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two images to train on, one to test, and a checkpoint of a plain SAM."""
    home = tmp_path_factory.mktemp("bad")
    make_demo_data(home / "data", "folders", 2, 1, 0)
    config = Config(mode="SAM", encoder="tiny", image_size=32, n_components=4)
    save_network(home / "sam.pt", build_network(Architecture.from_config(config)), config={"mode": "SAM"})
    return home


@pytest.fixture
def home(drawn, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(drawn, tmp_path / "home")
    return tmp_path / "home"


def masks(home: Path) -> list[Path]:
    return sorted((home / "data" / "raters").glob("*/*.png"))


def nothing(home: Path) -> None:
    """Leave everything as it is."""


def cut_checkpoint(home: Path) -> None:
    content = (home / "sam.pt").read_bytes()
    (home / "sam.pt").write_bytes(content[: len(content) // 2])


def no_raters(home: Path) -> None:
    shutil.rmtree(home / "data" / "raters")


def empty_masks(home: Path) -> None:
    for path in masks(home):
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(path)


def tiny_masks(home: Path) -> None:
    """One pixel that no small image keeps."""
    for path in masks(home):
        mask = np.zeros((96, 96), np.uint8)
        mask[48, 48] = 255
        Image.fromarray(mask).save(path)


def other_size(home: Path) -> None:
    Image.fromarray(np.full((90, 80), 255, np.uint8)).save(masks(home)[0])


def damaged_image(home: Path) -> None:
    path = home / "data" / "images" / "train_0000.png"
    path.write_bytes(path.read_bytes()[:100])


DATA = ["-dataset", "folders", "-data_path", "{home}/data"]
CASES = {
    "no data set": (nothing, ["train"], "-dataset: needed, one of LIDC"),
    "no folder": (nothing, ["train", "-dataset", "LIDC", "-data_path", "{home}/nowhere"], "{home}/nowhere"),
    "missing sam checkpoint": (nothing, ["train", *DATA, "-sam_ckpt", "{home}/no.pth"], "-sam_ckpt {home}/no.pth: no"),
    "truncated sam checkpoint": (cut_checkpoint, ["train", *DATA, "-sam_ckpt", "{home}/sam.pt"], "{home}/sam.pt"),
    "truncated start": (cut_checkpoint, ["train", *DATA, "-pretrain", "{home}/sam.pt"], "{home}/sam.pt"),
    "missing start": (nothing, ["train", *DATA, "-pretrain", "{home}/no.pt"], "-pretrain {home}/no.pt: no"),
    "no weights": (nothing, ["evaluate", *DATA], "-weights: give the checkpoint to evaluate"),
    "missing weights": (nothing, ["evaluate", *DATA, "-weights", "{home}/no.pt"], "{home}/no.pt"),
    "truncated weights": (cut_checkpoint, ["evaluate", *DATA, "-weights", "{home}/sam.pt"], "{home}/sam.pt"),
    "weights of a plain SAM": (nothing, ["evaluate", *DATA, "-weights", "{home}/sam.pt"], "give -mode SAM"),
    "image size": (nothing, ["train", *DATA, "-image_size", "36"], "image_size must be a multiple of 8"),
    "image size of vit_b": (
        nothing,
        ["train", *DATA, "-encoder", "vit_b", "-image_size", "100"],
        "image_size must be a multiple of 16",
    ),
    "clusters": (
        nothing,
        ["train", *DATA, "-mode", "SPA", "-n_clusters", "5", "-num_samples", "4"],
        "n_clusters (5) must not exceed num_samples (4)",
    ),
    "several masks": (nothing, ["train", *DATA, "-multimask_output", "3"], "multimask_output must be 1"),
    "no epoch left": (nothing, ["train", *DATA, "-epoch_ini", "1"], "epoch_ini (1) must be below epochs (1)"),
    "devices": (nothing, ["train", *DATA, "-distributed", "all"], "distributed: expected none or numbers"),
    "half precision": (nothing, ["train", *DATA, "-amp", "16"], "use 'bf16'"),
    "SAM as the original": (nothing, ["train", *DATA, "-mode", "SAM", "-faithful"], "add -update per_batch"),
    "nothing to resume": (nothing, ["train", *DATA, "-resume"], "-resume: give the directory"),
    "no raters": (no_raters, ["train", *DATA], "{home}/data"),
    "empty masks": (empty_masks, ["train", *DATA], "none of 2 images has an outline"),
    "vanishing masks": (tiny_masks, ["train", *DATA], "use a larger image_size"),
    "a mask of another size": (other_size, ["train", *DATA], "80 x 90 px"),
    "a damaged image": (damaged_image, ["train", *DATA], "train_0000.png"),
    "too few patients": (nothing, ["train", *DATA, "-val_fraction", "0.9"], "leaves none to train on"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words", "message"), CASES.values(), ids=CASES.keys())
def test_one_line_says_what_is_wrong(spoil, words, message, home, capsys):
    spoil(home)
    given = [word.format(home=home) for word in (words[0], *TINY, *words[1:])]
    if "-resume" not in words:
        given += ["-output", str(home / "run")]
    assert main(given) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message.format(home=home) in error
    assert not (home / "run" / "results.json").exists()


def test_labels_out_of_range(tmp_path, capsys):
    for folder in ("imgs/case", "gt/case"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "train" / "imgs" / "case" / "slice_0.png")
    labels = np.zeros((32, 32, 6), np.uint8)
    labels[..., 0] = 255
    labels[3, 4, 0] = 0  # of no class
    np.save(tmp_path / "train" / "gt" / "case" / "slice_0_r1.npy", labels)
    words = ["-dataset", "MBHSeg-Multiclass", "-data_path", str(tmp_path), "-output", str(tmp_path / "run")]
    assert main(["train", *TINY, *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "slice_0_r1.npy: labels out of range: pixel (row 3, column 4)" in error


def test_an_image_without_raters_is_left_out_and_named(home, caplog):
    for path in masks(home):
        if path.stem == "train_0000":
            path.unlink()
    assert main(["prepare", "check", *TINY, *[word.format(home=home) for word in DATA]]) in (0, 1)
    assert "train_0000" in caplog.text
