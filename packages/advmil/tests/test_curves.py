"""Predicted distributions of time."""

from __future__ import annotations

import doctest

import numpy as np
import pandas as pd
import pytest

from advmil import curves as module
from advmil.curves import breslow_survival, predicted_samples, predicted_survival
from advmil.predictions import Kind, Predictions


def predictions(kind: Kind, n: int = 40, seed: int = 0, *, draws: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    days = rng.uniform(100, 2000, n).round()
    point = rng.uniform(0.05, 1, n).astype(np.float32)
    return Predictions(
        kind=kind,
        patients=tuple(f"p{seed}-{k}" for k in range(n)),
        t=(days / 2000).astype(np.float32),
        e=rng.integers(0, 2, n),
        days=days,
        point=point,
        unit_days=2000.0,
        end_time=1.0,
        samples=rng.uniform(0, 1, (n, draws)).astype(np.float32) if draws else None,
        hazards=rng.uniform(0.1, 0.6, (n, 4)).astype(np.float32) if kind == "discrete" else None,
        edges=np.array([100.0, 500, 900, 1500, 2000]) if kind == "discrete" else None,
    )


def test_docstring_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_breslow_equals_lifelines() -> None:
    from lifelines import CoxPHFitter

    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    days, event = rng.permutation(80) + 1.0, rng.integers(0, 2, 80)
    fitted = CoxPHFitter(baseline_estimation_method="breslow").fit(
        pd.DataFrame({"x": x, "t": days, "e": event}), "t", "e"
    )
    log_risk = fitted.predict_log_partial_hazard(pd.DataFrame({"x": x})).to_numpy()
    grid = np.array([5.0, 20.0, 40.0, 60.0])
    oracle = fitted.predict_survival_function(pd.DataFrame({"x": x[:6]}), times=grid).to_numpy().T
    assert breslow_survival(log_risk, event, days, log_risk[:6], grid) == pytest.approx(oracle, abs=1e-6)


def test_draws_and_single_times_become_steps() -> None:
    drawn = predictions("continuous", draws=7)
    grid = np.array([200.0, 900.0])
    found = predicted_survival(drawn, grid)
    assert drawn.samples_days is not None
    assert found == pytest.approx((drawn.samples_days[:, :, None] > grid).mean(axis=1))
    single = predictions("continuous")
    assert single.point_days is not None
    assert np.array_equal(predicted_survival(single, grid), (single.point_days[:, None] > grid).astype(float))
    samples = predicted_samples(single)
    assert samples is not None
    assert samples.shape == (40, 1)


def test_bins_are_joined_by_straight_lines() -> None:
    model = predictions("discrete")
    assert model.edges is not None
    at_edges = predicted_survival(model, model.edges)
    assert at_edges is not None
    assert at_edges[:, 0] == pytest.approx(1.0)
    assert at_edges[:, 1:] == pytest.approx(model.survival, abs=1e-6)
    middle = predicted_survival(model, [700.0])
    assert middle is not None
    assert middle[:, 0] == pytest.approx(at_edges[:, 1:3].mean(axis=1))


@pytest.mark.parametrize("kind", ["discrete", "cox"])
def test_quantiles_of_a_curve_have_that_curve(kind: Kind) -> None:
    model, train = predictions(kind), predictions(kind, 200, 1)
    samples = predicted_samples(model, train)
    assert samples is not None
    assert (np.diff(samples, axis=1) >= 0).all()
    grid = np.linspace(200, 1400, 9)
    expected = predicted_survival(model, grid, train)
    assert expected is not None
    assert (samples[:, :, None] > grid).mean(axis=1) == pytest.approx(expected, abs=0.03)


def test_a_log_risk_alone_has_no_curve() -> None:
    assert predicted_survival(predictions("cox"), [1.0]) is None
    assert predicted_samples(predictions("cox")) is None


def test_extreme_risks_keep_probabilities() -> None:
    found = breslow_survival(
        [0.0, -2000.0, 1.0], [1, 1, 1], [1.0, 3.0, 2.0], [3000.0, -3000.0], [0.5, 1.0, 9.0]
    )
    assert ((found >= 0) & (found <= 1)).all()
    assert found[:, 0].tolist() == [1.0, 1.0]
