"""Graphs of patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from advmil.errors import DataError
from advmil.prepare.graphs import build_graph, write_graph
from advmil.synthetic import region_coordinates, write_features, write_grid
from medshared.bags import BagError


def test_golden_form(golden_npz, golden_json):
    arrays, golden = golden_npz("tools"), golden_json("tools")["graph"]
    graph = build_graph(arrays["graph_features"], arrays["graph_coords"])
    assert list(graph["edge_index"].shape) == golden["edge_index_shape"]
    assert torch.equal(graph["edge_index"][0], torch.arange(golden["n"]).repeat_interleave(8))
    found = graph["edge_index"][1].reshape(-1, 8).numpy()
    np.testing.assert_array_equal(found, arrays["graph_spatial_neighbours_corrected"])
    latent = graph["edge_latent"][1].reshape(-1, 8).numpy()
    np.testing.assert_array_equal(latent, arrays["graph_latent_neighbours_corrected"])
    assert graph["x"].dtype == graph["centroid"].dtype == torch.float32
    assert graph["edge_index"].dtype == graph["edge_latent"].dtype == torch.int64


def test_fewer_patches_than_neighbours():
    graph = build_graph(np.eye(3, dtype=np.float32), [[0, 0], [10, 0], [30, 0]])
    assert graph["edge_index"].tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 1, 0]]


def test_refused_input():
    with pytest.raises(DataError, match="1 patch: a graph needs at least 2"):
        build_graph(np.ones((1, 4)), [[0, 0]])
    with pytest.raises(DataError, match="3 rows of features, but 2 coordinates"):
        build_graph(np.ones((3, 4)), [[0, 0], [1, 1]])


def test_file_is_plain_tensors(tmp_path: Path):
    features = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    pair = (write_features(tmp_path / "a.pt", features), write_grid(tmp_path / "a.h5", region_coordinates(1)))
    assert write_graph(*pair, tmp_path / "graph.pt") == 16
    loaded = torch.load(tmp_path / "graph.pt", weights_only=True)
    assert sorted(loaded) == ["centroid", "edge_index", "edge_latent", "x"]
    np.testing.assert_array_equal(loaded["x"].numpy(), features)


def test_broken_files_are_named(tmp_path: Path):
    features = write_features(tmp_path / "a.pt", np.ones((5, 4), np.float32))
    grid = write_grid(tmp_path / "a.h5", region_coordinates(1))
    with pytest.raises(DataError, match=r"a\.pt and .*a\.h5: 5 rows of features, but 16 coordinates"):
        write_graph(features, grid, tmp_path / "graph.pt")
    grid.write_bytes(grid.read_bytes()[:700])
    with pytest.raises(BagError, match=r"a\.h5: not a whole HDF5 file"):
        write_graph(features, grid, tmp_path / "graph.pt")
    assert not (tmp_path / "graph.pt").exists()
