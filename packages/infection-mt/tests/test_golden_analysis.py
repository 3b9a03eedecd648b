"""Logs, summaries, tables and comparisons of the original (log_parse, summary_rules, analysis, schemas)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infection_mt.analysis import comparison, errors
from infection_mt.analysis.display import display_image
from infection_mt.analysis.summary import judge_training, rate_classification, rate_time, training_summary
from infection_mt.analysis.training_log import TrainingLog, parse_training_log
from infection_mt.prediction_table import Predictions
from medshared.files import write_npz
from medshared.metrics.classification import calibration_table, confusion_counts, counts_to_metrics
from medshared.tables import write_jsonl

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


ANALYSIS = load("analysis.json")
LOG = load("log_parse.json")
with np.load(GOLDEN / "analysis.npz") as archive:
    ARRAYS = {name: archive[name] for name in archive.files}


def metadata(fold: int) -> list[dict[str, Any]]:
    rows = []
    for label, position, hour in zip(
        ARRAYS[f"f{fold}_cls_targets"], ARRAYS[f"f{fold}_position"], ARRAYS[f"f{fold}_hours"], strict=True
    ):
        well = "b2" if label else "c4"
        rows.append(
            {
                "path": f"/data/well_s5_{well}_p{position}_t0-92_ec.tiff",
                "condition": "infected" if label else "uninfected",
                "position": str(position),
                "frame_index": int(hour * 2),
                "hours_since_start": float(hour),
                "label": int(label),
            }
        )
    return rows


def write_fold(folder: Path, fold: int, kept: int | None = None) -> Path:
    """A fold as the original writes it; with one class kept, the metadata still list both."""
    label = ARRAYS[f"f{fold}_cls_targets"]
    rows = np.ones(label.size, dtype=bool) if kept is None else label == kept
    arrays = {name: ARRAYS[f"f{fold}_{name}"][rows] for name in ("time_preds", "time_targets", "cls_targets")}
    probability = ARRAYS[f"f{fold}_cls_preds"] if kept is None else np.full(label.size, 0.5, np.float32)
    write_npz(folder / "test_predictions.npz", cls_preds=probability[rows], **arrays)
    write_jsonl(folder / "test_metadata.jsonl", metadata(fold))
    return folder


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Predictions]:
    base = tmp_path_factory.mktemp("folds")
    return [Predictions.load(write_fold(base / f"fold_{i}", i)) for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def pooled(folds: list[Predictions]) -> Predictions:
    return errors.pool_folds(folds)


def assert_row(found: dict, expected: dict, names: dict[str, str] | None = None, abs_: float = 1e-6) -> None:
    names = names or {}
    for key, value in expected.items():
        mine = found[names.get(key, key)]
        if isinstance(value, str) and value != "nan":
            assert mine == value, key
        else:
            theirs = np.nan if value is None else float(value)
            assert mine == pytest.approx(theirs, rel=1e-6, abs=abs_, nan_ok=True), key


def test_log_with_a_nan_keeps_its_epochs() -> None:
    log = parse_training_log(LOG["log_lines"])
    assert log.epochs == [1, 2, 3]
    for name, expected in LOG["corrected"].items():
        np.testing.assert_array_equal(log.series(name), [float(value) for value in expected])
    assert log.test["cls_auc"] == 0.9665


def test_faithful_log_drops_nan() -> None:
    found = parse_training_log("\n".join(LOG["log_lines"])).faithful_series()
    assert found == LOG["original"]
    assert list(found) == list(LOG["original"])


def rules_log(case: dict) -> TrainingLog:
    auc = case.get("auc", [0.9, 0.95] if "cls_auc" in case else [0.9, 0.9])
    log = TrainingLog()
    for epoch, value in enumerate(auc, start=1):
        last = epoch == len(auc)
        log.train[epoch] = {"total_loss": case.get("train", 1.0) if last else 2.0}
        log.validation[epoch] = {"total_loss": case.get("val", 1.0) if last else 2.0, "cls_auc": value}
    return log


@pytest.mark.parametrize("case", load("summary_rules.json"), ids=lambda case: str(list(case.items())[:3]))
def test_summary_rules(case: dict) -> None:
    metrics = {"cls_auc": case.get("cls_auc", 0.9), "reg_mae": case.get("reg_mae", 1.5)}
    if case.get("missing_regression"):
        del metrics["reg_mae"]
    if case.get("no_log"):
        assert case["error"] == "KeyError"
        assert judge_training(None) == "unknown"
        assert "progress cannot be judged" in training_summary({"test_metrics": metrics}, None)
        return
    log = rules_log(case)
    assert [rate_classification(metrics["cls_auc"])] == case["classification_rating"]
    time_rating = rate_time(metrics.get("reg_mae"))
    assert ([] if time_rating is None else [time_rating]) == case["time_rating"]
    flags = [judge_training(log), *(["regression_missing"] if time_rating is None else [])]
    assert flags == case["flags"]
    best = log.best("val_cls_auc")
    assert best is not None
    assert [[f"{best[1]:.4f}", str(best[0])]] == case["best_val_auc_and_epoch"]
    text = training_summary({"test_metrics": metrics}, log)
    assert f"Classification: {case['classification_rating'][0]}" in text
    assert f"Best validation AUC: {best[1]:.4f} (epoch {best[0]})" in text


ORIGINAL_BINS = {
    "time_bin_start": "start",
    "time_bin_center": "center",
    "time_bin_end": "end",
    "n_samples": "n",
}


def test_time_bins(pooled: Predictions) -> None:
    rows = errors.time_bin_table(pooled)
    assert len(rows) == len(ANALYSIS["time_bins_multitask"])
    for row, expected in zip(rows, ANALYSIS["time_bins_multitask"], strict=True):
        assert_row(row, {k: v for k, v in expected.items() if k != "scope"}, ORIGINAL_BINS)
    for row, expected in zip(rows, ANALYSIS["time_bins_multitask_corrected"], strict=True):
        assert [row["start"], row["end"]] == expected["bin"]
        assert_row(row, {k: v for k, v in expected.items() if k != "bin"}, abs_=1e-9)


def test_errors_of_classes(pooled: Predictions) -> None:
    found = errors.errors_of_classes(pooled)
    assert set(found) == set(ANALYSIS["by_class_multitask"])
    for name, expected in ANALYSIS["by_class_multitask"].items():
        assert_row(found[name], expected, {"n_samples": "n"})
    for name, expected in ANALYSIS["test_metrics_corrected"]["by_class"].items():
        assert_row(found[name], expected, abs_=1e-9)


def test_confusion(pooled: Predictions) -> None:
    expected = dict(ANALYSIS["test_metrics_corrected"]["confusion"])
    counts = confusion_counts(pooled.probability >= 0.5, pooled.label)
    assert counts == tuple(expected.pop(name) for name in ("tp", "fp", "fn", "tn"))
    assert_row(counts_to_metrics(*counts), expected, abs_=1e-12)


@pytest.mark.parametrize("kept", [0, 1])
def test_single_class_runs(kept: int, tmp_path: Path) -> None:
    golden = ANALYSIS[f"regression_only_class{kept}"]
    loaded = [Predictions.load(write_fold(tmp_path / f"fold_{i}", i, kept)) for i in (1, 2, 3)]
    pooled = errors.pool_folds(loaded)
    assert not pooled.has_classes
    found = errors.errors_of_classes(pooled)
    name = "Infected" if kept else "Uninfected"
    assert_row(found[name], golden["corrected_by_class"][name], abs_=1e-9)
    assert set(found) == {"All", name}
    bins = [row for row in errors.time_bin_table(pooled) if row["class"] == name]
    for row, expected in zip(bins, golden["corrected_time_bins"], strict=True):
        assert [row["start"], row["end"]] == expected["bin"]
        assert_row(row, {k: v for k, v in expected.items() if k != "bin"}, abs_=1e-9)


@pytest.mark.parametrize("kept", [0, 1])
def test_single_class_runs_cut_to_the_shorter_as_the_original(kept: int, tmp_path: Path) -> None:
    golden = ANALYSIS[f"regression_only_class{kept}"]
    loaded = [Predictions.load(write_fold(tmp_path / f"fold_{i}", i, kept)) for i in (1, 2, 3)]
    pooled = errors.pool_folds(loaded)
    rows = [row for fold in (1, 2, 3) for row in metadata(fold)]
    label, hours = [row["label"] for row in rows], [row["hours_since_start"] for row in rows]
    time, target, label, hours = comparison.cut_to_shorter(pooled.time, pooled.time_target, label, hours)
    misaligned = Predictions.from_outputs(
        None, time, label, target, metadata=rows[: len(time)], hours=hours, keys=pooled.keys
    )
    found = errors.errors_of_classes(misaligned)
    for name, expected in golden["original_by_class"].items():
        assert_row(found[name], expected, {"n_samples": "n"})
    bins = errors.time_bin_table(misaligned)
    for row, expected in zip(bins, golden["original_time_bins"], strict=True):
        assert_row(row, {k: v for k, v in expected.items() if k != "scope"}, ORIGINAL_BINS)


def test_bins_of_the_true_time(pooled: Predictions) -> None:
    rows = [row for row in errors.time_bin_table(pooled, by="time_target") if row["class"] == "All"]
    names = {"n_samples": "n", "bin_start": "start", "bin_end": "end"}
    for row, expected in zip(rows, ANALYSIS["compare_bins"], strict=True):
        assert f"[{row['start']:g}, {row['end']:g})" == expected["time_bin"]
        assert_row(row, {k: v for k, v in expected.items() if k != "time_bin"}, names)


def test_t_test_over_frames() -> None:
    time, target = (
        np.concatenate([ARRAYS[f"f{i}_{name}"] for i in (1, 2, 3)]) for name in ("time_preds", "time_targets")
    )
    # The second model is 0.2 h later; the differences carry the rounding of single precision.
    error_a, error_b = np.abs(time - target), np.abs(time + np.float32(0.2) - target)
    found = comparison.faithful_frame_test("A", error_a, "B", error_b)
    assert_row(found, ANALYSIS["paired_t_frames"][0])


def test_t_test_over_windows() -> None:
    golden = ANALYSIS["pvalues_windows"]
    assert_row(
        comparison.faithful_window_test(golden["a"], golden["b"]), golden["original"]["0_vs_1"], abs_=1e-12
    )


def test_error_of_every_stack(pooled: Predictions) -> None:
    found = {row["tiff_name"]: row for row in errors.error_table(pooled, "tiff")}
    assert set(found) == set(ANALYSIS["per_stack_mae_corrected"])
    for name, expected in ANALYSIS["per_stack_mae_corrected"].items():
        assert_row(found[name], {"n": expected["n"], "mean_abs_time_error": expected["mae"]}, abs_=1e-9)


def against_hours(predictions: Predictions) -> Predictions:
    """The original's tables read the second layout, whose targets are the hours since the first frame."""
    return replace(predictions, time_target=predictions.hours)


