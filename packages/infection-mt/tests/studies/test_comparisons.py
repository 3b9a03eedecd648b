"""Model families side by side, joined by frame and tested by stack."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from infection_mt.analysis.comparison import compare_models
from infection_mt.prediction_table import Predictions
from infection_mt.studies.model_comparisons import one_table, read_windows
from infection_mt.studies.run_folders import load_folds


def table(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def families(studio) -> list[object]:
    return [
        "--multitask",
        studio.fixed,
        "--multitask-conditioned",
        studio.fixed,
        "--regression-infected",
        studio.infected,
    ]


def test_all_models(studio, script, tmp_path, families):
    assert script("compare_all_models_comprehensive.py", *families, "--output-dir", tmp_path) == 0
    rows = table(tmp_path / "comparison_summary_table.csv")
    columns = "Model,Cls_Accuracy,Cls_F1,Cls_AUC,Reg_MAE,Reg_RMSE,Reg_MAE_Infected,Reg_MAE_Uninfected"
    assert list(rows[0])[:8] == columns.split(",")
    assert [row["Model"] for row in rows] == ["Multitask", "Multitask-ClsConditioned", "Regression-Infected"]
    # A regressor of infected frames says nothing of uninfected ones; the original gave it their errors too.
    assert rows[2]["Reg_MAE_Uninfected"] == rows[2]["Cls_AUC"] == "n/a"
    tests = table(tmp_path / "statistical_tests.csv")
    same = [t for t in tests if t["Model_1"] == "Multitask" and t["Model_2"] == "Multitask-ClsConditioned"]
    assert {t["Significant"] for t in same} == {"ns"}
    assert all(float(t["difference"]) == 0 for t in same)
    regression = next(
        t for t in tests if t["Model_1"] == "Multitask" and t["Model_2"] == "Regression-Infected"
    )
    assert (regression["metric"], regression["n"]) == ("reg_mae", "10")  # 2 infected stacks of 5 frames
    assert float(regression["n_groups"]) == 2
    report = json.loads((tmp_path / "full_comparison_report.json").read_text())
    assert set(report) == {"models", "summary_table", "statistical_tests"}
    assert report["models"]["Multitask"]["num_folds"] == 2
    pictures = {p.name for p in tmp_path.glob("*.png")}
    assert pictures == {
        "model_comparison_overview.png", "classification_windows_3h.png", "regression_by_time_6h.png", "regression_by_class.png"
    }  # fmt: skip


def test_improved_takes_a_classifier(studio, script, tmp_path):
    command = [
        "--multitask",
        studio.fixed,
        "--single-classification",
        studio.classifier,
        "--output-dir",
        tmp_path,
    ]
    assert script("compare_all_models_comprehensive_improved.py", *command) == 0
    tests = table(tmp_path / "statistical_tests.csv")
    assert {t["metric"] for t in tests} == {"cls_auc", "cls_f1", "cls_accuracy"}
    assert {t["Model_2"] for t in tests} == {"Single-Classification"}


def test_regression_performance(studio, script, tmp_path):
    command = [
        "--multitask",
        studio.fixed,
        "--regression-infected",
        studio.infected,
        "--output-dir",
        tmp_path,
    ]
    assert script("compare_regression_performance.py", *command) == 0
    rows = table(tmp_path / "regression_comparison.csv")
    assert [(r["Model"], r["Class"]) for r in rows] == [
        ("Multitask", "All"), ("Multitask", "Uninfected"), ("Multitask", "Infected"),
        ("Regression-Infected", "All"), ("Regression-Infected", "Infected"),
    ]  # fmt: skip
    [test] = table(tmp_path / "regression_comparison_tests.csv")
    mean = one_table(list(load_folds(studio.fixed).values()))
    infected = mean.label == 1
    mae = np.abs(mean.time - mean.time_target)[infected].mean()
    assert float(test["value_1"]) == pytest.approx(mae)


def test_against_a_baseline(studio, script, tmp_path):
    command = ["--multitask-dir", studio.fixed, "--baseline-dir", studio.classifier, "--output-dir", tmp_path]
    assert script("compare_multitask_vs_baseline.py", *command) == 0
    content = json.loads((tmp_path / "multitask_vs_baseline_temporal.json").read_text())
    assert content["multitask"]["n"] == content["baseline"]["n"]
    assert (tmp_path / "multitask_vs_baseline_temporal.png").stat().st_size > 1000
    windows = tmp_path / "multitask_vs_baseline_temporal.json"
    picture = tmp_path / "overlay.png"
    command = ["--baseline-json", windows, "--multitask-json", studio.run / "temporal_metrics.json"]
    assert (
        script(
            "plot_multitask_vs_baseline_from_json.py",
            *command,
            "--output-png",
            picture,
            "--title-suffix",
            " x",
        )
        == 0
    )
    assert picture.stat().st_size > 1000


def test_fair_test_set(studio, script, tmp_path):
    checkpoints = studio.classifier.parents[2] / "checkpoints" / "base" / "run"
    command = ["--multitask-dir", studio.fixed, "--baseline-ckpt-dir", checkpoints, "--output-dir", tmp_path]
    command += ["--test-start", 8, "--test-end", 32, "--window-size", 12, "--stride", 12, "--device", "cpu"]
    assert script("compare_multitask_vs_baseline_fair_testset.py", *command) == 0
    report = json.loads((tmp_path / "fair_temporal_metrics.json").read_text())
    assert report["multitask"]["window_centers"] == [14.0, 26.0]
    # Identical frames: infected ones at 8, 16, 24 and 32 h, uninfected ones at all 6 hours, 2 stacks each.
    assert report["n_frames"] == 2 * 4 + 2 * 6
    assert report["multitask"]["n"] == report["baseline"]["n"]
    assert {row["metric"] for row in report["comparison"]} == {"cls_auc", "cls_f1", "cls_accuracy"}
    assert (tmp_path / "fair_temporal_comparison.png").stat().st_size > 1000


def frames(label: int, position: int) -> Predictions:
    metadata = [
        {
            "path": f"x_s5_b2_p{position}_t0-9_ec.tiff",
            "position": str(position),
            "frame_index": i,
            "hours_since_start": i / 2,
        }
        for i in range(4)
    ]
    return Predictions.from_outputs(
        None, np.arange(4.0), np.full(4, label), np.arange(4.0), metadata=metadata
    )


def test_models_without_common_frames_are_not_tested(caplog):
    models = {"a": frames(1, 1), "b": frames(0, 2), "c": frames(1, 1)}
    assert [(row["Model_1"], row["Model_2"]) for row in compare_models(models)] == [("a", "c")]
    assert "a and b share no test frame" in caplog.text


def test_rotating_folds_are_put_together_and_fixed_ones_averaged():
    a, b = frames(1, 1), frames(1, 2)
    assert len(one_table([a, b])) == 8
    assert len(one_table([a, a])) == 4


def test_windows_of_every_file(studio, tmp_path):
    for path in (studio.run / "temporal_metrics.json", studio.folds / "cv_temporal_metrics.json",
                 studio.folds / "fold_1" / "temporal_metrics.json"):  # fmt: skip
        found = read_windows(path, "multitask")
        assert len(found["window_centers"]) == len(found["metrics"]["auc"])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no windowed metrics"):
        read_windows(tmp_path / "x.json", "multitask")


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("compare_all_models_comprehensive.py", [], "at least two models"),
        (
            "compare_all_models_comprehensive.py",
            ["--multitask", "x", "--regression-infected", "y"],
            "x: no such",
        ),
        ("compare_all_models_comprehensive_improved.py", ["--multitask", "x"], "--single-classification"),
        ("compare_regression_performance.py", ["--multitask", "x"], "--regression-uninfected"),
        ("compare_multitask_vs_baseline.py", ["--multitask-dir", "x", "--baseline-dir", "y"], "x: no such"),
        (
            "compare_multitask_vs_baseline_fair_testset.py",
            ["--multitask-dir", "x", "--baseline-ckpt-dir", "y"],
            "x: no such",
        ),
        ("plot_multitask_vs_baseline_from_json.py", ["--baseline-json", "x", "--multitask-json", "y"], "y"),
    ],
)
def test_wrong_input(script, capsys, name, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script(name, *flags, debug=False) == 1
    assert message in capsys.readouterr().err
