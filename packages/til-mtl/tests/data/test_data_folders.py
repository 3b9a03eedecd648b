"""Patch folders, manifests and splits by slide."""

import shutil

import pytest

from til_mtl.config import Config
from til_mtl.data.folders import find_patches, find_run_patches
from til_mtl.data.manifest import shared_slides, slide_from_name


def names(patches):
    return [patch.name for patch in patches]


def test_pairs_are_found_by_stem_in_order(patch_root):
    found = find_patches(patch_root, "detection", "train")
    assert names(found) == sorted(names(found))
    assert len(found) == 6
    assert all(p.image.stem == p.mask.stem == p.name and p.task == "detection" for p in found)
    assert [p.slide for p in found] == ["slide0"] * 3 + ["slide1"] * 3


def test_other_suffixes_pair_with_png_masks(patch_root):
    folder = patch_root / "segmentation/train/img"
    first = sorted(folder.iterdir())[0]
    first.rename(first.with_suffix(".jpg"))  # the name decides what is paired, not the extension
    (folder / "Thumbs.db").write_text("not a patch")
    assert len(find_patches(patch_root, "segmentation", "train")) == 6


def test_points_lie_beside_the_masks(patch_root):
    points = patch_root / "detection/val/points"
    points.mkdir()
    name = find_patches(patch_root, "detection", "val")[0].name
    (points / f"{name}.csv").write_text("x,y\n1,2\n")
    assert [p.points is not None for p in find_patches(patch_root, "detection", "val")] == [True, False]


@pytest.mark.parametrize(
    "place", ["fold2/{split}_{kind}", "{split}/dataset/{kind}", "dataset/{split}/{kind}"]
)
def test_other_layouts_of_the_original(patch_root, place):
    for task in ("segmentation", "detection"):
        for split in ("train", "val"):
            for kind in ("img", "mask"):
                target = patch_root / "other" / task / place.format(split=split, kind=kind)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(patch_root / task / split / kind, target)
    fold = "fold2" if place.startswith("fold2") else None
    config = Config(data_dir=patch_root / "other", fold_seg=fold, fold_det=fold)
    found = find_run_patches(config)
    assert {split: len(found[split]) for split in found} == {"train": 12, "val": 4, "test": 0}


@pytest.mark.parametrize(("task", "expected"), [("mtl", 12), ("seg", 6), ("det", 6)])
def test_a_run_has_all_tissue_patches_first(patch_root, task, expected):
    found = find_run_patches(Config(task=task, data_dir=patch_root))
    assert len(found["train"]) == expected
    tasks = [patch.task for patch in found["train"]]
    assert tasks == sorted(tasks, reverse=True)


def test_missing_val_is_taken_from_train_by_slide(patch_root):
    for task in ("segmentation", "detection"):
        for patch in find_patches(patch_root, task, "val"):
            for path, kind in ((patch.image, "img"), (patch.mask, "mask")):
                path.rename(patch_root / task / "train" / kind / path.name)
        shutil.rmtree(patch_root / task / "val")
    config = Config(data_dir=patch_root, val_split=0.34)
    found = find_run_patches(config)
    sides = {split: {patch.slide for patch in found[split]} for split in found}
    assert not shared_slides(sides)
    assert len(sides["val"]) == 1
    assert len(sides["train"]) == 2
    assert {p.task for p in found["val"]} == {"segmentation", "detection"}
    assert find_run_patches(config) == found
    others = [find_run_patches(Config(data_dir=patch_root, val_split=0.34, seed=seed)) for seed in range(8)]
    assert any(other != found for other in others)


def test_a_task_without_val_follows_the_other(patch_root):
    for patch in find_patches(patch_root, "detection", "val"):
        for path, kind in ((patch.image, "img"), (patch.mask, "mask")):
            path.rename(patch_root / "detection/train" / kind / path.name)
    shutil.rmtree(patch_root / "detection/val")
    found = find_run_patches(Config(data_dir=patch_root, val_split=0.5))
    assert {p.slide for p in found["val"] if p.task == "detection"} == {"slide9"}
    assert {p.slide for p in found["train"]} == {"slide0", "slide1"}


def test_a_manifest_tells_slides_and_names_do_where_it_is_silent(patch_root):
    first = find_patches(patch_root, "segmentation", "train")[0]
    rows = f"patch,task,split,slide\n{first.name},segmentation,train,TCGA-1\n"
    (patch_root / "manifest.csv").write_text(rows)
    found = find_run_patches(Config(data_dir=patch_root))["train"]
    assert [p.slide for p in found[:3]] == ["TCGA-1", "slide0", "slide0"]


def test_no_share_takes_nothing(patch_root):
    for task in ("segmentation", "detection"):
        shutil.rmtree(patch_root / task / "val")
    found = find_run_patches(Config(data_dir=patch_root, task="seg", val_split=0.0))
    assert found["val"] == []
    assert len(found["train"]) == 6


@pytest.mark.parametrize(
    ("name", "slide"),
    [
        ("TCGA-A1-A0SK-01Z-00-DX1.uuid_[10, 20, 30, 40]", "TCGA-A1-A0SK-01Z-00-DX1.uuid"),
        ("TC_S01_P000004_C0001_B103_10-20-30-40_0-256", "TC_S01_P000004_C0001_B103"),
        ("104S_[10, 20, 30, 40]_0_0", "104S"),
        ("patch17", ""),
    ],
)
def test_slides_from_names(name, slide):
    assert slide_from_name(name) == slide
