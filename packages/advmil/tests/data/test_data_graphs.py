"""Graphs of slides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from advmil.data.graphs import SlideGraph, join_graphs, load_graph
from advmil.errors import DataError


def tensors(n: int = 3, **changes: Any) -> dict[str, Any]:
    edges = torch.tensor([[0, 1], [1, 2]])
    return {
        "x": torch.ones(n, 4),
        "edge_index": edges,
        "edge_latent": edges.flip(0),
        "centroid": torch.zeros(n, 2),
    } | changes


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_dictionary_of_tensors_is_read(tmp_path: Path) -> None:
    graph = load_graph(save(tmp_path / "g.pt", tensors()))
    assert graph.edge_index.tolist() == [[0, 1], [1, 2]]
    assert graph.edge_latent is not None
    assert graph.x.shape == (3, 4)


def test_joined_slides_keep_their_edges_to_themselves() -> None:
    graph = SlideGraph(**tensors())
    joined = join_graphs([graph, graph])
    assert joined.edge_index.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]
    assert joined.edge_latent is not None
    assert joined.edge_latent.tolist() == [[1, 2, 4, 5], [0, 1, 3, 4]]
    assert joined.x.shape == (6, 4)
    assert join_graphs([graph]) is graph
    assert join_graphs([graph, graph._replace(edge_latent=None)]).edge_latent is None


def test_pickled_graphs_need_trust(tmp_path: Path) -> None:
    from torch_geometric.data import Data

    path = save(tmp_path / "g.pt", Data(**tensors()))
    with torch.serialization.safe_globals([]):
        torch.serialization.clear_safe_globals()
        with pytest.raises(
            DataError, match=r"refused.*graph object of torch-geometric: set trust_pickles: True"
        ):
            load_graph(path)
        graph = load_graph(path, trust=True)
    assert graph.edge_index.tolist() == [[0, 1], [1, 2]]
    assert graph.centroid is not None


def test_trust_goes_no_further_than_graphs(tmp_path: Path) -> None:
    path = save(tmp_path / "g.pt", {"x": torch.ones(2, 2), "edge_index": tmp_path})
    with pytest.raises(DataError, match="refused"):
        load_graph(path, trust=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": torch.ones(2, 2)}, r"tensors \['edge_index'\] are missing"),
        (tensors(2), "edge_index names node 2 but the graph has 2 nodes"),
        (tensors(edge_index=torch.ones(3, 2)), r"must have shape \[2, E\]"),
        (tensors(x=torch.full((3, 4), torch.nan)), "NaN or infinite"),
        (tensors(x=torch.ones(0, 4)), "n above 0"),
    ],
)
def test_unusable_graphs_are_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_graph(save(tmp_path / "g.pt", content))


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "g.pt", tensors())
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match="cut off after 400 bytes"):
        load_graph(path)
