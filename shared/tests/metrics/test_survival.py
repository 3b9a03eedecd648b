import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.metrics import survival as s


def cohort(seed: int, n: int = 60, *, levels: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risks and times with many ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, n) / 7.0, rng.integers(0, 2, n), rng.integers(1, levels, n).astype(float)


def brute_force(
    risk: np.ndarray, event: np.ndarray, time: np.ndarray, tol: float = 1e-8
) -> tuple[int, int, int, int]:
    concordant = discordant = tied = same_time = 0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] == 1 and (time[j] > time[i] or (time[j] == time[i] and event[j] == 0)):
                same_time += time[i] == time[j]
                if abs(risk[i] - risk[j]) <= tol:
                    tied += 1
                elif risk[i] > risk[j]:
                    concordant += 1
                else:
                    discordant += 1
    return concordant, discordant, tied, int(same_time)


def test_docstring_examples_run() -> None:
    assert doctest.testmod(s).failed == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [3, 12, 1000])
def test_counts_equal_all_pairs_looked_at_one_by_one(seed: int, levels: int) -> None:
    data = cohort(seed, levels=levels)
    assert s.concordance_counts(*data) == brute_force(*data)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1e-8, 2e-8, 3e-8, 0.1, 0.1 + 1e-8, 0.1 + 1.0000001e-8, 1e8, 1e8 + 1e-8]),
            st.booleans(),
            st.integers(1, 5),
        ),
        max_size=25,
    )
)
def test_ties_within_the_tolerance_are_those_of_the_pair_itself(rows: list[tuple[float, bool, int]]) -> None:
    risk, event, time = (
        (np.array(column, dtype=float) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    )
    assert s.concordance_counts(risk, event, time) == brute_force(risk, event, time)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 3))
def test_the_index_depends_on_the_order_of_risks_only(seed: int, scale: float) -> None:
    risk, event, time = cohort(seed, 30)
    event[0], time[0], time[1] = 1, 1.0, 5.0
    found = s.concordance_index(risk, event, time)
    assert s.concordance_index(np.exp(scale * risk) - 7, event, time) == pytest.approx(found, abs=1e-12)
    assert s.concordance_index(-risk, event, time) == pytest.approx(1 - found, abs=1e-12)
    shuffled = np.random.default_rng(seed).permutation(30)
    assert s.concordance_index(risk[shuffled], event[shuffled], time[shuffled]) == found


@pytest.mark.parametrize("seed", range(4))
def test_the_index_equals_that_of_lifelines(seed: int) -> None:
    from lifelines.utils import concordance_index as oracle

    rng = np.random.default_rng(seed)
    risk = rng.integers(0, 40, 200) / 8.0
    event = rng.integers(0, 2, 200)
    # lifelines counts two events at one time as a pair; distinct times leave that out.
    time = rng.permutation(200) + 1.0
    assert s.concordance_index(risk, event, time) == pytest.approx(oracle(time, -risk, event), abs=1e-12)


def test_the_index_equals_that_of_torchsurv() -> None:
    import torch
    from torchsurv.metrics.cindex import ConcordanceIndex

    risk, event, time = cohort(3, 80)
    oracle = ConcordanceIndex()(torch.tensor(risk), torch.tensor(event == 1), torch.tensor(time))
    assert s.concordance_index(risk, event, time) == pytest.approx(float(oracle), abs=1e-6)


def test_large_cohorts_are_counted_exactly() -> None:
    risk, event, time = cohort(0, 3000, levels=500)
    later = (time[None] > time[:, None]) | ((time[None] == time[:, None]) & (event[None] == 0))
    pairs = later & (event[:, None] == 1)
    difference = risk[:, None] - risk[None]
    tied = pairs & (np.abs(difference) <= 1e-8)
    found = s.concordance_counts(risk, event, time)
    assert found.comparable == pairs.sum()
    assert found.tied_risk == tied.sum()
    assert found.concordant == (pairs & ~tied & (difference > 0)).sum()


