"""Broken data sets, and the message that a user sees. Nothing half-made stays behind."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from aespa.config import Config
from aespa.data.arrays import load_arrays
from aespa.data.checking import check_data
from aespa.data.reading import read_image
from aespa.errors import DataError
from aespa.prepare.mbhseg import process_mbhseg
from aespa.synthetic import write_folders, write_lidc, write_mbhseg, write_png, write_refuge


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One small data set of each layout."""
    home = tmp_path_factory.mktemp("made")
    raw = write_mbhseg(home / "raw", 1, 1, seed=0)
    assert process_mbhseg(raw, home) == 0
    return SimpleNamespace(
        **{
            "LIDC": write_lidc(home / "LIDC", 3, 2, seed=0),
            "REFUGE": write_refuge(home / "REFUGE", 1, 1, seed=0, height=60, width=70),
            "folders": write_folders(home / "own", 4, 2, seed=0, size=48),
            "raw": raw,
            "MBHSeg-Binary": home / "MBHSeg-Binary",
            "MBHSeg-Multiclass": home / "MBHSeg-Multi",
        }
    )


def first(folder, pattern):
    return sorted(folder.glob(pattern))[0]


def resave(path, change):
    """Write an image anew as something else."""
    with Image.open(path) as image:
        array = np.asarray(image)
    Image.fromarray(change(array)).save(path, "PNG")
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])
    return path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    return path


def rgba(array):
    alpha = np.full_like(array, 255)
    alpha[0, 0] = 7
    return np.dstack([array, array, array, alpha])


def empty_masks(folder):
    for path in folder.glob("raters/*/*.png"):
        resave(path, np.zeros_like)
    return folder


def tiny_masks(folder):
    def one_pixel(array):
        array = np.zeros_like(array)
        array[5, 5] = 255
        return array

    for path in folder.glob("raters/*/*.png"):
        resave(path, one_pixel)
    return folder


def no_masks(folder):
    for path in folder.glob("raters/*/*.png"):
        path.unlink()
    return folder


def change_array(path, change):
    np.save(path, change(np.load(path)))
    return path


def with_class(array):
    array = array.copy()
    array[3, 4] = 0
    return array


def unpickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path


