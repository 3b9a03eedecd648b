"""PatchGCN, the graph backbone (``bcb_mode: graph``), in plain torch."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from advmil.models.backbone import Backbone
from advmil.models.layers import Dropout, GatedAttention, attention_pool, patch_linear

MESSAGE_EPS = 1e-7


class GENConv(nn.Module):
    """Softmax-aggregating graph convolution, ``[N, h] -> [N, h]``.

    ``m_e = relu(x_source) + 1e-7``; each target averages its incoming messages with ``softmax(t m)`` of every channel;
    ``MLP(x + aggregate)`` with the learnable scalar t. A node without incoming edges gets zeros.

    Args:
        width: h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.ones(1))
        # The fourth place is a dropout of rate zero in graph libraries; the keys 0, 1 and 4 count it.
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Pass messages from ``edges[0]`` to ``edges[1]``, ``[2, E]``."""
        # A message depends on its source alone, so exp(t m) is computed once a node, not once an edge. The largest
        # exponent of a channel is taken out; constants cancel in the softmax.
        message = x.relu() + MESSAGE_EPS
        return self.mlp(x + self._aggregate(message, edges))

    def _aggregate(self, message: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        scaled = (message * self.t).index_select(0, source)
        index = target[:, None].expand_as(scaled)
        with torch.no_grad():
            largest = torch.full_like(message, -torch.inf, dtype=scaled.dtype)
            largest = largest.scatter_reduce_(0, index, scaled, "amax")
        share = (scaled - largest.index_select(0, target)).exp()
        total = torch.zeros_like(message, dtype=share.dtype).index_add_(0, target, share)
        weighted = share * message.index_select(0, source)
        summed = torch.zeros_like(message, dtype=weighted.dtype).index_add_(0, target, weighted)
        return summed / total.clamp(min=1e-16)


class _GraphLayer(nn.Module):
    """One convolution with its norm; deeper layers are residual: ``x + relu(norm(conv(x)))``, then dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = GENConv(width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(0.1)

    def residual(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.dropout(x + self.norm(self.conv(x, edges)).relu())


class PatchGCN(Backbone):
    """``x0 = drop(relu(x W))``, graph convolutions, all depths concatenated, gated attention over the patches.

    ``[1, N, c] -> [N, h (1 + layers)] -> [N, o] -> [1, o]``.

    Args:
        dims: Input, hidden and embedding width.
        dropout: Rate outside the graph layers.
        n_layers: Graph convolutions; 1 in the paper's configuration.
    """

    unused = ("layers.0.norm.weight", "layers.0.norm.bias")  # the first layer is applied without its norm

    def __init__(self, dims: tuple[int, ...], dropout: float = 0.25, n_layers: int = 1) -> None:
        super().__init__()
        in_dim, hidden, out_dim = dims
        self.fc = nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), Dropout(dropout))
        self.layers = nn.ModuleList([_GraphLayer(hidden) for _ in range(n_layers)])
        self.path_phi = nn.Sequential(
            nn.Linear(hidden * (1 + n_layers), out_dim), nn.ReLU(), Dropout(dropout)
        )
        self.path_attention_head = GatedAttention(out_dim, out_dim, dropout)

    def first_layer(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Map every patch: ``[1, N, c] -> [1, N, h]``."""
        layer = cast(nn.Linear, self.fc[0])
        return patch_linear(x, layer.weight, layer.bias, known)

    def encode(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Pool the mapped patches over their graph ``extra`` ``[2, E]``."""
        nodes = self._nodes(patches, extra)
        return attention_pool(self.path_attention_head(nodes), nodes)

    def attention(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the attention weight of every patch, ``[N]``."""
        scores = self.path_attention_head(self._nodes(self.first_layer(x), extra))
        return torch.softmax(scores, dim=1)[0, :, 0]

    def _nodes(self, patches: Tensor, edges: Tensor | None) -> Tensor:
        if edges is None:
            raise ValueError("the graph backbone needs the edges between patches; see path_graph")
        x = self.fc[2](patches.relu_())[0]
        depths = [x]
        for number, layer in enumerate(self.layers):
            block = cast(_GraphLayer, layer)
            x = block.residual(x, edges) if number else block.conv(x, edges)
            depths.append(x)
        return self.path_phi(torch.cat(depths, dim=1)[None])
