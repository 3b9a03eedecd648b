"""Tables over the runs of a grid."""

from __future__ import annotations

import logging

import pandas as pd
import pytest

from advmil.run_files import find_runs
from advmil.summary import collect_runs, summarise, write_summary
from medshared.files import read_json, write_json


@pytest.fixture
def runs(tmp_path):
    """Two values of a key on two folds; the concordance of one fold is undefined."""
    values = {("l1", 0): 0.6, ("l1", 1): 0.8, ("l2", 0): 0.7, ("l2", 1): None}
    found = []
    for (norm, fold), value in values.items():
        folder = tmp_path / f"run-{norm}-{fold}"
        sets = {"test": {"c_index": value, "mae": 1.0}, "train": {"c_index": 0.9, "mae": 2.0}}
        results = {"sets": sets, "best_epoch": 3, "seconds": 1.5, "last_epoch": {"test": {"c_index": 0.5}}}
        write_json(folder / "results.json", results)
        found.append(({"loss_recon_norm": norm, "data_split_seed": fold}, folder))
    return found


def test_one_row_a_run(runs):
    table = collect_runs(runs)
    assert table["loss_recon_norm"].tolist() == ["l1", "l1", "l2", "l2"]
    assert table["test/c_index"].isna().tolist() == [False, False, False, True]
    assert table["last_epoch/test/c_index"].tolist() == [0.5] * 4


def test_folds_are_averaged_and_other_axes_are_kept_apart(runs):
    first, second = summarise(collect_runs(runs), ["loss_recon_norm", "data_split_seed"])
    assert first["point"] == {"loss_recon_norm": "l1"}
    assert first["folds"] == 2
    assert first["metrics"]["test/c_index"]["mean"] == pytest.approx(0.7)
    assert first["metrics"]["test/c_index"]["sd"] == pytest.approx(0.1)
    assert second["metrics"]["test/c_index"] == {
        "mean": 0.7,
        "sd": 0.0,
        "values": [0.7, None],
        "undefined": 1,
    }


def test_nothing_defined_has_no_mean(runs):
    (_, second) = summarise(collect_runs(runs[3:] + runs[:1]), ["loss_recon_norm", "data_split_seed"])
    (first, _) = summarise(collect_runs(runs[3:] + runs[:1]), ["loss_recon_norm", "data_split_seed"])
    assert first["metrics"]["test/c_index"]["mean"] is None
    assert second["metrics"]["test/c_index"]["mean"] == pytest.approx(0.6)


def test_files_and_log(runs, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        content = write_summary(tmp_path / "summary", runs)
    assert read_json(tmp_path / "summary" / "summary.json") == content
    assert len(pd.read_csv(tmp_path / "summary" / "summary.csv")) == 4
    assert "loss_recon_norm=l1 test/c_index: 0.7000 ± 0.1000 over 2 runs" in caplog.text
    assert find_runs([tmp_path / "summary"]) == [folder for _, folder in runs]
