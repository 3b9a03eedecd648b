"""ABMIL, gated attention pooling over patches (``bcb_mode: abmil``)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from advmil.models.backbone import Backbone
from advmil.models.layers import Dropout, GatedAttention, attention_pool, patch_linear


class ABMIL(Backbone):
    """``h = drop(relu(x W))``, gated attention over the patches, ``H = drop(relu(W' sum_n a_n h_n))``.

    ``[1, N, c] -> [1, N, h] -> [1, o]``.

    Args:
        dims: Input, hidden and embedding width.
        dropout: Rate in every place.
    """

    def __init__(self, dims: tuple[int, ...], dropout: float = 0.25) -> None:
        super().__init__()
        in_dim, hidden, out_dim = dims
        self.attention_net = nn.Sequential(
            nn.Linear(in_dim, hidden),
            nn.ReLU(),
            Dropout(dropout),
            GatedAttention(hidden, hidden, dropout),
        )
        self.rho = nn.Sequential(nn.Linear(hidden, out_dim), nn.ReLU(), Dropout(dropout))

    def first_layer(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Map every patch: ``[1, N, c] -> [1, N, h]``."""
        layer = cast(nn.Linear, self.attention_net[0])
        return patch_linear(x, layer.weight, layer.bias, known)

    def encode(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Pool the mapped patches ``[1, N, h]`` into ``[1, o]``; ``extra`` is not used."""
        hidden = self.attention_net[2](patches.relu_())
        return self.rho(attention_pool(self.attention_net[3](hidden), hidden))

    def attention(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the attention weight of every patch, ``[N]``."""
        return torch.softmax(self.attention_net(x), dim=1)[0, :, 0]
