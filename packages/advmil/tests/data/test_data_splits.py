"""Splits: the original's files, random subsets, folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advmil.data.splits import (
    check_split,
    kfold_patients,
    read_split,
    sample_patients,
    write_split,
)
from advmil.data.tables import read_cohort
from advmil.errors import DataError

ITEMS = [f"p{k}" for k in range(13)]


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_numbers_and_text_are_ids(tmp_path: Path) -> None:
    path = save(tmp_path / "s.npz", train_patients=np.array([3, 1]), val_patients=np.array(["2"]))
    split = read_split(path)
    assert (split.train, split.val, split.test) == (("3", "1"), ("2",), ())


def test_a_written_split_reads_back(tmp_path: Path) -> None:
    path = write_split(tmp_path / "s.npz", ["a", "b"], ["c"], ["d"])
    assert read_split(path).parts == {"train": ("a", "b"), "val": ("c",), "test": ("d",)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_patients": np.array(["a"], dtype=object), "val_patients": np.array(["b"])}, "holds pickled objects"),
        ({"train_patients": np.array(["a"])}, r"arrays \['val_patients'\] are missing; the file holds \['train_patients'\]"),
        ({"train_patients": np.array(["a", "a"]), "val_patients": np.array(["b"])}, "'train_patients' names a more than once"),
        ({"train_patients": np.array(["a"]), "val_patients": np.array(["a"])}, "1 patients are in both 'train_patients' and 'val_patients'"),
        ({"train_patients": np.array([1.5]), "val_patients": np.array([2.0])}, "'train_patients' must be a list of text or whole numbers"),
        ({"train_patients": np.zeros(0), "val_patients": np.array([2])}, "'train_patients' is empty"),
    ],
)  # fmt: skip
def test_bad_splits_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_split(save(tmp_path / "bad.npz", **arrays))


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_truncated_files_are_named(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path / "cut.npz", train_patients=np.arange(50), val_patients=np.arange(50, 60))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.npz: (not a whole npz file|holds pickled)"):
        read_split(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such split: check data_split_path"):
        read_split(tmp_path / "none.npz")


def test_unknown_patients_are_named_with_the_likely_cause(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("pathology_id,patient_id,e,t\na,1,1,20\nb,2,0,30\n")
    cohort = read_cohort(tmp_path / "t.csv")
    split = read_split(write_split(tmp_path / "f0.npz", ["1", "7", "8"], ["2"]))
    with pytest.raises(
        DataError,
        match=r"'train_patients' of f0.npz names 2 patients that t.csv lacks \(7, 8\): use the table the split was made for",
    ):
        check_split(split, cohort)
    good = read_split(write_split(tmp_path / "f1.npz", ["1"], ["2"]))
    check_split(good, cohort)


def test_sampling_equals_the_golden(golden_json: Callable[[str], Any]) -> None:
    golden = golden_json("utilities")
    case = golden["sampling_data"]
    found = sample_patients(case["items"], case["ratio"], np.random.RandomState(case["np_random_seed"]))
    assert list(found) == case["result"]
    case = golden["sampling_data_int"]
    assert list(sample_patients(ITEMS, case["num"], np.random.RandomState(11))) == case["result"]


@pytest.mark.parametrize("amount", [0.01, 14, 0])
def test_empty_and_too_large_samples_are_refused(amount: float) -> None:
    with pytest.raises(DataError, match="give a share in"):
        sample_patients(ITEMS, amount, np.random.RandomState(0))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_folds_equal_the_golden(golden_json: Callable[[str], Any], k: int) -> None:
    assert kfold_patients(["L1", "L2"], ITEMS, k, 11) == golden_json("utilities")["kfold_pids"][str(k)]


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(DataError, match="2 unlabelled patients cannot be cut into 5 folds"):
        kfold_patients(["a"], ["b", "c"], 5, 0)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("nlst", ({285, 286}, {72}, {89, 90})),
        ("tcga_brca", ({625, 626}, {157}, {195, 196})),
        ("tcga_lgg", ({310, 311}, {78}, {97, 98})),
    ],
)
def test_published_splits_cover_the_cohort(
    reference_data: Path, name: str, sizes: tuple[set[int], ...]
) -> None:
    cohort = read_cohort(reference_data / "advmil" / "table" / f"{name}_path_full.csv")
    tested: list[str] = []
    for fold in range(5):
        split = read_split(reference_data / "advmil" / "data_split" / f"{name}-fold{fold}.npz")
        check_split(split, cohort)
        assert {*split.train, *split.val, *split.test} == set(cohort.patients)
        for part, allowed in zip((split.train, split.val, split.test), sizes, strict=True):
            assert len(part) in allowed
        tested += split.test
    assert sorted(tested) == sorted(cohort.patients)
