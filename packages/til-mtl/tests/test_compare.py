"""Multi-task against single-task on the same patches."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from medshared.configuration import load_config
from til_mtl.compare import Comparison, paired_table, run_comparison, shown_table
from til_mtl.config import Config
from til_mtl.errors import DataError
from til_mtl.patch_scores import PatchScores


def row_of(table: list[dict], metric: str) -> dict:
    return next(row for row in table if row["metric"] == metric)


def test_the_same_results_differ_by_nothing(make_scores):
    scores = make_scores()
    for row in paired_table(scores, scores, resamples=50):
        assert row["difference"] == row["difference_low"] == row["difference_high"] == 0
        assert row["mtl_low"] <= row["mtl"] <= row["mtl_high"]


def test_the_order_of_the_other_side_does_not_matter(make_scores):
    scores = make_scores()
    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = PatchScores(
        *(tuple(np.array(values, dtype=object)[order]) for values in (scores.names, scores.slides)),
        scores.tasks[order],
        scores.confusion[order],
        tuple(scores.detections[i] for i in order),
        tuple(scores.truth[i] for i in order),
        scores.area_mm2,
        scores.radius_px,
    )
    assert all(row["difference_high"] == 0 for row in paired_table(scores, shuffled, resamples=20))


def test_a_better_side_is_seen(make_scores):
    scores = make_scores(n=40)
    perfect = np.zeros_like(scores.confusion)
    for i in np.flatnonzero(scores.tasks == 0):
        np.fill_diagonal(perfect[i], 100)
    table = paired_table(replace(scores, confusion=perfect), scores, resamples=100)
    row = row_of(table, "dice_mean")
    assert row["mtl"] == 1
    assert row["difference_low"] > 0
    assert row_of(table, "froc")["difference"] == 0
    assert shown_table(table)[2]["mtl"].startswith("1.000 (1.000 to 1.000)")


def test_two_slides_of_a_patient_are_drawn_together(make_scores):
    scores = make_scores(n=16)
    patients = [f"TCGA-A1-{'AB'[i // 8]}000-01Z-00-DX{1 + i % 2}.X" for i in range(16)]
    by_patient = paired_table(
        replace(scores, slides=tuple(patients)), replace(scores, slides=tuple(patients)), resamples=60
    )
    as_one = tuple("AB"[i // 8] for i in range(16))
    alike = paired_table(replace(scores, slides=as_one), replace(scores, slides=as_one), resamples=60)
    assert [row["mtl_low"] for row in by_patient] == [row["mtl_low"] for row in alike]


def test_other_patches_are_refused(make_scores):
    with pytest.raises(
        DataError, match=r"not scored on the same patches \(12 and 12; only in the first: p0, p1, p2"
    ):
        paired_table(make_scores(), make_scores(names="q"), resamples=10)


@pytest.fixture
def folds(make_patches, tmp_path):
    for fold in (1, 2):
        counts = {"train": (4, 4), "val": (2, 2)}
        make_patches(tmp_path / "patches", counts, fold, layout=f"{{task}}/fold{fold}")
    return tmp_path / "patches"


@pytest.fixture
def comparison(folds, toy_keys, tmp_path):
    config = load_config(Config, toy_keys | {"data_dir": str(folds), "max_epochs": 1}, label="test")
    return Comparison(config, 2, tmp_path / "out", resamples=20)


@pytest.mark.usefixtures("toy_network")
def test_two_folds_end_in_one_table(comparison):
    assert run_comparison(replace(comparison, only=(2,))) == 0
    assert not (comparison.output / "comparison.json").exists()  # the other fold is missing
    before = (comparison.output / "fold2" / "mtl" / "results.json").stat().st_mtime_ns
    assert run_comparison(replace(comparison, resume=True)) == 0
    assert (comparison.output / "fold2" / "mtl" / "results.json").stat().st_mtime_ns == before
    content = json.loads((comparison.output / "comparison.json").read_text())
    assert content["patches"] == 8
    assert [row["metric"] for row in content["table"]] == [
        "dice_tumor",
        "dice_stroma",
        "dice_mean",
        "froc",
        "cell_f1",
    ]
    assert [len(content["effort"][task]) for task in ("mtl", "seg", "det")] == [2, 2, 2]
    assert "Multi-task against single-task" in (comparison.output / "report.html").read_text()


@pytest.mark.usefixtures("toy_network")
def test_a_failed_run_does_not_stop_the_others(comparison, folds, caplog):
    for file in (folds / "detection" / "fold1" / "train_mask").iterdir():
        file.write_bytes(b"no picture")
    assert run_comparison(comparison) == 1
    assert "fold1" in caplog.text
    assert (comparison.output / "fold1" / "seg" / "results.json").is_file()
    assert (comparison.output / "fold2" / "mtl" / "results.json").is_file()


def test_a_fold_that_is_not_there_is_refused(comparison):
    with pytest.raises(DataError, match="folds are 1 to 2"):
        run_comparison(replace(comparison, only=(3,)))
