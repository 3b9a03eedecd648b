"""All data sets load as the original loaded them, and the cache gives what the files gave."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest

from aespa.config import Config
from aespa.data.arrays import load_arrays
from aespa.data.loading import cache_folder
from aespa.errors import DataError
from aespa.prepare.mbhseg import process_mbhseg
from aespa.synthetic import write_lidc


@pytest.fixture(scope="module")
def lidc(tmp_path_factory):
    return write_lidc(tmp_path_factory.mktemp("data") / "LIDC", 10, 3, seed=0)


def config(folder, dataset="LIDC", **keys):
    return Config(dataset=dataset, data_path=folder, **{"image_size": 32, "w": 1, **keys})


@pytest.fixture
def fixture_copy(golden_folder, tmp_path):
    return shutil.copytree(golden_folder / "fixture", tmp_path / "fixture")


@pytest.mark.parametrize("split", ["train", "test"])
def test_lidc_is_what_the_original_loaded(fixture_copy, golden_npz, golden_json, split):
    golden, facts = golden_npz("datasets"), golden_json("datasets")[f"LIDC {split}"]
    arrays = load_arrays(config(fixture_copy / "LIDC"), split)
    keys = [f"LIDC|{split}|{name.replace('/', '|')}.png" for name in arrays.names]
    assert sorted(keys) == sorted(facts["kept_when_all_three_raters_non_empty"])
    batch = arrays.batch(range(len(arrays)))
    for i, key in enumerate(keys):
        assert np.array_equal(batch.images[i].numpy(), golden[f"{key}|image"])
        assert np.array_equal(batch.raters[i].numpy(), golden[f"{key}|raters"][:, 0])
        assert np.array_equal(batch.valid[i].numpy(), golden[f"{key}|valid"])
    assert arrays.rater_ids == ("l0", "l1", "l2")


@pytest.mark.parametrize("split", ["train", "test"])
def test_refuge_uncropped_is_what_the_original_loaded(golden_folder, golden_npz, split):
    golden = golden_npz("datasets")
    arrays = load_arrays(config(golden_folder / "fixture/REFUGE", "REFUGE", faithful=True), split)
    part = {"train": "Training", "test": "Test"}[split]
    assert len(arrays) == sum(key.startswith(f"REFUGE|{part}|") for key in golden) / 3
    batch = arrays.batch(range(len(arrays)))
    for i, name in enumerate(arrays.names):
        key = f"REFUGE|{part}|{name}"
        assert np.abs(batch.images[i].numpy() - golden[f"{key}|image"]).max() <= 2e-2
        assert np.array_equal(batch.raters[i].numpy(), golden[f"{key}|raters"][:, 0])
        assert np.array_equal(batch.valid[i].numpy(), golden[f"{key}|valid"])
    assert arrays.rater_ids == tuple("1234567")


@pytest.fixture(scope="module")
def processed(golden_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("processed")
    assert process_mbhseg(golden_folder / "fixture/MBHSeg", out) == 0
    return out


@pytest.mark.parametrize("split", ["train", "test"])
def test_binary_mbhseg_is_what_the_original_loaded_with_raters_kept_apart(
    processed, golden_npz, golden_json, split
):
    golden, facts = golden_npz("datasets"), golden_json("datasets")[f"MBHSeg-Binary {split}"]
    arrays = load_arrays(config(processed / "MBHSeg-Binary", "MBHSeg-Binary"), split)
    assert len(arrays) == facts["items"]
    # The original padded three and two raters to four and three columns, in the order of the files that exist.
    assert arrays.rater_ids == (("1", "3") if split == "train" else ("1", "2", "3"))
    batch = arrays.batch(range(len(arrays)))
    for i, name in enumerate(arrays.names):
        key = f"MBHSeg-Binary|{split}|{name.replace('/', '|')}.png"
        assert np.array_equal(batch.images[i].numpy(), golden[f"{key}|image"])
        padded = np.zeros_like(golden[f"{key}|raters"][:, 0])
        padded[: arrays.n_raters] = batch.raters[i]
        assert np.array_equal(padded, golden[f"{key}|raters"][:, 0])
        assert np.array_equal(padded.any(axis=(1, 2)), golden[f"{key}|valid"])
    assert arrays.present.all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_class_of_mbhseg_is_what_the_original_loaded(processed, golden_npz, split):
    golden = golden_npz("datasets")
    settings = config(processed / "MBHSeg-Multi", "MBHSeg-Multiclass")
    arrays = load_arrays(settings, split)
    batch = arrays.batch(range(len(arrays)))
    found = {}
    for i, (name, target) in enumerate(zip(arrays.names, arrays.classes, strict=True)):
        key = f"MBHSeg-Multi|{split}|{name.rpartition('/')[0].replace('/', '|')}.png"
        found.setdefault(key, set()).add(target)
        if f"{key}|image" in golden:
            assert np.array_equal(batch.images[i].numpy(), golden[f"{key}|image"])
            assert np.array_equal(batch.raters[i].numpy(), golden[f"{key}|raters"][: arrays.n_raters, target])
    compared = [
        key.removesuffix("|image")
        for key in golden
        if key.startswith(f"MBHSeg-Multi|{split}") and key.endswith("image")
    ]
    assert compared
    for key in compared:  # an image comes once for each class that somebody outlined
        assert found[key] == {c for c in range(1, 6) if golden[f"{key}|raters"][:, c].any()}
    one = load_arrays(settings.model_copy(update={"target_class": 2}), split)
    assert set(one.classes) == {2}
    assert len(one) == sum(2 in classes for classes in found.values())


def test_threads_and_caches_give_the_same_arrays(lidc, tmp_path):
    plain = load_arrays(config(lidc, cache="memory"), "train")
    others = [
        load_arrays(config(lidc, w=3), "train"),
        load_arrays(config(lidc, cache="disk", cache_dir=tmp_path), "train"),
        load_arrays(config(lidc, cache="disk", cache_dir=tmp_path), "train"),
        load_arrays(config(lidc, cache="off", w=2), "train"),
    ]
    assert len(plain) == 10
    where = [7, 0, 7]
    expected = plain.batch(where)
    for other in others:
        assert other.names == plain.names
        found = other.batch(where)
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.raters, expected.raters)
        assert np.array_equal(found.valid, expected.valid)
        assert np.array_equal(other.subset([3, 1]).batch([1]).images, plain.batch([1]).images)


def test_disk_cache_is_mapped_and_follows_files_and_settings(lidc, tmp_path, caplog, monkeypatch):
    data = shutil.copytree(lidc, tmp_path / "LIDC")
    settings = config(data, cache="disk")
    first = load_arrays(settings, "train")
    files = sorted(cache_folder(settings).glob("*.npy"))
    assert len(files) == 4

    with monkeypatch.context() as patched:
        patched.setattr("aespa.data.loading._read", None)  # nothing is decoded again
        assert np.array_equal(load_arrays(settings, "train").masks, first.masks)

    images = next(p for p in files if np.load(p, mmap_mode="r").shape[1:] == (1, 32, 32))
    images.write_bytes(images.read_bytes()[:-7])
    again = load_arrays(settings, "train")
    assert "will be built again" in caplog.text
    assert np.array_equal(again.batch([2]).images, first.batch([2]).images)

    smaller = load_arrays(config(data, cache="disk", image_size=16), "train")
    assert smaller.images.shape == (10, 3, 16, 16)
    assert load_arrays(config(data, cache="disk", subset=2), "train").names == (
        first.names[0],
        first.names[9],
    )
    assert load_arrays(config(data, cache="disk"), "train").names == first.names

    changed = first.records[2].image
    shutil.copy(first.records[3].image, changed)
    new = load_arrays(settings, "train")
    assert np.array_equal(new.batch([2]).images, first.batch([3]).images)


def test_cache_that_cannot_be_written_falls_back_to_memory(lidc, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    arrays = load_arrays(config(lidc, cache="disk", cache_dir=tmp_path / "file"), "test")
    assert len(arrays) == 3
    assert "kept in memory" in caplog.text


def test_subset_is_evenly_spaced(lidc):
    everything = load_arrays(config(lidc), "train")
    few = load_arrays(config(lidc, subset=4), "train")
    assert few.names == tuple(everything.names[i] for i in (0, 3, 6, 9))
    assert np.array_equal(few.batch([1]).images, everything.batch([3]).images)
    assert load_arrays(config(lidc, subset=99), "train").names == everything.names


def test_native_resolution_is_that_of_the_files(lidc):
    arrays = load_arrays(config(lidc), "test")
    sample = arrays.native(1)
    assert sample.image.shape == (180, 180, 3)
    assert sample.masks.shape == (3, 180, 180)
    assert sample.masks.any(axis=(1, 2)).all()
    with pytest.raises(IndexError):
        arrays.native(3)


def test_images_that_nobody_outlines_are_left_out_and_counted(lidc, tmp_path, caplog):
    from aespa.synthetic import write_png

    for i, name in enumerate("abc"):
        write_png(tmp_path / f"images/{name}.png", np.full((32, 32), 50, np.uint8))
        mask = np.zeros((32, 32), bool)
        mask[:i, :i] = True  # of a nothing is outlined, of b one pixel
        write_png(tmp_path / f"raters/x/{name}.png", mask)
    (tmp_path / "splits.json").write_text('{"train": ["a", "b", "c"], "test": []}')
    with caplog.at_level(logging.WARNING):
        arrays = load_arrays(config(tmp_path, "folders", image_size=16), "train")
    assert arrays.names == ("c",)
    assert "2 of 3 images are left out" in caplog.text
    assert "a, b" in caplog.text
    with pytest.raises(DataError, match="no image of split 'test'"):
        load_arrays(config(tmp_path, "folders", image_size=16), "test")
