"""Windows from saved predictions and from checkpoints; predictions made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infection_mt.prediction_table import Predictions

SCHEMAS = json.loads((Path(__file__).parents[1] / "golden" / "schemas.json").read_text())


def read(path: Path):
    return json.loads(path.read_text())


def same_keys(found, schema) -> None:
    if isinstance(schema, dict):
        assert set(found) == set(schema)
        for key in schema:
            same_keys(found[key], schema[key])


def test_windows_of_a_run(studio, script, copied):
    run = copied(studio.run)
    first = read(run / "temporal_metrics.json")
    assert script("generate_temporal_analysis.py", "--result-dir", run) == 0
    again = read(run / "temporal_metrics.json")
    same_keys(again, SCHEMAS["single_run"]["generate_temporal_analysis: temporal_metrics.json"])
    assert again["metrics_by_window"] == first["metrics_by_window"]
    assert (run / "temporal_generalization.png").stat().st_size > 1000
    flags = ["--window-size", 12, "--stride", 12, "--start-hour", 6, "--end-hour", 30]
    assert script("generate_temporal_analysis.py", "--result-dir", run, *flags) == 0
    assert read(run / "temporal_metrics.json")["window_centers"] == [12.0, 24.0]


def test_windows_of_folds(studio, script, copied):
    run = copied(studio.folds)
    before = read(run / "cv_temporal_metrics.json")
    (run / "cv_temporal_metrics.json").unlink()
    (run / "fold_2" / "test_predictions.npz").unlink()  # is made again
    assert script("analyze_multitask_cv_temporal.py", "--result-dir", run, "--device", "cpu") == 0
    after = read(run / "cv_temporal_metrics.json")
    same_keys(after, SCHEMAS["multitask_cv"]["cv_temporal_metrics.json"])
    assert after["window_centers"] == before["window_centers"]
    for metric, lists in before["aggregated_metrics"].items():
        a, b = (
            np.array(x[metric]["mean"], dtype=float)
            for x in (before["aggregated_metrics"], after["aggregated_metrics"])
        )
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert len(lists["std"]) == len(a)
    same_keys(
        read(run / "fold_1" / "temporal_metrics.json"),
        SCHEMAS["multitask_cv"]["fold_1/temporal_metrics.json"],
    )
    assert script("analyze_multitask_cv_temporal.py", "--result-dir", run, "--max-time", 24) == 0
    assert read(run / "cv_temporal_metrics.json")["window_centers"][-1] == 21.0


def test_windows_of_a_final_model(studio, script, tmp_path):
    checkpoints = studio.classifier.parents[2] / "checkpoints" / "base" / "run"
    flags = ["--window-size", 12, "--stride", 6, "--start-hour", 0, "--end-hour", 48, "--save-data"]
    command = ["--config", studio.baseline, "--checkpoint-dir", checkpoints, "--output-dir", tmp_path]
    name = "analyze_final_model_sliding_window_fast.py"
    assert script(name, *command, *flags, "--device", "cpu") == 0
    data = read(tmp_path / "final_model_sliding_w12_s6_data.json")
    same_keys(data, SCHEMAS["final_model_fast"]["final_model_sliding_w6_s3_data.json"])
    assert data["k_folds"] == 2
    assert np.shape(data["results"]["auc"]["fold_metrics"]) == (7, 2)
    assert (tmp_path / "final_model_sliding_w12_s6_combined.png").stat().st_size > 1000
    assert script(name, *command, *flags[:4], "--window-starts", 0, 24, "--max-hour", 30, "--save-data") == 0
    data = read(tmp_path / "final_model_sliding_w12_s6_data.json")
    assert data["window_starts"] == [0.0]


def test_windows_of_a_multi_task_model(studio, script, tmp_path):
    name = "analyze_multitask_sliding_window.py"
    command = ["--checkpoint-dir", studio.run, "--output-dir", tmp_path, "--device", "cpu"]
    assert script(name, *command, "--window-size", 12) == 0
    content = read(tmp_path / "multitask_sliding_window_results.json")
    same_keys(content, SCHEMAS["multitask_sliding"]["multitask_sliding_window_results.json"])
    assert content["time_range"] == [0.0, 48.0]
    assert len(content["windows"]) == len(content["results"]["auc"]["means"]) == 13
    assert content["results"]["auc"]["stds"][3] in (0.0, None)
    assert (tmp_path / "multitask_temporal_generalization_w12h.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no such number"):
        script(name, *command, "--time-field", "nonsense")
    assert (
        script(
            name, *command, "--time-field", "frame_index", "--window-size", 3, "--stride", 3, "--end-hour", 6
        )
        == 0
    )


def test_folds_scored_again(studio, script, tmp_path):
    checkpoints = studio.classifier.parents[2] / "checkpoints" / "base" / "run"
    output = tmp_path / "eval.json"
    command = ["--run-dir", checkpoints, "--output", output, "--device", "cpu"]
    assert script("test_folds.py", *command, "--weights-only") == 0
    content = read(output)
    summary = read(studio.classifier / "cv_summary.json")
    for row, fold in zip(content["folds"], summary, strict=True):
        assert row["metrics"] == pytest.approx(fold["test"], abs=1e-5)
    # A configuration as the original's classifiers have it: neither task nor onset.
    plain = {key: value for key, value in read(studio.baseline).items() if key != "task"}
    plain["cv"] = {"test": "fixed"}
    config = tmp_path / "plain.json"
    config.write_text(json.dumps(plain))
    assert script("test_folds.py", *command, "--config", config) == 0
    assert read(output) == content
    assert script("test_folds.py", *command, "--split", "val") == 0
    assert read(output)["folds"][0]["metrics"] == pytest.approx(summary[0]["val"], abs=1e-5)


def test_prediction_plot(studio, script, copied):
    run = copied(studio.run)
    before = Predictions.load(run)
    (run / "test_predictions.npz").unlink()
    assert (
        script(
            "generate_prediction_plot.py", "--result-dir", run, "--output-name", "p.png", "--device", "cpu"
        )
        == 0
    )
    after = Predictions.load(run)
    assert after.keys == before.keys
    np.testing.assert_allclose(after.time, before.time, atol=1e-4)
    np.testing.assert_allclose(after.time_target, before.time_target)
    assert (run / "p.png").stat().st_size > 1000


def test_regenerated_folds(studio, script, copied):
    """One layout, true time targets, the checkpoints' own networks; existing files are kept."""
    run = copied(studio.folds)
    kept = (run / "fold_1" / "test_predictions.npz").stat().st_mtime_ns
    before = Predictions.load(run / "fold_2")
    (run / "fold_2" / "test_predictions.npz").unlink()
    assert script("regenerate_cv_predictions.py", "--result-dir", run, "--device", "cpu") == 0
    after = Predictions.load(run / "fold_2")
    assert after.keys == before.keys
    np.testing.assert_allclose(after.probability, before.probability, atol=1e-5)
    np.testing.assert_allclose(after.time_target, before.time_target)
    assert (run / "fold_1" / "test_predictions.npz").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("generate_temporal_analysis.py", ["--result-dir"]),
        ("analyze_multitask_cv_temporal.py", ["--result-dir"]),
        ("generate_prediction_plot.py", ["--result-dir"]),
        ("regenerate_cv_predictions.py", ["--result-dir"]),
        ("test_folds.py", ["--run-dir"]),
        ("analyze_multitask_sliding_window.py", ["--checkpoint-dir"]),
        ("analyze_final_model_sliding_window_fast.py", ["--checkpoint-dir"]),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_missing_input(script, capsys, tmp_path, name, flags, exists):
    """Missing input is an error with a message, never exit code 0."""
    folder = tmp_path if exists else tmp_path / "nowhere"
    assert script(name, *flags, folder, debug=False) == 1
    assert str(folder) in capsys.readouterr().err


def test_a_model_without_classes_has_no_windows(studio, script, copied, capsys):
    run = copied(studio.infected)
    assert script("analyze_multitask_cv_temporal.py", "--result-dir", run, debug=False) == 1
    assert "does not classify" in capsys.readouterr().err
