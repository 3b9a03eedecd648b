"""Published tables and results of the original project, reproduced from the parts that are available."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infection_mt.aggregation import aggregate_folds, aggregate_windows
from infection_mt.analysis.errors import error_table, largest_time_errors, wrong_decisions
from infection_mt.analysis.results_file import read_results
from infection_mt.analysis.run_analysis import analyze_run
from infection_mt.analysis.summary import judge_training, training_summary
from infection_mt.analysis.training_log import history_to_log, parse_training_log
from infection_mt.evaluation import evaluate_binary, naive_baselines
from infection_mt.prediction_table import Predictions
from infection_mt.windows import CROSS_VALIDATION, window_lists, windowed_metrics
from medshared.metrics.regression import best_constant
from medshared.metrics.statistics import fold_summary


@pytest.fixture(scope="module")
def reference() -> Callable[[str], Path]:
    """Path of a reference file; the test names itself as left out where the data are absent."""
    given = os.environ.get("MEDPAPERS_REFERENCE_DATA")
    folder = Path(given) if given else Path(__file__).parents[4] / "shared" / "data"

    def find(name: str) -> Path:
        path = folder / "infection-mt" / name
        if not path.is_file():
            pytest.skip(f"reference data left out: {path} is absent (set MEDPAPERS_REFERENCE_DATA)")
        return path

    return find


@pytest.fixture(scope="module")
def hard(reference: Callable[[str], Path]) -> pd.DataFrame:
    return pd.read_csv(reference("hard_predictions.csv"))


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_published_decisions_give_the_published_metrics(
    fold: int, hard: pd.DataFrame, reference: Callable[[str], Path]
) -> None:
    expected = json.loads(reference("hard_predictions_expected.json").read_text())[str(fold)]
    decision = hard[f"pred_fold{fold}"].to_numpy(dtype=float)
    found = evaluate_binary(2 * decision - 1, hard["label"])
    for name in ("accuracy", "precision", "recall", "f1"):
        assert found[name] == pytest.approx(expected["test_metrics"][f"cls_{name}"], abs=1e-12)
    windows = windowed_metrics(decision, hard["label"], hard["hours_since_start"], rule=CROSS_VALIDATION)
    centers, lists = window_lists(windows)
    assert centers == expected["temporal"]["window_centers"]
    for name in ("accuracy", "precision", "recall", "f1"):
        np.testing.assert_allclose(lists[name], expected["temporal"]["metrics"][name], atol=1e-12)  # type: ignore[arg-type]


def test_wrong_decisions_come_from_few_fields(hard: pd.DataFrame) -> None:
    counts = [int((hard[f"pred_fold{fold}"] != hard["label"]).sum()) for fold in (1, 2, 3)]
    assert counts == [11, 11, 7]
    wrong = hard[hard["pred_fold1"] != hard["label"]]
    assert set(wrong["stack"]) <= {"b2_p6", "b2_p26", "c4_p19"}


def test_naive_baselines_of_the_published_test_set(hard: pd.DataFrame) -> None:
    best = best_constant(hard["time_target"])
    assert (round(best["mae"], 3), round(best["rmse"], 3)) == (11.503, 13.283)
    assert (best["median"], round(best["mean"], 3)) == (22.75, 22.753)
    found = naive_baselines(hard["label"], hard["time_target"])
    assert round(found["majority_accuracy"], 4) == 0.5054
    assert found["majority_class"] == 0


def test_published_means_follow_from_the_folds(reference: Callable[[str], Path]) -> None:
    runs = [run for run in json.loads(reference("runs.json").read_text()) if "aggregated" in run]
    assert len(runs) == 7
    for run in runs:
        found = aggregate_folds(run["folds"])["aggregated_metrics"]
        for name, expected in run["aggregated"].items():
            for part, value in expected.items():
                assert found[name][part] == pytest.approx(value, abs=1e-12), (run["run"], name, part)


def test_published_windows_follow_from_the_folds(reference: Callable[[str], Path]) -> None:
    runs = [
        run for run in json.loads(reference("runs.json").read_text()) if "folds" in run.get("temporal", {})
    ]
    assert len(runs) == 3
    for run in runs:
        temporal = run["temporal"]
        folds = [(temporal["window_centers"], metrics) for metrics in temporal["folds"]]
        found = aggregate_windows(folds)
        assert found["window_centers"] == temporal["window_centers"]
        for name, expected in temporal["aggregated"].items():
            for part in ("mean", "std"):
                np.testing.assert_allclose(
                    np.array(found["aggregated"][name][part], dtype=float),
                    np.array(expected[part], dtype=float),
                    atol=1e-12,
                )


def test_published_sweeps_are_averaged_in_single_precision(reference: Callable[[str], Path]) -> None:
    sweeps = json.loads(reference("sweeps.json").read_text())
    sweep = sweeps["interval_20251210-170101"]["stats"]
    compared = 0
    for modes in sweep.values():
        for stats in modes.values():
            for folds, mean, std in zip(stats["fold_metrics"], stats["mean"], stats["std"], strict=True):
                found = fold_summary(folds, single_precision=True)
                assert found["mean"] == pytest.approx(mean, abs=1e-7)
                assert found["std"] == pytest.approx(std, abs=1e-7)
                compared += 1
    assert compared > 50


def test_complete_training_log(reference: Callable[[str], Path]) -> None:
    log = parse_training_log(reference("multitask_train.log").read_text())
    assert len(log.train) == len(log.validation) == 30
    assert log.epochs == list(range(1, 31))
    best = log.best("val_combined")
    assert best == (22, 0.9897)
    assert log.test["reg_mae"] == 1.0906
    assert log.validation[30]["reg_mae"] != log.test["reg_mae"]
    assert {name: len(values) for name, values in log.faithful_series().items()} == dict.fromkeys(
        log.faithful_series(), 30
    )


def test_log_equals_the_extracted_history(reference: Callable[[str], Path]) -> None:
    log = parse_training_log(reference("multitask_train.log").read_text())
    with reference("epoch_history_single.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "20260105-142817"]
    history = history_to_log(rows)
    assert history.train == log.train
    assert history.validation == log.validation


def test_verdicts_of_published_runs(reference: Callable[[str], Path]) -> None:
    with reference("epoch_history_single.csv").open() as file:
        rows = list(csv.DictReader(file))
    verdicts = {}
    for run in dict.fromkeys(row["run"] for row in rows):
        log = history_to_log([row for row in rows if row["run"] == run])
        ratio = log.series("val_total_loss")[-1] / log.series("train_total_loss")[-1]
        verdicts[run] = judge_training(log)
        assert (verdicts[run] == "overfit_warning") == (ratio > 1.5)
    assert len(verdicts) == 5
    assert set(verdicts.values()) == {"converged"}


def test_regression_histories_are_read(reference: Callable[[str], Path]) -> None:
    with reference("epoch_history_regression_cv.csv").open() as file:
        rows = list(csv.DictReader(file))
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault((row["run"], row["fold"]), []).append(row)
    assert len(runs) == 20
    for (run, _), of_fold in runs.items():
        log = history_to_log(of_fold)
        assert len(log.epochs) == len(of_fold)
        best = log.best("val_reg_mae", largest=False)
        assert best is not None
        assert best[1] == min(float(row["val_reg_mae"]) for row in of_fold)
        assert judge_training(log) in ("converged", "overfit_warning"), run


def test_truncated_results_keep_every_complete_value(reference: Callable[[str], Path]) -> None:
    complete = json.loads(reference("results_complete.json").read_text())
    cut = read_results(reference("results_truncated.json"))
    assert not cut.complete
    expected = dict(list(complete["test_metrics"].items())[:8])
    assert cut.content["test_metrics"] == expected
    assert list(cut.content) == list(complete)
    assert "0.7232" in training_summary(cut.content, None)
    assert read_results(reference("results_complete.json")).content == complete


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_order_of_published_mistakes(fold: int, reference: Callable[[str], Path]) -> None:
    table = pd.read_csv(reference("known_samples.csv"))
    table = table[table["fold"] == fold].reset_index(drop=True)
    kinds = {kind: rows.reset_index(drop=True) for kind, rows in table.groupby("source", sort=False)}
    assert len(kinds) == 2
    for kind, published in kinds.items():
        shuffled = published.sample(frac=1.0, random_state=fold).reset_index(drop=True)
        metadata = [
            {"path": f"x_s5_{row.stack}_t0-94_ec.tiff", "frame_index": row.frame_index, "label": row.label}
            for row in shuffled.itertuples()
        ]
        p = shuffled["cls_prob"].to_numpy()
        predictions = Predictions.from_outputs(
            np.log(p) - np.log1p(-p),
            shuffled["time_pred"],
            shuffled["label"],
            shuffled["time_target"],
            metadata=metadata,
            hours=shuffled["hours_since_start"],
        )
        rows = wrong_decisions(predictions) if kind.startswith("cls") else largest_time_errors(predictions, 5)
        assert shuffled["index"].to_numpy()[rows].tolist() == published["index"].tolist()


def test_columns_of_published_error_tables(reference: Callable[[str], Path]) -> None:
    metadata = [
        {"path": f"x_s5_{w}_p6_t0-94_ec.tiff", "position": "6", "frame_index": i}
        for w in ("b2", "c4")
        for i in (2, 3)
    ]
    p = Predictions.from_outputs(
        [2.0, -1.0, -3.0, -2.0], [1.0, 2.0, 0.0, 1.0], [1, 1, 0, 0], [0.0, 0.5, 1.0, 1.5], metadata=metadata
    )
    for by, name in (("position", "position_error_summary"), ("tiff", "tiff_error_summary")):
        published = pd.read_csv(reference(f"{name}.csv"))
        rows = error_table(p, by, faithful=True)  # type: ignore[arg-type]
        assert list(rows[0]) == list(published.columns)
        score = published["mean_abs_time_error"] + 2 * published["cls_error_rate"]
        np.testing.assert_allclose(published["score"], score, atol=1e-12)
        assert published["score"].is_monotonic_decreasing
        by_class = pd.read_csv(reference(f"{name}_by_class.csv"))
        found = error_table(p, by, faithful=True, by_class=True)  # type: ignore[arg-type]
        assert list(found[0]) == list(by_class.columns)


def test_a_run_in_the_layout_of_the_original_is_analysed(
    reference: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "20260105-142817"
    (run / "train.log").mkdir(parents=True)
    shutil.copy(reference("multitask_train.log"), run / "train.log" / "multitask_train.log")
    shutil.copy(reference("results_complete.json"), run / "results.json")
    written = [path.name for path in analyze_run(run, tmp_path / "out")]
    assert written == ["training_curves.png", "validation_metrics.png", "training_summary.txt"]
    text = (tmp_path / "out" / "training_summary.txt").read_text()
    assert "Best validation combined score: 0.9897 (epoch 22)" in text
    assert "Classification: EXCELLENT (AUC 0.9999)" in text
    assert "Time: GOOD (MAE 1.0906 h)" in text
