"""Broken files and settings as a user meets them: one message, exit code 1, nothing half-written."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from medshared.configuration import dump_yaml
from medshared.slides import write_label_pyramid, write_pyramid
from til_mtl import cli
from til_mtl.models import build
from til_mtl.models.deeplab import Maps

from .conftest import PATCH_PX, ToyNetwork, write_patches


class Box:
    """Patch folders and a configuration, to be broken."""

    def __init__(self, root: Path) -> None:
        self.root, self.run = root, root / "run"
        self.data = write_patches(root / "patches", {"train": (4, 4), "val": (2, 2), "test": (1, 1)})
        self.keys: dict[str, Any] = {
            "task": "mtl", "data_dir": str(self.data), "img_size": [PATCH_PX, PATCH_PX], "batch_size": 4,
            "max_epochs": 1, "device": "cpu", "num_workers": 0, "nms": 3.0,
        }  # fmt: skip

    def set(self, **changes: Any) -> None:
        self.keys |= changes

    def files(self, task: str, part: str, split: str = "train") -> list[Path]:
        return sorted((self.data / task / split / part).glob("*.png"))

    def first(self, task: str, part: str, split: str = "train") -> Path:
        return self.files(task, part, split)[0]

    def save(self, task: str, part: str, picture: Image.Image) -> None:
        picture.save(self.first(task, part))

    def train(self, *flags: str | Path) -> int:
        path = self.root / "cfg.yaml"
        if not path.exists():
            path.write_text(dump_yaml(self.keys))
        given = [str(flag) for flag in flags]
        if "--output" not in given and "NO_OUTPUT" not in given:
            given += ["--output", str(self.run)]
        words = [word for word in given if word != "NO_OUTPUT"]
        return cli.main(["train", "--config", str(path), *words])


@pytest.fixture
def box(tmp_path, toy_network, monkeypatch):
    monkeypatch.setattr("til_mtl.reporting.write_run_report", lambda *arguments: None)
    return Box(tmp_path)


def leftovers(folder: Path) -> list[str]:
    """Results, checkpoints and temporary files below a folder."""
    kinds = (".pt", ".ckpt", ".tmp", ".npz", "metrics.csv", "predictions.csv", "results.json", "metrics.json")
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith(kinds))


def message_of(shown: str) -> str:
    assert "Traceback" not in shown
    return shown[shown.rindex("error: ") :]


# ------------------------------------------------------------------ training

Break = Callable[[Box], Any]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def masked(value: int, task: str = "segmentation") -> Break:
    labels = np.zeros((PATCH_PX, PATCH_PX), np.uint8)
    labels[2, 3] = value
    return lambda box: box.save(task, "mask", Image.fromarray(labels))


def palette(colours: list[int], value: int) -> Image.Image:
    picture = Image.fromarray(np.full((PATCH_PX, PATCH_PX), value, np.uint8), mode="P")
    picture.putpalette(colours)
    return picture


def two_sides(box: Box) -> None:
    rows = ["patch,task,split,fold,slide"]
    for split in ("train", "val", "test"):
        rows += [f'"{path.stem}",detection,{split},1,104S' for path in box.files("detection", "img", split)]
    (box.data / "manifest.csv").write_text("\n".join(rows) + "\n")


def write_text(name: str, text: str) -> Break:
    return lambda box: (box.root / name).write_text(text)


def checkpoint_of(box: Box, key: str) -> Path:
    path = box.root / "other.ckpt"
    torch.save({"state_dict": {f"net.{key}": torch.zeros(2)}, "epoch": 0}, path)
    return path


def damaged(box: Box) -> Path:
    path = checkpoint_of(box, "aspp.x")
    truncate(path)
    return path


TRAINING: dict[str, tuple[Break, list[str]]] = {
    # --- patches
    "image without mask": (lambda b: b.first("detection", "mask").unlink(), [r"img/\S.*\.png: there is no mask"]),
    "mask without image": (lambda b: b.first("detection", "img").unlink(), [r"mask/\S.*\.png: there is no image"]),
    "label of the download": (masked(6), ["labels 6 are not in a segmentation mask", "TIGER's own tissue labels"]),
    "cells as 255": (masked(255, "detection"), ["labels 255 are not in a detection mask", "save cells as 1"]),
    "palette of another colour": (
        lambda b: b.save("segmentation", "mask", palette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7], 3)),
        ["labels 3 are not in a segmentation mask"],
    ),
    "colour mask": (
        lambda b: b.save("segmentation", "mask", Image.new("RGB", (PATCH_PX, PATCH_PX), (200, 9, 9))),
        [r"a mask has one channel of labels, found a colour image \(RGB\)"],
    ),
    "truncated patch": (lambda b: truncate(b.first("segmentation", "img")), ["cannot be decoded", "copy it again"]),
    "empty mask file": (lambda b: b.first("segmentation", "mask").write_bytes(b""), ["the file is empty"]),
    "slide on two sides": (two_sides, [r"manifest\.csv: slide '104S' is in train and in val", "prepare_tiger"]),
    "no such folder": (lambda b: b.set(data_dir=str(b.root / "gone")), ["gone: no such data folder", "--data_dir"]),
    "no cells": (lambda b: shutil.rmtree(b.data / "detection"), ["no detection patches for train"]),
    # --- configuration
    "unknown key": (lambda b: b.set(batchsize=4), [r"cfg\.yaml.*batchsize", "did you mean 'batch_size'"]),
    "wrong type": (lambda b: b.set(max_epochs="many"), [r"cfg\.yaml.*max_epochs", "many"]),
    "two problems at once": (lambda b: b.set(lrr=1, augment="d5"), ["lrr", "d5"]),
    "broken YAML": (write_text("cfg.yaml", "lr: [1\n"), [r"cfg\.yaml: line \d", "not valid YAML"]),
    "key given twice": (write_text("cfg.yaml", "lr: 1\nlr: 2\n"), [r"cfg\.yaml.*'lr'"]),
    "duration": (lambda b: b.set(max_time="12h"), ["max_time: expected DD:HH:MM:SS", "found '12h'"]),
    "features of augmented patches": (
        lambda b: b.set(cache_features=True, augment="d4"), ["cache_features needs augment: none"],
    ),
    "unknown monitor": (lambda b: b.set(monitor="val_auc"), ["monitor: unknown value 'val_auc'; expected one of val_"]),
    "no such device": (lambda b: b.set(device="tpu"), ["unknown device 'tpu'"]),
    "two devices": (lambda b: b.set(device=None, gpus="0,1"), ["devices '0,1': a run uses one device"]),
    "learning rate that bursts": (lambda b: b.set(lr=1e30), ["is not finite", "lower --lr"]),
    "batches of one": (lambda b: b.set(batch_size=1), ["training needs at least 2 patches in a batch"]),
    "pretrained file": (lambda b: b.set(pretrained="gone.torch"), ["pretrained: gone.torch: no such file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINING)
def test_training(name, box, capfd):
    break_it, patterns = TRAINING[name]
    break_it(box)
    assert box.train() == 1
    message = message_of(capfd.readouterr().err)
    for pattern in patterns:
        assert re.search(pattern, message), message
    assert leftovers(box.run) == []


FLAGS: dict[str, tuple[Callable[[Box], list[Any]], list[str]]] = {
    "resume without a run": (
        lambda b: ["--resume", "NO_OUTPUT"],
        ["--resume needs --output, the directory of the run to continue"],
    ),
    "test without checkpoint": (lambda b: ["--test"], ["--test needs --ckpt_path"]),
    "checkpoint without test": (
        lambda b: ["--ckpt_path", "best.pt"],
        ["--ckpt_path is the checkpoint of --test; --resume_from_checkpoint continues training"],
    ),
    "no such checkpoint to test": (lambda b: ["--test", "--ckpt_path", b.root / "no.pt"], [r"no\.pt"]),
    "checkpoint of another task": (
        lambda b: ["--test", "--task", "det", "--ckpt_path", checkpoint_of(b, "aspp.x")],
        [r"other\.ckpt: this is a checkpoint of the multi-task network \(mtl\), the cell network"],
    ),
    "no network at all": (
        lambda b: ["--test", "--ckpt_path", checkpoint_of(b, "layer1.0.conv1.weight")],
        [r"other\.ckpt: these are not the weights of a til-mtl network", "`pretrained`"],
    ),
    "damaged checkpoint": (lambda b: ["--test", "--ckpt_path", damaged(b)], [r"other\.ckpt"]),
    "nothing to continue from": (
        lambda b: ["--resume_from_checkpoint", checkpoint_of(b, "aspp.x")],
        [r"other\.ckpt: holds no optimiser state", r"last\.pt"],
    ),
    "no such state": (lambda b: ["--resume_from_checkpoint", b.root / "no.pt"], [r"no\.pt: no such file"]),
    "no such configuration": (lambda b: ["--config", b.root / "cfgs.yaml"], [r"did you mean 'cfg\.yaml'"]),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name, box, capfd):
    make, patterns = FLAGS[name]
    assert box.train(*make(box)) == 1
    message = message_of(capfd.readouterr().err)
    for pattern in patterns:
        assert re.search(pattern, message), message
    assert leftovers(box.run) == []


def test_an_encoder_file_of_which_nothing_fits(box, capfd, monkeypatch):
    """The real network's names are enough; it gets no memory."""
    assemble = build.assemble_network

    def without_memory(config):
        with torch.device("meta"):
            return assemble(config)

    monkeypatch.setattr(build, "assemble_network", without_memory)
    monkeypatch.setattr("til_mtl.trainer.build_network", build.build_network)
    path = box.root / "swav.torch"
    torch.save({"blocks.0.attn.weight": torch.zeros(3)}, path)
    box.set(pretrained=str(path))
    assert box.train() == 1
    message = message_of(capfd.readouterr().err)
    assert "swav.torch: no weight fits the encoder resnet50" in message
    assert "blocks.0.attn.weight" in message
    assert leftovers(box.run) == []


