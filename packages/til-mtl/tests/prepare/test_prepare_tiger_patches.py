"""The whole preparation on a small drawn download."""

import argparse
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from til_mtl.config import Config
from til_mtl.data.folders import find_run_patches
from til_mtl.data.manifest import shared_slides
from til_mtl.data.store import PatchStore
from til_mtl.errors import DataError
from til_mtl.prepare.assemble import COLUMNS, link_patch
from til_mtl.prepare.tiger_patches import (
    PrepareOptions,
    add_prepare_options,
    options_from_arguments,
    prepare_tiger,
)
from til_mtl.synthetic_slides import TigerSettings, write_tiger

SMALL = TigerSettings(tissue_regions=6, cell_regions=6, held_out_regions=0, slides=0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_tiger(tmp_path_factory.mktemp("drawn"), 5, SMALL).tiger


@pytest.fixture
def tiger(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "tiger")


def options(tiger, **values):
    defaults = {"patch": 64, "cell_size": 14, "folds": 3}
    return PrepareOptions(tiger, tiger.parent / "out", **{**defaults, **values})


def regions(tiger, kind):
    return tiger / "wsirois/roi-level-annotations" / kind


def manifest(tiger):
    return pd.read_csv(tiger.parent / "out/manifest.csv")


def report(tiger, name="prepare-report"):
    return json.loads((tiger.parent / f"out/{name}.json").read_text())


def load(tiger, split="train", **values):
    config = Config(data_dir=tiger.parent / "out", img_size=(64, 64), num_workers=1, **values)
    return PatchStore(find_run_patches(config)[split], config)


def test_patches_are_the_pixels_of_their_regions(tiger):
    assert prepare_tiger(options(tiger)) == 0
    table = manifest(tiger)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 48
    assert table["task"].tolist() == ["segmentation"] * 24 + ["detection"] * 24
    store = load(tiger)
    for index in (0, 5, 17, 30):
        task = store.files[index].task
        row = table[(table["patch"] == store.names[index]) & (table["task"] == task)].iloc[0]
        folder = regions(tiger, "tissue-bcss" if task == "segmentation" else "tissue-cells")
        region = next(p.stem for p in (folder / "images").iterdir() if p.stem.startswith(row["slide"]))
        x1, y1 = (int(v) for v in region.split("_[")[1].split(",")[:2])
        left, top = row["x"] - x1, row["y"] - y1
        whole = np.array(Image.open(folder / "images" / f"{region}.png"))
        assert np.array_equal(store.images([index])[0], whole[top : top + 64, left : left + 64])


def test_tissue_labels_are_remapped_and_counted(tiger):
    prepare_tiger(options(tiger))
    table = manifest(tiger).set_index("patch")
    stores = [load(tiger, split, task="seg") for split in ("train", "val")]
    masks = {name: store.masks([k])[0] for store in stores for k, name in enumerate(store.names)}
    values = set()
    for name, mask in masks.items():
        values |= set(np.unique(mask).tolist())
        row = table.loc[name]
        for column, value in (("other", 0), ("tumor", 1), ("stroma", 2), ("ignored", 250)):
            assert row[f"frac_{column}"] == pytest.approx((mask == value).mean(), abs=1e-6)
    assert values == {0, 1, 2, 250}
    prepare_tiger(options(tiger, unannotated="other", patch=128))
    stores = [load(tiger, split, task="seg") for split in ("train", "val")]
    assert not any((store.masks(range(len(store))) == 250).any() for store in stores)


def test_cells_points_and_masks_agree(tiger):
    prepare_tiger(options(tiger))
    store, table = load(tiger, task="det"), manifest(tiger)
    counts = table[table["task"] == "detection"].set_index("patch")["n_cells"]
    points = json.loads((tiger.parent / "out/points.json").read_text())
    assert set(points) == set(counts.index)
    for index, name in enumerate(store.names):
        found = store.points(index)
        assert len(found) == counts[name] == len(points[name])
        assert np.array_equal(found, np.array(points[name]).reshape(-1, 2))
        mask = store.masks([index])[0]
        assert all(mask[min(63, int(y)), min(63, int(x))] == 1 for x, y in found)
    boxes = json.loads((regions(tiger, "tissue-cells") / "tiger-coco.json").read_text())["annotations"]
    assert counts.sum() == len(boxes)  # stride = patch and 128 = 2 * 64: every cell in one patch


def test_slides_are_on_one_side_and_folds_share_their_files(tiger):
    assert prepare_tiger(options(tiger, all_folds=True, test_fraction=0.2)) == 0
    table = manifest(tiger)
    sides = {split: set(part["slide"]) for split, part in table.groupby("split")}
    assert set(sides) == {"train", "val", "test"}
    assert not shared_slides(sides)
    assert set(table.loc[table["split"] == "test", "fold"]) == {0}
    assert set(table.loc[table["split"] == "val", "fold"]) == {1}
    root = tiger.parent / "out"
    pool = {path.stat().st_ino for path in (root / "patches").rglob("*") if path.is_file()}
    for fold in (None, "fold1", "fold2", "fold3"):
        found = find_run_patches(Config(data_dir=root, fold_seg=fold, fold_det=fold))
        assert sum(map(len, found.values())) == len(table)
        assert {p.mask.stat().st_ino for part in found.values() for p in part} <= pool
    validated = [
        {
            p.slide
            for p in find_run_patches(Config(data_dir=root, fold_seg=f"fold{k}", fold_det=f"fold{k}"))["val"]
        }
        for k in (1, 2, 3)
    ]
    assert set.union(*validated) | sides["test"] == set(table["slide"])
    assert sum(map(len, validated)) == len(set.union(*validated))


def test_other_settings_replace_what_was_there(tiger):
    prepare_tiger(options(tiger, all_folds=True))
    first = {p.name for p in (tiger.parent / "out/segmentation/val/img").iterdir()}
    prepare_tiger(options(tiger, fold=2, patch=128))
    root = tiger.parent / "out"
    assert not (root / "segmentation/fold1").exists()
    table = manifest(tiger)
    assert set(table["width"]) == {128}
    second = {p.stem for p in (root / "segmentation/val/img").iterdir()}
    assert second == set(table[(table["task"] == "segmentation") & (table["split"] == "val")]["patch"])
    assert not first & {f"{name}.png" for name in second}
    pool = {p.stem for p in (root / "patches/detection/mask").iterdir()}
    assert pool == set(table[table["task"] == "detection"]["patch"])


def test_a_second_run_makes_only_what_is_missing(tiger):
    prepare_tiger(options(tiger, patch=128))
    files = {p: p.stat().st_mtime_ns for p in (tiger.parent / "out/patches").rglob("*.png")}
    assert prepare_tiger(options(tiger, patch=128)) == 0
    assert report(tiger)["counts"] == {"regions": {"skipped": 12}, "folders": {"done": 1}}
    assert files == {p: p.stat().st_mtime_ns for p in (tiger.parent / "out/patches").rglob("*.png")}
    gone = next(iter(files))
    gone.unlink()
    assert prepare_tiger(options(tiger, patch=128)) == 0
    assert report(tiger)["counts"]["regions"] == {"skipped": 11, "done": 1}
    assert gone.is_file()


def test_a_region_cut_short_is_made_again(tiger, monkeypatch):
    """A full disk in the middle: the region fails without a record, and the next run makes all of it."""
    from til_mtl.prepare import region_patches

    write, calls = region_patches.write_png, []

    def fail_late(path, array):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", str(path))
        return write(path, array)

    monkeypatch.setattr(region_patches, "write_png", fail_late)
    assert prepare_tiger(options(tiger, patch=128)) == 1
    assert report(tiger)["failed"][0]["message"].startswith("[Errno 28]")
    assert len(manifest(tiger)) == 11
    assert not list((tiger.parent / "out").rglob("*.tmp"))
    assert prepare_tiger(options(tiger, patch=128)) == 0
    assert report(tiger)["counts"]["regions"] == {"done": 1, "skipped": 11}
    assert len(manifest(tiger)) == 12
    # Another patch size gives some patches the same names; cut short, it must not pass for the first one.
    calls.clear()
    assert prepare_tiger(options(tiger, patch=160)) == 1
    assert prepare_tiger(options(tiger, patch=128)) == 0
    assert {Image.open(p).size for p in (tiger.parent / "out/segmentation").rglob("*.png")} == {(128, 128)}


def test_shards_and_a_last_run_equal_one_run(tiger):
    prepare_tiger(options(tiger, patch=128))
    root = tiger.parent / "out"
    whole = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.png"))}
    table = (root / "manifest.csv").read_bytes()
    shutil.rmtree(root)
    for shard in ("1/2", "2/2"):
        assert prepare_tiger(options(tiger, patch=128, shard=shard)) == 0
        assert not (root / "manifest.csv").exists()
    assert report(tiger, "prepare-report-2-of-2")["counts"] == {"regions": {"done": 6}}
    assert prepare_tiger(options(tiger, patch=128, jobs=2)) == 0
    assert (root / "manifest.csv").read_bytes() == table
    assert {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.png"))} == whole


def test_small_regions_are_padded(tiger):
    assert prepare_tiger(options(tiger, patch=160, tissue_from_cells=True)) == 0
    table = manifest(tiger)
    assert set(table["width"]) == {160}
    config = Config(data_dir=tiger.parent / "out", img_size=(160, 160), num_workers=1)
    store = PatchStore(find_run_patches(config)["train"], config)
    assert (store.images([0])[0][130:] == 255).all()
    assert (store.masks([0])[0][130:] == 250).all()
    assert (store.masks([len(store) - 1])[0][130:] == 0).all()
    assert (table["task"] == "segmentation").sum() == 12  # of both kinds of regions


def test_annotated_share_and_empty_patches(tiger):
    path = sorted((regions(tiger, "tissue-bcss") / "masks").iterdir())[0]
    labels = np.array(Image.open(path))
    labels[:64, :64] = 0
    labels[:40, 64:] = 0
    Image.fromarray(labels).save(path)
    prepare_tiger(options(tiger))
    table = manifest(tiger)
    assert (table["task"] == "segmentation").sum() == 24 - 2
    prepare_tiger(options(tiger, min_annotated=0.3, faithful=True))
    after = manifest(tiger)
    assert (after["task"] == "segmentation").sum() == 24 - 1
    cells = table[table["task"] == "detection"]["n_cells"]
    assert (cells == 0).any()
    assert (after["task"] == "detection").sum() == (cells > 0).sum()


def edit_coco(tiger, change):
    path = regions(tiger, "tissue-cells") / "tiger-coco.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first_image(tiger, kind="tissue-bcss", part="images"):
    return sorted((regions(tiger, kind) / part).iterdir())[0]


def set_box(**values):
    return lambda tiger: edit_coco(tiger, lambda content: content["annotations"][0].update(values))


def smaller_mask(tiger):
    path = first_image(tiger, part="masks")
    Image.open(path).crop((0, 0, 100, 128)).save(path)


BAD = {
    "box outside": (set_box(bbox=[400, 3, 16, 16]), r"cell box \[400, 3, 16, 16\] lies wholly outside the region of 128 x 128 pixels"),
    "box without area": (set_box(bbox=[4, 3, 0, 16]), r"annotations\[0\]: bbox \[4, 3, 0, 16\] has no area"),
    "box of three numbers": (set_box(bbox=[4, 3, 2]), r"annotations\[0\]: bbox must be \[x, y, width, height\]"),
    "unknown category": (set_box(category_id=7), r"annotations\[0\]: category_id 7 is not 'lymphocytes and plasma cells'"),
    "unknown image": (set_box(image_id=99), r"annotations\[0\]: image_id 99 is unknown; the 6 images have other ids"),
    "file without image": (lambda t: edit_coco(t, lambda c: c["images"].append({"id": 77, "file_name": "a/104S_[1, 2, 3, 4].png"})), r"'104S_\[1, 2, 3, 4\]' has no image in"),
    "image without entry": (lambda t: edit_coco(t, lambda c: c["images"].pop()), r"no entry for .*\.png: whether it has cells is unknown"),
    "mask missing": (lambda t: first_image(t, part="masks").unlink(), r"there is no mask .*tissue-bcss/masks/"),
    "mask of another size": (smaller_mask, r"100 x 128 pixels, but the name says 128 x 128"),
    "truncated image": (lambda t: first_image(t).write_bytes(first_image(t).read_bytes()[:900]), r"the image cannot be decoded"),
    "odd name": (lambda t: first_image(t).rename(first_image(t).with_name("scan 3.png")), r"'scan 3': regions are named <slide>_\[x1, y1, x2, y2\]"),
    "tissue label 9": (lambda t: Image.fromarray(np.full((128, 128), 9, np.uint8)).save(first_image(t, part="masks")), r"tissue label 9: the download has labels 0"),
    "slide missing": (None, r"no slide .*\.tif: expected the whole slides"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_bad_region_is_recorded_and_the_rest_goes_on(tiger, case, tmp_path):
    change, text = BAD[case]
    values = {}
    if change is None:
        values = {"slides": tmp_path}
    else:
        change(tiger)
    assert prepare_tiger(options(tiger, **values)) == 1
    failed = report(tiger)["failed"]
    assert re.search(text, "\n".join(entry["message"] for entry in failed)), failed
    if change is not None:
        assert len(failed) <= 2
        assert len(manifest(tiger)) >= 40


def test_boxes_that_stick_out_are_clipped_and_counted(tiger):
    assert prepare_tiger(options(tiger, patch=128)) == 0
    before = report(tiger)["clipped_boxes"]["total"]
    set_box(bbox=[-15, 60, 16, 16])(tiger)
    assert prepare_tiger(options(tiger, patch=128, cell_shape="square")) == 0
    assert abs(report(tiger)["clipped_boxes"]["total"] - before) <= 1
    assert before > 0


WRONG = {
    "no download": ({"tiger": "."}, r"expected the TIGER download with wsirois/roi-level-annotations"),
    "stride": ({"stride": 100}, r"--stride 100: beyond --patch 64 tissue is left out"),
    "share": ({"min_annotated": 2}, r"--min-annotated 2: expected a share"),
    "fold": ({"fold": 4}, r"--fold 4: there are folds 1 to 3"),
    "folds": ({"folds": 30}, r"--folds 30: there are only \d+ patients"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_without_sense_are_refused_before_anything_is_written(tiger, tmp_path, case):
    values, text = WRONG[case]
    if "tiger" in values:
        values = {}
        shutil.rmtree(tiger / "wsirois")
    with pytest.raises(DataError, match=text):
        prepare_tiger(options(tiger, **values))
    assert not (tiger.parent / "out").exists()


def test_foreign_files_stay(tiger):
    prepare_tiger(options(tiger, patch=128))
    foreign = tiger.parent / "out/segmentation/train/img/mine.png"
    foreign.write_bytes(b"x")
    assert prepare_tiger(options(tiger, patch=128)) == 1
    assert "is not from this preparation" in report(tiger)["failed"][0]["message"]
    assert foreign.is_file()


def test_copies_where_links_fail(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"content")
    monkeypatch.setattr("os.link", refuse)
    link_patch(source, target)
    assert target.read_bytes() == b"content"
    assert not target.samefile(source)
    with pytest.raises(DataError, match="the patch is gone"):
        link_patch(tmp_path / "none", target)


def test_flags_and_their_defaults(tmp_path):
    parser = argparse.ArgumentParser()
    add_prepare_options(parser)
    plain = options_from_arguments(parser.parse_args(["--tiger", "t", "--out", "o"]))
    assert plain == PrepareOptions(plain.tiger, plain.out)
    assert (plain.patch, plain.step, plain.cell_shape, plain.cell_size, plain.unannotated) == (
        256,
        256,
        "disk",
        16,
        "ignore",
    )
    assert (plain.min_annotated, plain.folds, plain.seed, plain.test_fraction) == (0.5, 5, 42, 0.0)
    other = parser.parse_args(
        [
            "--tiger",
            "t",
            "--out",
            "o",
            "--patch",
            "64",
            "--stride",
            "32",
            "--all-folds",
            "--shard",
            "2/4",
            "--faithful",
        ]
    )
    assert options_from_arguments(other) == PrepareOptions(
        plain.tiger, plain.out, 64, 32, all_folds=True, shard="2/4", faithful=True
    )
