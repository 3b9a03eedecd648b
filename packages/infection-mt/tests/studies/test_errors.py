"""Error studies of a run and of folds: files, tables, the difference between periods."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from infection_mt.analysis.errors import pool_folds
from infection_mt.prediction_table import Predictions
from infection_mt.studies.periods import Periods, period_report, valley_difference
from infection_mt.studies.result_tables import worst_report
from infection_mt.studies.run_folders import find_checkpoints, find_folds, load_folds
from infection_mt.studies.text_tables import text_table
from medshared.files import write_npz

CASES = [
    (
        "analyze_cv_results_comprehensive.py",
        [],
        ["prediction_scatter.png", "error_analysis_by_time.png", "error_vs_classification_confidence.png",
         "valley_period_analysis.png", "classification_by_time_window.png", "error_distribution_by_time_range.png",
         "regression_residual_over_time.png", "worst_predictions_report.txt"],
    ),
    (
        "generate_cv_visualizations.py",
        [],
        [f"cv_{n}.png" for n in ("training_curves", "fold_performance", "prediction_scatter", "confusion_matrices",
                                 "error_distributions")],
    ),
    (
        "analyze_regression_errors.py",
        ["--top-k", 5, "--high-conf-threshold", 0.5],
        ["error_by_time_range.png", "error_vs_confidence.png", "confidence_diagnostics.png", "error_by_correctness.png",
         "worst_predictions_report.txt", "high_confidence_mistakes.csv"],
    ),
    ("analyze_regression_by_class.py", ["--faithful"], ["regression_by_class.png", "regression_by_class.txt"]),
    (
        "analyze_valley_period_cv.py",
        ["--valley-start", 24, "--valley-end", 40, "--mid-start", 8, "--mid-end", 24, "--output-name", "v.txt"],
        ["v.txt", "v.png"],
    ),
    (
        "generate_regression_residual_plots.py",
        ["--bin-size", 8],
        ["regression_residual_over_time.png", "regression_error_distribution.png", "regression_residual_mean_std.png"],
    ),
    (
        "analyze_multitask_position_errors.py",
        ["--top-k", 4],
        ["position_error_summary.csv", "position_error_summary_top20.csv", "position_error_summary_by_class.csv",
         "position_error_boxplot.png", "position_error_scatter.png"],
    ),
    (
        "analyze_multitask_position_errors.py",
        ["--by", "tiff"],
        ["tiff_error_summary.csv", "tiff_error_summary_top20.csv", "tiff_error_summary_by_class.csv",
         "tiff_error_boxplot.png", "tiff_error_scatter.png"],
    ),
    (
        "visualize_multitask_diagnostics.py",
        [],
        ["confusion_rates_by_time.png", "residual_by_time.png", "predicted_vs_true.png", "calibration_overall.png",
         "calibration_0_6h.png"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "flags", "files"), CASES, ids=[f"{c[0]}-{len(c[1])}" for c in CASES])
def test_scripts_on_folds(studio, script, tmp_path, name, flags, files):
    assert script(name, "--result-dir", studio.folds, "--output-dir", tmp_path, *flags) == 0
    assert {p.name for p in tmp_path.iterdir()} == set(files)
    assert all(p.stat().st_size > 60 for p in tmp_path.iterdir())


def test_results_lie_beside_the_predictions_by_default(studio, script, copied):
    run = copied(studio.run)
    assert script("generate_regression_residual_plots.py", "--result-dir", run) == 0
    assert (run / "regression_residual_mean_std.png").exists()


def test_full_analysis_makes_missing_predictions(studio, script, copied, monkeypatch):
    monkeypatch.setattr("infection_mt.studies.errors.save_figure", lambda path, figure: path)
    run = copied(studio.folds)
    (run / "fold_2" / "test_predictions.npz").unlink()
    assert script("run_full_cv_analysis.py", "--result-dir", run, "--device", "cpu") == 0
    assert (run / "fold_2" / "test_predictions.npz").exists()
    assert "of 88 frames" in (run / "worst_predictions_report.txt").read_text()


def test_position_tables_tell_wells_apart(studio, script, tmp_path):
    command = ["--result-dir", studio.folds, "--output-dir", tmp_path]
    assert script("analyze_multitask_position_errors.py", *command) == 0
    with (tmp_path / "position_error_summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert {row["well"] for row in rows} == {"b2", "c4"}
    assert {int(row["n"]) for row in rows} <= {5, 6}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_mistakes_are_decisions_not_probabilities(studio):
    """The original compared probabilities with labels and called every frame a mistake."""
    p = pool_folds(list(load_folds(studio.folds).values()))
    wrong = int(np.sum((p.probability >= 0.5) != (p.label == 1)))
    assert f"Wrong decisions: {wrong} of {len(p)} frames" in worst_report(p, 5)


def toy(n_stacks: int = 6, effect: float = 1.0) -> Predictions:
    """Infected stacks whose errors are `effect` hours larger in 13–19 h than in 6–13 h."""
    rng = np.random.default_rng(0)
    hours = np.tile(np.arange(6.0, 20.0), n_stacks)
    stack = np.repeat(np.arange(n_stacks), 14)
    error = 1.0 + 0.3 * rng.random(hours.size) + np.where(hours >= 13, effect, 0.0)
    metadata = [
        {
            "path": f"x_s5_b2_p{s}_t0-94_ec.tiff",
            "position": str(s),
            "frame_index": int(2 * h),
            "hours_since_start": h,
        }
        for s, h in zip(stack, hours, strict=True)
    ]
    label = np.ones(hours.size, dtype=int)
    return Predictions.from_outputs(np.full(hours.size, 2.0), hours + error, label, hours, metadata=metadata)


def test_valley_difference_counts_stacks():
    p = toy()
    found = valley_difference(p, Periods())
    assert found["n_stacks"] == 6
    assert found["difference"] == pytest.approx(1.0, abs=0.15)
    assert found["low"] > 0.8
    assert found["p_value"] == pytest.approx(2 / 2**6, abs=0.005)  # the smallest that six stacks allow
    # The same stacks in a second fold are no new evidence.
    twice = valley_difference(pool_folds([p, p]), Periods())
    assert twice["n_stacks"] == 6
    assert twice["p_value"] == pytest.approx(found["p_value"])


def test_period_report_without_frames():
    p = toy()
    text = period_report(p.subset(p.hours < 10), Periods(), faithful=False)
    assert "no stack has frames in both periods" in text
    assert "–" in text
    assert "Student" not in text


def test_montages(studio, script, tmp_path):
    out = tmp_path / "m"
    command = [
        "--run-dir",
        studio.run,
        "--out-dir",
        out,
        "--cls-topk",
        3,
        "--reg-topk",
        4,
        "--montage-cols",
        2,
    ]
    assert script("extract_error_montages.py", *command) == 0
    with (out / "reg_errors_top4.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = "index,path,frame_index,hours_since_start,label,cls_prob,cls_pred,time_target,time_pred"
    assert list(rows[0])[:9] == columns.split(",")
    errors = [abs(float(r["time_target"]) - float(r["time_pred"])) for r in rows]
    assert errors == sorted(errors, reverse=True)
    assert (out / "reg_errors_top4.png").stat().st_size > 1000
    assert (out / "cls_mistakes_top3.csv").exists()
    metadata = studio.run / "test_metadata.jsonl"
    assert script("extract_error_montages.py", *command, "--metadata-jsonl", metadata) == 0


def test_montage_of_a_lost_stack(studio, script, copied, caplog):
    run = copied(studio.run)
    rows = [json.loads(line) for line in (run / "test_metadata.jsonl").read_text().splitlines()]
    text = "".join(
        json.dumps({**row, "path": row["path"].replace("/data/", "/lost/")}) + "\n" for row in rows
    )
    (run / "test_metadata.jsonl").write_text(text)
    assert script("extract_error_montages.py", "--run-dir", run, "--reg-topk", 2, "--cls-topk", 1) == 0
    assert "lost" in caplog.text
    (run / "short.jsonl").write_text(text.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="describes 1 frames"):
        script("extract_error_montages.py", "--run-dir", run, "--metadata-jsonl", run / "short.jsonl")


@pytest.mark.parametrize(
    "name", sorted({case[0] for case in CASES} | {"run_full_cv_analysis.py", "extract_error_montages.py"})
)
def test_missing_input(script, capsys, tmp_path, name):
    flag = "--run-dir" if "montages" in name else "--result-dir"
    assert script(name, flag, tmp_path, debug=False) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_a_study_says_what_the_model_lacks(studio, script, capsys):
    assert script("analyze_regression_by_class.py", "--result-dir", studio.classifier, debug=False) == 1
    assert "estimates no time" in capsys.readouterr().err
    assert script("visualize_multitask_diagnostics.py", "--result-dir", studio.infected, debug=False) == 1
    assert "does not classify" in capsys.readouterr().err
    assert (
        script("analyze_valley_period_cv.py", "--result-dir", studio.folds, "--num-folds", "5", debug=False)
        == 1
    )
    assert "2 folds" in capsys.readouterr().err


def test_folds_of_every_layout(studio, tmp_path):
    assert [f.number for f in find_folds(studio.folds)] == [1, 2]
    assert [f.path.name for f in find_folds(studio.classifier)] == ["fold_01of02", "fold_02of02"]
    assert [f.index for f in find_folds(studio.run)] == [None]
    assert find_checkpoints(studio.run)[0].path == studio.run / "checkpoints" / "best.pt"
    for i in (1, 2, 10):
        (tmp_path / f"fold_{i}").mkdir()
    assert [f.number for f in find_folds(tmp_path)] == [1, 2, 10]
    with pytest.raises(FileNotFoundError, match="no checkpoints"):
        find_checkpoints(tmp_path)


def test_predictions_of_the_second_layout(studio, script, copied, tmp_path):
    """Files that hold hours since the first frame as time labels get their targets from the run's onset."""
    run = copied(studio.folds)
    for fold in ("fold_1", "fold_2"):
        p = Predictions.load(run / fold)
        write_npz(
            run / fold / "test_predictions.npz",
            cls_probs=np.stack([1 - p.probability, p.probability], axis=1),
            cls_preds=(p.probability >= 0.5).astype(int),
            cls_labels=p.label,
            reg_preds=p.time,
            reg_labels=p.hours,
            image_paths=np.array([row["path"] for row in p.metadata]),
        )
    found, expected = load_folds(run), load_folds(studio.folds)
    for number, p in expected.items():
        np.testing.assert_allclose(found[number].time_target, p.time_target)
        np.testing.assert_allclose(found[number].time, p.time)
    command = ["--result-dir", run, "--output-dir", tmp_path / "out"]
    assert script("analyze_multitask_position_errors.py", *command) == 0
    assert (tmp_path / "out" / "position_error_summary.csv").exists()


def test_text_table():
    table = text_table(["a", "n", "x"], [["one", 3, 1.25], ["two", 10, float("nan")]])
    assert table.splitlines() == ["a     n      x", "one   3  1.250", "two  10      –"]
