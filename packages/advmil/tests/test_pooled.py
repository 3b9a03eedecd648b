"""Pooled predictions: what draws, curves and intervals are, against direct computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from advmil.curves import breslow_survival
from advmil.ensemble import BagOutput, Ensemble, load_ensemble
from advmil.pooled import pool, pooled_curves, prediction_table, sample_arrays


@pytest.fixture(scope="module")
def ensembles(untrained_run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ensemble]:
    """Ensembles by name."""
    folder = tmp_path_factory.mktemp("runs")
    bins = {"time_format": "quantile"}

    def made(name: str, n: int, *arguments, **changes) -> Ensemble:
        folders: list[Path] = [
            untrained_run(folder / f"{name}{k}", *arguments, seed=k, **changes) for k in range(n)
        ]
        return load_ensemble(folders)

    return {
        "one": made("one", 1),
        "three": made("three", 3),
        "cox": made("cox", 1, "base", task="surv_cox"),
        "cox2": made("coxes", 2, "base", task="surv_cox"),
        "nll": made("nll", 1, "base", task="surv_nll", pdh_dims="8-4", **bins),
        "disc": made("disc", 1, task="disc_gansurv", gen_dims="8-4", disc_nety_in_dim=4, **bins),
        "reg": made("reg", 2, "base", task="surv_reg"),
    }


def _draws(rng: np.random.Generator, k: int, width: int = 1) -> BagOutput:
    draws = rng.uniform(0.1, 0.6, (k, width)).astype(np.float32)
    return BagOutput(np.median(draws, axis=0), draws)


def _points(*values: float) -> BagOutput:
    return BagOutput(np.asarray(values, dtype=np.float32), None)


def test_curve_is_the_share_of_draws_beyond_each_day(ensembles):
    rng = np.random.default_rng(0)
    ensemble = ensembles["three"]
    outputs = [[_draws(rng, 40) for _ in range(3)] for _ in range(2)]
    pooled = pool(ensemble, ["A", "B"], outputs)
    curves = pooled_curves(pooled)
    unit = ensemble.models[0].unit_days
    for row in range(2):
        days = np.concatenate([each.draws[:, 0] for each in outputs[row]]).astype(float) * unit
        expected = (days[None] > curves.grid[:, None]).mean(axis=1)
        np.testing.assert_allclose(curves.survival[row], expected)
        np.testing.assert_allclose(pooled.samples_days[row], days)
        assert pooled.point_days[row] == pytest.approx(np.median(days))
    assert curves.grid[0] == 0
    assert curves.grid[-1] == pytest.approx(ensemble.end_days)
    assert (curves.low <= curves.survival + 1e-9).all()
    assert (curves.survival <= curves.high + 1e-9).all()


def test_interval_of_one_model_is_that_of_a_share_of_draws(ensembles):
    ensemble = ensembles["one"]
    pooled = pool(ensemble, ["A"], [[_draws(np.random.default_rng(1), 200)]])
    curves = pooled_curves(pooled, level=0.9, resamples=4000)
    for share, low, high in zip(curves.survival[0], curves.low[0], curves.high[0], strict=True):
        expected = binom.ppf([0.05, 0.95], 200, share) / 200
        np.testing.assert_allclose([low, high], expected, atol=0.011)  # two draws of 200, from the bootstrap


def test_interval_narrows_with_more_draws_but_not_below_the_runs_differences(ensembles):
    def width(name: str, k: int) -> float:
        rng = np.random.default_rng(2)
        shifts = [0.0, 0.15, 0.3][: len(ensembles[name].models)]
        outputs = [_draws(rng, k) for _ in shifts]
        outputs = [
            BagOutput(o.point + s, o.draws + np.float32(s)) for o, s in zip(outputs, shifts, strict=True)
        ]
        curves = pooled_curves(pool(ensembles[name], ["A"], [outputs]))
        return float((curves.high - curves.low).mean())

    assert width("one", 4000) < 0.3 * width("one", 100)
    assert width("three", 4000) > 3 * width("one", 4000)


def test_nothing_to_resample_is_no_interval(ensembles):
    curves = pooled_curves(pool(ensembles["one"], ["A"], [[_points(0.4)]]))
    assert np.isnan(curves.low).all()
    assert np.isnan(curves.high).all()
    unit = ensembles["one"].models[0].unit_days
    np.testing.assert_array_equal(
        curves.survival[0], (curves.grid < np.float64(np.float32(0.4)) * unit).astype(float)
    )


def test_curves_do_not_depend_on_who_else_is_predicted(ensembles):
    rng = np.random.default_rng(3)
    a, b = [[_draws(rng, 30) for _ in range(3)] for _ in range(2)]
    together = pooled_curves(pool(ensembles["three"], ["B", "A"], [b, a]), seed=4)
    alone = pooled_curves(pool(ensembles["three"], ["A"], [a]), seed=4)
    np.testing.assert_array_equal(together.low[1], alone.low[0])
    np.testing.assert_array_equal(together.high[1], alone.high[0])
    other = pooled_curves(pool(ensembles["three"], ["A"], [a]), seed=5)
    assert not np.array_equal(other.low, alone.low)


def test_cox_uses_breslow_with_the_training_predictions(ensembles):
    ensemble = ensembles["cox"]
    pooled = pool(ensemble, ["A", "B"], [[_points(0.1)], [_points(2.0)]])
    curves = pooled_curves(pooled)
    train = ensemble.training[0]
    log_risk = np.asarray([0.1, 2.0], dtype=np.float32)
    expected = breslow_survival(train.risk, train.e, train.days, log_risk, curves.grid)
    np.testing.assert_allclose(curves.survival, expected)
    assert np.isnan(curves.low).all()
    table = prediction_table(pooled, curves, [["A"], ["B"]], [3, 4])
    np.testing.assert_allclose(table["risk"], log_risk)
    first = curves.grid[np.argmax(expected[1] <= 0.5)]
    assert table["predicted_days"][1] == first
    assert table["predicted_days_low"][1] <= first <= table["predicted_days_high"].fillna(np.inf)[1]


def test_two_cox_models_have_an_interval_between_their_curves(ensembles):
    pooled = pool(ensembles["cox2"], ["A"], [[_points(0.0), _points(1.5)]])
    curves = pooled_curves(pooled)
    each = [pooled_curves(pool(Ensemble([m], "cox", [t]), ["A"], [[o]])).survival[0]
            for m, t, o in zip(ensembles["cox2"].models, ensembles["cox2"].training, [found[0] for found in pooled.outputs], strict=True)]  # fmt: skip
    np.testing.assert_allclose(curves.survival[0], np.mean(each, axis=0))
    np.testing.assert_allclose(
        curves.low[0], np.min(each, axis=0)
    )  # both members twice has a chance of 1 in 4
    np.testing.assert_allclose(curves.high[0], np.max(each, axis=0))
    table = prediction_table(pooled, curves, [["A"]], [3])
    assert table["risk_runs_mean"][0] == pytest.approx(0.75)
    assert table["risk_runs_sd"][0] == pytest.approx(np.std([0.0, 1.5], ddof=1))


@pytest.mark.parametrize("name", ["nll", "disc"])
def test_bins_are_joined_by_straight_lines(ensembles, name):
    hazards = np.array([0.1, 0.3, 0.2, 0.6], dtype=np.float32)
    draws = np.tile(hazards, (20, 1)) if name == "disc" else None
    pooled = pool(ensembles[name], ["A"], [[BagOutput(hazards, draws)]])
    curves = pooled_curves(pooled)
    edges = np.array([0.0, 300.0, 700.0, 1200.0, 4000.0])
    expected = np.interp(curves.grid, edges, [1, *np.cumprod(1 - hazards)])
    np.testing.assert_allclose(curves.survival[0], expected, rtol=1e-6)
    if name == "disc":  # equal draws leave nothing uncertain
        np.testing.assert_allclose(curves.low[0], expected, rtol=1e-6)
        assert sample_arrays(pooled)["hazards"].shape == (1, 20, 4)
    table = prediction_table(pooled, curves, [["A"]], [1])
    assert table["risk"][0] == pytest.approx(-np.cumprod(1 - hazards).sum(), rel=1e-6)
    assert table["predicted_days"][0] == curves.grid[np.argmax(expected <= 0.5)]


def test_table_of_one_model(ensembles):
    output = _draws(np.random.default_rng(5), 101)
    pooled = pool(ensembles["one"], ["A"], [[output]])
    table = prediction_table(pooled, pooled_curves(pooled), [["A-S1", "A-S2"]], [64], level=0.8)
    row = table.iloc[0]
    days = output.draws[:, 0].astype(float) * ensembles["one"].models[0].unit_days
    assert row["slides"] == "A-S1;A-S2"
    assert row["n_patches"] == 64
    assert row["risk"] == pytest.approx(-float(output.point[0]))
    assert row["predicted_days"] == pytest.approx(np.median(days), rel=1e-6)
    assert row["predicted_days_low"] == pytest.approx(np.quantile(days, 0.1))
    assert row["predicted_days_high"] == pytest.approx(np.quantile(days, 0.9))
    assert row["sample_sd_days"] == pytest.approx(days.std())
    assert not [name for name in table if "runs" in name]


def test_table_of_regressors_has_their_spread_and_no_interval(ensembles):
    unit = ensembles["reg"].models[0].unit_days
    pooled = pool(ensembles["reg"], ["A"], [[_points(0.2), _points(0.4)]])
    row = prediction_table(pooled, pooled_curves(pooled), [["A"]], [16]).iloc[0]
    assert row["predicted_days"] == pytest.approx(0.3 * unit, rel=1e-6)
    assert row["risk"] == pytest.approx(-0.3, rel=1e-6)
    assert row["predicted_days_runs_sd"] == pytest.approx(np.std([0.2, 0.4], ddof=1) * unit, rel=1e-6)
    assert np.isnan(row["predicted_days_low"])
    arrays = sample_arrays(pooled)
    assert "samples_days" not in arrays
    assert arrays["point"].shape == (1, 2, 1)


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=30), st.floats(0.05, 0.99))
@settings(max_examples=25, deadline=None)
def test_intervals_hold_the_point_and_curves_fall(ensembles, values, level):
    draws = np.asarray(values, dtype=np.float32)[:, None]
    pooled = pool(ensembles["one"], ["A"], [[BagOutput(np.median(draws, axis=0), draws)]])
    curves = pooled_curves(pooled, level=level, resamples=60)
    assert (np.diff(curves.survival[0]) <= 1e-12).all()
    assert ((curves.survival >= 0) & (curves.survival <= 1)).all()
    row = prediction_table(pooled, curves, [["A"]], [1], level).iloc[0]
    tolerance = 1e-6 * row["predicted_days"]
    assert (
        row["predicted_days_low"] - tolerance
        <= row["predicted_days"]
        <= row["predicted_days_high"] + tolerance
    )


def test_draws_carry_their_run(ensembles):
    rng = np.random.default_rng(6)
    pooled = pool(ensembles["three"], ["A"], [[_draws(rng, 5) for _ in range(3)]])
    arrays = sample_arrays(pooled)
    assert arrays["run_of_draw"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert arrays["runs"].tolist() == ["three0", "three1", "three2"]
    assert arrays["samples_days"].shape == (1, 15)
    with pytest.raises(ValueError, match="no patient"):
        pool(ensembles["one"], [], [])
