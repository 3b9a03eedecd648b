"""Exact neighbours: brute force agrees, ties included."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from advmil.prepare.neighbours import feature_neighbours, spatial_neighbours


def brute_force(points: np.ndarray, k: int) -> np.ndarray:
    """Sort all other points by distance, then by index."""
    points = np.asarray(points, np.float64)
    rows = []
    for i in range(len(points)):
        squared = np.square(points - points[i]).sum(axis=1)
        order = sorted((j for j in range(len(points)) if j != i), key=lambda j: (squared[j], j))
        rows.append(order[:k])
    return np.asarray(rows)


def test_golden(golden_npz):
    golden = golden_npz("tools")
    coordinates, features = golden["graph_coords"], golden["graph_features"]
    spatial, latent = spatial_neighbours(coordinates, 8), feature_neighbours(features, 8)
    np.testing.assert_array_equal(spatial, golden["graph_spatial_neighbours_corrected"])
    np.testing.assert_array_equal(latent, golden["graph_latent_neighbours_corrected"])
    for points, found, name in ((coordinates, spatial, "spatial"), (features, latent, "latent")):
        own = np.asarray(points, np.float64)
        squared = np.square(own[found] - own[:, None]).sum(axis=2)
        np.testing.assert_allclose(squared, golden[f"graph_{name}_sqdist"], rtol=1e-6)
    # The original's approximate search was exact in distance on coordinates.
    squared = np.square(coordinates[spatial] - coordinates[:, None]).sum(axis=2)
    np.testing.assert_allclose(np.sort(squared, axis=1), golden["graph_spatial_original_sqdist_sorted"])


@settings(deadline=None)
@given(st.data())
def test_spatial_neighbours_equal_brute_force(data):
    """Points of a small grid, many of them at the same place: nearly all distances tie."""
    n = data.draw(st.integers(2, 60))
    points = data.draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(0, 5))) * 1024
    k = data.draw(st.integers(1, min(8, n - 1)))
    np.testing.assert_array_equal(spatial_neighbours(points, k), brute_force(points, k))


@settings(deadline=None)
@given(st.data())
def test_feature_neighbours_equal_brute_force(data):
    """Repeated and nearly equal rows, far from the origin, where float32 products cannot tell them apart."""
    n, width = data.draw(st.integers(2, 50)), data.draw(st.integers(1, 6))
    features = data.draw(hnp.arrays(np.float32, (n, width), elements=st.integers(0, 3).map(float)))
    shift = data.draw(st.sampled_from([0.0, 1000.0]))
    k = data.draw(st.integers(1, min(8, n - 1)))
    points = (features * np.float32(0.01) + np.float32(shift)).astype(np.float32)
    np.testing.assert_array_equal(feature_neighbours(points, k), brute_force(points, k))


def test_ties_beyond_the_first_candidates():
    """Forty points at one place: the smallest indices win, however many candidates tie."""
    points = np.zeros((40, 2), np.int64)
    expected = brute_force(points, 8)
    np.testing.assert_array_equal(spatial_neighbours(points, 8), expected)
    np.testing.assert_array_equal(feature_neighbours(points, 8), expected)


def test_blocks_join(monkeypatch):
    import advmil.prepare.neighbours as module

    features = np.random.default_rng(0).standard_normal((70, 5)).astype(np.float32)
    whole = feature_neighbours(features, 4)
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    np.testing.assert_array_equal(feature_neighbours(features, 4), whole)
    np.testing.assert_array_equal(whole, brute_force(features, 4))
