"""Metrics with intervals, comparisons of models and of folds."""

from __future__ import annotations

import dataclasses
import doctest
import warnings
from typing import Any

import numpy as np
import pytest

from advmil import evaluation as module
from advmil.curves import predicted_survival
from advmil.evaluation import METRICS, compare_folds, compare_predictions, evaluate_predictions, fold_table
from advmil.predictions import Kind, Predictions
from advmil.resampled_metrics import Training, draw_patients, set_up
from medshared.metrics.resampling import cluster_bootstrap
from medshared.metrics.survival import concordance_index, uno_c_index
from medshared.metrics.survival_curves import integrated_brier_score, safe_time_grid, time_dependent_auc
from medshared.metrics.survival_samples import crps_samples, interval_coverage


def cohort(seed: int, n: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risk that tells, events and days, rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(size=n)
    true, censoring = 2000 * np.exp(-2.2 * z) * rng.weibull(3, n), rng.uniform(200, 3500, n)
    return z, (true <= censoring).astype(int), np.maximum(np.minimum(true, censoring) // 25 * 25, 25)


def model(seed: int, noise: float = 0.3, kind: Kind = "continuous", draws: int = 30) -> Predictions:
    z, e, days = cohort(seed)
    rng = np.random.default_rng(seed + 100)
    scale = 2000 * np.exp(-2.2 * z + noise * rng.normal(size=len(z)))
    samples = scale[:, None] * rng.weibull(3, (len(z), draws)) if draws else None
    point = scale * 0.885 if samples is None else np.median(samples, axis=1)
    edges = np.array([0.0, 300, 700, 1400, 3600])
    survival = np.exp(-((edges[1:] / scale[:, None]) ** 3))
    hazards = 1 - survival / np.concatenate([np.ones((len(z), 1)), survival[:, :-1] + 1e-12], axis=1)
    return Predictions(
        kind=kind,
        patients=tuple(f"p{k}" for k in range(len(z))),
        t=(days / 3500).astype(np.float32),
        e=e,
        days=days,
        point=(-3 * np.log(scale / 2000) if kind == "cox" else point / 3500).astype(np.float32),
        unit_days=3500.0,
        end_time=1.0,
        samples=None if samples is None or kind != "continuous" else (samples / 3500).astype(np.float32),
        hazards=np.clip(hazards, 0, 1).astype(np.float32) if kind == "discrete" else None,
        edges=edges if kind == "discrete" else None,
    )


TRAIN = cohort(50, 200)[1:]


def test_docstring_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_estimates_equal_the_metrics_one_by_one() -> None:
    given = model(0)
    found = evaluate_predictions(given, *TRAIN, n_resamples=20)
    estimate = {name: value.estimate for name, value in found.metrics.items()}
    e, t = given.e, given.days
    samples = given.samples_days
    point = given.point_days
    assert samples is not None
    assert point is not None
    grid = safe_time_grid(e, t, *TRAIN, 50)
    survival = predicted_survival(given, grid)
    assert survival is not None
    coarse = grid[np.linspace(0, 49, 10).astype(int)]
    expected = {
        "c_index": concordance_index(given.risk, e, t),
        "uno_c_index": uno_c_index(given.risk, e, t, *TRAIN),
        "auc": time_dependent_auc(given.risk, e, t, coarse, *TRAIN).mean,
        "ibs": integrated_brier_score(survival, e, t, grid, *TRAIN),
        "crps_days": crps_samples(samples, e, t).mean(),
        "coverage": interval_coverage(samples, e, t, 0.9).observed,
        "coverage_at_most": interval_coverage(samples, e, t, 0.9).at_most,
        "mae_days": np.where(e == 1, abs(point - t), np.maximum(t - point, 0)).mean(),
        "event_mae_days": abs(point - t)[e == 1].mean(),
    }
    for name, value in expected.items():
        assert estimate[name] == pytest.approx(value, rel=1e-9), name
    assert list(found.metrics) == [name for name in METRICS if name in found.metrics]
    assert (found.patients, found.events) == (90, int(e.sum()))


def test_events_beyond_the_training_patients_do_not_count_for_uno() -> None:
    given = model(3)
    short = TRAIN[1] < np.quantile(given.days, 0.6)
    train = (TRAIN[0][short], TRAIN[1][short])
    found = evaluate_predictions(given, *train, n_resamples=0).metrics["uno_c_index"].estimate
    assert found == pytest.approx(uno_c_index(given.risk, given.e, given.days, *train), rel=1e-9)


def test_a_resample_has_the_metrics_of_its_patients() -> None:
    given = model(3)
    parts = set_up(given, Training.of(*TRAIN), None, 0.9, 50).parts
    counts = draw_patients(90, 6, seed=1)
    assert (counts.sum(axis=1) == 90).all()
    found = parts.values(counts)
    for k, row in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(90), row)
        e, t, risk = given.e[drawn], given.days[drawn], given.risk[drawn]
        assert found["c_index"][k] == pytest.approx(concordance_index(risk, e, t), rel=1e-9)
        assert found["uno_c_index"][k] == pytest.approx(uno_c_index(risk, e, t, *TRAIN), rel=1e-9)


def test_the_interval_is_that_of_the_bootstrap_of_patients() -> None:
    given = model(1)
    found = evaluate_predictions(given, *TRAIN, n_resamples=2000, seed=1).metrics["c_index"]
    oracle = cluster_bootstrap(
        lambda i: concordance_index(given.risk[i], given.e[i], given.days[i]), np.arange(90), 600, rng=2
    )
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.015)


