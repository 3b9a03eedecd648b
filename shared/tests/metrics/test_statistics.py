import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from medshared.metrics import statistics as s
from medshared.metrics.classification import roc_auc


def scores(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.arange(n) % 2)
    return np.round(rng.normal(target, 1), 1), np.round(rng.normal(target * 0.5, 1), 1), target


def kernel(score: np.ndarray, target: np.ndarray) -> np.ndarray:
    positives, negatives = score[target == 1], score[target == 0]
    return (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)


def test_docstring_examples_run() -> None:
    assert doctest.testmod(s).failed == 0


@pytest.mark.parametrize("seed", range(4))
def test_delong_equals_the_definition_by_all_pairs(seed: int) -> None:
    a, b, target = scores(seed)
    ka, kb = kernel(a, target), kernel(b, target)
    auc, variance = s.delong_variance(a, target)
    expected = ka.mean(1).var(ddof=1) / ka.shape[0] + ka.mean(0).var(ddof=1) / ka.shape[1]
    assert auc == pytest.approx(roc_auc(a, target), abs=1e-12)
    assert variance == pytest.approx(expected, rel=1e-10)

    covariance = [
        np.cov(ka.mean(axis), kb.mean(axis)) / count for axis, count in ((1, ka.shape[0]), (0, ka.shape[1]))
    ]
    total = covariance[0] + covariance[1]
    z = (ka.mean() - kb.mean()) / np.sqrt(total[0, 0] + total[1, 1] - 2 * total[0, 1])
    result = s.delong_test(a, b, target)
    assert result.statistic == pytest.approx(z, rel=1e-9)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)
    assert result.low < result.difference < result.high


def test_delong_interval_covers_at_its_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    target = np.arange(100) % 2
    intervals = [s.delong_interval(rng.normal(target, 1), target) for _ in range(300)]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    assert 0.90 < covered < 0.99


def test_delong_of_equal_rankings_finds_no_difference() -> None:
    a, _, target = scores(1)
    assert s.delong_test(a, 2 * a + 1, target).p_value == 1.0


def test_delong_needs_two_samples_of_each_class() -> None:
    with pytest.raises(ValueError, match="two samples of each class"):
        s.delong_variance([0.1, 0.2, 0.3], [0, 0, 1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels_and_keeps_the_order(p: list[float]) -> None:
    adjusted = s.holm(p)
    np.testing.assert_allclose(adjusted, multipletests(p, method="holm")[1], atol=1e-12)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= np.array(p)).all()


def test_holm_leaves_undefined_tests_out() -> None:
    np.testing.assert_allclose(s.holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        s.holm([1.2])


@pytest.mark.parametrize("seed", range(3))
def test_t_tests_equal_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.3, 1, 15), rng.normal(0, 2, 15)
    paired, independent = s.paired_t_test(a, b), s.two_sample_t_test(a, b[:9])
    oracle = stats.ttest_rel(a, b)
    assert (paired.statistic, paired.p_value) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-10)
    assert (paired.low, paired.high) == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-9)
    oracle = stats.ttest_ind(a, b[:9])
    assert (independent.statistic, independent.p_value) == pytest.approx(
        (oracle.statistic, oracle.pvalue), rel=1e-10
    )
    assert (independent.low, independent.high) == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-9)


def test_t_test_without_spread_is_defined() -> None:
    assert s.paired_t_test([1.0, 2.0], [1.0, 2.0]).p_value == 1.0
    assert s.paired_t_test([2.0, 3.0], [1.0, 2.0]).p_value == 0.0


def test_paired_t_test_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="join them by key"):
        s.paired_t_test([1.0, 2.0], [1.0])


def test_nadeau_bengio_widens_the_t_test() -> None:
    d = np.array([0.1, 0.3, 0.2, 0.15, 0.25])
    plain, corrected = s.paired_t_test(d, np.zeros(5)), s.nadeau_bengio(d, 80, 20)
    assert corrected.statistic == pytest.approx(plain.statistic * np.sqrt(0.2 / (0.2 + 0.25)), rel=1e-12)
    assert corrected.p_value == pytest.approx(2 * stats.t.sf(corrected.statistic, 4), rel=1e-10)
    assert corrected.high - corrected.low > plain.high - plain.low


def test_fold_summary_uses_the_population_deviation_and_passes_over_undefined_folds() -> None:
    found = s.fold_summary([0.2, np.nan, 0.6])
    assert (found["mean"], found["std"], found["min"], found["max"]) == pytest.approx((0.4, 0.2, 0.2, 0.6))
    assert len(found["values"]) == 3  # type: ignore[arg-type]
    assert np.isnan(s.fold_summary([np.nan])["mean"])  # type: ignore[call-overload]


def test_fold_summary_can_average_in_single_precision() -> None:
    values = [0.9968586387434555, 0.9979057591623037, 0.9989528795811518]
    assert s.fold_summary(values, single_precision=True)["mean"] == float(np.float32(values).mean())


@settings(max_examples=30)
@given(st.lists(st.integers(-24, 24).map(lambda i: i / 8), min_size=1, max_size=9))
def test_sign_flips_are_symmetric_and_equal_brute_force(values: list[float]) -> None:
    d = np.array(values)
    patterns = (np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1
    sums = np.abs((2 * patterns - 1) @ d)
    expected = np.mean(sums >= abs(d.sum()) - 1e-9)
    assert s.paired_permutation_test(d) == pytest.approx(
        expected, abs=2.0 / 2**d.size if d.size > 4 else 1e-12
    )
    assert s.paired_permutation_test(-d) == s.paired_permutation_test(d)
