"""The pool: who stays, who plays, and the record."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spars.opponents import Member, OpponentPool


def filled(size: int, sampling="uniform", n: int | None = None) -> OpponentPool:
    pool = OpponentPool(size, sampling)
    for i in range(size if n is None else n):
        pool.add({"w": torch.full((2,), float(i))}, i)
    return pool


def shares(pool: OpponentPool, draws: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.bincount([pool.choose(rng) for _ in range(draws)], minlength=len(pool)) / draws


@given(st.integers(1, 6), st.integers(1, 20))
def test_the_oldest_leaves_first(size, n) -> None:
    pool = filled(size, n=n)
    kept = list(range(n))[-size:]
    assert [member.iteration for member in pool.members] == kept
    assert [float(pool.state_of(i)["w"][0]) for i in range(len(pool))] == kept


def test_copies_are_frozen() -> None:
    weights = torch.nn.Parameter(torch.zeros(3))
    pool = OpponentPool(2)
    pool.add({"w": weights}, 0)
    with torch.no_grad():
        weights += 1
    assert pool.state_of(0)["w"].tolist() == [0, 0, 0]
    assert not pool.state_of(0)["w"].requires_grad


def test_uniform_draws_every_copy_alike() -> None:
    np.testing.assert_allclose(shares(filled(5)), 0.2, atol=0.03)


def test_latest_half_draws_the_latest_in_half_of_the_rounds_and_any_in_the_others() -> None:
    found = shares(filled(4, "latest-half"))
    np.testing.assert_allclose(found, [0.125, 0.125, 0.125, 0.625], atol=0.03)
    assert shares(filled(1, "latest-half"), 10).tolist() == [1]


def test_prioritised_draws_by_the_square_of_what_the_learner_loses() -> None:
    pool = filled(3, "prioritised")
    pool.record(0, [1.0] * 9 + [-1.0])  # win rate 0.9
    pool.record(1, [-1.0] * 10)  # win rate 0; the third has not played: 0.5
    np.testing.assert_allclose(shares(pool), np.array([0.01, 1, 0.25]) / 1.26, atol=0.03)


def test_prioritised_draws_alike_when_the_learner_beats_all() -> None:
    pool = filled(4, "prioritised")
    for i in range(4):
        pool.record(i, [1.0])
    np.testing.assert_allclose(shares(pool), 0.25, atol=0.03)


def test_wins_draws_and_losses() -> None:
    pool = filled(2)
    pool.record(1, [2.0, 0.0, -0.5, 1e-9])
    pool.record(1, [])
    assert pool.table()[1] == {"iteration": 1, "wins": 2, "draws": 1, "losses": 1, "win_rate": 0.625}
    assert Member(3).win_rate == 0.5


def test_a_state_is_the_whole_pool() -> None:
    pool = filled(3, n=5)
    pool.record(2, [1.0])
    other = OpponentPool(3, "uniform")
    other.load_state_dict(pool.state_dict())
    assert other.table() == pool.table()
    assert all(torch.equal(other.state_of(i)["w"], pool.state_of(i)["w"]) for i in range(3))
    other.add({"w": torch.zeros(2)}, 9)
    assert [member.iteration for member in pool.members] == [2, 3, 4]


def test_an_empty_pool_is_named() -> None:
    with pytest.raises(ValueError, match="the pool of opponents is empty"):
        OpponentPool().choose(np.random.default_rng(0))
