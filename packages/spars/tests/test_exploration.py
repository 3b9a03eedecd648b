"""Searches score exactly their budget, look at nothing else, and do what a slow twin does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.agent import Agent, AgentMeta, build_policy
from spars.errors import DataError
from spars.exploration import (
    SearchSettings,
    best_first,
    budget_of,
    greedy_climb,
    neighbours,
    random_walk,
    search,
    top_windows,
)
from spars.game.views import Views
from spars.lattice import Lattice


class Meter:
    """Scores that may be asked for; counts what is computed."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.asked: set[int] = set()

    def __call__(self, flat: np.ndarray) -> np.ndarray:
        self.asked |= set(np.asarray(flat).tolist())
        return self.scores[flat]


def lattice_of(shape) -> Lattice:
    return Lattice(tuple(n + 3 for n in shape), (4, 4, 4), 1)  # type: ignore[arg-type]


@st.composite
def tasks(draw):
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3))
    lattice = lattice_of(shape)
    assert lattice.shape == shape
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    scores = rng.random(len(lattice), np.float32)
    if draw(st.booleans()):
        scores = np.round(scores, 1)  # ties
    return lattice, scores, draw(st.integers(1, len(lattice) + 3))


def slow_neighbours(lattice: Lattice, flat: int) -> list[int]:
    shape = lattice.shape
    index = np.array(np.unravel_index(flat, shape))
    found = []
    for axis, sign in ((2, 1), (2, -1), (1, 1), (1, -1), (0, 1), (0, -1)):
        other = index.copy()
        other[axis] += sign
        if 0 <= other[axis] < shape[axis]:
            found.append(int(np.ravel_multi_index(tuple(other), shape)))
    return found


@given(tasks())
def test_neighbours_are_one_move_away(task) -> None:
    lattice, _, _ = task
    for flat in range(len(lattice)):
        assert neighbours(lattice, flat) == slow_neighbours(lattice, flat)


def slow_climb(lattice: Lattice, scores, budget: int) -> set[int]:
    """Greedy ascent from the centre, score by score."""
    here = int(lattice.flat(lattice.centre))
    scored = [here]
    while True:
        for place in slow_neighbours(lattice, here):
            if place not in scored and len(scored) < budget:
                scored.append(place)
        around = [p for p in slow_neighbours(lattice, here) if p in scored]
        better = [p for p in around if scores[p] > scores[here]]
        if len(scored) >= budget or not better:
            return set(scored)
        here = max(better, key=lambda p: scores[p])


@settings(max_examples=60, deadline=None)
@given(tasks())
def test_the_greedy_climb(task) -> None:
    lattice, scores, budget = task
    meter = Meter(scores)
    seen = greedy_climb(lattice, meter, budget)
    assert set(np.flatnonzero(seen)) == slow_climb(lattice, scores, min(budget, len(lattice))) == meter.asked


@settings(max_examples=60, deadline=None)
@given(tasks())
def test_best_first_scores_beside_the_best_window_that_has_unscored_neighbours(task) -> None:
    lattice, scores, budget = task
    budget = min(budget, len(lattice))
    meter = Meter(scores)
    seen = best_first(lattice, meter, budget)
    scored = [int(lattice.flat(lattice.centre))]
    while len(scored) < budget:
        open_ones = [p for p in scored if any(q not in scored for q in slow_neighbours(lattice, p))]
        best = min(open_ones, key=lambda p: (-scores[p], p))
        scored += [q for q in slow_neighbours(lattice, best) if q not in scored][: budget - len(scored)]
    assert set(np.flatnonzero(seen)) == set(scored) == meter.asked


@settings(max_examples=60, deadline=None)
@given(tasks(), st.integers(0, 99))
def test_climbs_and_walks_spend_the_budget_and_are_repeatable(task, seed) -> None:
    lattice, scores, budget = task
    exact = min(budget, len(lattice))
    meter = Meter(scores)
    climbs = [greedy_climb(lattice, meter, budget, np.random.default_rng(seed)) for _ in range(2)]
    walks = [random_walk(lattice, budget, np.random.default_rng(seed)) for _ in range(2)]
    for first, second in (climbs, walks):
        assert first.sum() == exact
        np.testing.assert_array_equal(first, second)
    assert meter.asked == set(np.flatnonzero(climbs[0]))
    # A walk is connected: from its start every window is reached through windows of the walk.
    seen, queue = {int(lattice.flat(lattice.centre))}, [int(lattice.flat(lattice.centre))]
    while queue:
        for place in slow_neighbours(lattice, queue.pop()):
            if walks[0][place] and place not in seen:
                seen.add(place)
                queue.append(place)
    assert seen == set(np.flatnonzero(walks[0]))


def test_a_walk_from_another_start_and_its_law() -> None:
    lattice = lattice_of((3, 3, 3))
    assert random_walk(lattice, 1, np.random.default_rng(0), np.array([0, 0, 0]))[0]
    # From a corner of the lattice the second window is one of three, each as likely.
    second = [random_walk(lattice, 2, np.random.default_rng(s), np.zeros(3, np.int64)) for s in range(900)]
    counts = np.sum(second, axis=0)
    np.testing.assert_allclose(counts[[1, 3, 9]] / 900, 1 / 3, atol=0.06)


@pytest.mark.parametrize("count", [1, 5, 27])
def test_the_best_windows(count) -> None:
    scores = np.random.default_rng(0).random(27).round(1)
    seen = top_windows(scores, count)
    assert seen.sum() == count
    assert sorted(scores[seen]) == sorted(scores)[27 - count :]