@pytest.mark.parametrize(("by", "golden"), [("position", "position_table"), ("tiff", "tiff_table")])
def test_error_tables(folds: list[Predictions], by: Any, golden: str) -> None:
    rows = errors.error_table([against_hours(fold) for fold in folds], by, faithful=True)
    assert len(rows) == len(ANALYSIS[golden])
    for row, expected in zip(rows, ANALYSIS[golden], strict=True):
        assert list(row) == list(expected)
        assert_row(row, expected)


def test_error_table_by_class(pooled: Predictions) -> None:
    rows = errors.error_table(against_hours(pooled), by_class=True, faithful=True)
    assert list(rows[0]) == ANALYSIS["position_by_class_columns"]
    for row, expected in zip(rows, ANALYSIS["position_by_class"], strict=True):
        assert_row(row, expected)


def test_error_table_keeps_wells_apart(pooled: Predictions) -> None:
    rows = errors.error_table(pooled)
    assert {(row["well"], row["position"]) for row in rows} == {
        (w, str(p)) for w in ("b2", "c4") for p in range(1, 7)
    }
    by_stack = {row["tiff_name"]: row["n"] for row in errors.error_table(pooled, "tiff")}
    for row in rows:
        assert row["n"] == by_stack[f"well_s5_{row['well']}_p{row['position']}_t0-92_ec.tiff"]


