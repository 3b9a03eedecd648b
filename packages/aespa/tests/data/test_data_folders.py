"""Own data: raters by folder, splits by file, by folder or drawn."""

from __future__ import annotations

import shutil

import pytest

from aespa.config import Config
from aespa.data.records import find_records
from aespa.errors import DataError
from aespa.synthetic import write_folders


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
