"""Pictures show the numbers they are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from advmil import figures
from advmil.evaluation import evaluate_predictions
from advmil.predictions import Predictions


@pytest.fixture
def predictions() -> Predictions:
    rng = np.random.default_rng(0)
    n = 30
    days = rng.uniform(50, 900, n)
    point = (days / 1000).astype(np.float32)
    return Predictions(
        kind="continuous",
        patients=tuple(f"p{k}" for k in range(n)),
        t=point,
        e=(np.arange(n) % 2).astype(np.int64),
        days=days,
        point=point,
        unit_days=1000.0,
        end_time=1.0,
        samples=(point[:, None] + rng.normal(0, 0.05, (n, 20))).astype(np.float32),
    )


def test_history_marks_the_chosen_epoch_and_knows_semi_supervised_names():
    rows = [
        {"epoch": k + 1, f"fold{k % 2}_mixed_train/loss": 1.0 - k / 10, "validation/loss": 2.0 - k / 10}
        for k in range(4)
    ]
    axes = figures.draw_history(rows, "loss", 3).axes[0]
    curves = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert curves["train"] == pytest.approx(np.array([[1, 1.0], [2, 0.9], [3, 0.8], [4, 0.7]]))
    assert curves["validation"] == pytest.approx(np.array([[1, 2.0], [2, 1.9], [3, 1.8], [4, 1.7]]))
    assert curves["chosen: epoch 3"][:, 0].tolist() == [3, 3]


def test_scatter_puts_each_patient_at_its_days(predictions):
    axes = figures.draw_scatter(predictions).axes[0]
    events, censored = axes.collections[1].get_offsets(), axes.collections[2].get_offsets()
    chosen = predictions.e == 1
    expected = np.stack([predictions.days, predictions.point_days], axis=1)
    assert np.asarray(events) == pytest.approx(expected[chosen])
    assert np.asarray(censored) == pytest.approx(expected[~chosen])


def test_risk_groups_are_halves(predictions):
    axes = figures.draw_risk_groups(predictions).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["lower risk (n = 15)", "higher risk (n = 15)"]
    assert axes.get_title() == "log-rank p < 0.001"


def test_risk_groups_without_an_event(predictions):
    censored = replace(predictions, e=np.zeros(30, dtype=np.int64))
    assert figures.draw_risk_groups(censored).axes[0].get_title() == "log-rank undefined"


def test_curves_brier_and_calibration(predictions, tmp_path):
    found = evaluate_predictions(predictions, predictions.e, predictions.days, n_resamples=0)
    curves = figures.draw_curves(predictions, found.grid, n=4)
    drawn = [line for line in curves.axes[0].lines if len(line.get_xdata()) > 1]
    assert len(drawn) == 4
    assert all((np.diff(line.get_ydata()) <= 1e-9).all() for line in drawn)
    brier = figures.draw_brier(found).axes[0].lines
    assert brier[0].get_ydata() == pytest.approx(found.brier)
    bars = figures.draw_calibration(found.histogram, 0.5).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
    path = figures.save_figure(curves, tmp_path / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_histogram_counts_everyone(predictions):
    axes = figures.draw_histogram(replace(predictions, point=np.full(30, np.nan, np.float32))).axes[0]
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"predicted (n = 0)", "event (n = 15)", "censored (n = 15)"}


@pytest.mark.parametrize("kind", ["cox", "discrete"])
def test_models_without_a_time_have_no_scatter(kind, predictions):
    with pytest.raises(ValueError, match=f"a {kind} model predicts no time"):
        figures.draw_scatter(replace(predictions, kind=kind))
