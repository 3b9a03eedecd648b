from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from spars.errors import DataError
from spars.game.arena import Arena
from spars.game.boards import Board, DirectScores, ScoreMemo, make_board
from spars.game.duel import Duel
from spars.game.rules import Rules
from spars.game.scorers import CountingScorer, NetworkScorer, StubScorer
from spars.lattice import Lattice
from spars.models.net import Net

FULL = (256, 256, 180)
CASES = (
    "inside",
    "low_edge_first_axis",
    "high_edge_last_axis",
    "low_edge_second_axis_both",
    "volume_larger_than_grid",
    "volume_shallower_than_grid",
    "dummy_first_competitor",
    "ties",
)


@pytest.fixture(scope="module")
def golden(golden_json):
    return golden_json("env_stub")


@pytest.fixture(scope="module")
def maps(golden_npz):
    return golden_npz("env_stub")


def original_rules(case: dict) -> Rules:
    grid, window = tuple(case["grid"]), tuple(case["window"])
    return Rules("faithful", grid, window, start="corner", tie=1, threshold=case["threshold"])


def corrected_rules(case: dict) -> Rules:
    return Rules("standard", tuple(case["grid"]), tuple(case["window"]), threshold=case["threshold"])


def actions(case: dict) -> list[tuple[int, int]]:
    second = case["actions2"] or [0] * len(case["actions1"])
    return list(zip(case["actions1"], second, strict=True))


def image(golden_volumes, case: dict) -> np.ndarray:
    return golden_volumes.golden_volume(tuple(case["volume_shape"]), case["volume_seed"])[0]


@pytest.mark.parametrize("table", ["off", "lazy", "full"])
@pytest.mark.parametrize("name", CASES)
def test_the_originals_games(golden, maps, golden_volumes, name: str, table) -> None:
    case, rules = golden["cases"][name], original_rules(golden["cases"][name])
    expected = case["original"]
    scorer = StubScorer(golden["a"], golden["b"], FULL)
    board = make_board(name, image(golden_volumes, case), scorer, rules, table=table)
    duel = Duel(rules, board)
    duel.reset()
    fails_at = expected["error"]["step"] if expected["error"] else None
    for i, pair in enumerate(actions(case)):
        if i == fails_at:
            with pytest.raises(DataError, match="holds no voxel of a volume of"):
                duel.step(pair)
            return
        turn = duel.step(pair)
        assert duel.position.tolist() == [expected["pos1"][i], expected["pos2"][i]]
        assert duel.shown.tolist() == [expected["start1"][i], expected["start2"][i]]
        np.testing.assert_allclose(turn.scores, [expected["score1"][i], expected["score2"][i]], atol=1e-6)
        assert turn.rewards.tolist() == [expected["reward"][i], -expected["reward"][i]]
        assert turn.terminated is expected["done"][i]
        assert not turn.truncated
        total = duel.sum_map()
        assert total.sum() == pytest.approx(expected["acc_sum"][i], rel=1e-5)
        assert np.count_nonzero(total) == expected["acc_nonzero"][i]
        assert total.max() == pytest.approx(expected["acc_max"][i], rel=1e-5)
    if f"{name}_accumulated_original" in maps:
        np.testing.assert_allclose(duel.final_map(), maps[f"{name}_accumulated_original"], rtol=1e-5)


@pytest.mark.parametrize("name", [c for c in CASES if not c.startswith("volume")])
def test_the_corrected_games(golden, maps, golden_volumes, name: str) -> None:
    case, rules = golden["cases"][name], corrected_rules(golden["cases"][name])
    expected = case["corrected"]
    scorer = StubScorer(golden["a"], golden["b"], FULL)
    duel = Duel(rules, make_board(name, image(golden_volumes, case), scorer, rules, table="off"))
    duel.reset()
    for i, pair in enumerate(actions(case)):
        turn = duel.step(pair)
        assert duel.position.tolist() == [expected["pos1"][i], expected["pos2"][i]]
        np.testing.assert_allclose(turn.scores, [expected["score1"][i], expected["score2"][i]], rtol=1e-9)
        assert turn.rewards.tolist() == [expected["reward"][i], -expected["reward"][i]]
        assert turn.terminated is expected["terminated"][i]
        assert duel.sum_map().sum() == pytest.approx(expected["sum_total"][i], rel=1e-9)
        assert duel.count_map().sum() == expected["count_total"][i]
    total, count = maps[f"{name}_sum_corrected"], maps[f"{name}_count_corrected"]
    np.testing.assert_array_equal(duel.count_map(), count)
    np.testing.assert_allclose(duel.sum_map(), total, rtol=1e-5)
    np.testing.assert_allclose(
        duel.final_map(), np.divide(total, count, out=np.zeros_like(total), where=count > 0), rtol=1e-5
    )


