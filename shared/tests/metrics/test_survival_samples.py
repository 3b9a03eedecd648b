import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from medshared.metrics import survival_samples as s
from medshared.metrics.survival_data import UndefinedMetricWarning

TIMES = st.integers(-5, 30).map(float)


def test_docstring_examples_run() -> None:
    assert doctest.testmod(s).failed == 0


@given(arrays(float, (4, 6), elements=TIMES), arrays(float, 4, elements=TIMES))
def test_crps_of_events_equals_its_energy_form(samples: np.ndarray, time: np.ndarray) -> None:
    pairs = np.abs(samples[:, :, None] - samples[:, None]).mean(axis=(1, 2))
    expected = np.abs(samples - time[:, None]).mean(axis=1) - 0.5 * pairs
    assert s.crps_samples(samples, np.ones(4), time) == pytest.approx(expected, abs=1e-9)


@given(arrays(float, (3, 5), elements=TIMES), arrays(float, 3, elements=TIMES))
def test_crps_of_the_censored_is_the_integral_up_to_the_censoring(
    samples: np.ndarray, time: np.ndarray
) -> None:
    step = 0.25  # all steps of the distribution lie on this grid
    x = np.arange(-10, 40, step)
    below = (samples[:, :, None] <= x).mean(axis=1)
    expected = (below**2 * (x < time[:, None])).sum(axis=1) * step
    assert s.crps_samples(samples, np.zeros(3), time) == pytest.approx(expected, abs=1e-9)


def test_crps_prefers_the_true_distribution() -> None:
    rng = np.random.default_rng(0)
    time = rng.exponential(10, 2000)
    scores = [
        s.crps_samples(rng.exponential(scale, (2000, 60)), np.ones(2000), time).mean()
        for scale in (4, 10, 25)
    ]
    assert scores[1] < min(scores[0], scores[2])


def test_curves_count_the_samples_beyond_a_time() -> None:
    samples = np.random.default_rng(0).integers(0, 9, (5, 7)).astype(float)
    grid = np.arange(-1.0, 10.0)
    assert s.survival_from_samples(samples, grid) == pytest.approx((samples[:, :, None] > grid).mean(axis=1))
    assert s.survival_from_samples(np.zeros((0, 3)), grid).shape == (0, 11)


@pytest.mark.parametrize("k", [5, 30])
def test_the_place_of_the_true_time_is_uniform(k: int) -> None:
    rng = np.random.default_rng(k)
    placed = s.survival_at_own_time(rng.normal(size=(3000, k)), rng.normal(size=3000), seed=1)
    assert stats.kstest(placed, "uniform").pvalue > 0.01
    tied = s.survival_at_own_time(rng.integers(0, 3, (3000, k)), rng.integers(0, 3, 3000), seed=1)
    assert stats.kstest(tied, "uniform").pvalue > 0.01


def test_coverage_of_a_calibrated_prediction_lies_between_its_bounds() -> None:
    rng = np.random.default_rng(3)
    true, censoring = rng.exponential(10, 3000), rng.uniform(0, 60, 3000)
    time, event = np.minimum(true, censoring), (true <= censoring).astype(int)
    found = s.interval_coverage(rng.exponential(10, (3000, 200)), event, time, 0.9)
    assert found.at_least <= 0.9 <= found.at_most
    full = s.interval_coverage(rng.exponential(10, (3000, 200)), np.ones(3000), true, 0.9)
    assert full.observed == full.at_least == full.at_most == pytest.approx(0.9, abs=0.02)
    assert full.mean_width == pytest.approx(10 * np.log(0.95 / 0.05), rel=0.05)


@pytest.mark.filterwarnings("error")
def test_undefined_coverage_warns() -> None:
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(s.interval_coverage([[1.0, 2.0]], [0], [1.0]).observed)
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(s.interval_coverage(np.zeros((0, 2)), [], []).at_most)


@pytest.mark.parametrize(
    ("samples", "message"), [(np.ones(3), "shape"), (np.ones((2, 3)), "shape"), (np.full((1, 3), np.nan), "finite")]
)  # fmt: skip
def test_wrong_samples_are_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        s.crps_samples(samples, [1], [1.0])
    with pytest.raises(ValueError, match="level"):
        s.intervals_from_samples([[1.0]], 1.0)