def test_a_good_model_beats_its_baselines() -> None:
    found = evaluate_predictions(model(2, noise=0.05, draws=100), *TRAIN, n_resamples=200)
    value = found.flat()
    assert value["c_index_low"] > 0.6
    assert value["ibs"] < value["km_ibs"]
    assert value["mae_days"] < value["constant_mae_days"]
    assert value["coverage_at_least"] <= 0.9 <= value["coverage_at_most"]
    assert value["d_calibration_p"] > 0.01
    assert value["log_rank_p"] < 0.01
    assert found.histogram.sum() == pytest.approx(90)
    assert found.brier.shape == found.km_brier.shape == found.grid.shape
    assert set(found.table()["metric"]) == set(METRICS)


@pytest.mark.parametrize(
    ("kind", "draws", "absent"),
    [
        ("continuous", 0, {"coverage", "d_calibration_p"}),
        ("discrete", 30, {"mae_days"}),
        ("cox", 30, {"mae_days", "ibs", "crps_days", "d_calibration_p"}),
    ],
)
def test_each_kind_of_model_has_its_metrics(kind: Kind, draws: int, absent: set[str]) -> None:
    value = evaluate_predictions(model(4, kind=kind, draws=draws), *TRAIN, n_resamples=50).flat()
    assert absent.isdisjoint(value)
    assert value["c_index"] > 0.6
    assert {"uno_c_index", "auc", "km_ibs", "log_rank_p"} <= set(value)


def test_a_cox_model_has_curves_with_its_training_predictions() -> None:
    train = model(60, kind="cox")
    value = evaluate_predictions(
        model(4, kind="cox"), train.e, train.days, train_predictions=train, n_resamples=50
    ).flat()
    assert value["ibs"] < value["km_ibs"]
    assert value["crps_days"] > 0


@pytest.mark.parametrize("events", [0, 1])
def test_patients_without_events_are_scored_as_far_as_possible(events: int) -> None:
    given = model(5)
    e = np.zeros(90, dtype=np.int64)
    e[np.argsort(given.days)[:events]] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = evaluate_predictions(dataclasses.replace(given, e=e), *TRAIN, n_resamples=50).flat()
    assert np.isnan(value["c_index"]) == (events == 0)
    assert np.isfinite(value["censored_mae_days"])


def test_nothing_to_score_is_an_error() -> None:
    given = model(0)
    empty = dataclasses.replace(
        given,
        patients=(),
        t=given.t[:0],
        e=given.e[:0],
        days=given.days[:0],
        point=given.point[:0],
        samples=None,
    )
    with pytest.raises(ValueError, match="no patients to score"):
        evaluate_predictions(empty, *TRAIN)
    with pytest.raises(ValueError, match="training patients are needed"):
        evaluate_predictions(given, [], [])


def test_a_model_does_not_differ_from_itself_in_another_order() -> None:
    given = model(6)
    order = np.random.default_rng(0).permutation(90)
    assert given.samples is not None
    shuffled = dataclasses.replace(
        given,
        patients=tuple(given.patients[k] for k in order),
        t=given.t[order],
        e=given.e[order],
        days=given.days[order],
        point=given.point[order],
        samples=given.samples[order],
    )
    table = compare_predictions(given, shuffled, *TRAIN, n_resamples=50)
    assert table["difference"].abs().max() == pytest.approx(0, abs=1e-9)
    assert (table["p_value"] > 0.9).all()


def test_the_better_model_is_found() -> None:
    table = compare_predictions(model(7, 0.05), model(7, 2.5), *TRAIN, n_resamples=400).set_index("metric")
    for name in ("c_index", "crps_days", "ibs"):
        row = table.loc[name]
        assert row["better"] == "a"
        assert row["p_value"] < 0.05
        assert row["p_holm"] >= row["p_value"]
        assert row["low"] <= row["difference"] <= row["high"]
    assert table.loc["coverage", "better"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: dataclasses.replace(p, patients=tuple(f"q{k}" for k in range(90))), "different patients"),
        (lambda p: dataclasses.replace(p, e=1 - p.e), "different outcomes"),
    ],
)  # fmt: skip
def test_other_patients_cannot_be_compared(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_predictions(model(8), change(model(8)), *TRAIN)


def test_folds_are_summarised_and_compared() -> None:
    good = [evaluate_predictions(model(seed, 0.05), *TRAIN, n_resamples=0) for seed in range(4)]
    bad = [evaluate_predictions(model(seed, 2.5), *TRAIN, n_resamples=0) for seed in range(4)]
    table = fold_table(dict(enumerate(good))).set_index("metric")
    values = [each.metrics["c_index"].estimate for each in good]
    assert table.loc["c_index", "mean"] == pytest.approx(np.mean(values))
    assert table.loc["c_index", "sd"] == pytest.approx(np.std(values))
    assert table.loc["c_index", "fold_2"] == pytest.approx(values[2])
    compared = compare_folds(good, bad, n_train=200, n_test=90).set_index("metric")
    assert compared.loc["c_index", "difference"] > 0
    assert compared.loc["c_index", "p_value"] < 0.05
    with pytest.raises(ValueError, match="the same folds"):
        compare_folds(good, bad[:3], 200, 90)


def test_without_resamples_there_are_no_intervals() -> None:
    found = evaluate_predictions(model(9), *TRAIN, n_resamples=0).metrics["c_index"]
    assert np.isnan([found.low, found.high]).all()
