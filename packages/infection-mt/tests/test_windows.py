import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infection_mt import windows as w
from infection_mt.config import WindowsConfig
from infection_mt.prediction_table import Predictions


def frames(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return np.clip(label * 0.4 + rng.uniform(0, 0.6, n), 0, 1), label, rng.integers(0, 97, n) / 2


@given(st.floats(0.5, 10), st.floats(0.5, 10), st.floats(0, 5), st.floats(6, 60))
def test_windows_lie_between_the_limits(size: float, stride: float, start: float, end: float) -> None:
    starts = w.window_starts(size, stride, start, end)
    assert all(s + size <= end + 1e-6 for s in starts)
    assert starts[:1] in ([], [start])
    following = starts[-1] + stride if starts else start
    assert following + size > end  # no window was left out
    np.testing.assert_allclose(np.diff(starts), stride)


def test_windows_need_a_length() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        w.window_starts(0, 1, 0, 10)


@given(st.integers(0, 50))
def test_neighbouring_windows_share_no_frame(seed: int) -> None:
    p, y, h = frames(seed=seed)
    found = w.windowed_metrics(p, y, h, size_hours=6, stride_hours=6)
    assert sum(window.n for window in found) == np.count_nonzero(h <= 48)
    closed = w.windowed_metrics(p, y, h, size_hours=6, stride_hours=6, rule=w.SLIDING)
    on_borders = sum(np.count_nonzero(h == border) for border in range(6, 48, 6))
    assert sum(window.n for window in closed) == np.count_nonzero(h <= 48) + on_borders


def test_windows_without_frames_are_kept_as_undefined() -> None:
    found = w.windowed_metrics([0.9, 0.1], [1, 0], [1.0, 2.0])
    assert len(found) == 15
    assert found[5].n == 0
    assert np.isnan(found[5].accuracy)
    _, lists = w.window_lists(found)
    assert lists["auc"][0] == 1.0
    assert lists["auc"][5] is None


def test_one_class_windows_keep_all_but_the_auc() -> None:
    window = w.windowed_metrics([0.9, 0.2], [1, 1], [1.0, 2.0], end_hour=6)[0]
    assert np.isnan(window.auc)
    assert (window.accuracy, window.recall, window.precision) == (0.5, 0.5, 1.0)
    compared = w.windowed_metrics([0.9, 0.2], [1, 1], [1.0, 2.0], size_hours=1, rule=w.COMPARISON)[0]
    assert compared.accuracy == 1.0
    assert np.isnan(compared.recall)


@pytest.mark.parametrize(
    ("rule", "kept"), [(w.CROSS_VALIDATION, 0), (w.SINGLE_RUN, 1), (w.FAIR, 0), (w.SLIDING, 15)]
)
def test_few_frames(rule: w.WindowRule, kept: int) -> None:
    assert len(w.windowed_metrics([0.9, 0.1], [1, 0], [1.0, 2.0], rule=rule)) == kept


def test_minimum_of_the_configuration() -> None:
    p, y, h = frames()
    rule = w.rule_of(WindowsConfig(min_samples=30, closed=False))
    assert rule.interval == "last-closed"
    for window in w.windowed_metrics(p, y, h, rule=rule):
        assert np.isnan(window.accuracy) == (window.n < 30)
    assert w.rule_of(WindowsConfig(closed=True)).interval == "closed"


def test_a_score_on_the_threshold() -> None:
    assert w.windowed_metrics([0.5], [1], [1.0], end_hour=6)[0].recall == 1.0
    strict = w.WindowRule(strict=True)
    assert w.windowed_metrics([0.5], [1], [1.0], end_hour=6, rule=strict)[0].recall == 0.0


def predictions() -> Predictions:
    p, y, _ = frames(192)
    metadata = [
        {
            "path": f"x_s5_{'b2' if y[i] else 'c4'}_p{i % 8}_t0-9_.tif",
            "position": str(i % 8),
            "frame_index": i,
        }
        for i in range(192)
    ]
    h = np.repeat(np.arange(24.0), 8)
    noise = np.random.default_rng(1).normal(size=192)
    return Predictions.from_outputs(4 * p - 2, h + noise, y, h, metadata=metadata, hours=h)


def test_intervals_and_time_errors_of_windows() -> None:
    table = predictions()
    found = w.window_predictions(table, WindowsConfig(end_hour=24.0), n_resamples=100)
    for window in found:
        rows = (table.hours >= window.start) & (table.hours < window.end)
        if window.end < 24:
            assert window.mae == pytest.approx(np.abs(table.time - table.time_target)[rows].mean())
        for name in ("auc", "accuracy", "f1", "mae"):
            interval = window.intervals[name]
            assert interval.n_groups == 8
            assert interval.low <= getattr(window, name) <= interval.high
    row = found[0].as_row()
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]


def test_saturated_probabilities_are_ranked_by_their_logits() -> None:
    table = Predictions.from_outputs(
        [50.0, 45.0, 40.0],
        None,
        [1, 1, 0],
        [0.0, 0.0, 0.0],
        metadata=[{"path": "a", "frame_index": i, "hours_since_start": 1.0} for i in range(3)],
    )
    assert w.window_predictions(table)[0].auc == 1.0
    assert w.windowed_metrics(table.probability, table.label, table.hours)[0].auc == 0.5


@pytest.mark.parametrize(
    ("auc", "hour"),
    [
        ([0.98, 0.99, 1.0], 6.0),
        ([0.99, 0.98, 1.0], None),
        ([0.99, np.nan, 1.0, 1.0], 9.0),
        ([1.0], None),
        ([], None),
    ],
)
def test_earliest_reliable_hour(auc: list[float], hour: float | None) -> None:
    found = [w.WindowMetrics(3 * i, 3 * i + 6, 3 * i + 3.0, 9, 4, 5, auc=a) for i, a in enumerate(auc)]
    assert w.earliest_reliable_hour(found) == hour


def test_arrays_must_agree() -> None:
    with pytest.raises(ValueError, match="one entry per frame"):
        w.windowed_metrics([0.5, 0.4], [1], [1.0, 2.0])
