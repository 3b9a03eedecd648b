import doctest

import numpy as np
import pytest
from scipy import stats

from medshared.metrics import survival_curves as c
from medshared.metrics.survival_data import UndefinedMetricWarning


def cohort(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Times without ties, so that conventions for ties cannot differ."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n), rng.permutation(3 * n)[:n] + 1.0


def curves(seed: int, n: int, grid: np.ndarray) -> np.ndarray:
    rate = np.random.default_rng(seed).uniform(0.002, 0.03, (n, 1))
    return np.exp(-rate * grid)


def test_docstring_examples_run() -> None:
    assert doctest.testmod(c).failed == 0


@pytest.mark.parametrize("seed", range(3))
def test_brier_scores_equal_torchsurv(seed: int) -> None:
    import torch
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.stats.ipcw import get_ipcw

    event, time = cohort(seed)
    train_event, train_time = cohort(seed + 50, 90)
    train_time += 0.5  # no censoring at the time of an event, where the oracle's weights are those after it
    grid = c.safe_time_grid(event, time, train_event, train_time, 12)
    survival = curves(seed, 60, grid)
    e, t, g = torch.tensor(event == 1), torch.tensor(time), torch.tensor(grid)
    te, tt = torch.tensor(train_event == 1), torch.tensor(train_time)
    metric = BrierScore()
    inside = torch.minimum(t, tt.max())  # the oracle refuses times beyond the training patients
    oracle = metric(
        torch.tensor(survival), e, t, g, get_ipcw(te, tt, inside).double(), get_ipcw(te, tt, g).double()
    )
    assert c.brier_score(survival, event, time, grid, train_event, train_time) == pytest.approx(
        oracle.numpy(), abs=1e-5
    )
    found = c.integrated_brier_score(survival, event, time, grid, train_event, train_time)
    assert found == pytest.approx(float(metric.integral()), abs=1e-5)


def test_brier_without_censoring_is_the_squared_error() -> None:
    time = np.array([2.0, 5.0, 7.0])
    grid = np.array([1.0, 4.0, 6.0])
    survival = curves(0, 3, grid)
    expected = ((survival - (time[:, None] > grid)) ** 2).mean(axis=0)
    assert c.brier_score(survival, np.ones(3), time, grid, np.ones(3), time) == pytest.approx(
        expected, abs=1e-12
    )


def test_the_true_curve_beats_others() -> None:
    rng = np.random.default_rng(0)
    time = rng.exponential(50, 4000)
    event = np.ones(4000)
    grid = np.linspace(5, 120, 20)
    scores = [
        c.integrated_brier_score(np.tile(np.exp(-grid / scale), (4000, 1)), event, time, grid, event, time)
        for scale in (25, 50, 100)
    ]
    assert scores[1] < min(scores[0], scores[2])


@pytest.mark.parametrize("seed", range(3))
def test_auc_equals_all_pairs_looked_at_one_by_one(seed: int) -> None:
    event, time = cohort(seed, 30)
    risk = np.random.default_rng(seed).integers(0, 6, 30).astype(float)
    train_event, train_time = cohort(seed + 9, 50)
    grid = c.safe_time_grid(event, time, train_event, train_time, 5)
    g = c.censoring_curve(train_event, train_time)
    found = c.time_dependent_auc(risk, event, time, grid, train_event, train_time)
    for at, auc in zip(grid, found.auc, strict=True):
        above = below = 0.0
        for i in range(30):
            for j in range(30):
                if event[i] and time[i] <= at < time[j]:
                    weight = 1.0 / float(g.before(time[i]))
                    below += weight
                    above += weight * (0.5 if risk[i] == risk[j] else float(risk[i] > risk[j]))
        assert auc == pytest.approx(above / below, abs=1e-12)
    assert np.nanmin(found.auc) <= found.mean <= np.nanmax(found.auc)
    varying = c.time_dependent_auc(
        np.repeat(risk[:, None], 5, axis=1), event, time, grid, train_event, train_time
    )
    assert np.array_equal(varying.auc, found.auc)


def test_the_safe_grid_stays_inside_both_follow_ups() -> None:
    event, time = np.array([1, 0, 1, 1]), np.array([10.0, 20.0, 30.0, 90.0])
    train_event, train_time = np.array([1, 1, 0, 1]), np.array([5.0, 15.0, 25.0, 60.0])
    grid = c.safe_time_grid(event, time, train_event, train_time, 7)
    assert grid.size == 7
    assert grid[0] > 10
    assert grid[-1] < 60
    # Everyone is censored at 25: nothing is known of the censoring later.
    grid = c.safe_time_grid(event, time, np.array([1, 0, 0]), np.array([5.0, 25.0, 25.0]))
    assert grid[-1] < 25
    assert np.isfinite(
        c.brier_score(curves(0, 4, grid), event, time, grid, [1, 0, 0], [5.0, 25.0, 25.0])[:-1]
    ).all()


@pytest.mark.parametrize(("event", "time"), [([0, 0], [1.0, 2.0]), ([1], [90.0]), ([], [])])
def test_without_a_safe_time_the_grid_is_empty(event: list[int], time: list[float]) -> None:
    with pytest.warns(UndefinedMetricWarning, match="time grid"):
        assert c.safe_time_grid(event, time, [1, 0], [5.0, 60.0]).size == 0


@pytest.mark.filterwarnings("error")
def test_undefined_scores_warn() -> None:
    for compute in (
        lambda: c.integrated_brier_score(np.zeros((1, 0)), [1], [1.0], [], [1], [1.0]),
        lambda: c.integrated_brier_score([[0.5]], [0], [9.0], [8.0], [1, 0], [5.0, 6.0]),
        lambda: c.time_dependent_auc([1.0, 2.0], [0, 0], [1.0, 2.0], [1.5], [1, 0], [1.0, 2.0]).mean,
        lambda: c.log_rank([1, 1], [1.0, 2.0], [0, 0]).p_value,
        lambda: c.log_rank([0, 0], [1.0, 2.0], [0, 1]).p_value,
    ):
        with pytest.warns(UndefinedMetricWarning):
            assert np.isnan(compute())


@pytest.mark.parametrize("seed", range(3))
def test_log_rank_of_two_groups_equals_its_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    event, time = rng.integers(0, 2, 70), rng.integers(1, 20, 70).astype(float)
    group = rng.integers(0, 2, 70)
    observed = expected = variance = 0.0
    for at in np.unique(time[event == 1]):
        n, n1 = (time >= at).sum(), ((time >= at) & (group == 1)).sum()
        d, d1 = ((time == at) & (event == 1)).sum(), ((time == at) & (event == 1) & (group == 1)).sum()
        observed, expected = observed + d1, expected + d * n1 / n
        if n > 1:
            variance += d * (n1 / n) * (1 - n1 / n) * (n - d) / (n - 1)
    found = c.log_rank(event, time, np.where(group == 1, "high", "low"))
    assert found.statistic == pytest.approx((observed - expected) ** 2 / variance, rel=1e-8)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 1), rel=1e-8)
    assert found.freedom == 1


