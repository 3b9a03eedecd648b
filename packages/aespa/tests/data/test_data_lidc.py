"""The rule that picks slices, its memory beside the data, and the lists of positions it replaces."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest

from aespa.config import Config
from aespa.data.lidc import find_lidc, keep_outlined, read_index
from aespa.errors import DataError
from aespa.synthetic import write_lidc, write_png


@pytest.fixture
def lidc(tmp_path):
    return write_lidc(tmp_path / "LIDC", 10, 2, seed=0)


def settings(folder, **keys):
    return Config(dataset="LIDC", data_path=folder, **keys)


def test_three_graders_are_read_and_hidden_files_are_not(lidc):
    (lidc / "train/images/LIDC-IDRI-0001/.DS_Store").write_text("x")
    (lidc / "train/images/LIDC-IDRI-0001/notes.txt").write_text("x")
    records = find_lidc(settings(lidc), "train")
    assert len(records) == 11
    assert records[0].name == "LIDC-IDRI-0001/z-100.0_c0"
    assert records[0].patient == "LIDC-IDRI-0001"
    assert [path.name for path in records[0].raters] == [f"z-100.0_c0_l{i}.png" for i in range(3)]


def test_the_rule_is_remembered_until_a_file_changes(lidc, caplog, monkeypatch):
    config = settings(lidc, w=2)
    records = find_lidc(config, "train")
    with caplog.at_level(logging.INFO):
        kept = keep_outlined(config, "train", records)
    assert [record.name for record in kept] == [record.name for record in records[:10]]
    assert "10 of 11 slices" in caplog.text
    cache = lidc / ".aespa_lidc_train.json"
    assert len(json.loads(cache.read_text())["kept"]) == 10

    with monkeypatch.context() as patched:
        patched.setattr("aespa.data.lidc._is_outlined", None)  # no file is read again
        assert keep_outlined(config, "train", records) == kept

    write_png(records[4].raters[2], np.zeros((180, 180), bool))
    assert len(keep_outlined(config, "train", records)) == 9

    cache.write_text("{")
    assert len(keep_outlined(config, "train", records)) == 9
    assert "will be made again" in caplog.text


def test_a_folder_that_cannot_be_written_is_no_obstacle(lidc, monkeypatch):
    def refuses(*_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("aespa.data.lidc.write_json", refuses)
    records = find_lidc(settings(lidc), "test")
    assert keep_outlined(settings(lidc), "test", records) == records
    assert not list(lidc.glob(".aespa*"))


def test_a_missing_grader_and_one_that_vanishes_at_256_px_are_left_out(lidc):
    records = find_lidc(settings(lidc), "train")
    records[0].raters[0].unlink()
    faint = np.zeros((180, 180), np.uint8)
    faint[90, 90] = 130  # one grey pixel: below one half once it is spread
    write_png(records[1].raters[1], faint)
    records = find_lidc(settings(lidc), "train")
    assert records[0].raters[0] is None
    kept = keep_outlined(settings(lidc), "train", records)
    assert [record.name for record in kept] == [record.name for record in records[2:10]]


@pytest.mark.parametrize("form", ["folder", "template"])
def test_positions_replace_the_rule(lidc, tmp_path, form):
    for split, places in (("train", [10, 0, 3]), ("test", [1])):
        np.save(tmp_path / f"lidc_{split}_non_empty_indices.npy", np.array(places))
    index = tmp_path if form == "folder" else tmp_path / "lidc_{split}_non_empty_indices.npy"
    config = settings(lidc, lidc_index=index)
    for split, places in (("train", [0, 3, 10]), ("test", [1])):
        records = find_lidc(config, split)
        assert keep_outlined(config, split, records) == [records[i] for i in places]
    assert not list(lidc.glob(".aespa*"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0, 11]), "positions 0 to 11 do not fit the 11 slices of split 'train'"),
        (np.array([-1]), "positions -1 to -1"),
        (np.array([1, 1]), "occurs twice"),
        (np.array([0.5]), "expected a list of whole numbers, found float64"),
        (np.array([], np.int64), "expected a list"),
        (np.array([True]), "expected a list"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, array, message):
    file = tmp_path / "lidc_train_non_empty_indices.npy"
    np.save(file, array)
    with pytest.raises(DataError, match=message):
        read_index(tmp_path, "train", 11)


def test_a_list_must_be_one_of_each_split(tmp_path):
    with pytest.raises(DataError, match="names one file for both splits"):
        read_index(tmp_path / "list.npy", "train", 5)
    with pytest.raises(DataError, match="no such file"):
        read_index(tmp_path, "train", 5)
    (tmp_path / "list_test.npy").write_text("no")
    with pytest.raises(DataError, match="not an array of positions"):
        read_index(tmp_path / "list_{split}.npy", "test", 5)


def test_published_lists_are_as_described(reference_data):
    """The lists of the original name places in one machine's order, so only their size and range mean anything."""
    folder = reference_data / "aespa"
    train = read_index(folder, "train", 8817)
    assert (len(train), train[0], train[-1]) == (3543, 6, 8816)
    test = read_index(folder, "test", 1980)
    assert (len(test), test[0], test[-1]) == (724, 6, 1979)
    with pytest.raises(DataError, match="do not fit the 1979 slices"):
        read_index(folder, "test", 1979)


def test_a_real_slice_loads_at_every_size(reference_data, tmp_path):
    """A published LIDC crop with three graders passes the rule and keeps its outlines in proportion."""
    from aespa.data.arrays import load_arrays

    demo = reference_data / "aespa/demo"
    for split in ("train", "test"):
        image = tmp_path / split / "images/LIDC-IDRI-0001/z-1.0_c0.png"
        masks = tmp_path / split / "gt/LIDC-IDRI-0001"
        image.parent.mkdir(parents=True)
        masks.mkdir(parents=True)
        shutil.copyfile(demo / "image.png", image)
        for rater in range(3):
            shutil.copyfile(demo / f"rater_{rater}.png", masks / f"z-1.0_c0_l{rater}.png")
    for size in (128, 256):
        arrays = load_arrays(settings(tmp_path, image_size=size), "test")
        areas = arrays.masks[0].sum(axis=(1, 2)) * (180 / size) ** 2
        assert areas == pytest.approx([292, 143, 170], rel=0.1)
        assert arrays.batch([0]).images.mean().item() * 255 == pytest.approx(
            arrays.native(0).image.mean(), abs=0.6
        )
    native = arrays.native(0)
    assert native.masks.sum(axis=(1, 2)).tolist() == [292, 143, 170]
    assert (native.image.min(), native.image.max()) == (68, 161)
