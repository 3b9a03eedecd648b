import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from medshared.metrics import regression as r


def sample(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 48, 120)
    return target + rng.normal(0.4, 1.5, 120), target


def test_docstring_examples_run() -> None:
    assert doctest.testmod(r).failed == 0


@pytest.mark.parametrize("seed", range(4))
def test_regression_metrics_equal_sklearn_and_scipy(seed: int) -> None:
    estimate, target = sample(seed)
    found = r.regression_metrics(estimate, target)
    assert found["n"] == 120
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(target, estimate), rel=1e-12)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(target, estimate), rel=1e-12)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(target, estimate), rel=1e-12)
    assert found["median_ae"] == pytest.approx(sk.median_absolute_error(target, estimate), rel=1e-12)
    assert found["r2"] == pytest.approx(sk.r2_score(target, estimate), rel=1e-12)
    assert found["pearson"] == pytest.approx(stats.pearsonr(estimate, target).statistic, rel=1e-12)
    assert found["bias"] == pytest.approx(np.mean(estimate - target), rel=1e-12)


def test_constant_targets_leave_r2_and_correlation_undefined() -> None:
    found = r.regression_metrics([1.0, 2.0], [3.0, 3.0])
    assert np.isnan(found["r2"])
    assert np.isnan(found["pearson"])
    assert found["mae"] == 1.5


def test_without_samples_everything_is_undefined() -> None:
    found = r.regression_metrics([], [])
    assert found.pop("n") == 0
    assert np.isnan(list(found.values())).all()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="equal length"):
        r.regression_metrics([1.0], [1.0, 2.0])


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30), st.floats(-60, 60))
def test_no_constant_beats_the_best_constant(target: list[float], other: float) -> None:
    best = r.best_constant(target)
    assert best["mae"] <= np.mean(np.abs(np.array(target) - other)) + 1e-9
    assert best["rmse"] <= np.sqrt(np.mean((np.array(target) - other) ** 2)) + 1e-9


def test_best_constant_needs_targets() -> None:
    with pytest.raises(ValueError, match="at least one"):
        r.best_constant([])