@pytest.mark.parametrize(
    ("event", "time"),
    [([], []), ([1], [2.0]), ([0, 0, 0], [1.0, 2.0, 3.0]), ([1, 1], [4.0, 4.0]), ([0, 1], [1.0, 2.0])],
    ids=["nobody", "one", "all censored", "equal times", "event last"],
)
def test_without_comparable_pairs_the_index_is_undefined(event: list[int], time: list[float]) -> None:
    with pytest.warns(s.UndefinedMetricWarning, match="no pair is comparable"):
        assert np.isnan(s.concordance_index(np.arange(float(len(event))), event, time))


def test_a_defined_index_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert s.concordance_index([2.0, 1.0], [1, 0], [1.0, 1.0]) == 1.0


@pytest.mark.parametrize(
    ("risk", "event", "time", "message"),
    [
        ([1.0], [1, 0], [1.0, 2.0], "risk must have the shape"),
        ([1.0, 2.0], [1], [1.0, 2.0], "equal length"),
        ([1.0, 2.0], [1, 2], [1.0, 2.0], "event must be 0 or 1, found 2 at position 1"),
        ([1.0, np.nan], [1, 0], [1.0, 2.0], "risk must be a finite number, found nan at position 1"),
        ([1.0, 2.0], [1, 0], [np.inf, 2.0], "time must be a finite number, found inf at position 0"),
    ],
)
def test_wrong_input_is_named(risk: list, event: list, time: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        s.concordance_index(risk, event, time)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="tied_tol"):
        s.concordance_index([1.0, 2.0], [1, 0], [1.0, 2.0], tied_tol=-1.0)


@pytest.mark.parametrize("seed", range(3))
def test_uno_equals_torchsurv_without_ties(seed: int) -> None:
    import torch
    from torchsurv.metrics.cindex import ConcordanceIndex
    from torchsurv.stats.ipcw import get_ipcw

    rng = np.random.default_rng(seed)
    event, time = rng.integers(0, 2, 60), rng.permutation(60) + 1.0
    risk = rng.normal(size=60)
    weight = get_ipcw(torch.tensor(event == 1), torch.tensor(time)).double()
    oracle = ConcordanceIndex()(
        torch.tensor(risk),
        torch.tensor(event == 1),
        torch.tensor(time),
        weight=weight,
        tmax=torch.tensor(60.0),
    )
    assert s.uno_c_index(risk, event, time, event, time) == pytest.approx(float(oracle), abs=1e-5)


def test_uno_equals_the_weighted_sum_over_pairs() -> None:
    risk, event, time = cohort(5, 40)
    train_event, train_time = cohort(6, 50)[1:]
    tau = float(train_time.max())
    above = below = 0.0
    for i in range(40):
        if not event[i] or time[i] >= tau:
            continue
        g = 1.0  # product over censoring times before t_i; events at a tie have left before the censored
        for at in np.unique(train_time[train_event == 0]):
            if at < time[i]:
                left = (train_time >= at).sum() - ((train_time == at) & (train_event == 1)).sum()
                g *= 1 - ((train_time == at) & (train_event == 0)).sum() / left
        for j in range(40):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                below += g**-2
                above += g**-2 * (0.5 if risk[i] == risk[j] else float(risk[i] > risk[j]))
    assert s.uno_c_index(risk, event, time, train_event, train_time) == pytest.approx(
        above / below, rel=1e-12
    )


def test_uno_is_undefined_without_events() -> None:
    with pytest.warns(s.UndefinedMetricWarning, match="Uno"):
        assert np.isnan(s.uno_c_index([1.0, 2.0], [0, 0], [1.0, 2.0], [1, 0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="training patients"):
        s.uno_c_index([1.0, 2.0], [0, 1], [1.0, 2.0], [], [])


@pytest.mark.parametrize("seed", range(3))
def test_matrices_give_the_index_of_a_resample(seed: int) -> None:
    risk, event, time = cohort(seed, 50)
    score, comparable = s.concordance_matrices(risk, event, time)
    drawn = np.random.default_rng(seed).integers(0, 50, 50)
    m = np.bincount(drawn, minlength=50)
    assert (m @ score @ m) / (m @ comparable @ m) == pytest.approx(
        s.concordance_index(risk[drawn], event[drawn], time[drawn]), abs=1e-12
    )
