"""The demonstration from end to end, at a size that takes seconds."""

from __future__ import annotations

import json

import pytest

from advmil import demo
from advmil.cli import main
from advmil.errors import DataError
from advmil.synthetic import CohortSettings

METRICS = {
    "c_index", "c_index_low", "c_index_high", "mae_ratio", "ibs", "spearman_risk", "sample_sd",
    "interval_coverage_90", "d_calibration_p", "base_c_index",
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs, one slide, one shuffled run, in this process."""
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "BIMODAL_EPOCHS", 1)
    monkeypatch.setattr(demo, "PERMUTED_RUNS", 1)
    monkeypatch.setattr(demo, "PERMUTED_EPOCHS", 1)
    monkeypatch.setattr(demo, "REAL_TABLE_EPOCHS", 1)
    monkeypatch.setattr(demo, "SLIDE_PATIENTS", 1)
    monkeypatch.setattr(demo.os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(
        demo, "CohortSettings", lambda **changes: CohortSettings(n_patients=40, width=16, **changes)
    )


@pytest.mark.slow
def test_every_part_runs_and_is_reported(small, tmp_path):
    output = tmp_path / "demo"
    assert main(["demo", "--output", str(output), "--seed", "5", "--device", "cpu", "--debug"]) == 0
    content = json.loads((output / "results.json").read_text())
    assert set(content["metrics"]) >= METRICS
    assert {"c_index", "mae_ratio", "km_ibs", "permuted_c_index"} <= set(content["baseline"])
    assert 0.5 < content["oracle"]["c_index"] <= 1
    assert content["seconds"] > 0
    assert set(content["bimodal"]) == {"advmil", "advmil_without", "advmil_strong", "base", "cox"}
    page = (output / "report.html").read_text()
    assert "What the adversarial part adds, and what it does not" in page
    names = {path.name for path in (output / "figures").glob("*.png")}
    assert {
        "scatter.png",
        "risk_groups.png",
        "curves.png",
        "brier.png",
        "tissue.png",
        "attention.png",
    } <= names
    # A second demonstration replaces the first, and nothing else.
    (output / "notes.txt").write_text("mine")
    demo._clear(output)
    assert not (output / "results.json").exists()
    assert (output / "notes.txt").read_text() == "mine"


def test_other_folders_are_not_cleared(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty and not an earlier demonstration"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_table_and_splits_belong_together(tmp_path):
    with pytest.raises(DataError, match="--table and --splits belong together"):
        demo.run_demo(tmp_path / "demo", table=tmp_path / "table.csv")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["tcga_lgg"])
def test_a_real_table_gets_synthetic_bags(dataset, small, reference_data, tmp_path):
    table = reference_data / "advmil" / "table" / f"{dataset}_path_full.csv"
    splits = reference_data / "advmil" / "data_split" / f"{dataset}-fold{{}}.npz"
    content = demo.run_demo(tmp_path / "demo", table=table, splits=str(splits), fold=1, device="cpu")
    assert content["metrics"]["c_index"] > 0
    assert content["oracle"]["c_index"] > 0.8
    assert len((tmp_path / "demo" / "demo" / "cohort" / "truth.csv").read_text().splitlines()) == 486 + 1


@pytest.mark.parametrize(
    ("handler", "keys"),
    [("adv", {"task": "disc_gansurv", "time_bins": 3}), ("base", {"task": "surv_nll"}), ("base", {})],
)
def test_demo_data_fit_every_task(handler, keys, tmp_path):
    found = demo.with_demo_data(keys, handler, tmp_path / "run")
    assert found["bcb_dims"].startswith("64-")
    if found["task"] in ("disc_gansurv", "surv_nll"):
        bins = keys.get("time_bins", 4)
        assert found["gen_dims" if handler == "adv" else "pdh_dims"] == f"32-{bins}"
