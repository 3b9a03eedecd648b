"""Simulated clicks: goldens by their draws, frequencies, and what holds for every click."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aespa.clicks import (
    NO_CLICK,
    ClickDraws,
    choose_raters,
    draw_clicks,
    fixed_draws,
    random_clicks,
    simulate_clicks,
    suggest,
)


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("click_aespa")


@pytest.fixture(scope="module")
def golden_draws(golden_json):
    return golden_json("click_aespa")


def _inputs(golden, probabilities: bool = True):
    prob = torch.from_numpy(golden["prob"][:, 0]) if probabilities else None
    raters = torch.from_numpy(golden["raters"][:, :, 0]).float()
    return prob, raters, torch.from_numpy(golden["valid"]), torch.from_numpy(golden["prev"])


def _as_uniform(calls: list, n_valid: list[int], previous: list[int], switch: float) -> ClickDraws:
    """Turn a golden's calls, in their order, into the uniform numbers that mean the same."""
    queue = iter(calls)
    switches, raters = [], []
    for count, before in zip(n_valid, previous, strict=True):
        u = 1.0
        if before >= 0:
            kind, u = next(queue)
            assert kind == "rand"
        chosen = 0.0
        if before < 0 or u < switch:
            kind, n, value = next(queue)
            assert (kind, n) == ("randint", max(count - 1, 1) if before >= 0 else count or 4)
            chosen = (value + 0.5) / n
        switches.append(u)
        raters.append(chosen)
    pixels = [(value + 0.5) / n for _, n, value in queue]
    return ClickDraws(*torch.tensor([switches, raters, pixels, [0.0] * 4]))


@pytest.mark.parametrize("case", ["follow", "switch", "validation"])
def test_golden_clicks(case, golden, golden_draws):
    spec = golden_draws[case]
    n_valid, previous = golden["valid"].sum(axis=1).tolist(), golden["prev"].tolist()
    draws = _as_uniform(spec["draws"], n_valid, previous, spec["randomize_prob"])
    clicks = simulate_clicks(
        *_inputs(golden), switch=spec["randomize_prob"], stop_when_right=False, draws=draws
    )
    # The golden's coordinates are (row, column).
    np.testing.assert_array_equal(clicks.coords, golden[f"{case}_coords"][:, 0, ::-1])
    np.testing.assert_array_equal(clicks.labels, golden[f"{case}_labels"][:, 0])
    np.testing.assert_array_equal(clicks.rater, golden[f"{case}_rater"])
    for kind in ("original", "corrected"):  # they agree once there is a click
        np.testing.assert_allclose(clicks.target, golden[f"{case}_gt_soft_{kind}"][:, 0], atol=1e-7)


@pytest.mark.parametrize(("valid_only", "kind"), [(True, "corrected"), (False, "original")])
def test_golden_before_the_first_click(valid_only, kind, golden):
    clicks = simulate_clicks(*_inputs(golden, probabilities=False), valid_only=valid_only)
    np.testing.assert_allclose(clicks.target, golden[f"none_gt_soft_{kind}"][:, 0], atol=1e-7)
    np.testing.assert_array_equal(clicks.rater, golden["none_rater"])
    assert clicks.labels.tolist() == [NO_CLICK] * 4


def test_golden_candidates_are_all_reached_and_no_others(golden):
    prob, raters, valid, _ = _inputs(golden)
    for rater in range(4):
        found = set()
        for index in range(20):
            draws = ClickDraws(
                torch.ones(4), torch.zeros(4), torch.full((4,), (index + 0.5) / 20), torch.zeros(4)
            )
            everybody = torch.ones_like(valid)
            clicks = simulate_clicks(prob, raters, everybody, torch.full((4,), rater), draws=draws)
            x, y = clicks.coords.long().T
            found |= set(enumerate((y * 32 + x).tolist()))
        expected = {(b, int(p)) for b in range(4) for p in golden["candidates_flat"][b, rater]}
        assert found == expected


def test_golden_frequency_of_the_raters(golden):
    _, _, valid, previous = _inputs(golden)
    n = 2000
    drawn = draw_clicks(4 * n, torch.Generator().manual_seed(0))
    chosen = choose_raters(valid.repeat(n, 1), previous.repeat(n), drawn, 0.2).reshape(n, 4)
    frequency = torch.nn.functional.one_hot(chosen, 4).float().mean(dim=0)
    np.testing.assert_allclose(frequency, golden["choice_frequency"], atol=0.04)