def test_the_thresholds_of_the_scripts(golden, golden_volumes) -> None:
    """The six scripts play one game; only the score that ends it differs."""
    stub = golden["threshold_scripts_stub"]
    case = golden["cases"]["inside"]
    for script, expected in golden["threshold_scripts"].items():
        threshold = 0.3 if script == "best_RL.py" else float(script.split("/")[1][:3])
        rules = original_rules({**case, "threshold": threshold})
        scorer = StubScorer(stub["a"], stub["b"], FULL)
        duel = Duel(rules, make_board(script, image(golden_volumes, case), scorer, rules))
        duel.reset()
        turns = [duel.step(pair) for pair in actions(case)[:10]]
        np.testing.assert_allclose([t.scores[0] for t in turns], expected["score1"], atol=1e-6)
        np.testing.assert_allclose([t.scores[1] for t in turns], expected["score2"], atol=1e-6)
        assert [t.terminated for t in turns] == expected["done"]


@pytest.fixture(scope="module")
def classifier(golden_json, fill_golden_weights) -> Net:
    facts = golden_json("env_classifier")
    net = fill_golden_weights(Net(), facts["weight_seed"])
    with torch.no_grad():
        net.fc5.weight /= facts["fc5_divisor"]
    return net


@pytest.mark.parametrize("kind", ["original", "corrected"])
def test_a_game_scored_by_the_classifier(golden_json, golden_volumes, classifier, kind: str) -> None:
    facts = golden_json("env_classifier")
    expected = facts[kind]
    original = kind == "original"
    case = {**facts, "threshold": facts[f"{kind}_threshold"]}
    rules = original_rules(case) if original else corrected_rules(case)
    volume = golden_volumes.golden_volume(rules.grid, facts["volume_seed"])[0]
    scorer = NetworkScorer(classifier if original else copy.deepcopy(classifier).double(), FULL)
    duel = Duel(rules, Board("a", volume, ScoreMemo(volume, rules.window, scorer)))
    duel.reset()
    steps = 8 if original else 3  # twice the precision takes ten times as long
    for i, pair in enumerate(actions(case)[:steps]):
        turn = duel.step(pair)
        assert duel.position.tolist() == [expected["pos1"][i], expected["pos2"][i]]
        assert turn.rewards[0] == expected["reward"][i]
        assert turn.terminated is expected["done" if original else "terminated"][i]
        scores = [expected["score1"][i], expected["score2"][i]]
        np.testing.assert_allclose(turn.scores, scores, atol=1e-4 if original else 1e-8)
    last = expected["acc_sum" if original else "sum_total"][steps - 1]
    assert duel.sum_map().sum() == pytest.approx(last, rel=1e-4 if original else 1e-8)


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(50, 100, shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["faithful", "paper", "standard"])
@pytest.mark.parametrize("table", ["full", "lazy"])
@pytest.mark.parametrize("start", ["centre", "corner", "random"])
def test_tables_play_the_game_of_the_direct_path(mode, table, start) -> None:
    """Random games, near the borders too, in which every window the rules allow is in the table."""
    rules = Rules(mode, (19, 22, 17), (6, 5, 4), step=4, start=start, threshold=0.8)
    volume = noise(rules.grid)
    rng = np.random.default_rng(1)
    direct_scorer, table_scorer = (CountingScorer(StubScorer(10, 50)) for _ in range(2))
    direct = Duel(rules, make_board("a", volume, direct_scorer, rules, table="off"))
    looked_up = Duel(rules, make_board("a", volume, table_scorer, rules, table=table))
    for duel in (direct, looked_up):
        duel.reset(rng=np.random.default_rng(2))
    for _ in range(200):
        pair = rng.integers(0, 6, 2)
        a, b = direct.step(pair), looked_up.step(pair)
        np.testing.assert_array_equal(a.rewards, b.rewards)
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-6)
        assert a.terminated == b.terminated
    np.testing.assert_allclose(direct.final_map(), looked_up.final_map(), rtol=1e-5, atol=1e-6)
    assert direct_scorer.n_windows == 400
    assert table_scorer.n_windows < 400 or table == "full"


def test_a_shallow_volume_is_remembered_as_it_is_cut() -> None:
    rules = Rules("faithful", (16, 16, 16), (6, 6, 4), start="corner", tie=1)
    volume = noise((20, 16, 10))
    scorer = CountingScorer(StubScorer(10, 50, (8, 8, 8)))
    memo = make_board("a", volume, scorer, rules, table="full")
    direct = make_board("a", volume, StubScorer(10, 50, (8, 8, 8)), rules, table="off")
    starts = np.array([[8, 8, 8], [1, 1, 1], [8, 8, 8]])
    np.testing.assert_array_equal(memo.scores.at(starts), direct.scores.at(starts))
    assert scorer.n_windows == 2
    with pytest.raises(DataError, match=r"window at voxel \[8, 8, 10\] holds no voxel of a volume of"):
        memo.scores.at(np.array([[8, 8, 10]]))


