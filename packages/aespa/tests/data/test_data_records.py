"""Listings are sorted, complete, and cost no decoding; importing them costs no torch."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from aespa.config import Config
from aespa.data.records import files_by_name, find_records, natural_order, subfolders
from aespa.errors import DataError
from aespa.prepare.mbhseg import process_mbhseg
from aespa.synthetic import write_folders, write_mbhseg


def test_numbers_sort_as_numbers():
    names = ["slice_10.png", "slice_2.png", "b", "slice_2_r1.npy", "10", "9"]
    assert sorted(names, key=natural_order) == [
        "9",
        "10",
        "b",
        "slice_2.png",
        "slice_2_r1.npy",
        "slice_10.png",
    ]


def test_hidden_and_missing_entries_are_passed_over(tmp_path):
    for name in (".hidden", "b2", "b10"):
        (tmp_path / name).mkdir()
    (tmp_path / "x.png").write_text("")
    (tmp_path / ".DS_Store").write_text("")
    assert [path.name for path in subfolders(tmp_path)] == ["b2", "b10"]
    assert list(files_by_name(tmp_path)) == ["x.png"]
    assert subfolders(tmp_path / "none") == []
    assert files_by_name(tmp_path / "none") == {}


def test_mbhseg_lists_slices_by_case_and_one_record_a_class(tmp_path):
    assert process_mbhseg(write_mbhseg(tmp_path / "raw", 2, 0, seed=0), tmp_path) == 0
    settings = Config(dataset="MBHSeg-Binary", data_path=tmp_path / "MBHSeg-Binary")
    records = find_records(settings, "train")
    assert [record.name for record in records[:2]] == ["ID_train000/slice_1", "ID_train000/slice_2"]
    assert [path and path.name for path in records[-1].raters] == [f"slice_6_r{r}.npy" for r in (1, 2, 3)] + [
        None
    ]
    assert records[-1].files == (records[-1].image, *records[-1].raters[:3])
    settings = Config(dataset="MBHSeg-Multiclass", data_path=tmp_path / "MBHSeg-Multi")
    every = find_records(settings, "train")
    assert len(every) == 5 * len(records)
    assert [record.target_class for record in every[:6]] == [1, 2, 3, 4, 5, 1]
    assert len({record.name for record in every}) == len(every)
    only = find_records(settings.model_copy(update={"target_class": 3}), "train")
    assert {record.target_class for record in only} == {3}
    assert [record.image for record in only] == [record.image for record in every[::5]]


def test_own_folders_with_named_splits_and_patients(tmp_path):
    write_folders(tmp_path, 6, 3, seed=0, size=16)
    records = find_records(Config(dataset="folders", data_path=tmp_path), "train")
    assert [record.name for record in records] == [f"train_{i:04d}" for i in range(6)]
    assert [record.patient for record in records[:3]] == ["train_0000", "train_0000", "train_0001"]
    assert records[0].rater_ids == ("conservative", "liberal", "standard")
    assert records[4].raters[1] is None
    assert records[5].raters[1] is not None


def test_own_folders_split_by_folder_or_drawn_by_patient(tmp_path):
    write_folders(tmp_path / "flat", 10, 0, seed=0, size=16)
    (tmp_path / "flat/splits.json").unlink()

    def names(folder, split, **keys):
        return [r.name for r in find_records(Config(dataset="folders", data_path=folder, **keys), split)]

    train, test = names(tmp_path / "flat", "train"), names(tmp_path / "flat", "test")
    assert (len(train), len(test)) == (8, 2)
    assert sorted(train + test) == [f"train_{i:04d}" for i in range(10)]
    assert int(test[0][-4:]) // 2 == int(test[1][-4:]) // 2  # one patient
    assert {tuple(names(tmp_path / "flat", "test", seed=s)) for s in range(8)} != {tuple(test)}

    for split, n in (("train", 2), ("test", 1)):
        write_folders(tmp_path / "two" / split, n, 0, seed=0, size=16)
        (tmp_path / "two" / split / "patients.csv").unlink()
    assert names(tmp_path / "two", "test") == ["train_0000"]
    assert len(names(tmp_path / "two", "train")) == 2
    shutil.rmtree(tmp_path / "two/test/images")
    with pytest.raises(DataError, match="'test' needs it"):
        names(tmp_path / "two", "test")


def test_listing_imports_no_torch():
    code = (
        "import sys, aespa.data.records, aespa.data.lidc, aespa.data.folders, aespa.data.checking, aespa.synthetic;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
