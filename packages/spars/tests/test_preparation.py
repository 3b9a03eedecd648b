"""Checking a data set and splitting its patients."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from medshared.volumes import read_volume, write_volume
from spars.data.layout import find_cases
from spars.data.splits import read_splits
from spars.errors import DataError
from spars.preparation import Preparation, check_cases, prepare_data
from spars.synthetic import write_synthetic


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_synthetic(folder, 8, 2, 2, size=(24, 24, 16))
    return folder


@pytest.fixture
def data(drawn, tmp_path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(drawn, folder)
    for name in ("splits.json", "labels.csv"):
        (folder / name).unlink()
    return folder


def test_a_split_is_written_and_no_image_level_label_unless_asked_for(data, tmp_path):
    assert prepare_data(Preparation(data, cache_dir=tmp_path / "cache")) == 0
    splits = read_splits(data / "splits.json")
    assert sorted(splits.train + splits.val + splits.test) == sorted(case.name for case in find_cases(data))
    assert min(len(splits.train), len(splits.val), len(splits.test)) >= 1
    assert not (data / "labels.csv").exists()
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 12


def test_labels_from_voxels_agree_with_the_label_files(data):
    assert prepare_data(Preparation(data, labels_from_voxels=True)) == 0
    with (data / "labels.csv").open() as file:
        found = {row["case"]: int(row["label"]) for row in csv.DictReader(file)}
    for case in find_cases(data):
        assert case.label is not None
        assert found[case.name] == int((read_volume(case.label).array == 2).any())
    assert set(found.values()) == {0, 1}


def test_folds_test_every_case_once(data):
    assert prepare_data(Preparation(data, folds=3)) == 0
    tested = [name for k in (1, 2, 3) for name in read_splits(data / "folds" / f"fold{k}.json").test]
    assert sorted(tested) == sorted(case.name for case in find_cases(data))


def test_what_is_there_stays_unless_it_may_be_replaced(data):
    (data / "splits.json").write_text("mine")
    prepare_data(Preparation(data))
    assert (data / "splits.json").read_text() == "mine"
    prepare_data(Preparation(data, overwrite=True))
    assert read_splits(data / "splits.json").seed == 0


def test_every_case_that_cannot_be_used_is_named_and_nothing_is_written(data, caplog):
    label = data / "labelsTr" / "liver_0.nii.gz"
    found = read_volume(label)
    write_volume(label, np.full(found.shape, 7, np.uint8), found.affine)
    (data / "imagesTr" / "liver_3.nii.gz").write_bytes(b"no gzip")
    assert prepare_data(Preparation(data)) == 1
    assert "liver_0: " in caplog.text
    assert "set label_map" in caplog.text
    assert "liver_3: " in caplog.text
    assert "2 of 12 cases cannot be used" in caplog.text
    assert not (data / "splits.json").exists()


def test_volumes_are_millilitres_and_a_label_map_is_honoured(data):
    cases = find_cases(data)
    plain, faults = check_cases(cases, Preparation(data))
    swapped, _ = check_cases(cases, Preparation(data, label_map={0: 0, 1: 2, 2: 1}))
    assert faults == []
    for case in cases:
        assert case.label is not None
        label = read_volume(case.label)
        voxel = float(np.prod(label.spacing)) / 1000
        assert plain[case.name] == pytest.approx((label.array == 2).sum() * voxel)
        assert swapped[case.name] == pytest.approx((label.array == 1).sum() * voxel)


def test_labels_cannot_be_derived_where_there_are_none(data):
    (data / "labelsTr" / "liver_5.nii.gz").unlink()
    with pytest.raises(
        DataError, match=r"1 cases have no voxel labels \(liver_5\); write labels\.csv by hand"
    ):
        prepare_data(Preparation(data, labels_from_voxels=True))


def test_without_a_folder_the_error_says_what_to_give():
    with pytest.raises(DataError, match="data_dir is not set"):
        prepare_data(Preparation(None))
