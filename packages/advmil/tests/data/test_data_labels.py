"""Labels of the three time formats."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advmil.data import labels as module
from advmil.data.labels import bin_edges, fold_warnings, label_mask, make_labels
from advmil.data.splits import read_split
from advmil.data.tables import Cohort, read_cohort
from advmil.errors import DataError


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    rows = "".join(f"s{k},{k},{k % 2},{10 * (k + 1)}\n" for k in range(10))
    (tmp_path / "t.csv").write_text("pathology_id,patient_id,e,t\n" + rows)
    return read_cohort(tmp_path / "t.csv")


def test_docstring_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_days_and_shares(cohort: Cohort) -> None:
    days = make_labels(cohort, ["9", "0"], "origin")
    assert days.t.tolist() == [100.0, 10.0]
    assert (days.end_time, days.unit_days, days.e.tolist()) == (100.0, 1.0, [1, 0])
    share = make_labels(cohort, ["9", "0"], "ratio")
    assert share.t.tolist() == [1.0, np.float32(0.1)]
    assert (share.end_time, share.unit_days, len(share)) == (1.0, 100.0, 2)
    assert share.as_original[:, 1].tolist() == [1.0, 0.0]


def test_bins_come_from_the_training_patients(cohort: Cohort) -> None:
    train = ["1", "3", "5"]  # events at 20, 40, 60
    found = make_labels(cohort, list(cohort.patients), "quantile", bins=2, train_patients=train)
    assert found.edges is not None
    assert found.edges.tolist() == pytest.approx([10 - 1e-5, 40, 100 + 1e-5])
    assert found.t.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert found.as_original[:, 1].tolist() == (1 - found.e).tolist()
    with pytest.raises(ValueError, match="needs train_patients"):
        make_labels(cohort, ["1"], "quantile")


def test_bins_need_an_event(cohort: Cohort) -> None:
    with pytest.raises(DataError, match=r"none of the 2 patients .* has an observed event"):
        make_labels(cohort, ["1"], "quantile", train_patients=["0", "2"])


def test_parts_without_events_are_named(cohort: Cohort) -> None:
    found = fold_warnings(cohort, {"train": ("1", "3"), "val": ("0", "2"), "test": ("0", "1"), "more": ()})
    assert [(each.part, each.events) for each in found] == [("val", 0), ("test", 1), ("more", 0)]
    assert found[0].text == "val: all 2 patients are censored; the C-index is undefined"


def test_the_mask_equals_the_golden(golden_json: Callable[[str], Any]) -> None:
    golden = golden_json("labels_real_tables")["get_label_mask"]
    event = 1 - torch.tensor(golden["c_second_label_column"])
    label, mask = label_mask(torch.tensor(golden["t"]), event, golden["bins"])
    assert label.tolist() == golden["label"]
    assert mask.tolist() == golden["mask"]


@pytest.mark.parametrize("name", ["nlst", "tcga_brca", "tcga_lgg"])
def test_published_tables_give_the_golden_labels(
    reference_data: Path, golden_json: Callable[[str], Any], golden_npz: Callable[[str], Any], name: str
) -> None:
    arrays, facts = golden_npz("labels_real_tables"), golden_json("labels_real_tables")[name]
    cohort = read_cohort(reference_data / "advmil" / "table" / f"{name}_path_full.csv")
    split = read_split(reference_data / "advmil" / "data_split" / f"{name}-fold{facts['fold']}.npz")
    order = [*split.train, *split.val, *split.test]
    assert len(order) == facts["n"]
    for patient, slides in facts["first5"].items():
        assert list(cohort.patients[patient].slides) == slides
    for time_format in ("origin", "ratio", "quantile"):
        golden = f"{name}_{'quantile4' if time_format == 'quantile' else time_format}"
        found = make_labels(cohort, order, time_format, bins=4, labels_from="table").as_original
        assert np.array_equal(found[:, 0].astype(np.float32), arrays[f"{golden}_t"].astype(np.float32))
        assert np.array_equal(found[:, 1], arrays[f"{golden}_ind"])
    everyone = bin_edges(cohort, list(cohort.patients), 4)
    assert everyone.tolist() == pytest.approx(facts["edges_4_original"], abs=1e-9)
    trained = bin_edges(cohort, split.train, 4)
    assert trained.tolist() == pytest.approx(facts["edges_4_corrected_train_only"], abs=1e-9)
