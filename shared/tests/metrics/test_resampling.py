import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medshared.metrics import resampling as r


def test_docstring_examples_run() -> None:
    assert doctest.testmod(r).failed == 0


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 1000))
def test_draws_hold_whole_groups_and_as_many_as_the_data(groups: list[int], seed: int) -> None:
    code = np.array(groups)
    resampler = r.GroupResampler(code)
    indices = resampler.draw(np.random.default_rng(seed))
    counts = np.bincount(indices, minlength=code.size)
    for group in np.unique(code):
        assert np.unique(counts[code == group]).size == 1
    drawn = sum(int(counts[code == group][0]) for group in np.unique(code))
    assert drawn == resampler.n_groups


def test_one_group_per_sample_is_the_ordinary_bootstrap() -> None:
    x = np.random.default_rng(1).normal(size=40)
    interval = r.cluster_bootstrap(lambda i: float(x[i].mean()), np.arange(40), 2000, rng=3)
    rng = np.random.default_rng(3)
    means = [x[rng.integers(0, 40, 40)].mean() for _ in range(2000)]
    assert (interval.low, interval.high) == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12
    )
    oracle = stats.bootstrap(
        (x,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    )
    assert interval.low == pytest.approx(oracle.confidence_interval.low, abs=0.05)
    assert interval.high == pytest.approx(oracle.confidence_interval.high, abs=0.05)


def test_correlated_samples_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 30)
    x = rng.normal(size=12)[groups] + 0.1 * rng.normal(size=360)
    by_group = r.cluster_bootstrap(lambda i: float(x[i].mean()), groups, 400)
    by_sample = r.cluster_bootstrap(lambda i: float(x[i].mean()), np.arange(360), 400)
    assert by_group.n_groups == 12
    assert by_group.high - by_group.low > 3 * (by_sample.high - by_sample.low)


def test_strata_keep_their_number_of_groups() -> None:
    groups, strata = np.repeat(np.arange(6), 3), np.repeat([0, 0, 1, 1, 1, 1], 3)
    resampler = r.GroupResampler(groups, strata)
    for indices in resampler.draws(20, np.random.default_rng(0)):
        assert np.count_nonzero(strata[indices] == 0) == 6


def test_strata_within_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match="constant within a group"):
        r.GroupResampler([0, 0, 1], [0, 1, 1])


@pytest.mark.parametrize("strata", [None, [0, 0, 1, 1]])
def test_interval_without_variation_is_undefined(strata: list[int] | None) -> None:
    groups = [0, 0, 0, 0] if strata is None else [0, 0, 1, 1]
    interval = r.cluster_bootstrap(lambda i: 1.0, groups, 50, strata=strata)
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)
    assert interval.estimate == 1.0


def test_undefined_resamples_are_counted() -> None:
    groups = np.arange(4)
    interval = r.cluster_bootstrap(lambda i: float("nan") if 0 in i else float(i.mean()), groups, 500)
    assert 0 < interval.n_valid < 500
    assert interval.low >= 1.0


def test_same_seed_same_interval() -> None:
    x = np.arange(20.0)
    first, second = (r.cluster_bootstrap(lambda i: float(x[i].mean()), x // 2, 100, rng=5) for _ in range(2))
    assert first == second


def test_paired_interval_removes_what_both_models_share() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(0, 10, 50)
    a, b = base + 0.5 + 0.01 * rng.normal(size=50), base
    interval = r.paired_cluster_bootstrap(lambda i: a[i].mean(), lambda i: b[i].mean(), np.arange(50), 300)
    assert 0.49 < interval.low < interval.high < 0.51


def test_swap_test_of_means_equals_the_sign_flip_test() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.4, 1, 9), rng.normal(0, 1, 9)

    def difference(mask: np.ndarray) -> float:
        return float(np.where(mask, b, a).mean() - np.where(mask, a, b).mean())

    exact = r.cluster_swap_test(difference, np.arange(9), 1000)
    assert exact == pytest.approx(r.paired_permutation_test(a - b), abs=1e-12)
    sampled = r.cluster_swap_test(difference, np.arange(9), 400, rng=1)
    assert sampled == pytest.approx(exact, abs=0.1)


def test_permutation_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(0)
    p = [r.paired_permutation_test(rng.normal(size=10)) for _ in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_sampled_permutations_agree_with_all_of_them() -> None:
    d = np.random.default_rng(1).normal(0.3, 1, 12)
    assert r.paired_permutation_test(d, 0, exact=False) == pytest.approx(
        r.paired_permutation_test(d), abs=0.03
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_resamples": -1}, "n_resamples"),
        ({"confidence": 1.0}, "confidence"),
        ({"groups": []}, "at least one entry"),
    ],
)
def test_bad_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        r.cluster_bootstrap(lambda i: 0.0, **{"groups": [0, 1], **arguments})
