import doctest

import numpy as np
import pytest

from medshared.metrics import survival_data as d


def cohort(seed: int, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n), rng.integers(1, 25, n).astype(float)


def test_docstring_examples_run() -> None:
    assert doctest.testmod(d).failed == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_and_its_interval_equal_those_of_lifelines(seed: int) -> None:
    from lifelines import KaplanMeierFitter

    event, time = cohort(seed)
    oracle = KaplanMeierFitter().fit(time, event)
    curve = d.kaplan_meier(event, time)
    assert curve.survival == pytest.approx(
        oracle.survival_function_at_times(curve.time).to_numpy(), abs=1e-12
    )
    interval = oracle.confidence_interval_survival_function_.loc[curve.time].to_numpy()
    inside = curve.survival > 0
    assert curve.low[inside] == pytest.approx(interval[inside, 0], abs=1e-9)
    assert curve.high[inside] == pytest.approx(interval[inside, 1], abs=1e-9)
    assert curve.median == oracle.median_survival_time_


def test_the_curve_of_censoring_lets_events_come_first() -> None:
    event, time = cohort(4)
    # Shifting the events to just before their time leaves no tie to decide.
    curve = d.censoring_curve(event, time)
    plain = d.kaplan_meier(1 - event, time - 1e-6 * event)
    assert curve.at(time) == pytest.approx(plain.at(time), abs=1e-12)


def test_values_before_at_and_after_a_step() -> None:
    curve = d.kaplan_meier([1, 1], [2.0, 4.0])
    assert curve.at([1, 2, 3, 4, 9]).tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert curve.before([1, 2, 3, 4, 9]).tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]


def test_without_events_nobody_dies() -> None:
    curve = d.kaplan_meier([0, 0], [2.0, 4.0])
    assert curve.survival.tolist() == curve.low.tolist() == curve.high.tolist() == [1.0, 1.0]
    assert curve.median == np.inf