def _case(seed: int, b: int = 5, r: int = 3, s: int = 12):
    rng = np.random.default_rng(seed)
    raters = torch.from_numpy(rng.random((b, r, s, s)) < 0.4).float()
    valid = torch.from_numpy(rng.random((b, r)) < 0.7)
    previous = torch.from_numpy(rng.integers(-1, r, b))
    return torch.from_numpy(rng.random((b, s, s))).float(), raters, valid, previous


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.99]), st.integers(1, 200))
def test_what_holds_for_every_click(seed, switch, candidates):
    probabilities, raters, valid, previous = _case(seed)
    clicks = simulate_clicks(
        probabilities,
        raters,
        valid,
        previous,
        torch.Generator().manual_seed(seed),
        switch=switch,
        candidates=candidates,
    )
    for b in range(len(raters)):
        x, y = clicks.coords[b].long().tolist()
        rater, label = int(clicks.rater[b]), int(clicks.labels[b])
        assert valid[b, rater] or not valid[b].any()
        assert label == raters[b, rater, y, x]
        if switch == 0 and previous[b] >= 0 and valid[b, previous[b]]:
            assert rater == previous[b]
        error = (probabilities[b] - raters[b, rater]).abs()
        assert int((error > error[y, x]).sum()) < candidates
        agreeing = [i for i in range(3) if valid[b, i] and raters[b, i, y, x] == label]
        expected = raters[b, agreeing].mean(dim=0) if agreeing else torch.zeros(12, 12)
        np.testing.assert_allclose(clicks.target[b], expected, rtol=1e-5, atol=1e-6)


def test_no_click_on_a_mask_that_is_right():
    _, raters, _, _ = _case(3)
    valid, previous = torch.ones(5, 3, dtype=torch.bool), torch.tensor([0, 1, 2, 0, 1])
    right = torch.stack([raters[b, previous[b]] for b in range(5)])
    probabilities = 0.1 + 0.8 * right
    probabilities[4, 3, 3] = 0.5 + 0.01 * (1 - 2 * right[4, 3, 3])  # only the last is wrong, barely
    generator = torch.Generator().manual_seed(0)
    clicks = simulate_clicks(probabilities, raters, valid, previous, generator, switch=0, candidates=1)
    assert clicks.labels[:4].tolist() == [NO_CLICK] * 4
    assert clicks.coords[:4].sum() == 0
    np.testing.assert_allclose(clicks.target[:4], right[:4], rtol=1e-5, atol=1e-6)
    assert clicks.coords[4].tolist() == [3, 3]
    assert clicks.labels[4] == right[4, 3, 3]
    always = simulate_clicks(
        probabilities, raters, valid, previous, generator, switch=0, stop_when_right=False
    )
    assert (always.labels >= 0).all()


def test_the_same_seed_gives_the_same_clicks_and_another_does_not():
    case = _case(0, b=16)
    same = [simulate_clicks(*case, torch.Generator().manual_seed(5)) for _ in range(2)]
    for left, right in zip(*same, strict=True):
        assert torch.equal(left, right)
    other = simulate_clicks(*case, torch.Generator().manual_seed(6))
    assert not torch.equal(same[0].coords, other.coords)


def test_fixed_draws_belong_to_the_image_and_the_round():
    together = fixed_draws(1, [3, 8, "a"], 2)
    alone = fixed_draws(1, ["a"], 2)
    for row, single in zip(together, alone, strict=True):
        assert row.shape == (3,)
        assert row[2] == single[0]
    assert fixed_draws(1, [3], 3).pixel != together.pixel[0]
    assert fixed_draws(2, [3], 2).pixel != together.pixel[0]
    assert fixed_draws(1, [], 0).pixel.shape == (0,)


def test_random_clicks_say_nothing_about_the_rater():
    raters = torch.zeros(4000, 2, 8, 8)
    raters[:, 0, :, :4] = 1
    valid, previous = torch.ones(4000, 2, dtype=torch.bool), torch.zeros(4000, dtype=torch.long)
    clicks = random_clicks(raters, valid, previous, torch.Generator().manual_seed(0))
    assert (clicks.rater == 0).all()
    np.testing.assert_allclose(clicks.target, raters[:, 0], rtol=1e-5, atol=1e-6)
    x, y = clicks.coords.long().T
    agrees = (raters[torch.arange(4000), 0, y, x] == clicks.labels).float().mean()
    assert abs(float(agrees) - 0.5) < 0.04
    counts = torch.bincount(y * 8 + x, minlength=64)
    assert counts.min() > 30
    assert counts.max() < 100


@pytest.mark.parametrize("wrong", ["probabilities", "raters", "valid", "previous"])
def test_shapes_that_do_not_fit_are_named(wrong):
    case = dict(zip(("probabilities", "raters", "valid", "previous"), _case(0), strict=True))
    case[wrong] = case[wrong][..., None]
    with pytest.raises(ValueError, match=wrong):
        simulate_clicks(**case)


def test_suggestion_is_deepest_in_the_largest_error():
    truth = np.zeros((20, 20), bool)
    truth[2:9, 2:9] = True
    mask = np.zeros((20, 20), bool)
    assert suggest(mask, truth) == (5, 5, 1)
    mask[10:20, 10:20] = True  # touches the border: the middle, not the border
    x, y, label = suggest(mask, truth) or (0, 0, 9)
    assert label == 0
    assert {x, y} <= {14, 15}
    assert suggest(truth, truth) is None
    one = truth.copy()
    one[0, 19] = True
    assert suggest(one, truth) == (19, 0, 0)
    with pytest.raises(ValueError, match="one shape"):
        suggest(mask, truth[:5])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_suggestion_lies_on_an_error_and_mends_it(seed):
    rng = np.random.default_rng(seed)
    mask, truth = rng.random((2, 9, 11)) < 0.5
    x, y, label = suggest(mask, truth) or (0, 0, 9)
    assert mask[y, x] != truth[y, x]
    assert truth[y, x] == bool(label)
