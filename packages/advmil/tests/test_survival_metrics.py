"""The original's metric tables, as they were and as they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advmil import survival_metrics as sm
from advmil.config import Config

AS_GOLDEN = sm.MetricSettings(recon_alpha=0.3, mle_alpha=0.2, bce_faithful=True, mae_faithful=True)


def same(table, expected, rel=1e-6):
    assert set(table) == set(expected)
    assert table == pytest.approx(expected, rel=rel, nan_ok=True)


def test_continuous_table_equals_the_original(golden_npz, golden_json):
    arrays, facts = golden_npz("metrics"), golden_json("metrics")
    pred, t, e, fake = (arrays[key] for key in ("pred", "t_ratio", "e", "f_fake"))
    same(sm.continuous_metrics(pred, t, e, AS_GOLDEN, fake_scores=fake), facts["continuous"]["original"])
    sampled = sm.continuous_metrics(
        pred, t, e, replace(AS_GOLDEN, median_lower=True), fake_scores=fake, samples=arrays["dist5"]
    )
    same(sampled, facts["with_samples"]["original"])
    in_days = replace(AS_GOLDEN, recon_alpha=0.0, recon_gamma=1.0, loss_d="hinge")
    days = sm.continuous_metrics(pred * 900, arrays["t"], e, in_days, end_time=2701, fake_scores=fake)
    same(days, facts["continuous_days"]["original"])


def test_mae_of_the_censored_has_no_margin(golden_npz, golden_json):
    arrays, facts = golden_npz("metrics"), golden_json("metrics")
    labels = arrays["t_ratio"], arrays["e"]
    assert sm.mae(arrays["pred"], *labels) == pytest.approx(facts["mae"]["corrected"], abs=1e-9)
    events = arrays["e"] == 1
    only = sm.mae(arrays["pred"][events], arrays["t_ratio"][events], arrays["e"][events])
    assert only == pytest.approx(facts["event_only_mae"]["corrected"], abs=1e-9)
    table = sm.continuous_metrics(arrays["pred"], *labels, sm.MetricSettings())
    assert table["mae"] == pytest.approx(facts["mae"]["corrected"], abs=1e-9)
    assert np.isnan(table["avg_fake"])


def test_cox_concordance_of_a_hazard(golden_npz, golden_json):
    arrays, facts = golden_npz("metrics"), golden_json("metrics")
    args = arrays["log_hazard"], arrays["t"], arrays["e"]
    same(sm.cox_metrics_faithful(*args), facts["cox"]["original"])
    assert sm.cox_metrics(*args)["c_index"] == pytest.approx(facts["c_index_cox"]["corrected"], abs=1e-12)


def test_discrete_tables(golden_npz, golden_json):
    arrays, facts = golden_npz("metrics"), golden_json("metrics")
    args = arrays["haz"], arrays["ybin"], arrays["e"], AS_GOLDEN
    wired = sm.discrete_metrics_faithful(*args, fake_scores=arrays["f_fake"])
    same(wired, facts["discrete_as_wired"]["original"])
    right = sm.discrete_metrics(*args, fake_scores=arrays["f_fake"])
    same(right, facts["discrete_corrected"]["corrected"])
    by_time = sm.discrete_metrics(*args, time=arrays["t"])
    assert by_time["c_index"] == pytest.approx(
        facts["c_index_discrete_continuous_time"]["corrected"], abs=1e-12
    )
    assert by_time["c_index_bins"] == pytest.approx(right["c_index"], abs=1e-12)
    longevity = np.cumprod(1 - arrays["haz"].astype(float), axis=1).sum(1)
    np.testing.assert_allclose(longevity, arrays["discrete_risk_sum_survival"], rtol=1e-5)


def test_medians_of_an_even_number_of_samples(golden_npz):
    arrays = golden_npz("metrics")
    for lower, golden in ((True, "original"), (False, "corrected")):
        median = sm.median_of_samples(arrays["dist_even"], lower=lower)
        np.testing.assert_allclose(median.numpy(), arrays[f"dist_even_median_{golden}"][:, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("t", "e"), [([1, 2, 3], [0, 0, 0]), ([1], [1]), ([2, 2], [1, 1]), ([1, 2], [0, 1]), ([], [])]
)
def test_undefined_concordance_is_nan_with_a_warning(t, e):
    with pytest.warns(UserWarning, match="undefined and returned as NaN"):
        assert np.isnan(sm.c_index(np.zeros(len(t)), np.array(e), np.array(t)))


def test_diverged_predictions_give_nan_not_an_end():
    with pytest.warns(UserWarning, match="finite predictions"):
        table = sm.cox_metrics([0.0, np.nan], [1.0, 2.0], [1, 1])
    assert np.isnan(table["c_index"])


def test_an_empty_group_of_events_is_nan(golden_npz, golden_json):
    errors = sm.time_errors(torch.tensor([0.5, 0.2]), torch.tensor([0.4, 0.3]), torch.zeros(2), 1.0)
    assert np.isnan(errors["event_t_rae"])
    assert errors["nonevent_t_rae"] == pytest.approx(0.05)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.booleans()), min_size=3, max_size=12))
def test_concordance_is_unchanged_by_monotone_maps(rows):
    risk, t, e = (np.array([row[i] for row in rows], float) for i in range(3))
    events = [(i, j) for i in range(len(t)) for j in range(len(t)) if e[i] and (t[j] > t[i] or (t[j] == t[i] and not e[j]))]  # fmt: skip
    if not events:
        return
    expected = np.mean([(risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]) for i, j in events])
    assert sm.c_index(risk, e, t) == pytest.approx(expected, abs=1e-12)
    assert sm.c_index(np.exp(risk / 10), e, t) == pytest.approx(expected, abs=1e-12)


def test_settings_follow_the_configuration():
    assert sm.MetricSettings.from_config(Config()).bce_faithful is False
    faithful = sm.MetricSettings.from_config(Config(faithful=True, loss_recon_alpha=0.5))
    assert faithful.bce_faithful
    assert faithful.median_lower
    assert faithful.recon_alpha == 0.5
