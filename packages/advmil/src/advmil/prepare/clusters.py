"""K-means over all patches of a patient, for DeepAttnMISL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advmil.errors import DataError
from medshared.bags import read_features
from medshared.files import atomic_open

N_CLUSTERS = 8
SEED = 42
RESTARTS = 10  # the original's library ran ten; newer versions default to one


def cluster_patches(
    features: NDArray[np.floating],
    n_clusters: int = N_CLUSTERS,
    *,
    seed: int = SEED,
    restarts: int = RESTARTS,
) -> NDArray[np.int32]:
    """Return the cluster of each patch; labels of two patients are not comparable.

    Args:
        features: [n, d].
        n_clusters: K.
        seed: Of the starts.
        restarts: Starts; the best is kept.

    Raises:
        DataError: Fewer patches than clusters.
    """
    from sklearn.cluster import KMeans

    if len(features) < n_clusters:
        raise DataError(f"{len(features)} patches cannot form {n_clusters} clusters; use fewer clusters")
    means = KMeans(n_clusters, random_state=seed, n_init=restarts).fit(np.asarray(features, dtype=np.float32))  # type: ignore[arg-type]
    return np.asarray(means.labels_, dtype=np.int32)


def write_clusters(
    feature_files: Sequence[Path], output: Path, n_clusters: int = N_CLUSTERS, *, restarts: int = RESTARTS
) -> int:
    """Cluster the patches of a patient's slides together and write ``<patient>.npy``; return their number.

    Args:
        feature_files: The patient's slides in the order of the table, as the bag is put together.
        output: The file.
        n_clusters: K.
        restarts: Starts of K-means.

    Raises:
        DataError: Too few patches; the message names the files.
    """
    features = np.concatenate([read_features(path) for path in feature_files])
    try:
        labels = cluster_patches(features, n_clusters, restarts=restarts)
    except DataError as error:
        raise DataError(f"{', '.join(str(path) for path in feature_files)}: {error}") from error
    with atomic_open(output) as file:
        np.save(file, labels, allow_pickle=False)
    return len(labels)
