"""Broken patch folders, each with the text that a user sees."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from medshared.tables import TableError
from til_mtl.config import Config
from til_mtl.data.folders import find_patches, find_run_patches
from til_mtl.data.store import PatchStore
from til_mtl.errors import DataError

HEADER = "patch,task,split,fold,slide\n"


def first(root, task="segmentation", split="train"):
    return find_patches(root, task, split)[0]


def relabel(value, task="segmentation"):
    def change(root):
        path = first(root, task).mask
        labels = np.zeros((16, 16), np.uint8)
        labels[3, 4] = value
        Image.fromarray(labels).save(path)

    return change


def save_palette(root):
    """Write colours where indices would do: labels that are not in the table."""
    picture = Image.fromarray(np.full((16, 16), 3, np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    picture.save(first(root).mask)


def remove(kind):
    def change(root):
        getattr(first(root), kind).unlink()

    return change


def save_mask(mode):
    def change(root):
        pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(first(root).mask)

    return change


def cut(kind, length):
    def change(root):
        path = getattr(first(root), kind)
        path.write_bytes(path.read_bytes()[:length])

    return change


def empty_folder(root):
    for kind in ("img", "mask"):
        for path in (root / "detection/train" / kind).iterdir():
            path.unlink()


def double(root):
    path = first(root).image
    shutil.copy(path, path.with_suffix(".tif"))


def only_folds(root):
    for kind in ("img", "mask"):
        target = root / "detection/fold3" / f"train_{kind}"
        target.parent.mkdir(exist_ok=True)
        (root / "detection/train" / kind).rename(target)


def bad_points(text):
    def change(root):
        folder = root / "detection/train/points"
        folder.mkdir()
        (folder / f"{first(root, 'detection').name}.csv").write_text(text)

    return change


def manifest(text):
    def change(root):
        (root / "manifest.csv").write_text(text)

    return change


def leaking_manifest(root):
    """Every patch of its own slide, but one of training and one of validation of the same."""
    rows = [HEADER]
    for split in ("train", "val"):
        for k, patch in enumerate(find_patches(root, "detection", split)):
            rows.append(f"{patch.name},detection,train,1,{'A' if k == 0 else f'{split}{k}'}\n")
    (root / "manifest.csv").write_text("".join(rows))


def deep_image(root):
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(first(root).image)


CASES = {
    "mask missing": (remove("mask"), r"slide0_.*_0-0\.png: there is no mask .*slide0_0-0-16-16_0-0\.\*: a pair has the same name"),
    "image missing": (remove("image"), r"mask/slide0_.*\.png: there is no image .*img/slide0_0-0-16-16_0-0\.\*"),
    "one name twice": (double, r"_0-0\.tif: slide0_0-0-16-16_0-0\.png has the same name: keep one of the two"),
    "empty folders": (empty_folder, r"detection/train/img: no patches: expected files \.png"),
    "no such root": (shutil.rmtree, r"no such data folder: give the root with segmentation/ and detection/ as --data_dir"),
    "no folder of the task": (lambda root: shutil.rmtree(root / "detection"), r"no detection patches for train: expected .*detection/train/img.*there is no folder detection"),
    "folds without a flag": (only_folds, r"no detection patches for train: .*; there are the folds fold3: choose one with --fold_det"),
    "tissue label of TIGER": (relabel(6), r"_0-0\.png: labels 6 are not in a segmentation mask \(0 other, 1 tumor, 2 stroma, 250 not annotated\): these look like TIGER's own tissue labels; make patches"),
    "tissue label 255": (relabel(255), r"labels 255 are not in a segmentation mask .*: save the labels themselves"),
    "cell label 255": (relabel(255, "detection"), r"labels 255 are not in a detection mask \(0 background, 1 cell, 250 not annotated\): save cells as 1, not as 255"),
    "cell label 2": (relabel(2, "detection"), r"labels 2 are not in a detection mask"),
    "palette with a fourth colour": (save_palette, r"labels 3 are not in a segmentation mask"),
    "mask saved as a picture": (save_mask("L"), r"labels .*, … are not in a segmentation mask .*: this looks like a picture"),
    "colour mask": (save_mask("RGB"), r"a mask has one channel of labels, found a colour image \(RGB\): save the labels"),
    "truncated image": (cut("image", 200), r"img/slide0_.*: the image cannot be decoded \(.*\); it is damaged or cut off: copy it again"),
    "truncated mask": (cut("mask", 60), r"mask/slide0_.*: the mask cannot be decoded"),
    "no image at all": (cut("image", 7), r"the image cannot be decoded \(not in a format that Pillow knows\)"),
    "empty file": (cut("image", 0), r"img/slide0_.*: the file is empty; copy it again"),
    "16 bits": (deep_image, r"pixels of mode 'I;16', but patches have 8 bits a channel"),
    "points outside": (bad_points("x,y\n3,4\n70,2\n"), r"points/slide0_.*\.csv:3: point \(70, 2\) lies outside the patch of 16 x 16 pixels"),
    "points without header": (bad_points("3,4\n"), r"required columns \['x', 'y'\] are missing"),
    "points not numbers": (bad_points("x,y\n1,top\n"), r":2: column 'y': expected a number, found 'top'"),
    "slide on two sides of the manifest": (manifest(HEADER + "a,detection,train,1,104S\nb,detection,val,1,104S\n"), r"manifest\.csv: slide '104S' is in train and in val: .*move all its patches to one side"),
    "slide on two sides of the folders": (leaking_manifest, r"slide 'A' is in train and in val"),
    "manifest without slides": (manifest("patch,task,split\n"), r"manifest\.csv:1: required columns \['slide'\] are missing"),
    "patch twice in the manifest": (manifest(HEADER + "a,detection,train,1,s\na,detection,train,1,s\n"), r"detection patch 'a' has two rows"),
}  # fmt: skip


def read_all(config):
    store = PatchStore(find_run_patches(config)["train"], config)
    return [store.points(index) for index in range(len(store))]


@pytest.mark.parametrize("case", CASES)
def test_message(patch_root, case):
    change, text = CASES[case]
    change(patch_root)
    config = Config(data_dir=patch_root, img_size=(16, 16), num_workers=1)
    with pytest.raises((DataError, TableError)) as caught:
        read_all(config)
    message = str(caught.value)
    assert re.search(text, message), message
    assert "Traceback" not in message
    assert str(patch_root) in message


def test_several_bad_files_are_named_at_once(patch_root):
    for patch in find_patches(patch_root, "segmentation", "train")[:3]:
        patch.mask.write_bytes(b"")
    config = Config(data_dir=patch_root, img_size=(16, 16))
    with pytest.raises(DataError) as caught:
        PatchStore(find_run_patches(config)["train"], config)
    assert str(caught.value).count("the file is empty") == 3


def test_names_alone_give_a_warning(patch_root, caplog):
    patch = first(patch_root)
    for path, kind in ((patch.image, "img"), (patch.mask, "mask")):
        shutil.copy(path, patch_root / "segmentation/val" / kind / f"slide0_0-0-16-16_99-0{path.suffix}")
    find_run_patches(Config(data_dir=patch_root))
    assert "1 slides (slide0, …) have patches on two sides of the split" in caplog.text