IMAGE, MASK = "images/train_0000.png", "raters/standard/train_0000.png"
SLICE, GT = "train/imgs/*/slice_2.png", "train/gt/*/slice_2_r1.npy"
# name: (layout, how the copy is spoilt: returns the file or folder that the message must name, parts of the message)
TABLE = {
    "image without raters": ("folders", no_masks, ["none of 4 images", "4 have no mask file"]),
    "all raters empty": ("folders", empty_masks, ["none of 4 images", "empty at image_size 32"]),
    "all raters empty after resizing": ("folders", tiny_masks, ["empty at image_size 32", "larger image_size"]),
    "no raters at all": (
        "folders",
        lambda f: [shutil.rmtree(x) for x in f.glob("raters/*")] and f / "raters",
        ["no rater was found", "raters/<id>/"],
    ),
    "mask of another size": (
        "folders",
        lambda f: resave(f / MASK, lambda a: a[:40]),
        ["the mask has 48 x 40 px", "has 48 x 48 px", IMAGE],
    ),
    "labels instead of a mask": (
        "folders",
        lambda f: resave(f / MASK, lambda a: (a > 0).astype(np.uint8) * np.uint8(3)),
        ["largest value found is 3", "one mask a label"],
    ),
    "image of 16 bits": (
        "folders",
        lambda f: resave(f / IMAGE, lambda a: a.astype(np.uint16) * 100),
        ["more than 8 bits a channel", "I;16", "choose a window"],
    ),
    "mask of 16 bits": (
        "folders",
        lambda f: resave(f / MASK, lambda a: a.astype(np.uint16)),
        ["expected a mask with 8 bits", "I;16"],
    ),
    "transparent image": ("folders", lambda f: resave(f / IMAGE, rgba), ["partly transparent (RGBA)"]),
    "damaged image": ("folders", lambda f: flip_a_bit(f / IMAGE), ["damaged or cut off"]),
    "image cut off": ("folders", lambda f: cut(f / IMAGE), ["damaged or cut off"]),
    "damaged mask": ("folders", lambda f: flip_a_bit(f / MASK), ["damaged or cut off"]),
    "empty file": ("folders", lambda f: (f / IMAGE).write_bytes(b"") or f / IMAGE, ["damaged or cut off"]),
    "text for an image": (
        "folders",
        lambda f: (f / IMAGE).write_text("hello") and f / IMAGE,
        ["not an image that can be read"],
    ),
    "mask without image": (
        "folders",
        lambda f: shutil.copy(f / MASK, f / "raters/standard/elsewhere.png") and f / "raters/standard",
        ["1 masks belong to no image", "elsewhere.png"],
    ),
    "two images of one name": (
        "folders",
        lambda f: shutil.copy(f / IMAGE, f / "images/train_0000.tif") and f / "images/train_0000.tif",
        ["train_0000.png has the same name"],
    ),
    "volume for an image": (
        "folders",
        lambda f: shutil.copy(f / IMAGE, f / "images/scan.nii.gz") and f / "images/scan.nii.gz",
        ["volumes are not read here"],
    ),
    "splits that share images": (
        "folders",
        lambda f: (
            (f / "splits.json").write_text(json.dumps({"train": ["train_0000"], "test": ["train_0000"]}))
            and f / "splits.json"
        ),
        ["1 names are in 'train' and in 'test' (train_0000)"],
    ),
    "splits of unknown images": (
        "folders",
        lambda f: (
            (f / "splits.json").write_text(json.dumps({"train": ["nobody"], "test": []}))
            and f / "splits.json"
        ),
        ["'train' names 1 images that are not there (nobody)"],
    ),
    "splits that are no splits": (
        "folders",
        lambda f: (f / "splits.json").write_text('["a"]') and f / "splits.json",
        ['expected {"train": [names], "test": [names]}'],
    ),
    "splits that are no JSON": (
        "folders",
        lambda f: (f / "splits.json").write_text('{"train": ') and f / "splits.json",
        ["splits.json: line 1"],
    ),
    "patients missing": (
        "folders",
        lambda f: (f / "patients.csv").write_text("name,patient\ntrain_0000,a\n") and f / "patients.csv",
        ["column 'name' lacks 5 images", "train_0001"],
    ),
    "patients without column": (
        "folders",
        lambda f: (f / "patients.csv").write_text("file,patient\na,b\n") and f / "patients.csv",
        ["required columns ['name'] are missing"],
    ),
    "classes out of range": (
        "MBHSeg-Multiclass",
        lambda f: change_array(first(f, GT), lambda a: np.concatenate([a, a[..., :1]], axis=2)),
        ["[height, width, 6]", "found uint8 [128, 128, 7]"],
    ),
    "pixels without class": (
        "MBHSeg-Multiclass",
        lambda f: change_array(first(f, GT), with_class),
        ["labels out of range", "(row 3, column 4) belongs to 0 of the classes 0 to 5"],
    ),
    "binary masks among classes": (
        "MBHSeg-Multiclass",
        lambda f: change_array(sorted(f.glob(GT))[-1], lambda a: a[..., 0]),
        ["these are MBHSeg-Binary masks"],
    ),
    "classes among binary masks": (
        "MBHSeg-Binary",
        lambda f: change_array(first(f, GT), lambda a: np.dstack([a] * 6)),
        ["expected a mask", "these are MBHSeg-Multiclass masks"],
    ),
    "mask turned": (
        "MBHSeg-Binary",
        lambda f: change_array(first(f, GT), lambda a: a[:100]) and resave(first(f, SLICE), lambda a: a[:, :100]) and first(f, GT),
        ["turned by 90 degrees"],
    ),
    "mask as numbers with fractions": (
        "MBHSeg-Binary",
        lambda f: change_array(first(f, GT), lambda a: a.astype(float)),
        ["expected a mask of uint8 or bool values", "float64"],
    ),
    "mask array cut off": ("MBHSeg-Binary", lambda f: cut(first(f, GT)), ["not a NumPy array that can be read"]),
    "mask array of objects": ("MBHSeg-Binary", lambda f: unpickled(first(f, GT)), ["not a NumPy array that can be read"]),
    "damaged grader": ("LIDC", lambda f: cut(first(f, "train/gt/*/*_l1.png")), ["damaged or cut off"]),
    "damaged disc": (
        "REFUGE",
        lambda f: cut(first(f, "Training-400/*/*_seg_disc_3.png")),
        ["damaged or cut off"],
    ),
    "damaged photograph": ("REFUGE", lambda f: cut(first(f, "Training-400/*/*.jpg")), ["damaged or cut off"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLE)
def test_broken_files_are_named(made, tmp_path, kind):
    dataset, spoil, parts = TABLE[kind]
    folder = shutil.copytree(getattr(made, dataset), tmp_path / "copy")
    named = spoil(folder)
    before = sorted(folder.rglob("*"))
    config = Config(dataset=dataset, data_path=folder, image_size=32, w=1)
    with pytest.raises(DataError) as caught:
        load_arrays(config, "train")
    message = str(caught.value)
    for part in [str(named), *parts]:
        assert part in message
    assert sorted(folder.rglob("*")) == before


# What the folder is, what it is taken for, and what the message says.
LAYOUTS = [
    ("MBHSeg-Binary", "LIDC", "this looks like MBHSeg-Binary, not LIDC: set dataset to MBHSeg-Binary"),
    ("MBHSeg-Multiclass", "MBHSeg-Binary", "this looks like MBHSeg-Multiclass, not MBHSeg-Binary"),
    ("LIDC", "MBHSeg-Binary", "this looks like LIDC"),
    ("REFUGE", "LIDC", "this looks like REFUGE"),
    ("folders", "REFUGE", "this looks like folders"),
    ("LIDC", "folders", "this looks like LIDC"),
    ("raw", "MBHSeg-Binary", "raw MBHSeg volumes: make slices of them with process_mbhseg.py first"),
]


@pytest.mark.parametrize(("folder", "dataset", "message"), LAYOUTS)
def test_a_folder_of_another_data_set_is_recognised(made, folder, dataset, message):
    with pytest.raises(DataError, match=message):
        load_arrays(Config(dataset=dataset, data_path=getattr(made, folder)), "train")


def test_missing_empty_and_misplaced_folders(made, tmp_path):
    def message(path, **keys):
        with pytest.raises(DataError) as caught:
            load_arrays(Config(**{"dataset": "LIDC", "data_path": path, **keys}), "train")
        return str(caught.value)

    assert "no such folder" in message(tmp_path / "nothing")
    assert "the folder is empty" in message(tmp_path)
    assert "dataset is not set: choose one of LIDC, REFUGE" in message(tmp_path, dataset=None)
    (tmp_path / "file").write_text("x")
    assert "not a folder" in message(tmp_path / "file")
    assert "found file" in message(tmp_path)
    shutil.copytree(made.LIDC, tmp_path / "LIDC")
    assert f"{tmp_path / 'LIDC'} looks like that: set data_path to it" in message(tmp_path)
    shutil.rmtree(tmp_path / "LIDC/train/images")
    (tmp_path / "LIDC/train/images").mkdir()
    assert "no image of split 'train'" in message(tmp_path / "LIDC")


@pytest.mark.parametrize("dataset", ["LIDC", "REFUGE", "folders", "MBHSeg-Binary", "MBHSeg-Multiclass"])
def test_check_finds_nothing_in_sound_data(made, dataset):
    assert check_data(Config(dataset=dataset, data_path=getattr(made, dataset), w=2)) == []


def test_check_names_every_damaged_file(made, tmp_path):
    folder = shutil.copytree(made.folders, tmp_path / "own")
    spoilt = [
        cut(folder / IMAGE),
        flip_a_bit(folder / "raters/liberal/train_0002.png"),
        resave(folder / "raters/standard/train_0002.png", lambda a: a[1:]),
        cut(folder / "raters/standard/test_0001.png"),
    ]
    for path in folder.glob("raters/*/train_0003.png"):
        path.unlink()
    problems = check_data(Config(dataset="folders", data_path=folder))
    assert [each.item for each in problems] == [
        "train: train_0000",
        "train: train_0002",
        "train: train_0002",
        "train",
        "test: test_0001",
    ]
    for path in spoilt:
        assert sum(each.message.startswith(f"{path}: ") for each in problems) == 1, path
    assert problems[3].severity == "warning"
    assert "1 images have no rater's mask file and are left out: train_0003" in problems[3].message


def test_check_goes_on_where_a_split_is_missing_and_sees_shared_patients(made, tmp_path):
    folder = shutil.copytree(made.LIDC, tmp_path / "LIDC")
    shutil.rmtree(folder / "test")
    [problem] = check_data(Config(dataset="LIDC", data_path=folder))
    assert problem.item == "test"
    assert "no image of split 'test'" in problem.message
    shutil.copytree(folder / "train", folder / "test")
    [problem] = check_data(Config(dataset="LIDC", data_path=folder))
    assert "2 patients are in both splits" in problem.message
    assert problem.severity == "warning"


def test_an_upload_of_50_megapixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.new("1", (10_000, 5_000)).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(DataError, match=r"too large \(10000 x 5000 px, at most 40 megapixels"):
        read_image(path)


def test_arrays_that_are_no_images(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(DataError, match=r"expected an image of uint8 values .* found uint8 \[4, 4, 2\]"):
        read_image(tmp_path / "a.npy")
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "b.npy")
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "b.png")
    write_png(tmp_path / "c.npy", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="not a NumPy array"):
        read_image(tmp_path / "c.npy")