# ------------------------------------------------------------------ unusual, but sound


def with_alpha(box: Box) -> None:
    path = box.first("segmentation", "img")
    Image.open(path).convert("RGBA").save(path)


def larger(box: Box) -> None:
    for part, how in (("img", Image.Resampling.BICUBIC), ("mask", Image.Resampling.NEAREST)):
        path = box.first("segmentation", part)
        Image.open(path).resize((40, 24), how).save(path)


def no_lymphocyte(box: Box) -> None:
    for split in ("train", "val", "test"):
        for path in box.files("detection", "mask", split):
            Image.new("L", (PATCH_PX, PATCH_PX)).save(path)


def nothing_annotated(box: Box) -> None:
    box.save("segmentation", "mask", Image.new("L", (PATCH_PX, PATCH_PX), 250))


def one_tissue_validation(box: Box) -> None:
    for path in box.files("segmentation", "mask", "val"):
        Image.new("L", (PATCH_PX, PATCH_PX), 1).save(path)


SOUND: dict[str, Break] = {
    "RGBA": with_alpha,
    "palette with the right numbers": lambda b: b.save(
        "segmentation", "mask", palette([9, 9, 9, 200, 0, 0, 0, 0, 200], 2)
    ),
    "another size": larger,
    "cells nowhere": no_lymphocyte,
    "a patch that nobody annotated": nothing_annotated,
    "one tissue to validate on": one_tissue_validation,
    "no test set": lambda b: [
        shutil.rmtree(b.data / task / "test") for task in ("segmentation", "detection")
    ],
    "a batch beyond the set": lambda b: b.set(batch_size=64),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_input(name, box):
    SOUND[name](box)
    assert box.train() == 0
    found = json.loads((box.run / "results.json").read_text())
    assert found["steps"] >= 1
    assert math.isfinite(found["epoch_values"]["val_loss"])
    rows = pd.read_csv(box.run / "predictions.csv")
    assert set(rows["set"]) == ({"val"} if name == "no test set" else {"val", "test"})


def test_one_run_without_a_test_set_says_so(box, capfd, monkeypatch):
    for task in ("segmentation", "detection"):
        shutil.rmtree(box.data / task / "test")
    monkeypatch.setattr(
        "til_mtl.rescoring.load_network", lambda path, task=None: (ToyNetwork(), {"config": box.keys})
    )
    (box.root / "best.pt").write_bytes(b"x")
    command = ["evaluate", "run", str(box.root / "best.pt"), "--device", "cpu", "--output", str(box.run)]
    assert cli.main(command) == 1
    assert "no patches in the set test" in message_of(capfd.readouterr().err)
    assert cli.main([*command, "--set-name", "val"]) == 0


# ------------------------------------------------------------------ preparation


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    from til_mtl.synthetic_slides import TigerSettings, write_tiger

    settings = TigerSettings(region_px=64, tissue_regions=6, cell_regions=6, held_out_regions=0, slides=0)
    return write_tiger(tmp_path_factory.mktemp("drawn"), 3, settings).tiger


def coco(tiger: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = tiger / "wsirois" / "roi-level-annotations" / "tissue-cells" / "tiger-coco.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def far_box(content: dict[str, Any]) -> None:
    content["annotations"][0]["bbox"] = [5000, 0, 16, 16]


def region(tiger: Path, part: str) -> Path:
    return sorted((tiger / "wsirois/roi-level-annotations/tissue-bcss" / part).glob("*.png"))[0]


PREPARATION: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "cell outside its region": (
        lambda t: coco(t, far_box),
        [r"cell box \[5000, 0, 16, 16\] lies wholly outside"],
    ),
    "mask of another size": (
        lambda t: Image.new("L", (9, 9)).save(region(t, "masks")),
        ["9 x 9 pixels, but the name says 64 x 64"],
    ),
    "tissue label 9": (
        lambda t: Image.new("L", (64, 64), 9).save(region(t, "masks")),
        ["tissue label 9: the download has labels 0"],
    ),
    "truncated region": (lambda t: truncate(region(t, "images")), ["cannot be decoded"]),
    "region without mask": (lambda t: region(t, "masks").unlink(), ["mask"]),
}


@pytest.mark.parametrize("name", PREPARATION)
def test_a_bad_region_is_recorded_and_the_others_are_done(name, drawn, tmp_path, capfd, caplog):
    tiger = shutil.copytree(drawn, tmp_path / "tiger")
    break_it, patterns = PREPARATION[name]
    break_it(tiger)
    out = tmp_path / "out"
    command = ["prepare", "--tiger", str(tiger), "--out", str(out), "--patch", "64", "--folds", "2"]
    with caplog.at_level(logging.INFO):
        assert cli.main(command) == 1
    report = (out / "prepare-report.json").read_text()
    shown = capfd.readouterr().err + caplog.text
    assert "Traceback" not in shown
    for pattern in patterns:
        assert re.search(pattern, report), report
        assert re.search(pattern, shown), shown
    assert len(pd.read_csv(out / "manifest.csv")) == 11
    assert not list(out.rglob("*.tmp"))


def test_no_download(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    command = ["prepare", "--tiger", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 1
    message = message_of(capfd.readouterr().err)
    assert "expected the TIGER download with wsirois/roi-level-annotations" in message
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ slides

WIDTH, HEIGHT = 288, 224


class Colours(ToyNetwork):
    """Calls pink stroma and the rest tumour; dark is a cell."""

    stroma = True

    def maps(self, x: torch.Tensor) -> Maps:
        pink = (x[:, 0] > 0.78) & self.stroma
        seg = torch.stack([torch.full_like(x[:, 0], -9.0), (~pink).float(), pink.float()], 1)
        dark = 9 * (0.45 - x.mean(1))
        return Maps(seg, torch.stack([-dark, dark], 1))


class Slides:
    """A folder of slides and what ``til-mtl predict`` makes of it."""

    def __init__(self, root: Path) -> None:
        self.folder, self.masks, self.out = root / "slides", root / "masks", root / "out"
        self.folder.mkdir()
        rng = np.random.default_rng(0)
        self.pixels = np.full((HEIGHT, WIDTH, 3), (170, 105, 165), np.uint8)
        self.pixels[:, WIDTH // 2 :] = (226, 160, 190)
        for x, y in zip(rng.integers(8, WIDTH - 8, 12), rng.integers(8, HEIGHT - 8, 12), strict=True):
            self.pixels[y - 4 : y + 5, x - 4 : x + 5] = (62, 38, 105)
        self.add("good")
        self.checkpoint = root / "best.pt"
        self.checkpoint.write_bytes(b"stands for a network")

    def add(self, name: str, spacing: float | None = 0.5) -> Path:
        path = write_pyramid(
            self.folder / f"{name}.tif", self.pixels, spacing, "generic", tile_px=32,
            downsamples=(1, 4), subsampling=(1, 1),
        )  # fmt: skip
        mask = np.ones((HEIGHT, WIDTH), np.uint8)
        write_label_pyramid(self.masks / f"{name}_tissue.tif", mask, 0.5, tile_px=64)
        return path

    def predict(self, *flags: str) -> int:
        files = [
            "--checkpoint",
            self.checkpoint,
            "--slides",
            self.folder,
            "--masks",
            self.masks,
            "--out",
            self.out,
        ]
        small = ["--patch", "64", "--margin", "8", "--device", "cpu", "--threads", "1"]
        return cli.main(["predict", *map(str, files), *small, *flags])

    def row(self, name: str) -> pd.Series:
        return pd.read_csv(self.out / "slides.csv", index_col="image-id", keep_default_na=False).loc[name]

    def scores(self) -> dict[str, float]:
        table = pd.read_csv(self.out / "til_scores.csv")
        return dict(zip(table["image-id"], table["tils-score"], strict=True))


@pytest.fixture
def slides(tmp_path, monkeypatch):
    monkeypatch.setattr("til_mtl.models.checkpoint.load_network", lambda *a, **k: (Colours(), {}))
    return Slides(tmp_path)


def test_a_slide_without_spacing_is_mended_by_a_flag(slides, capfd, caplog):
    slides.add("silent", None)
    assert slides.predict() == 1
    assert "--mpp-of silent=VALUE" in slides.row("silent")["message"]
    assert "--mpp-of silent=VALUE" in capfd.readouterr().err + caplog.text
    assert set(slides.scores()) == {"good"}
    assert not (slides.out / "silent" / "til-score.json").exists()
    assert slides.predict("--mpp-of", "silent=0.5") == 0
    found = slides.scores()
    assert found["silent"] == pytest.approx(found["good"])


def test_a_truncated_slide_gets_no_score(slides, capfd, caplog):
    truncate(slides.add("cut"))
    assert slides.predict() == 1
    assert slides.row("cut")["status"] == "failed"
    assert "cut.tif" in slides.row("cut")["message"]
    shown = capfd.readouterr().err + caplog.text
    assert "cut.tif" in shown
    assert "Traceback" not in shown
    assert set(slides.scores()) == {"good"}
    assert list((slides.out / "cut").glob("*")) == []


def test_a_corrupt_tile_is_left_out_of_the_area(slides):
    path = slides.add("spoilt")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        tile = 2 * (-(-WIDTH // 32)) + 3
        start, length = page.dataoffsets[tile], page.databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))
    assert slides.predict() == 0
    assert "cannot be decoded and are left out" in slides.row("spoilt")["message"]
    assert (slides.out / "spoilt" / "faults.csv").read_text().startswith("x,y,reason\n")
    labels = tifffile.imread(slides.out / "spoilt" / "segmentation.tif")
    assert (labels[64:96, 96:128] == 0).all()
    assert (labels > 0).sum() < WIDTH * HEIGHT


def test_without_stroma_there_is_no_score_but_a_reason(slides, monkeypatch):
    monkeypatch.setattr(Colours, "stroma", False)
    assert slides.predict() == 0
    assert "No stroma was found" in slides.row("good")["message"]
    assert (slides.out / "good" / "til-score.json").read_text().strip() == "null"
    assert math.isnan(slides.scores()["good"])


def test_an_empty_mask_gives_no_score(slides):
    write_label_pyramid(
        slides.masks / "good_tissue.tif", np.zeros((HEIGHT, WIDTH), np.uint8), 0.5, tile_px=64
    )
    slides.predict()
    assert slides.row("good")["status"] == "empty"
    assert slides.scores() == {}


def test_networks_that_give_no_til_score(slides, monkeypatch, capfd):
    monkeypatch.setattr("til_mtl.models.checkpoint.load_network", lambda *a, **k: (Colours("det"), {}))
    assert slides.predict() == 1
    message = message_of(capfd.readouterr().err)
    assert "a TIL score needs tissue and cells" in message
    assert "--det-checkpoint" in message
    assert not slides.out.exists() or not leftovers(slides.out)


def test_a_damaged_network_is_named_once(slides, capfd, monkeypatch):
    monkeypatch.undo()
    assert slides.predict() == 1
    assert "best.pt" in message_of(capfd.readouterr().err)
    assert not (slides.out / "til_scores.csv").exists()


def test_a_region_that_is_no_picture_is_recorded_and_the_others_are_done(slides, tmp_path, capfd, caplog):
    folder = tmp_path / "regions"
    folder.mkdir()
    for name in ("good", "cut"):
        Image.fromarray(slides.pixels).save(folder / f"{name}_[0, 0, {WIDTH}, {HEIGHT}].png")
    truncate(next(folder.glob("cut_*")))
    files = ["--checkpoint", slides.checkpoint, "--regions", folder, "--out", slides.out]
    command = ["predict", *map(str, files), "--patch", "64", "--margin", "8", "--device", "cpu"]
    assert cli.main(command) == 1
    shown = capfd.readouterr().err + caplog.text
    assert "cut_[" in shown
    assert "Traceback" not in shown
    assert {path.stem[:4] for path in slides.out.glob("*_[[]*")} == {"good"}


# ------------------------------------------------------------------ evaluation

SCORES = "image-id,tils-score\na,10\nb,30\nc,50\nd,\n"
VISUAL = "image-id,tils-score\na,15\nb,25\nc,60\nd,5\n"


@pytest.mark.parametrize(
    ("predicted", "visual", "pattern"),
    [
        ("image-id,score\na,1\n", VISUAL, r"pred\.csv: no column tils-score"),
        (SCORES, VISUAL.replace("15", "150"), r"truth\.csv.*150"),
        (SCORES, VISUAL.replace("a,", "x,").replace("b,", "y,"), "share 1 slides with a score, at least 3"),
        (SCORES.replace("b,", "a,"), VISUAL, r"pred\.csv.*image-id.*'?a'?"),
        (SCORES, None, r"truth\.csv"),
    ],
)
def test_scores(predicted, visual, pattern, tmp_path, capfd):
    (tmp_path / "pred.csv").write_text(predicted)
    if visual is not None:
        (tmp_path / "truth.csv").write_text(visual)
    files = ["--pred", str(tmp_path / "pred.csv"), "--truth", str(tmp_path / "truth.csv")]
    assert (
        cli.main(["evaluate", "scores", *files, "--bootstrap", "0", "--output", str(tmp_path / "out")]) == 1
    )
    message = message_of(capfd.readouterr().err)
    assert re.search(pattern, message), message
    assert not (tmp_path / "out").exists()


def test_a_slide_without_score_is_left_out_by_name(tmp_path):
    (tmp_path / "pred.csv").write_text(SCORES)
    (tmp_path / "truth.csv").write_text(VISUAL)
    files = ["--pred", str(tmp_path / "pred.csv"), "--truth", str(tmp_path / "truth.csv")]
    assert cli.main(["evaluate", "scores", *files, "--bootstrap", "0"]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["n"] == 3
    assert found["left_out"]["without_score"] == ["d"]


@pytest.mark.parametrize("words", [["evaluate", "l1", "--pred", "p", "--truth", "gone"], ["report", "gone"]])
def test_folders_that_are_not_there(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    assert cli.main(words) == 1
    assert "gone" in message_of(capfd.readouterr().err)
    assert not list((tmp_path / "p").iterdir())