def test_calibration(pooled: Predictions) -> None:
    expected = ANALYSIS["calibration"]
    table = errors.calibration(pooled)
    assert table.n.tolist() == expected["n"]
    np.testing.assert_allclose(table.mean_probability, expected["mean_p"], atol=1e-6)
    np.testing.assert_allclose(table.observed_rate, expected["rate"], atol=1e-12)
    edges = ANALYSIS["calibration_edges"]
    table = calibration_table(edges["p"], edges["y"], clip=1e-6)
    assert table.n.tolist() == edges["n"]
    np.testing.assert_allclose(table.mean_probability, edges["mean_p"], atol=1e-12)
    np.testing.assert_allclose(table.observed_rate, edges["rate"], atol=1e-12)


def test_periods(pooled: Predictions) -> None:
    found = errors.period_table(pooled)
    assert list(found) == list(ANALYSIS["valley"])
    for name, expected in ANALYSIS["valley"].items():
        assert_row(found[name], expected)
    test = errors.faithful_valley_test(pooled)
    assert test.statistic == pytest.approx(ANALYSIS["valley_ttest_student"]["t"], rel=1e-5)
    assert test.p_value == pytest.approx(ANALYSIS["valley_ttest_student"]["p"], rel=1e-5)


def test_worst_frames_and_montage_order(pooled: Predictions) -> None:
    worst, montage = ANALYSIS["worst"], ANALYSIS["montage"]
    for name, label in (("infected", 1), ("uninfected", 0)):
        rows = errors.largest_time_errors(pooled, 5, label=label).tolist()
        assert rows[::-1] == worst[f"{name}_indices_ascending_error"]
    assert errors.wrong_decisions(pooled, 13).tolist() == montage["cls_mistakes_top13"]
    assert errors.largest_time_errors(pooled, 5).tolist() == montage["reg_top5"]


