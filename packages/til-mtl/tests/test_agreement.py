"""Agreement statistics against goldens, scipy and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from til_mtl.agreement import (
    agreement,
    bland_altman,
    calibrate,
    concordance_correlation,
    pairwise_concordance,
)

scores = st.lists(st.integers(0, 100), min_size=3, max_size=12)


def test_statistics_equal_the_goldens(golden_json, golden_npz):
    wanted, arrays = golden_json("tiger")["agreement"], golden_npz("tiger")
    found = agreement(arrays["agreement.pred"], arrays["agreement.truth"])
    assert {key: pytest.approx(value, rel=1e-12) for key, value in wanted.items()}.items() <= found.items()


@given(scores, st.randoms(use_true_random=False))
def test_concordance_is_the_share_of_pairs_ordered_alike(truth, random):
    estimate = [random.randint(0, 5) for _ in truth]
    pairs = [
        0.5 if a == b else float((a < b) == (s < t))
        for (a, s), (b, t) in itertools.combinations(zip(estimate, truth, strict=True), 2)
        if s != t
    ]
    found = pairwise_concordance(np.array(estimate, float), np.array(truth, float))
    assert found == pytest.approx(np.mean(pairs)) if pairs else math.isnan(found)


@given(scores)
def test_a_shift_lowers_lins_coefficient_but_not_the_ranks(truth):
    t = np.array(truth, float)
    shifted = agreement(t + 10, t)
    if np.ptp(t) == 0:
        assert math.isnan(shifted["spearman_rho"])
        return
    assert concordance_correlation(t, t) == pytest.approx(1)
    assert shifted["ccc"] < 1
    assert shifted["spearman_rho"] == pytest.approx(1)
    assert shifted["bias"] == pytest.approx(10)


def test_bland_altman_uses_the_sample_standard_deviation():
    found = bland_altman([1.0, 5.0, 3.0], [0.0, 0.0, 0.0])
    assert found == pytest.approx((3.0, 3 - 1.96 * 2, 3 + 1.96 * 2))


def test_linear_calibration_undoes_a_linear_distortion():
    truth = np.linspace(5, 90, 20)
    found = calibrate(0.3 * truth + 4, truth, "linear", 5, 0)
    np.testing.assert_allclose(found, truth, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "isotonic"])
def test_a_slide_never_sees_its_own_truth(kind):
    rng = np.random.default_rng(0)
    estimate, truth = rng.uniform(0, 100, 12), rng.uniform(0, 100, 12)
    before = calibrate(estimate, truth, kind, 12, 3)
    changed = truth.copy()
    changed[4] = 1.0
    assert calibrate(estimate, changed, kind, 12, 3)[4] == before[4]


def test_noise_is_not_calibrated_into_agreement():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 100, 60)
    found = calibrate(rng.uniform(0, 100, 60), truth, "isotonic", 5, 0)
    assert abs(agreement(found, truth)["pearson_r"]) < 0.4


@pytest.mark.parametrize("folds", [1, 4])
def test_calibration_needs_folds_and_slides(folds):
    with pytest.raises(ValueError, match="at least 2 folds"):
        calibrate([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "linear", folds, 0)


def test_scores_that_are_missing_are_refused():
    with pytest.raises(ValueError, match="leave out the slides without a score"):
        agreement([1.0, math.nan], [1.0, 2.0])