def test_paper_adds_both_players_own_scores_and_stops_at_the_border() -> None:
    rules = Rules("paper", (13, 12, 8), (4, 4, 4), tie=-1)
    duel = Duel(rules, make_board("a", noise(rules.grid), StubScorer(50, 50), rules))
    duel.reset()
    expected = np.zeros(rules.grid)
    for pair, places in (
        ((5, 4), [[0, 4, 2], [8, 4, 2]]),
        ((5, 4), [[0, 4, 2], [9, 4, 2]]),
        ((4, 5), [[4, 4, 2], [5, 4, 2]]),
    ):
        turn = duel.step(pair)
        assert duel.position.tolist() == places
        for place, score in zip(places, turn.scores, strict=True):
            x, y, z = place
            expected[x : x + 4, y : y + 4, z : z + 4] += score
    np.testing.assert_allclose(duel.final_map(), expected, rtol=1e-6)


def test_the_limit_of_moves_is_truncation_and_a_high_score_is_not() -> None:
    rules = Rules("standard", (12, 12, 12), (4, 4, 4), max_steps=2, threshold=0.9)
    low = Duel(rules, Board("low", noise(rules.grid), Constant(0.9)))
    low.reset()
    assert [(t.terminated, t.truncated) for t in (low.step((0, 1)), low.step((0, 1)))] == [
        (False, False),
        (False, True),
    ]
    high = Duel(rules, Board("high", noise(rules.grid), Constant(0.91)))
    high.reset()
    high.step((0, 1))
    last = high.step((0, 1))
    assert (last.terminated, last.truncated) == (True, False)


class Constant:
    def __init__(self, score: float) -> None:
        self.score = score

    def at(self, starts: np.ndarray) -> np.ndarray:
        return np.full(len(starts), self.score)


def test_novelty_pays_the_first_visit_only() -> None:
    rules = Rules("standard", (12, 12, 12), (4, 4, 4), reward="novelty", memory=1)
    duel = Duel(rules, Board("a", noise(rules.grid), Constant(0.5)))
    duel.reset()
    assert duel.step((0, 0)).rewards.tolist() == [0.0, 0.0]
    assert duel.step((1, 2)).rewards.tolist() == [-0.5, 0.5]  # players with a memory know the start
    assert duel.step((0, 4)).rewards.tolist() == [-0.5, 0.5]  # player 1 comes back
    assert duel.step((2, 5)).rewards.tolist() == [0.0, 0.0]  # both come to where player 2 has been
    assert duel.seen.sum(axis=(1, 2, 3)).tolist() == [4, 4]
    assert duel.recalled[1].max() == 0.5
    duel.reset()
    assert duel.seen.sum() == 2
    assert not duel.sum_map().any()


@pytest.mark.parametrize("reward", ["sign", "margin", "novelty", "finds"])
@pytest.mark.parametrize("memory", [0, 2])
def test_one_game_is_a_game_of_an_arena(reward, memory: int) -> None:
    rules = Rules(
        "standard", (21, 18, 15), (4, 4, 4), reward=reward, threshold=0.8, max_steps=60, memory=memory
    )
    board = make_board("a", noise(rules.grid), StubScorer(10, 50), rules)
    duel, arena = Duel(rules, board), Arena([board], rules, 3)
    duel.reset()
    arena.reset()
    rng = np.random.default_rng(0)
    for _ in range(60):
        pairs = rng.integers(0, 6, (3, 2))
        turn, outcome = duel.step(pairs[1]), arena.step(pairs)
        np.testing.assert_array_equal(turn.scores, outcome.scores[1])
        np.testing.assert_allclose(turn.rewards, outcome.rewards[1], rtol=1e-6)
        assert (turn.terminated, turn.truncated) == (outcome.terminated[1], outcome.truncated[1])
        assert duel.position.tolist() == arena.lattice.starts(arena.index[1]).tolist()


def test_random_starts_are_equal_and_on_the_lattice() -> None:
    rules = Rules("standard", (21, 18, 15), (4, 4, 4), start="random")
    duel = Duel(rules, Board("a", noise(rules.grid), Constant(0.5)))
    lattice = Lattice(rules.grid, rules.window, rules.step)
    every = {tuple(start) for start in lattice.all_starts().tolist()}
    found = set()
    for seed in range(300):
        duel.reset(rng=np.random.default_rng(seed))
        assert duel.position[0].tolist() == duel.position[1].tolist()
        found.add(tuple(duel.position[0].tolist()))
    assert found <= every
    assert len(found) > len(every) // 2


def test_boards_of_another_size_are_refused() -> None:
    rules = Rules("standard", (12, 12, 12), (4, 4, 4))
    with pytest.raises(DataError, match="case_7: the volume has"):
        make_board("case_7", noise((12, 12, 13)), StubScorer(1, 0), rules)
    with pytest.raises(DataError, match="case_7: the target has"):
        make_board("case_7", noise(rules.grid), StubScorer(1, 0), rules, target=np.zeros((1, 1, 1)))


def test_direct_scores_score_one_window_a_call() -> None:
    scorer = CountingScorer(StubScorer(10, 50))
    scores = DirectScores(noise((8, 8, 8)), (4, 4, 4), scorer)
    scores.at(np.zeros((3, 3), np.int64))
    assert (scorer.n_calls, scorer.n_windows) == (3, 3)