def test_more_windows_than_there_are() -> None:
    with pytest.raises(DataError, match="count must be from 1 to 3, found 4"):
        top_windows(np.zeros(3), 4)


@pytest.mark.parametrize(("share", "expected"), [(0.1, 56), (1.0, 567), (0.0, 1), (0.0001, 1), (1 / 567, 1)])
def test_a_budget_is_rounded_down(share, expected) -> None:
    assert budget_of(Lattice((48, 48, 32), (12, 12, 8)), share) == expected
    assert budget_of(lattice_of((10, 10, 1)), 0.29) == 29  # 0.29 · 100 is 28.999999999999996


AGENTS: dict[tuple, Agent] = {}


def agent_of(lattice: Lattice, memory: int = 1) -> Agent:
    key = (lattice.grid, memory)
    if key not in AGENTS:
        meta = AgentMeta("mlp", lattice.grid, lattice.window, lattice.step, 1, 3, memory)
        torch.manual_seed(len(AGENTS))
        AGENTS[key] = Agent(build_policy(meta), meta)
    return AGENTS[key]


def volume_of(lattice: Lattice) -> np.ndarray:
    return np.random.default_rng(1).random(lattice.grid, np.float32)


@settings(max_examples=10, deadline=None)
@given(tasks(), st.integers(1, 5), st.sampled_from([1, 4]), st.integers(1, 2), st.integers(0, 99))
def test_a_search_scores_exactly_its_budget_and_sees_nothing_else(task, n, candidates, players, seed) -> None:
    """Scores that were not asked for are NaN; had one been used, choices or sums would be NaN too."""
    lattice, scores, budget = task
    agent, exact = agent_of(lattice), min(budget, len(lattice))
    habits = SearchSettings(budget, 3, 1, 0.3, candidates, players)
    meter = Meter(scores)
    found = search(agent, volume_of(lattice), meter, habits, n=n, seed=seed)
    assert found.seen.shape == (n, len(lattice))
    assert (found.seen.sum(axis=1) == exact).all()
    assert meter.asked == set(np.flatnonzero(found.seen.any(axis=0)))
    assert (found.starts >= 1).all()
    assert (found.moves <= 3 * found.starts).all()
    poisoned = np.where(found.seen.any(axis=0), scores, np.nan)
    again = search(agent, volume_of(lattice), Meter(poisoned), habits, n=n, seed=seed)
    np.testing.assert_array_equal(again.seen, found.seen)
    np.testing.assert_array_equal(again.moves, found.moves)


def test_searches_side_by_side_do_not_tell_each_other() -> None:
    """What one search scored is not shown to another one, nor is it worth anything to it."""
    lattice = lattice_of((4, 4, 4))
    agent, scores = agent_of(lattice), np.random.default_rng(0).random(len(lattice), np.float32)
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    inner = Agent.__call__

    class Spy(Agent):
        def __call__(self, observations):
            shown.append((observations["memory"], observations["position"]))
            return inner(self, observations)

    spy = Spy(agent.policy, agent.meta)
    search(spy, volume_of(lattice), Meter(scores), SearchSettings(20, candidates=1, players=1), n=3, seed=2)
    first, _ = shown[0]  # after the first start each search knows one window: that it is at
    beyond = first.sum(axis=(2, 3, 4))
    for i in range(3):
        middle = first[i, :, 1, 1, 1]
        assert middle[1] == 1
        assert first[i, 0].sum() == pytest.approx(middle[0])
    assert (beyond[:, 0] > 0).all()


def test_one_seed_one_search() -> None:
    lattice = lattice_of((4, 4, 4))
    scores = np.random.default_rng(0).random(len(lattice), np.float32)
    habits = SearchSettings(15)
    found = [
        search(agent_of(lattice), volume_of(lattice), Meter(scores), habits, n=4, seed=s) for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(found[0].seen, found[1].seen)
    assert (found[0].seen != found[2].seen).any()
    assert len(np.unique(found[0].seen, axis=0)) > 1  # searches with one seed are independent


def test_a_start_goes_where_the_critic_expects_most(monkeypatch) -> None:
    lattice = lattice_of((4, 4, 4))
    agent = agent_of(lattice)
    goal = int(lattice.flat(np.array([3, 0, 3])))
    monkeypatch.setattr(
        agent,
        "value",
        lambda seen: -np.abs(seen["position"] - lattice.unflat(np.array(goal)) / 3).sum(axis=1),
    )
    meter = Meter(np.zeros(len(lattice), np.float32))
    found = search(agent, volume_of(lattice), meter, SearchSettings(1, candidates=400), n=2)
    assert np.flatnonzero(found.seen[0]).tolist() == [goal]
    assert found.moves.tolist() == [0, 0]


def test_every_move_is_chosen_on_the_window_where_the_player_is() -> None:
    lattice = lattice_of((3, 3, 3))
    agent, volume = agent_of(lattice), volume_of(lattice)
    shown = []
    views = Views([volume], lattice, 1, 3)

    class Spy(Agent):
        def __call__(self, observations):
            shown.append(observations)
            return np.full(len(observations["position"]), 4)

    spy = Spy(agent.policy, agent.meta)
    search(spy, volume, Meter(np.ones(len(lattice), np.float32)), SearchSettings(4, candidates=1, players=1))
    assert len(shown) >= 2
    for each in shown:
        index = np.rint(each["position"][0] * 2).astype(np.int64)
        expected = views.at(np.zeros(1, np.int64), lattice.starts(index)[None])
        np.testing.assert_array_equal(each["views"], expected)
