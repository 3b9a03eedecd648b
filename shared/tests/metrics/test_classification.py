import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from medshared.metrics import classification as c


def sample(seed: int, n: int = 200, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    score = rng.normal(target * 0.8, 1.0)
    return (np.round(score, 1) if ties else score), target


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


labelled_scores = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.integers(-20, 20).map(lambda i: i / 4)),
        arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)


def test_docstring_examples_run() -> None:
    assert doctest.testmod(c).failed == 0


@pytest.mark.parametrize("seed", range(5))
def test_roc_auc_equals_sklearn(seed: int) -> None:
    score, target = sample(seed)
    assert c.roc_auc(score, target) == pytest.approx(sk.roc_auc_score(target, score), abs=1e-12)


@given(labelled_scores)
def test_roc_auc_equals_counting_pairs(data: tuple[np.ndarray, np.ndarray]) -> None:
    score, target = data
    positives, negatives = score[target == 1], score[target == 0]
    if not positives.size or not negatives.size:
        assert np.isnan(c.roc_auc(score, target))
        return
    above = (positives[:, None] > negatives).mean() + 0.5 * (positives[:, None] == negatives).mean()
    assert c.roc_auc(score, target) == pytest.approx(above, abs=1e-12)


@given(labelled_scores)
def test_roc_auc_depends_on_ranks_only(data: tuple[np.ndarray, np.ndarray]) -> None:
    score, target = data
    if 0 < target.sum() < target.size:
        auc = c.roc_auc(score, target)
        assert c.roc_auc(np.exp(score) * 3 + 7, target) == auc
        assert c.roc_auc(-score, target) == pytest.approx(1 - auc, abs=1e-12)
        assert c.roc_auc(score, 1 - target) == pytest.approx(1 - auc, abs=1e-12)


def test_roc_auc_of_nan_scores_or_one_class_is_undefined() -> None:
    assert np.isnan(c.roc_auc([np.nan, 1.0, 0.0], [1, 1, 0]))
    assert np.isnan(c.roc_auc([0.1, 0.2], [1, 1]))
    assert np.isnan(c.roc_auc([], []))


def test_roc_auc_knows_infinite_scores() -> None:
    assert c.roc_auc([-np.inf, 0.0, np.inf], [0, 0, 1]) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_roc_curve_and_average_precision_equal_sklearn(seed: int) -> None:
    score, target = sample(seed)
    curve = c.roc_curve(score, target)
    fpr, tpr, threshold = sk.roc_curve(target, score, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.true_positive_rate, tpr, atol=1e-12)
    np.testing.assert_array_equal(curve.threshold, threshold)
    assert c.average_precision(score, target) == pytest.approx(
        sk.average_precision_score(target, score), abs=1e-12
    )


@given(labelled_scores)
def test_area_under_the_curve_is_the_auc(data: tuple[np.ndarray, np.ndarray]) -> None:
    score, target = data
    if 0 < target.sum() < target.size:
        curve = c.roc_curve(score, target)
        area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
        assert area == pytest.approx(c.roc_auc(score, target), abs=1e-12)


@pytest.mark.parametrize("strict", [False, True])
def test_binary_metrics_equal_sklearn(strict: bool) -> None:
    score, target = sample(11)
    decision = score > 0.5 if strict else score >= 0.5
    found = c.binary_metrics(score, target, strict=strict)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(target, decision))
    assert found["precision"] == pytest.approx(sk.precision_score(target, decision))
    assert found["recall"] == pytest.approx(sk.recall_score(target, decision))
    assert found["f1"] == pytest.approx(sk.f1_score(target, decision))
    assert found["specificity"] == pytest.approx(sk.recall_score(target, decision, pos_label=0))


def test_score_equal_to_the_threshold_is_positive_unless_strict() -> None:
    assert c.binary_metrics([0.5], [1])["recall"] == 1.0
    assert c.binary_metrics([0.5], [1], strict=True)["recall"] == 0.0


