"""Repetitions of voxels, the weights that belong together, and what the original's players see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.errors import CheckpointError, DataError
from spars.models.replicas import FIRST_LAYERS, Replicas, policy_input, wrap_to_uint8
from spars.original.resize import stretch_nearest

AXIS = st.tuples(st.integers(1, 7), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def _state(width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(width)
    state = {name: torch.randn(64, width, generator=generator, dtype=torch.float64) for name in FIRST_LAYERS}
    return state | {"action_net.bias": torch.ones(6)}


@settings(max_examples=40, deadline=None)
@given(axes=st.tuples(AXIS, AXIS, AXIS))
def test_compact_weights_act_like_the_full_ones(axes):
    window, grid = tuple(a for a, _ in axes), tuple(b for _, b in axes)
    replicas = Replicas(window, grid)
    assert replicas.number.sum() == np.prod(grid)
    full = _state(int(np.prod(grid)))
    compact = replicas.compact_state(full)
    crop = np.random.default_rng(0).standard_normal(window)
    stretched = stretch_nearest(crop, grid, dtype=np.float64).transpose(replicas.axes).ravel()
    flat = crop.transpose(replicas.axes).ravel()
    np.testing.assert_array_equal(flat[replicas.sources], stretched)
    name = FIRST_LAYERS[0]
    expected = full[name].numpy() @ stretched
    np.testing.assert_allclose(compact[name].numpy() @ (np.sqrt(replicas.number) * flat), expected, atol=1e-9)
    again = replicas.full_state(compact)
    assert again[name].shape == full[name].shape
    np.testing.assert_allclose(again[name].numpy() @ stretched, expected, atol=1e-9)
    torch.testing.assert_close(replicas.compact_state(again)[name], compact[name])
    assert again["action_net.bias"] is full["action_net.bias"]


def test_shipped_window():
    replicas = Replicas((48, 48, 24), (256, 256, 180))
    assert replicas.axes == (2, 0, 1)
    assert np.unique(replicas.number).tolist() == [
        5 * 5 * 7,
        5 * 5 * 8,
        5 * 6 * 7,
        5 * 6 * 8,
        6 * 6 * 7,
        6 * 6 * 8,
    ]
    assert replicas.number.sum() == 11_796_480


def test_refusals():
    with pytest.raises(DataError, match="a window of 4×9×2 voxels cannot be stretched to 8×8×6"):
        Replicas((4, 9, 2), (8, 8, 6))
    replicas = Replicas((4, 4, 3), (8, 8, 6))
    with pytest.raises(
        CheckpointError, match=r"policy_net\.0\.weight: expected \[64, 384\].*found \[64, 48\]"
    ):
        replicas.compact_state(_state(48))
    with pytest.raises(
        CheckpointError, match=r"expected \[64, 48\], .*found nothing; the policy belongs to another"
    ):
        replicas.full_state({})


def test_golden_wrapping(golden_npz):
    golden = golden_npz("observation_views")
    found = wrap_to_uint8(golden["cast_input"])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, golden["cast_uint8"])
    np.testing.assert_array_equal(wrap_to_uint8(np.array([-1000, -1, 300, -0.9])), [24, 255, 44, 0])


def test_golden_views(golden_npz):
    golden = golden_npz("observation_views")
    observation = golden["start_observation"]
    learner, opponent = policy_input(wrap_to_uint8(observation)[None]), policy_input(observation[None])
    assert learner.dtype == opponent.dtype == np.float32
    np.testing.assert_allclose(learner, golden["learner_first"], atol=1e-6)
    np.testing.assert_allclose(opponent, golden["competitor_first"], atol=1e-6)


def test_golden_views_of_the_window(golden_npz, golden_volumes):
    """Wrapping and dividing before the stretch gives what the original gets after it."""
    golden = golden_npz("observation_views")
    grid, window = golden["grid"], golden["window"]
    image, _ = golden_volumes.golden_volume(grid, int(golden["volume_seed"]))
    start = np.clip(grid // 2, 1, grid - window - 1)
    crop = image[tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))]
    np.testing.assert_array_equal(stretch_nearest(crop, grid), golden["start_observation"])
    inverse = (1, 2, 0)
    for view, key in ((wrap_to_uint8(crop), "learner_first"), (crop, "competitor_first")):
        small = policy_input(view).transpose(inverse)
        large = stretch_nearest(small, grid).transpose(2, 0, 1)
        np.testing.assert_allclose(large, golden[key][0], atol=1e-6)
