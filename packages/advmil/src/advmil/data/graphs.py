"""Graphs of slides: reading, checking and joining those of a patient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advmil.errors import DataError
from medshared.checkpoints import WeightsError, load_checkpoint

KEYS = ("x", "edge_index", "edge_latent", "centroid")


class SlideGraph(NamedTuple):
    """The patches of a slide, or of a patient's slides side by side, as nodes.

    Attributes:
        x: Features, float32 ``[n, c]``.
        edge_index: Edges between neighbours on the slide, int64 ``[2, E]``: from row 0 to row 1.
        edge_latent: Edges between neighbours in feature space, int64 ``[2, F]``; null where there are none.
        centroid: Coordinates, float32 ``[n, 2]``; null where there are none.
    """

    x: Tensor
    edge_index: Tensor
    edge_latent: Tensor | None
    centroid: Tensor | None


@contextlib.contextmanager
def _geometric_classes() -> Iterator[None]:
    """Allow, for reading, exactly the classes that a pickled graph of torch-geometric consists of."""
    try:
        from torch_geometric.data import Data
        from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
        from torch_geometric.data.storage import GlobalStorage
    except ImportError as error:
        raise DataError("graphs pickled by torch-geometric need it: install advmil[geometric]") from error
    with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
        yield


def load_graph(path: Path | str, *, trust: bool = False) -> SlideGraph:
    """Read the graph of one slide.

    Args:
        path: ``.pt`` of a dictionary of tensors ``x``, ``edge_index``, ``edge_latent`` and ``centroid``.
        trust: Also read graph objects of torch-geometric, as the original's tool pickled them. Only that
            library's data classes are let through; anything else is refused all the same.

    Returns:
        The graph.

    Raises:
        DataError: No such file, cut off, pickled objects, missing tensors, edges to nodes that do not exist.
    """
    path = Path(path)
    try:
        with _geometric_classes() if trust else contextlib.nullcontext():
            content: Any = load_checkpoint(path)
    except WeightsError as error:
        hint = "" if trust else _trust_hint(error)
        raise DataError(f"{error}{hint}") from error
    if not isinstance(content, dict):
        content = {key: getattr(content, key, None) for key in KEYS}
    return _checked(path, content)


def _trust_hint(error: Exception) -> str:
    if "torch_geometric" not in str(error):
        return ""
    return (
        ". It is a graph object of torch-geometric: set trust_pickles: True if you made it yourself, or make the graphs"
        " again"
    )


def _checked(path: Path, content: dict[str, Any]) -> SlideGraph:
    missing = [key for key in ("x", "edge_index") if not isinstance(content.get(key), Tensor)]
    if missing:
        raise DataError(f"{path}: tensors {missing} are missing; the file holds {sorted(map(str, content))}")
    x, edges = content["x"].float(), content["edge_index"].long()
    if x.ndim != 2 or not len(x):
        raise DataError(f"{path}: x must have shape [n, c] with n above 0, found {list(x.shape)}")
    for key in ("edge_index", "edge_latent"):
        each = content.get(key)
        if each is None:
            continue
        if each.ndim != 2 or each.shape[0] != 2:
            raise DataError(f"{path}: {key} must have shape [2, E], found {list(each.shape)}")
        if each.numel() and (int(each.min()) < 0 or int(each.max()) >= len(x)):
            raise DataError(
                f"{path}: {key} names node {int(each.max())} but the graph has {len(x)} nodes: "
                "the graph was made for other features; make it again"
            )
    if not torch.isfinite(x).all():
        raise DataError(f"{path}: x holds NaN or infinite features: make features and graph again")
    latent = content.get("edge_latent")
    return SlideGraph(x, edges, None if latent is None else latent.long(), content.get("centroid"))


def join_graphs(graphs: Sequence[SlideGraph]) -> SlideGraph:
    """Put the graphs of a patient's slides side by side; no edge leads from one slide to another.

    Args:
        graphs: At least one.

    Returns:
        The joined graph; both kinds of edges are shifted by the number of preceding nodes. Latent edges and
        centroids are null unless all graphs have them.
    """
    if len(graphs) == 1:
        return graphs[0]
    offsets = [0]
    for graph in graphs[:-1]:
        offsets.append(offsets[-1] + len(graph.x))
    pairs = list(zip(graphs, offsets, strict=True))
    edges = torch.cat([graph.edge_index + offset for graph, offset in pairs], dim=1)
    latents = [graph.edge_latent + offset for graph, offset in pairs if graph.edge_latent is not None]
    centroids = [graph.centroid for graph in graphs if graph.centroid is not None]
    return SlideGraph(
        torch.cat([graph.x for graph in graphs]),
        edges,
        torch.cat(latents, dim=1) if len(latents) == len(graphs) else None,
        torch.cat(centroids) if len(centroids) == len(graphs) else None,
    )
