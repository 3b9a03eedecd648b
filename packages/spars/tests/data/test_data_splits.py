"""Splits: no patient in two parts, every part like the others, and whose word counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.config import ClassifierConfig, GameConfig
from spars.data.layout import Case
from spars.data.splits import Splits, choose_cases, make_folds, make_splits, read_splits, write_splits
from spars.errors import DataError


def listing(n: int, per_patient: int = 1) -> list[Case]:
    return [Case(f"c_{k}", Path("x.nii"), Path("y.nii"), patient=f"p_{k // per_patient}") for k in range(n)]


@settings(max_examples=30, deadline=None)
@given(st.integers(12, 80), st.integers(1, 3), st.integers(0, 10**6))
def test_every_case_once_and_patients_together(n, per_patient, seed):
    cases = listing(n, per_patient)
    rng = np.random.default_rng(seed)
    volumes = {case.name: float(rng.uniform() < 0.7) * rng.lognormal() for case in cases}
    splits = make_splits(cases, volumes, seed=seed)
    assert sorted(splits.train + splits.val + splits.test) == sorted(case.name for case in cases)
    patients = [
        {int(name[2:]) // per_patient for name in part} for part in (splits.train, splits.val, splits.test)
    ]
    total = len(set.union(*patients))
    assert total == sum(map(len, patients))
    for part, share in zip(patients, (0.6, 0.15, 0.25), strict=True):
        assert abs(len(part) - share * total) <= 1.5
    assert make_splits(cases, volumes, seed=seed) == splits


def test_tumours_and_their_sizes_spread_over_the_parts():
    cases = listing(120)
    volumes = {case.name: 0.0 if k % 4 == 0 else float(k) for k, case in enumerate(cases)}
    different = set()
    for seed in range(5):
        splits = make_splits(cases, volumes, (0.5, 0.25, 0.25), seed)
        for part in (splits.train, splits.val, splits.test):
            found = np.array([volumes[name] for name in part])
            assert abs((found == 0).mean() - 0.25) < 0.05
            assert abs(np.median(found[found > 0]) - 60) < 12
        different.add(splits.train)
    assert len(different) == 5


def test_folds_test_every_case_once():
    cases = listing(23)
    folds = make_folds(cases, 4, seed=3)
    tested = [name for fold in folds for name in fold.test]
    assert sorted(tested) == sorted(case.name for case in cases)
    for i, fold in enumerate(folds):
        assert fold.val == folds[(i + 1) % 4].test
        assert len(fold.train) + len(fold.val) + len(fold.test) == 23
    with pytest.raises(DataError, match="k must be between 3 and the number of patients"):
        make_folds(cases, 24)


def test_written_splits_are_read(tmp_path):
    splits = Splits(("a", "b"), ("c",), (), seed=7)
    assert read_splits(write_splits(tmp_path / "s.json", splits)) == splits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected the keys 'train', 'val' and 'test', found list"),
        ('{"train": ["a"]}', "found 'train'"),
        ('{"train": ["a"], "val": "b"}', "'val' must be a list of case names"),
        ('{"train": ["a"], "val": ["b"], "test": [3]}', "'test' must be a list of case names"),
        ('{"train": ["a"], "val": ["a"]}', r"s\.json: case 'a' is in train and val twice"),
        ('{"train": ["a", "a"], "val": []}', "case 'a' is in train twice"),
        ('{"train": ["a"], "val": ["b"], "seed": "x"}', "'seed' must be a whole number"),
        ('{"train": [', "line 1"),
        (None, "no such file of splits"),
    ],
)
def test_faults_of_a_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match=rf"s\.json.*{message}" if not message.startswith("s") else message):
        read_splits(tmp_path / "s.json")


def names(chosen: dict[str, list[Case]]) -> dict[str, list[str]]:
    return {part: [case.name for case in cases] for part, cases in chosen.items()}


def test_whose_word_counts(tmp_path):
    cases = listing(6)
    ranges = {"train_end": 2, "val_start": 3, "val_end": 5}
    config = ClassifierConfig(data_dir=tmp_path, **ranges)
    by_range = {"train": ["c_0", "c_1"], "val": ["c_3", "c_4"], "test": ["c_2", "c_5"]}
    assert names(choose_cases(config, cases)) == by_range
    write_splits(tmp_path / "splits.json", Splits(("c_5",), ("c_4",), ("c_3",)))
    by_file = {"train": ["c_5"], "val": ["c_4"], "test": ["c_3"]}
    assert names(choose_cases(config, cases)) == by_file
    assert names(choose_cases(GameConfig(data_dir=tmp_path), cases)) == by_file
    # The original knows index ranges only.
    assert (
        names(choose_cases(ClassifierConfig(data_dir=tmp_path, mode="faithful", **ranges), cases)) == by_range
    )
    other = write_splits(tmp_path / "other.json", Splits(("c_1",), ("c_2",)))
    named = ClassifierConfig(data_dir=tmp_path, mode="faithful", splits=other)
    assert names(choose_cases(named, cases)) == {"train": ["c_1"], "val": ["c_2"], "test": []}


def test_a_column_of_the_table_decides_before_ranges(tmp_path):
    cases = [Case("a", tmp_path, split="val"), Case("b", tmp_path, split="train"), Case("c", tmp_path)]
    assert names(choose_cases(GameConfig(data_dir=tmp_path), cases)) == {
        "train": ["b"],
        "val": ["a"],
        "test": [],
    }


def test_faults_of_a_choice(tmp_path):
    cases = listing(6, per_patient=2)
    with pytest.raises(
        DataError, match="train_start 0 and train_end 24 do not fit a listing of 6 labelled cases"
    ):
        choose_cases(ClassifierConfig(data_dir=tmp_path), cases)
    with pytest.raises(DataError, match="ranges of train and val overlap"):
        choose_cases(ClassifierConfig(train_end=4, val_start=3, val_end=6), cases)
    with pytest.raises(DataError, match="no split of the patients; `spars prepare` writes one"):
        choose_cases(GameConfig(data_dir=tmp_path), cases)
    with pytest.raises(DataError, match="patient 'p_0' is in train and in val"):
        choose_cases(ClassifierConfig(train_end=1, val_start=1, val_end=2), cases)
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["c_0", "x"], "val": ["y"]}))
    with pytest.raises(DataError, match=r"splits\.json: names 2 cases that the data set lacks \(x, y\)"):
        choose_cases(GameConfig(data_dir=tmp_path), cases)
    with pytest.raises(DataError, match="shares of train, val and test must sum to 1"):
        make_splits(cases, shares=(0.5, 0.5, 0.5))
    with pytest.raises(DataError, match="2 patients are too few for 3 parts"):
        make_splits(cases[:4])
    with pytest.raises(DataError, match="no tumour volume of case 'c_1'"):
        make_splits(cases, {"c_0": 1.0})
