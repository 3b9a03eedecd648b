"""Metrics of the original (metrics.json, evaluate.*, evaluate_regression.*, aggregate.json)."""

import json
from pathlib import Path

import numpy as np
import pytest

from infection_mt import evaluation as e
from infection_mt.aggregation import aggregate_folds, aggregate_windows
from infection_mt.prediction_table import Predictions
from infection_mt.probabilities import faithful_probability
from medshared.metrics.classification import confusion_counts

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> dict:
    return json.loads((GOLDEN / name).read_text())


def number(value: object) -> float:
    """JSON goldens write non-finite numbers as text."""
    return float(value)  # type: ignore[arg-type]


METRICS = load("metrics.json")
EVALUATE = load("evaluate.json")
CASES = [name for name in EVALUATE if name != "_empty_loader"]


def assert_close(found: dict, expected: dict, *, rel: float = 0.0, abs_: float = 0.0) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(number(value), rel=rel, abs=abs_, nan_ok=True), name


@pytest.mark.parametrize("case", METRICS["binary"], ids=lambda case: case["name"])
def test_binary_metrics(case: dict) -> None:
    logits, labels = [number(z) for z in case["logits"]], case["labels"]
    if case["original"].get("error") == "ValueError":
        with pytest.raises(ValueError, match="the split is empty"):
            e.evaluate_binary(logits, labels)
        return
    assert_close(e.evaluate_binary(logits, labels, faithful=True), case["original"], abs_=1e-12)
    corrected = dict(case["corrected"])
    if corrected:
        decision = np.array(logits) >= 0
        counts = tuple(corrected.pop(name) for name in ("tp", "fp", "fn", "tn"))
        assert confusion_counts(decision, labels) == counts
    assert_close(e.evaluate_binary(logits, labels), corrected, abs_=1e-12)


@pytest.mark.parametrize("case", METRICS["regression"], ids=lambda case: case["name"])
def test_regression_metrics(case: dict) -> None:
    single = case["dtypes"]["mae"] == "float32"
    found = e.time_errors(case["preds"], case["targets"], single_precision=single)
    assert_close(found, {f"reg_{name}": value for name, value in case["original"].items()}, abs_=1e-12)


def test_threshold_table_and_its_log_text() -> None:
    golden = METRICS["threshold"]
    thresholds = [row["threshold"] for row in golden["rows"]]
    assert e.threshold_table(golden["probs"], golden["labels"], thresholds) == golden["rows"]
    logged = e.threshold_table(golden["probs"], golden["labels"], (0.1, 0.5))
    assert e.format_threshold_table("val", logged) == golden["log"][0]


def test_time_bins_and_their_log_text() -> None:
    golden = METRICS["time_bins"]
    bins = [(float(a), float(b)) for a, b in golden["bins"]]
    rows = e.time_bins(golden["logits"], golden["labels"], golden["hours"], bins)
    assert e.format_time_bins("val", rows) == golden["log"]


def targets(case: str, arrays: dict) -> np.ndarray:
    if f"{case}__time_targets" in arrays:
        return arrays[f"{case}__time_targets"]
    params = EVALUATE[case]["params"]
    hours = np.maximum(arrays[f"{case}__hours"] - params["onset"] * (arrays[f"{case}__labels"] == 1), 0.0)
    return np.clip(hours, *params["clamp"])


