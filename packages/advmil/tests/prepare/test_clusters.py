"""Clusters of patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advmil.errors import DataError
from advmil.prepare.clusters import cluster_patches, write_clusters
from advmil.synthetic import write_features


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    """Return the groups of rows, whatever their numbers."""
    return {frozenset(np.flatnonzero(labels == each).tolist()) for each in np.unique(labels)}


def inertia(features: np.ndarray, labels: np.ndarray) -> float:
    groups = (features[labels == each].astype(np.float64) for each in np.unique(labels))
    return float(sum(np.square(group - group.mean(axis=0)).sum() for group in groups))


def test_golden_partition(golden_npz, golden_json):
    golden, told = golden_npz("tools"), golden_json("tools")["cluster"]
    features = golden["cluster_features"]
    labels = cluster_patches(features)
    assert str(labels.dtype) == told["dtype"]
    assert np.bincount(labels).tolist() == told["counts"]
    assert partition(labels) == partition(golden["cluster_labels_original"])
    assert inertia(features, labels) == pytest.approx(told["inertia"], rel=1e-5)


def test_slides_of_a_patient_are_clustered_together(tmp_path: Path, golden_npz):
    features = golden_npz("tools")["cluster_features"]
    files = [
        write_features(tmp_path / f"{n}.pt", part) for n, part in enumerate((features[:30], features[30:]))
    ]
    assert write_clusters(files, tmp_path / "7.npy") == 88
    labels = np.load(tmp_path / "7.npy", allow_pickle=False)
    assert partition(labels) == partition(cluster_patches(features))


def test_too_few_patches(tmp_path: Path):
    file = write_features(tmp_path / "a.pt", np.ones((3, 4), np.float32))
    with pytest.raises(DataError, match=r"a\.pt: 3 patches cannot form 8 clusters"):
        write_clusters([file], tmp_path / "a.npy")
    assert not (tmp_path / "a.npy").exists()


def test_same_seed_same_labels(golden_npz):
    features = np.random.default_rng(1).standard_normal((60, 5)).astype(np.float32)
    np.testing.assert_array_equal(cluster_patches(features, 4), cluster_patches(features, 4))
