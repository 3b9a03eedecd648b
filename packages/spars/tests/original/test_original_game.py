from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from medshared.metrics.segmentation import overlap
from spars.errors import DataError
from spars.game.boards import make_board
from spars.game.duel import Duel
from spars.game.rules import Rules
from spars.game.scorers import CountingScorer, StubScorer
from spars.original.game import FULL_IMAGE_SIZE, WINDOW_SIZE, CursorImageEnv, dice_score

FULL = (256, 256, 180)


class Script:
    def __init__(self, actions: list[int]) -> None:
        self.actions = iter(actions)
        self.seen: list[np.ndarray] = []

    def predict(self, observation: np.ndarray) -> int:
        self.seen.append(observation)
        return next(self.actions)


@pytest.mark.parametrize(
    "name", ["inside", "low_edge_first_axis", "volume_larger_than_grid", "dummy_first_competitor"]
)
def test_games_with_the_originals_observations(golden_json, golden_volumes, name: str) -> None:
    golden = golden_json("env_stub")
    case = golden["cases"][name]
    expected = case["original"]
    image, label = golden_volumes.golden_volume(tuple(case["volume_shape"]), case["volume_seed"])
    env = CursorImageEnv(
        image,
        label,
        StubScorer(golden["a"], golden["b"], FULL),
        tuple(case["grid"]),
        tuple(case["window"]),
        termination_threshold=case["threshold"],
        target_size="native",
    )
    if case["actions2"] is not None:
        env.set_competitor(Script(case["actions2"]))
    env.reset(seed=0)
    assert stretched_sum(env.observation) == pytest.approx(expected["reset_obs_sum"], rel=1e-6)
    for i, action in enumerate(case["actions1"]):
        _, reward, done, truncated, info = env.step(action)
        assert (reward, done, truncated) == (expected["reward"][i], expected["done"][i], False)
        assert info["position"].tolist() == expected["pos1"][i]
        assert info["position_opponent"].tolist() == expected["pos2"][i]
        assert info["score"] == pytest.approx(expected["score1"][i], abs=1e-6)
        assert env.accumulated_map.sum() == pytest.approx(expected["acc_sum"][i], rel=1e-5)
        assert stretched_sum(env.observation) == pytest.approx(expected["obs_sum"][i], rel=1e-6, abs=1)