def evaluate(case: str, *, faithful: bool) -> tuple[dict, dict]:
    with np.load(GOLDEN / "evaluate.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if name.startswith(f"{case}__")}
    params = EVALUATE[case]["params"]
    found = e.evaluate_multitask(
        arrays[f"{case}__logits"],
        arrays[f"{case}__time"],
        arrays[f"{case}__labels"],
        targets(case, arrays),
        classification_weight=params["wc"],
        regression_weight=params["wr"],
        time_scale_hours=params["clamp"][1],
        faithful_auc=faithful,
    )
    return found, arrays


@pytest.mark.parametrize("case", [name for name in CASES if name != "no_upper_clamp"])
def test_evaluation_equals_the_original(case: str) -> None:
    found, arrays = evaluate(case, faithful=True)
    golden = EVALUATE[case]
    assert tuple(found)[:12] == tuple(golden["single"]) == e.MULTITASK_METRICS
    assert_close(found, golden["single"], rel=1e-6, abs_=1e-6)
    assert_close(found, golden["cv"], rel=1e-6, abs_=1e-6)
    assert e.format_metrics("val", found) == golden["log_line"][0]
    np.testing.assert_allclose(
        faithful_probability(arrays[f"{case}__logits"]), arrays[f"{case}__cls_preds"], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("case", CASES)
def test_evaluation_equals_the_corrected_reference(case: str) -> None:
    found, _ = evaluate(case, faithful=False)
    corrected = dict(EVALUATE[case]["corrected"])
    for name in ("infected", "uninfected"):
        expected = corrected.pop(name, {"n": 0, "mae": "nan"})
        assert found[f"n_{name}"] == expected.pop("n")
        for metric, value in expected.items():
            mine = found[f"reg_{metric}_{name}"]
            assert mine == pytest.approx(number(value), rel=1e-9, abs=1e-9, nan_ok=True), (metric, name)
    assert_close(found, corrected, rel=1e-9, abs_=1e-9)


def test_without_an_upper_clamp_the_largest_target_is_the_scale() -> None:
    assert EVALUATE["no_upper_clamp"]["single"] == {"error": "TypeError"}
    found, arrays = evaluate("no_upper_clamp", faithful=False)
    scale = targets("no_upper_clamp", arrays).max()
    assert found["combined"] == pytest.approx(0.6 * found["cls_f1"] + 0.4 * (1 - found["reg_mae"] / scale))


def test_an_empty_split_is_named() -> None:
    assert EVALUATE["_empty_loader"]["single"] == {"result": {"total_loss": 0.0}}
    with pytest.raises(ValueError, match="the split is empty"):
        e.evaluate_multitask(np.zeros((0, 2)), [], [], [])


@pytest.mark.parametrize("case", CASES)
def test_stored_arrays_equal_the_original(case: str, tmp_path: Path) -> None:
    if case == "no_upper_clamp":
        return  # the original crashed before it stored anything
    _, arrays = evaluate(case, faithful=False)
    n = arrays[f"{case}__labels"].size
    metadata = [{"path": "a_s5_b2_p1_t0-9_.tif", "position": "1", "frame_index": i} for i in range(n)]
    predictions = Predictions.from_outputs(
        arrays[f"{case}__logits"],
        arrays[f"{case}__time"],
        arrays[f"{case}__labels"],
        arrays[f"{case}__time_targets"],
        metadata=metadata,
        hours=arrays[f"{case}__hours"],
    )
    path, _ = predictions.save(tmp_path)
    with np.load(path, allow_pickle=False) as stored:
        for name in ("time_preds", "time_targets", "cls_preds", "cls_targets"):
            expected = arrays[f"{case}__{name}"]
            assert stored[name].dtype == expected.dtype
            np.testing.assert_allclose(stored[name], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("target_class", [None, 0, 1])
def test_regression_evaluation(target_class: int | None) -> None:
    with np.load(GOLDEN / "evaluate_regression.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    golden = load("evaluate_regression.json")[str(target_class)]
    all_targets = arrays["None__time_targets"]
    found = e.evaluate_regression(
        arrays["time"], arrays["labels"], all_targets, target_class=target_class, faithful=True
    )
    assert list(found)[:4] == list(golden)
    assert_close(found, golden, rel=1e-6, abs_=1e-6)
    exact = e.evaluate_regression(arrays["time"], arrays["labels"], all_targets, target_class=target_class)
    assert_close(exact, golden, rel=1e-6, abs_=1e-6)
    kept = slice(None) if target_class is None else arrays["labels"] == target_class
    np.testing.assert_array_equal(arrays["time"][kept], arrays[f"{target_class}__time_preds"])
    np.testing.assert_array_equal(all_targets[kept], arrays[f"{target_class}__time_targets"])
    np.testing.assert_array_equal(arrays["labels"][kept], arrays[f"{target_class}__labels"])


AGGREGATE = load("aggregate.json")


def test_fold_aggregation() -> None:
    found = aggregate_folds(AGGREGATE["folds"])
    expected = AGGREGATE["cv_summary"]
    assert list(found) == list(expected)
    assert found["fold_results"] == expected["fold_results"]
    assert found["num_folds"] == expected["num_folds"]
    for name, summary in expected["aggregated_metrics"].items():
        assert list(found["aggregated_metrics"][name]) == list(summary)
        assert found["aggregated_metrics"][name].pop("values") == summary.pop("values")
        assert found["aggregated_metrics"][name] == pytest.approx(summary, abs=1e-12)


def flat(lists: list) -> list[float]:
    return [np.nan if value is None else value for value in lists]


@pytest.mark.parametrize("case", ["same", "mismatched"])
def test_windows_aggregated_by_position_as_the_original(case: str) -> None:
    folds = [tuple(fold) for fold in AGGREGATE["temporal_inputs"][case]]
    found = aggregate_windows(folds, faithful=True)
    assert found["window_centers"] == AGGREGATE[case]["window_centers"]
    for name, expected in AGGREGATE[case]["aggregated"].items():
        for part in ("mean", "std"):
            mine = flat(found["aggregated"][name][part])
            np.testing.assert_allclose(mine, flat(expected[part]), atol=1e-12)


def test_longer_second_fold() -> None:
    folds = [tuple(fold) for fold in AGGREGATE["temporal_inputs"]["longer_second"]]
    assert AGGREGATE["longer_second"] == {"error": "IndexError"}
    with pytest.raises(IndexError, match="more windows"):
        aggregate_windows(folds, faithful=True)
    found = aggregate_windows(folds)
    assert found["window_centers"] == [3.0, 6.0, 9.0]
    assert found["aggregated"]["auc"]["n"] == [2, 2, 1]


def test_windows_aggregated_by_centre() -> None:
    expected = AGGREGATE["mismatched_corrected"]
    found = aggregate_windows([tuple(fold) for fold in AGGREGATE["temporal_inputs"]["mismatched"]])
    assert found["window_centers"] == expected["window_centers"]
    assert found["aggregated"]["auc"]["n"] == expected["auc"]["n"]
    for part in ("mean", "std"):
        np.testing.assert_allclose(found["aggregated"]["auc"][part], expected["auc"][part], atol=1e-12)


def test_aligned_folds_give_the_same_either_way() -> None:
    folds = [tuple(fold) for fold in AGGREGATE["temporal_inputs"]["same"]]
    assert aggregate_windows(folds) == aggregate_windows(folds, faithful=True)
