"""Every window definition of the original (temporal.*), and the standard one."""

import json
from pathlib import Path

import numpy as np
import pytest

from infection_mt import windows as w
from infection_mt.probabilities import sigmoid

GOLDEN = Path(__file__).parent / "golden"
TEMPORAL = json.loads((GOLDEN / "temporal.json").read_text())
SINGLE = [name for name in TEMPORAL if name.startswith("single_w")]
with np.load(GOLDEN / "temporal.npz") as archive:
    ARRAYS = {name: archive[name] for name in archive.files}
FRAMES = (ARRAYS["cls_probs"], ARRAYS["labels"], ARRAYS["hours"])


def assert_lists(found: dict, expected: dict) -> None:
    for name, values in expected.items():
        mine = [np.nan if v is None else v for v in found[name]]
        theirs = [np.nan if v is None else float(v) for v in values]
        np.testing.assert_allclose(mine, theirs, atol=1e-9, err_msg=name)


def settings(params: dict) -> dict:
    return {
        "size_hours": params["window_size"],
        "stride_hours": params["stride"],
        "start_hour": params.get("start_hour", 0.0),
        "end_hour": params.get("end_hour", params.get("max_time")),
    }


@pytest.mark.parametrize("case", SINGLE)
def test_single_run(case: str) -> None:
    given = settings(TEMPORAL[case]["params"])
    expected = TEMPORAL[case]["original"]
    centers, lists = w.window_lists(w.windowed_metrics(*FRAMES, rule=w.SINGLE_RUN, **given))
    np.testing.assert_allclose(centers, expected["window_centers"], atol=1e-9)
    assert_lists(lists, expected["metrics_by_window"])


@pytest.mark.parametrize("part", ["corrected_half_open", "reference_closed"])
@pytest.mark.parametrize("case", SINGLE)
def test_half_open_and_closed_reference(case: str, part: str) -> None:
    # The reference leaves the end of the last window open too; the standard closes it.
    rule = w.WindowRule("half-open") if part == "corrected_half_open" else w.SLIDING
    found = w.windowed_metrics(*FRAMES, rule=rule, **settings(TEMPORAL[case]["params"]))
    assert len(found) == len(TEMPORAL[case][part])
    for mine, expected in zip(found, TEMPORAL[case][part], strict=True):
        for name, value in expected.items():
            theirs = np.nan if value is None else float(value)
            assert getattr(mine, name) == pytest.approx(theirs, abs=1e-9, nan_ok=True), name
        assert mine.n == mine.n_infected + mine.n_uninfected


@pytest.mark.parametrize("case", ["cv_fold_w6_s3", "cv_fold_w1_s1"])
def test_cross_validation_fold(case: str) -> None:
    expected = TEMPORAL[case]["original"]
    found = w.windowed_metrics(*FRAMES, rule=w.CROSS_VALIDATION, **settings(TEMPORAL[case]["params"]))
    centers, lists = w.window_lists(found)
    assert centers == expected["window_centers"]
    assert_lists(lists, expected["metrics"])


@pytest.mark.parametrize("case", ["sliding_multitask", "sliding_single"])
def test_sliding_windows(case: str) -> None:
    probability = FRAMES[0] if case == "sliding_multitask" else sigmoid(ARRAYS["single_logits"])
    centers = [float(center) for center in TEMPORAL[case]]
    found = w.windowed_metrics(
        probability, *FRAMES[1:], rule=w.SLIDING, size_hours=6.0, starts=[c - 3.0 for c in centers]
    )
    assert [window.center for window in found] == centers
    for window, expected in zip(found, TEMPORAL[case].values(), strict=True):
        for name in set(expected) - {"bogus"}:
            theirs = np.nan if expected[name] is None else expected[name]
            assert getattr(window, name) == pytest.approx(theirs, abs=1e-9, nan_ok=True)


def test_fair_comparison() -> None:
    size, stride, start, end = TEMPORAL["fair"]["params"]
    expected = dict(TEMPORAL["fair"]["original"])
    found = w.windowed_metrics(
        *FRAMES, rule=w.FAIR, size_hours=size, stride_hours=stride, start_hour=start, end_hour=end
    )
    centers, lists = w.window_lists(found)
    assert centers == expected.pop("centers")
    assert_lists(lists, expected)


def test_comparison_of_all_models() -> None:
    golden = TEMPORAL["compare_3h_1h"]
    found = w.windowed_metrics(*FRAMES, rule=w.COMPARISON, size_hours=3.0, stride_hours=1.0)
    assert len(found) == len(golden["rows"])
    names = {"window_start": "start", "window_center": "center", "window_end": "end", "n_samples": "n"}
    for mine, row in zip(found, golden["rows"], strict=True):
        for column in golden["columns"]:
            value = getattr(mine, names.get(column, column))
            theirs = np.nan if row[column] is None else float(row[column])
            assert value == pytest.approx(theirs, abs=1e-9, nan_ok=True)


def test_the_standard_is_half_open_but_for_the_end() -> None:
    given = settings(TEMPORAL["single_w4_s4_0_20"]["params"])
    standard = w.windowed_metrics(*FRAMES, **given)
    half_open = w.windowed_metrics(*FRAMES, rule=w.WindowRule("half-open"), **given)
    assert standard[:-1] == half_open[:-1]
    at_the_end = int(np.count_nonzero(FRAMES[2] == 20.0))
    assert standard[-1].n == half_open[-1].n + at_the_end
    assert sum(window.n for window in standard) == np.count_nonzero(FRAMES[2] <= 20.0)