def stretched_sum(crop: np.ndarray) -> float:
    """Sum over the stretched crop, every voxel counted as often as it is repeated."""
    total = crop.astype(np.float64)
    for axis in (2, 1, 0):
        n, target = crop.shape[axis], FULL[axis]
        total = total @ np.bincount(np.arange(target) * n // target, minlength=n)
    return float(total)


def test_the_stretched_observation(golden_json, golden_volumes) -> None:
    golden = golden_json("env_stub")
    case = golden["cases"]["inside"]
    image, _ = golden_volumes.golden_volume(tuple(case["volume_shape"]), case["volume_seed"])
    env = CursorImageEnv(
        image, None, StubScorer(1, 0), tuple(case["grid"]), tuple(case["window"]), target_size=FULL
    )
    bytes_seen, _ = env.reset()
    assert bytes_seen.shape == FULL
    for i in range(2):
        env.step(case["actions1"][i])
        samples = env.observation.ravel()[golden["observation_sample_idx"]]
        np.testing.assert_array_equal(samples, case["original"]["obs_samples"][i])


def test_defaults_of_the_scripts(golden_json) -> None:
    for script, defaults in golden_json("env_stub")["defaults"].items():
        assert tuple(defaults["full_image_size"]) == FULL_IMAGE_SIZE
        if script == "best_RL.py":
            assert tuple(defaults["window_size"]) == WINDOW_SIZE


def test_the_competitor_decides_on_its_old_window_in_hu() -> None:
    image = np.random.default_rng(0).normal(0, 500, (20, 20, 16)).astype(np.float32)
    env = CursorImageEnv(image, None, StubScorer(1, 0), (20, 20, 16), (4, 4, 4), target_size="native")
    script = Script([4, 4])
    env.set_competitor(script)
    env.reset()
    env.step(0)
    env.step(0)
    np.testing.assert_array_equal(script.seen[0], image[10:14, 10:14, 8:12])
    np.testing.assert_array_equal(script.seen[1], image[14:18, 10:14, 8:12])


def test_windows_are_scored_once() -> None:
    scorer = CountingScorer(StubScorer(1, 0))
    image = np.zeros((20, 20, 16), np.float32)
    env = CursorImageEnv(image, None, scorer, (20, 20, 16), (4, 4, 4), target_size="native")
    env.reset()
    for action in (0, 1, 0, 1):
        env.step(action)
    # The learner goes to and fro between the layers 11 and 8, the first competitor stays at the clipped layer 11.
    assert scorer.n_windows == 2


def test_the_environment_passes_the_checker() -> None:
    image = np.random.default_rng(0).normal(0, 500, (20, 20, 16)).astype(np.float32)
    env = CursorImageEnv(image, None, StubScorer(1, 0), (20, 20, 16), (4, 4, 4))
    with warnings.catch_warnings(record=True):
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize("name", ["volume_equals_grid", "volume_larger_shallower"])
def test_dice_of_the_originals_games(golden_json, golden_volumes, name: str) -> None:
    golden = golden_json("dice")
    case = golden["rollouts"][name]
    image, label = golden_volumes.golden_volume(tuple(case["volume_shape"]), case["volume_seed"])
    scorer = StubScorer(golden["stub"]["a"], golden["stub"]["b"], FULL)
    env = CursorImageEnv(image, label, scorer, target_size="native")
    env.set_competitor(Script(case["actions2"]))
    env.reset()
    for i, action in enumerate(case["actions1"]):
        _, reward, done, _, info = env.step(action)
        assert (reward, done) == (case["original"]["reward"][i], case["original"]["done"][i])
        assert info["score_opponent"] == pytest.approx(case["original"]["score2"][i], abs=1e-6)
    assert env.accumulated_map.sum() == pytest.approx(case["original"]["acc_sum"][-1], rel=1e-5)
    assert np.count_nonzero(env.accumulated_map > 0.5) == case["original"]["predicted_voxels"]
    assert env.compute_final_dice_score() == pytest.approx(case["original"]["final_dice"], abs=1e-9)


def test_dice_of_the_corrected_game(golden_json, golden_volumes) -> None:
    golden = golden_json("dice")
    case = golden["rollouts"]["volume_equals_grid"]
    expected = case["corrected"]
    image, label = golden_volumes.golden_volume(FULL, case["volume_seed"])
    scorer = StubScorer(golden["stub"]["a"], golden["stub"]["b"], FULL)
    rules = Rules("standard", FULL, tuple(case["window"]), threshold=0.8)
    duel = Duel(rules, make_board("a", image, scorer, rules, target=label == 2, table="off"))
    duel.reset()
    for i, pair in enumerate(zip(case["actions1"], case["actions2"], strict=True)):
        turn = duel.step(pair)
        np.testing.assert_allclose(turn.scores, [expected["score1"][i], expected["score2"][i]], rtol=1e-9)
        assert turn.terminated is expected["terminated"][i]
    assert duel.sum_map().sum() == pytest.approx(expected["sum_total"][-1], rel=1e-9)
    assert np.count_nonzero(duel.count_map()) == expected["union_voxels"]
    assert overlap(duel.sum_map() > 0.5, label == 2).dice == pytest.approx(
        expected["dice_sum_gt_half"], abs=1e-9
    )
    assert duel.ending(0.5)["dice"] == pytest.approx(expected["dice_mean_gt_half"], abs=1e-9)


def box(*bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(FULL, np.bool_)
    mask[tuple(slice(*b) for b in bounds)] = True
    return mask


def test_dice_formulas(golden_json) -> None:
    empty = np.zeros(FULL, np.bool_)
    b, o = box((10, 50), (20, 60), (30, 70)), box((30, 70), (20, 60), (30, 70))
    small = np.zeros((8, 8, 6), np.uint8)
    small[2:4, 3:5, 1:3] = 2
    pairs = {
        "both empty": (empty, empty),
        "prediction empty": (empty, b),
        "target empty": (b, empty),
        "identical boxes": (b, b),
        "half-overlapping boxes": (b, o),
        "target 8x8x6 with block [2:4,3:5,1:3]=2, prediction box [70:120,90:150,40:100]": (
            box((70, 120), (90, 150), (40, 100)),
            small,
        ),
        "shapes differ": (np.zeros((64, 64, 48), np.bool_), b),
    }
    for case in golden_json("dice")["formula_cases"]:
        predicted, target = pairs[case["case"]]
        if case["original_error"]:
            with pytest.raises(DataError, match="must have the grid's size"):
                dice_score(predicted, target)
            continue
        found = dice_score(predicted, target)
        assert (
            math.isnan(found)
            if case["original_is_nan"]
            else found == pytest.approx(case["original"], abs=1e-9)
        )
        if target.shape == FULL:
            assert overlap(predicted, target).dice == pytest.approx(case["corrected"], abs=1e-9)


def test_a_dice_needs_a_label() -> None:
    env = CursorImageEnv(np.zeros((8, 8, 8)), None, StubScorer(1, 0), (8, 8, 8), (4, 4, 4))
    env.reset()
    with pytest.raises(DataError, match="needs a label"):
        env.compute_final_dice_score()
