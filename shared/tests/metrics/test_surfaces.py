"""Surface distances against every pair of surface voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from medshared.metrics.surfaces import hausdorff, surface_dice, surface_distances, surface_voxels

masks = st.tuples(st.integers(0, 10**6), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[0]).uniform(size=(2, 7, 6, 5)) < drawn[1]
)
spacings = st.tuples(*[st.floats(0.2, 5)] * 3)


def brute_force(p: np.ndarray, t: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    surfaces = [np.argwhere(mask & ~binary_erosion(mask)) * np.array(spacing) for mask in (p, t)]
    pairs = cdist(*surfaces)
    return pairs.min(axis=1), pairs.min(axis=0)


@settings(max_examples=50, deadline=None)
@given(masks, spacings, st.floats(0, 100), st.floats(0, 4))
def test_equals_brute_force(both, spacing, percentile, tolerance):
    p, t = both
    np.testing.assert_array_equal(surface_voxels(p), np.argwhere(p & ~binary_erosion(p)))
    if not p.any() or not t.any():
        empty = not p.any() and not t.any()
        assert hausdorff(p, t, spacing) == 0 if empty else np.isnan(hausdorff(p, t, spacing))
        assert surface_dice(p, t, spacing, tolerance) == float(empty)
        return
    there, back = brute_force(p, t, spacing)
    found = surface_distances(p, t, spacing)
    np.testing.assert_allclose(found.prediction_to_truth, there, atol=1e-12)
    np.testing.assert_allclose(found.truth_to_prediction, back, atol=1e-12)
    expected = max(np.percentile(there, percentile), np.percentile(back, percentile))
    assert hausdorff(p, t, spacing, percentile) == pytest.approx(expected, abs=1e-12)
    near = [(np.concatenate([there, back]) <= tolerance + e).mean() for e in (-1e-9, 1e-9)]
    assert near[0] <= surface_dice(p, t, spacing, tolerance) <= near[1]


@settings(max_examples=30, deadline=None)
@given(masks, spacings)
def test_invariants(both, spacing):
    p, t = both
    found = hausdorff(p, t, spacing)
    np.testing.assert_equal(hausdorff(t, p, spacing), found)
    np.testing.assert_allclose(hausdorff(np.flip(p, 1), np.flip(t, 1), spacing), found)
    np.testing.assert_allclose(hausdorff(p, t, [3 * each for each in spacing]), 3 * found)
    moved = [np.pad(mask, ((9, 0), (0, 4), (2, 2)))[: 7 + 9] for mask in both]
    if not p[[0, -1]].any() and not p[:, [0, -1]].any() and not p[:, :, [0, -1]].any():
        np.testing.assert_allclose(hausdorff(*moved, spacing), found)
    assert hausdorff(p, p, spacing) == 0
    assert surface_dice(p, p, spacing, 0) == 1


def test_a_ball_in_a_large_volume():
    grid = np.indices((96, 96, 64))
    balls = [((grid - np.array([[[[x]]], [[[40]]], [[[30]]]])) ** 2).sum(0) <= 15**2 for x in (40, 46)]
    assert hausdorff(*balls, (1, 1, 1), 100) == 6
    assert 4 < hausdorff(*balls, (1, 1, 1)) <= 6
    assert hausdorff(*balls, (2, 2, 2), 100) == 12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: hausdorff(m, m[1:], (1, 1, 1)), "one shape"),
        (lambda m: hausdorff(m, m, (1, 0, 1)), "above 0 in millimetres"),
        (lambda m: hausdorff(m, m, (1, 1)), "three numbers"),
        (lambda m: hausdorff(m, m, (1, 1, 1), 101), r"percentile must lie in \[0, 100\]"),
        (lambda m: hausdorff(2 * m.astype(int), m, (1, 1, 1)), "only 0 and 1"),
        (lambda m: surface_dice(m, m, (1, 1, 1), -1), "at least 0"),
        (lambda m: surface_distances(m[0], m[0], (1, 1, 1)), "three axes"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((3, 3, 3), bool))