def test_nan_score_is_a_negative_decision() -> None:
    found = c.binary_metrics([np.nan, 0.9, 0.1], [1, 1, 0])
    assert (found["recall"], found["precision"]) == (0.5, 1.0)
    assert np.isnan(found["auc"])


def test_ratios_of_nothing_are_zero() -> None:
    found = c.binary_metrics([0.1, 0.2], [0, 0])
    assert (found["precision"], found["recall"], found["f1"], found["accuracy"]) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("score", "target", "message"),
    [
        ([], [], "no samples"),
        ([0.1, 0.2], [1], "2 entries but target has 1"),
        ([[0.1]], [[1]], "one dimension"),
        ([0.1, 0.2], [1, 2], r"only 0 and 1, found \[2\]"),
    ],
)
def test_bad_input_is_refused(score: list, target: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        c.binary_metrics(score, target)


def test_decisions_that_are_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="compare scores with a threshold"):
        c.confusion_counts([0.2, 0.9], [0, 1])


def test_calibration_table_equals_sklearn() -> None:
    z, target = sample(3, 500, ties=False)
    p = sigmoid(z)
    table = c.calibration_table(p, target)
    rate, mean = calibration_curve(target, p, n_bins=10)
    np.testing.assert_allclose(table.observed_rate, rate, atol=1e-12)
    np.testing.assert_allclose(table.mean_probability, mean, atol=1e-12)
    assert table.n.sum() == 500


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 15))
def test_calibration_table_keeps_every_sample(pairs: list, n_bins: int) -> None:
    p, y = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    table = c.calibration_table(p, y, n_bins)
    assert table.n.sum() == p.size
    assert (table.n > 0).all()
    assert np.sum(table.n * table.mean_probability) == pytest.approx(p.sum(), abs=1e-9)
    assert np.sum(table.n * table.observed_rate) == pytest.approx(y.sum(), abs=1e-9)
    assert 0.0 <= c.expected_calibration_error(p, y, n_bins) <= 1.0


def test_brier_score_equals_sklearn() -> None:
    z, target = sample(4, ties=False)
    assert c.brier_score(sigmoid(z), target) == pytest.approx(
        sk.brier_score_loss(target, sigmoid(z)), abs=1e-14
    )


def test_probabilities_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="apply the sigmoid"):
        c.brier_score([1.2], [1])


@given(labelled_scores)
@settings(max_examples=60)
def test_best_threshold_is_as_good_as_any(data: tuple[np.ndarray, np.ndarray]) -> None:
    score, target = data
    if not 0 < target.sum() < target.size:
        return

    def youden(threshold: float) -> float:
        m = c.binary_metrics(score, target, threshold)
        return m["recall"] + m["specificity"] - 1

    tried = np.r_[score - 0.01, score, score + 0.01]
    assert youden(c.best_threshold(score, target)) >= max(youden(t) for t in tried) - 1e-12
    best_f1 = c.binary_metrics(score, target, c.best_threshold(score, target, "f1"))["f1"]
    assert best_f1 >= max(c.binary_metrics(score, target, t)["f1"] for t in tried) - 1e-12


def test_best_threshold_needs_both_classes_and_a_known_criterion() -> None:
    with pytest.raises(ValueError, match="both classes"):
        c.best_threshold([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="'youden' or 'f1'"):
        c.best_threshold([0.1, 0.2], [0, 1], "gini")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_temperature_minimises_the_cross_entropy(seed: int) -> None:
    z, target = sample(seed, 300, ties=False)
    temperature = c.fit_temperature(z, target)

    def loss(t: float) -> float:
        return float(np.mean(np.logaddexp(0, np.where(target == 1, -z, z) / t)))

    assert loss(temperature) <= min(loss(temperature * f) for f in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
    assert c.fit_temperature(2 * z, target) == pytest.approx(2 * temperature, rel=1e-6)


def test_temperature_of_separable_data_reaches_the_bound() -> None:
    assert c.fit_temperature([-3.0, 4.0], [0, 1]) == pytest.approx(0.01, rel=1e-6)
