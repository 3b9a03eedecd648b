import doctest

import numpy as np
import pytest
from scipy import stats

from medshared.metrics import survival_calibration as c
from medshared.metrics.survival_data import UndefinedMetricWarning


def test_docstring_examples_run() -> None:
    assert doctest.testmod(c).failed == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_histogram_equals_patients_taken_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, event = rng.uniform(0, 1, 50).round(1), rng.integers(0, 2, 50)
    expected = np.zeros(5)
    for value, observed in zip(s, event, strict=True):
        home = min(int(value * 5 + 1e-9), 4)
        if observed or value == 0:
            expected[home] += 1
            continue
        expected[home] += (value - home / 5) / value
        expected[:home] += 0.2 / value
    found = c.d_calibration(s, event, n_bins=5)
    assert found.histogram == pytest.approx(expected, abs=1e-9)
    oracle = stats.chisquare(expected)
    assert (found.statistic, found.p_value) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-6)


def test_p_values_of_a_calibrated_model_are_spread_out_and_those_of_another_are_not() -> None:
    rng = np.random.default_rng(0)
    good, bad = [], []
    for _ in range(200):
        true, censoring = rng.exponential(1, 200), rng.exponential(3, 200)
        time, event = np.minimum(true, censoring), (true <= censoring).astype(int)
        good.append(c.d_calibration(np.exp(-time), event).p_value)
        bad.append(c.d_calibration(np.exp(-time / 2), event).p_value)
    assert np.mean(np.array(good) < 0.05) < 0.12
    assert np.mean(np.array(bad) < 0.05) > 0.95


@pytest.mark.parametrize(("s", "event"), [([1.2], [1]), ([np.nan], [1]), ([0.5, 0.5], [1])])
def test_no_probabilities_are_refused(s: list[float], event: list[int]) -> None:
    with pytest.raises(ValueError, match=r"probabilities|equal length"):
        c.d_calibration(s, event)


def test_a_curve_equal_to_kaplan_meier_has_no_difference() -> None:
    from lifelines import KaplanMeierFitter

    rng = np.random.default_rng(1)
    event, time = rng.integers(0, 2, 80), rng.integers(1, 30, 80).astype(float)
    grid = np.arange(2.0, 20.0)
    oracle = KaplanMeierFitter().fit(time, event).survival_function_at_times(grid).to_numpy()
    found = c.km_calibration(np.tile(oracle, (80, 1)), event, time, grid)
    assert found.mean_squared_difference == pytest.approx(0, abs=1e-20)
    shifted = c.km_calibration(np.tile(oracle - 0.1, (80, 1)), event, time, grid)
    assert shifted.mean_squared_difference == pytest.approx(0.01, abs=1e-9)
    assert shifted.largest_difference == pytest.approx(0.1, abs=1e-9)


def test_groups_of_risk_equal_lifelines() -> None:
    from lifelines import KaplanMeierFitter

    rng = np.random.default_rng(2)
    s = rng.uniform(0, 1, 60)
    event, time = rng.integers(0, 2, 60), rng.integers(1, 30, 60).astype(float)
    found = c.calibration_at(s, event, time, at=12.0, n_groups=3)
    order = np.argsort(1 - s)
    for k, members in enumerate(np.split(order, 3)):
        oracle = KaplanMeierFitter().fit(time[members], event[members])
        assert found.observed[k] == pytest.approx(1 - oracle.predict(12.0), abs=1e-9)
        assert found.predicted[k] == pytest.approx(1 - s[members].mean(), abs=1e-12)
        assert found.low[k] <= found.observed[k] <= found.high[k]
    assert found.n.tolist() == [20, 20, 20]


@pytest.mark.filterwarnings("error")
def test_without_patients_calibration_is_undefined() -> None:
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(c.d_calibration([], []).p_value)
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(c.km_calibration(np.zeros((0, 2)), [], [], [1.0, 2.0]).largest_difference)
    assert c.calibration_at([], [], [], 1.0).n.size == 0
