"""Finished runs against known truth, with runs whose predictions are written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from advmil.config import Config
from advmil.errors import DataError
from advmil.predictions import Predictions
from advmil.run_evaluation import compare_runs, evaluate_run, evaluate_runs
from advmil.run_files import open_run
from medshared.configuration import dump_yaml
from medshared.files import read_json, write_json, write_npz, write_text


def predictions(prefix: str, n: int, seed: int, error: float = 0.0) -> Predictions:
    """Patients whose predicted time is the true one but for an error; every third is censored."""
    rng = np.random.default_rng(seed)
    days = rng.permutation(np.linspace(100.0, 1000.0, n))
    point = np.clip(days / 1000 + rng.normal(0, error, n), 0.01, 0.99).astype(np.float32)
    return Predictions(
        kind="continuous",
        patients=tuple(f"{prefix}{k}" for k in range(n)),
        t=(days / 1000).astype(np.float32),
        e=(np.arange(n) % 3 > 0).astype(np.int64),
        days=days,
        point=point,
        unit_days=1000.0,
        end_time=1.0,
        samples=(point[:, None] + np.linspace(-0.05, 0.05, 11, dtype=np.float32)).astype(np.float32),
    )


def write_run(folder: Path, fold: int = 0, error: float = 0.0, **changes) -> Path:
    """Write a finished run by hand."""
    sets = {
        "train": predictions(f"train{fold}-", 40, 9),
        "test": predictions(f"test{fold}-", 24, fold, error),
    }
    sets["test"] = replace(sets["test"], **changes)
    for name, each in sets.items():
        write_npz(folder / f"predictions_{name}.npz", **each.arrays())
    config = Config(path_patch="x", path_label="y", data_split_path="z", data_split_seed=fold)
    write_text(folder / "config.yaml", dump_yaml(config.model_dump() | {"handler": "adv"}))
    scores = {name: {"c_index": 0.5, "loss_recon_org": 0.1} for name in sets}
    results = {"fold": fold, "sets": scores, "best_epoch": 1, "epochs": 2, "last_epoch": scores}
    write_json(folder / "results.json", results)
    return folder


def test_a_model_that_knows_the_truth(tmp_path):
    found = evaluate_run(open_run(write_run(tmp_path / "run")), resamples=50)
    values = {name: metric.estimate for name, metric in found.metrics.items()}
    assert values["c_index"] == 1
    assert values["uno_c_index"] == 1
    assert values["mae_days"] == pytest.approx(0, abs=10)
    assert values["mae_days"] < values["constant_mae_days"]
    assert values["coverage"] == 1
    assert values["ibs"] < values["km_ibs"]
    assert found.tests["log_rank_p"] < 0.01
    assert (found.patients, found.events) == (24, 16)


def test_the_reverse_of_the_truth(tmp_path):
    truth = predictions("test0-", 24, 0)
    found = evaluate_run(open_run(write_run(tmp_path / "run", point=1 - truth.point)), resamples=0)
    assert found.metrics["c_index"].estimate == 0


def test_folds_are_summarised_and_pooled(tmp_path):
    for fold, error in ((0, 0.0), (1, 0.3)):
        write_run(tmp_path / "cv" / f"fold{fold}", fold, error)
    content = evaluate_runs([tmp_path / "cv"], resamples=20)
    values = [content["runs"][f"fold{k}"]["c_index"] for k in (0, 1)]
    assert values[0] == 1 > values[1]
    row = next(row for row in content["folds"] if row["metric"] == "c_index")
    assert (row["mean"], row["sd"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))
    assert content["pooled"]["patients"] == 48
    assert values[1] < content["pooled"]["c_index"] < 1
    folder = tmp_path / "cv" / "evaluation"
    assert {path.name for path in folder.iterdir()} >= {"evaluation.json", "evaluation.html", "folds.csv"}
    # The folder of results is no run, and is not taken for one the next time.
    assert list(evaluate_runs([tmp_path / "cv"], resamples=0)["runs"]) == ["fold0", "fold1"]


def test_runs_on_the_same_patients_are_not_pooled(tmp_path):
    runs = [write_run(tmp_path / name / "run") for name in ("a", "b")]
    content = evaluate_runs(runs, resamples=0, output=tmp_path / "out")
    assert "pooled" not in content
    assert list(content["runs"]) == ["a_run", "b_run"]  # equal names are told apart by their folders


def test_undefined_metrics_are_blank_and_stop_nothing(tmp_path):
    write_run(tmp_path / "run", e=np.zeros(24, dtype=np.int64))
    content = evaluate_runs([tmp_path / "run"], resamples=20)
    flat = content["runs"]["run"]
    assert np.isnan(flat["c_index"])
    assert np.isnan(flat["event_mae_days"])
    assert flat["patients"] == 24
    assert read_json(tmp_path / "run" / "evaluation" / "evaluation.json")["runs"]["run"]["c_index"] is None


def test_the_better_model_is_named_on_every_fold(tmp_path):
    for fold in range(3):
        write_run(tmp_path / "good" / f"fold{fold}", fold, 0.02)
        write_run(tmp_path / "bad" / f"fold{fold}", fold, 0.6)
    content = compare_runs(tmp_path / "good", tmp_path / "bad", resamples=50, output=tmp_path / "out")
    for rows in content["folds"].values():
        better = {row["metric"]: row["better"] for row in rows}
        assert better["c_index"] == better["mae_days"] == better["crps_days"] == "a"
    row = next(row for row in content["over_folds"] if row["metric"] == "c_index")
    assert row["difference"] > 0
    assert row["low"] <= row["difference"] <= row["high"]
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["metric"].iloc[0] == "c_index"


def test_a_model_against_itself_differs_by_nothing(tmp_path):
    run = write_run(tmp_path / "run", error=0.2)
    content = compare_runs(run, run, resamples=20, output=tmp_path / "out")
    assert {row["difference"] for row in content["folds"]["0"]} == {0}
    assert "over_folds" not in content


def test_what_cannot_be_compared(tmp_path):
    a, b = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 1)
    with pytest.raises(DataError, match=r"has the folds \[0\], .* has \[1\]"):
        compare_runs(a, b, output=tmp_path / "out")
    other = write_run(tmp_path / "c", patients=tuple(f"x{k}" for k in range(24)))
    with pytest.raises(ValueError, match="different patients"):
        compare_runs(a, other, output=tmp_path / "out")
    write_run(tmp_path / "d", 0)
    with pytest.raises(DataError, match="are both of fold 0"):
        compare_runs(tmp_path, a, output=tmp_path / "out")
