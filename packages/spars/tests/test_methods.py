"""What each method of the comparison scores, draws and chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medshared.metrics.segmentation import overlap
from spars.agent import Agent, AgentMeta, build_policy
from spars.boards import CaseBoard
from spars.config import GameConfig
from spars.data.cases import CaseVolume
from spars.data.grid import to_grid
from spars.data.layout import Case
from spars.errors import DataError
from spars.game.boards import make_board
from spars.game.rules import rules_of
from spars.game.scorers import CountingScorer, NetworkScorer, StubScorer
from spars.lattice import Lattice
from spars.methods import agent_method, map_baselines, search_baselines, table_baselines, untrained_agent
from spars.models.window_net import WindowNet
from spars.readout import THRESHOLDS

GRID, WINDOW = (16, 16, 12), (8, 8, 4)
LATTICE = Lattice(GRID, WINDOW, 2)
CONFIG = GameConfig(
    full_image_size=GRID, window_size=WINDOW, step_size=2, budget=0.1, eval_seeds=3, memory=1, candidates=4
).resolved()


def case_board(name: str, seed: int, tumour: bool = True, table: str = "full") -> CaseBoard:
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 5, GRID).astype(np.float32)
    label = np.zeros(GRID, np.uint8)
    label[2:14, 2:14, 2:10] = 1
    if tumour:
        a, b, c = rng.integers(2, 7, 3)
        label[a : a + 5, b : b + 5, c : c + 3] = 2
        image[label == 2] = 290
    volume = CaseVolume(name, image, label, np.eye(4), np.array([[0, 1], [1, 1], [2, 1]]), np.eye(4))
    grid = to_grid(volume, GRID, (-100.0, 300.0))
    scorer = CountingScorer(StubScorer(0.05, 0.6))
    board = make_board(name, grid.image, scorer, rules_of(CONFIG), target=grid.tumour, table=table)  # type: ignore[arg-type]
    return CaseBoard(Case(name, None, None), grid, board)  # type: ignore[arg-type]


VALIDATION = [case_board("v1", 1), case_board("v2", 2), case_board("healthy", 3, tumour=False)]
TEST = case_board("t", 9)


def methods() -> dict:
    network = NetworkScorer(WindowNet(WINDOW, 2).eval(), "native", device="cpu")
    every = [
        *search_baselines(CONFIG, LATTICE),
        *table_baselines(CONFIG, LATTICE),
        *map_baselines(CONFIG, LATTICE, network),
    ]
    return {method.name: method for method in every}


def player() -> Agent:
    meta = AgentMeta("mlp", GRID, WINDOW, 2, 2, 2, 1)
    torch.manual_seed(0)
    return Agent(build_policy(meta), meta)


@pytest.mark.parametrize("name", ["random_walk", "greedy", "greedy_restarts", "best_first"])
def test_searches_keep_to_the_budget_and_are_repeatable(name) -> None:
    method, budget = methods()[name], int(0.1 * len(LATTICE))
    lazy = case_board("t", 9, table="lazy")
    seen, _ = method.searches(lazy)
    repetitions = 3 if name in ("random_walk", "greedy_restarts") else 1  # eval_seeds where chance has a part
    assert seen.shape == (repetitions, len(LATTICE))
    assert (seen.sum(axis=1) <= budget).all()
    if name != "greedy":
        assert (seen.sum(axis=1) == budget).all()
    # Nothing but what was seen has been scored; a walk needs no score to go on.
    assert lazy.table.n_scored == (0 if name == "random_walk" else seen.any(axis=0).sum())
    np.testing.assert_array_equal(method.searches(TEST)[0], seen)
    if name == "random_walk":
        assert len(np.unique(seen, axis=0)) > 1
        other = case_board("another name", 9)
        assert (method.searches(other)[0] != seen).any()  # cases do not share their draws


def test_the_agent_scores_its_budget_only() -> None:
    lazy = case_board("t", 9, table="lazy")
    method = agent_method("agent", "", player(), CONFIG, 3)
    seen, moves = method.searches(lazy)  # type: ignore[misc]
    assert (seen.sum(axis=1) == int(0.1 * len(LATTICE))).all()
    assert lazy.table.n_scored == seen.any(axis=0).sum()
    assert moves is not None
    assert (moves > 0).all()
    again = agent_method("agent", "", player(), CONFIG, 3).searches(TEST)[0]  # type: ignore[misc]
    np.testing.assert_array_equal(again, seen)


def test_an_untrained_agent_has_the_weights_that_training_begins_with() -> None:
    before = torch.get_rng_state()
    first, second = (untrained_agent(player().meta, 5) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True)
    )
    torch.set_rng_state(before)
    untrained_agent(player().meta, 5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["score_map", "top_windows", "cam", "random_walk"])
def test_the_threshold_has_the_best_mean_dice_on_validation(name) -> None:
    method = methods()[name]
    reading = method.choose(LATTICE, VALIDATION)
    assert reading.threshold in THRESHOLDS

    def mean_dice(threshold: float) -> float:
        found = []
        for case in VALIDATION:
            for attempt in method.attempts(case, reading):
                found.append(overlap(attempt.probability > threshold, case.target(), 1.0).dice)
        return float(np.mean(found))

    assert reading.dice == pytest.approx(mean_dice(reading.threshold))
    assert reading.dice == pytest.approx(max(mean_dice(float(t)) for t in THRESHOLDS))


def test_maps_that_need_no_search() -> None:
    made = methods()
    reading = made["all_positive"].choose(LATTICE, [])
    assert reading.threshold == 0.5
    assert (made["all_positive"].attempts(TEST, reading)[0].probability == 1).all()
    liver = made["liver"].attempts(TEST, reading)[0].probability
    np.testing.assert_array_equal(liver > 0, TEST.grid.label > 0)
    best = made["best_window"].attempts(TEST, reading)[0].probability
    scores = TEST.scores()
    start = LATTICE.all_starts()[scores.argmax()]
    assert best.sum() == np.prod(WINDOW)
    assert best[tuple(slice(s, s + w) for s, w in zip(start, WINDOW, strict=True))].all()
    inside = made["cam_best_window"].attempts(TEST, reading)[0].probability
    assert (inside[best == 0] == 0).all()
    assert made["score_map"].attempts(TEST, reading)[0].windows == len(LATTICE)


@pytest.mark.parametrize("name", ["score_map", "cam", "random_walk"])
def test_no_validation_volume_is_an_error(name) -> None:
    with pytest.raises(DataError, match="no validation volume with a label"):
        methods()[name].choose(LATTICE, [])