@pytest.mark.parametrize(
    ("survival", "grid", "message"),
    [
        (np.ones((2, 3)), [1.0, 2.0], r"shape \[2, 2\]"),
        (np.full((2, 2), 1.5), [1.0, 2.0], "probabilities"),
        (np.ones((2, 2)), [2.0, 1.0], "increasing"),
    ],
)  # fmt: skip
def test_wrong_curves_are_refused(survival: np.ndarray, grid: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        c.brier_score(survival, [1, 0], [1.0, 2.0], grid, [1, 0], [1.0, 2.0])


def test_brier_with_ties_equals_its_formula() -> None:
    rng = np.random.default_rng(8)
    event, time = rng.integers(0, 2, 40), rng.integers(1, 12, 40).astype(float)
    train_event, train_time = rng.integers(0, 2, 60), rng.integers(1, 14, 60).astype(float)

    def uncensored(at: float, inclusive: bool) -> float:
        g = 1.0
        for when in np.unique(train_time[train_event == 0]):
            if when < at or (inclusive and when == at):
                left = (train_time >= when).sum() - ((train_time == when) & (train_event == 1)).sum()
                g *= 1 - ((train_time == when) & (train_event == 0)).sum() / left
        return g

    survival = curves(8, 40, np.array([5.0]))
    expected = 0.0
    for s, e, t in zip(survival[:, 0], event, time, strict=True):
        if t <= 5 and e:
            expected += s**2 / uncensored(t, inclusive=False)
        elif t > 5:
            expected += (1 - s) ** 2 / uncensored(5.0, inclusive=True)
    found = c.brier_score(survival, event, time, [5.0], train_event, train_time)
    assert found == pytest.approx([expected / 40], rel=1e-12)