def test_misclassification_count(pooled: Predictions) -> None:
    golden = ANALYSIS["cv_report_misclassified"]
    assert len(pooled) == golden["n"]
    assert len(errors.wrong_decisions(pooled, strict=False)) == golden["corrected"]
    # The original counts probabilities that differ from the label, that is all of them.
    assert np.count_nonzero(pooled.probability != pooled.label) == golden["original"]


def test_second_layout_gets_its_targets_back(pooled: Predictions, tmp_path: Path) -> None:
    golden = ANALYSIS["regenerated_targets"]
    maes, wrong = [], []
    for fold in (1, 2, 3):
        p = ARRAYS[f"f{fold}_cls_preds"].astype(np.float64)
        label, hours = ARRAYS[f"f{fold}_cls_targets"], ARRAYS[f"f{fold}_hours"]
        path = write_npz(
            tmp_path / f"fold_{fold}" / "test_predictions.npz",
            cls_probs=np.stack([1 - p, p], axis=1),
            cls_preds=(p >= 0.5).astype(np.int64),
            cls_labels=label,
            reg_preds=ARRAYS[f"f{fold}_time_preds"],
            reg_labels=hours,
            image_paths=np.array([row["path"] for row in metadata(fold)]),
        )
        loaded = Predictions.load(path, onset_hour=1.0)
        np.testing.assert_allclose(loaded.time_target, ARRAYS[f"f{fold}_time_targets"], atol=1e-6)
        np.testing.assert_array_equal(loaded.hours, hours)
        maes.append(np.abs(loaded.time - loaded.time_target))
        wrong.append(np.abs(loaded.time - hours))
    assert np.concatenate(maes).mean() == pytest.approx(golden["mae_corrected"], abs=1e-6)
    assert np.concatenate(wrong).mean() == pytest.approx(golden["mae_original_schema"], abs=1e-6)


def test_scatter_statistics(pooled: Predictions) -> None:
    assert_row(errors.linear_fit(pooled.time, pooled.time_target), ANALYSIS["scatter_stats_f64"], abs_=1e-9)


def test_display_scaling() -> None:
    np.testing.assert_allclose(display_image(ARRAYS["display_in"]), ARRAYS["display_out"], atol=1e-12)
