"""Graphs of patches for PatchGCN: 8 nearest neighbours on the slide and in feature space."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from advmil.errors import DataError
from advmil.prepare.neighbours import Ints, feature_neighbours, spatial_neighbours
from medshared.bags import read_coordinates, read_features
from medshared.files import write_bytes

NEIGHBOURS = 8


def edges(neighbours: Ints) -> Tensor:
    """Return ``edge_index`` [2, n k]: row 0 the querying node, row 1 its neighbours, nearest first."""
    n, k = neighbours.shape
    return torch.from_numpy(np.stack([np.repeat(np.arange(n), k), neighbours.ravel()]))


def build_graph(features: ArrayLike, coordinates: ArrayLike, k: int = NEIGHBOURS) -> dict[str, Tensor]:
    """Build the graph of one slide.

    Args:
        features: [n, d].
        coordinates: Level-0 pixels, [n, 2].
        k: Neighbours of each patch; n - 1 when there are fewer patches.

    Returns:
        ``x`` float32 [n, d], ``edge_index`` and ``edge_latent`` int64 [2, n k], ``centroid`` float32 [n, 2].

    Raises:
        DataError: Features and coordinates of different length, or a single patch.
    """
    x = np.asarray(features, dtype=np.float32)
    places = np.asarray(coordinates)
    if len(x) != len(places):
        raise DataError(f"{len(x)} rows of features, but {len(places)} coordinates")
    if len(x) < 2:
        raise DataError(f"{len(x)} patch: a graph needs at least 2")
    k = min(k, len(x) - 1)
    return {
        "x": torch.from_numpy(np.array(x)),
        "edge_index": edges(spatial_neighbours(places, k)),
        "edge_latent": edges(feature_neighbours(x, k)),
        "centroid": torch.from_numpy(places.astype(np.float32)),
    }


def write_graph(feature_file: Path, coordinate_file: Path, output: Path, k: int = NEIGHBOURS) -> int:
    """Build the graph of one slide from its files and write it; return the number of patches.

    The file is a plain dictionary of tensors, loadable without a graph library.

    Raises:
        DataError: The files do not belong together; the message names them.
    """
    try:
        graph = build_graph(read_features(feature_file), read_coordinates(coordinate_file).xy, k)
    except DataError as error:
        raise DataError(f"{feature_file} and {coordinate_file}: {error}") from error
    buffer = io.BytesIO()
    torch.save(graph, buffer)
    write_bytes(output, buffer.getvalue())
    return len(graph["x"])
