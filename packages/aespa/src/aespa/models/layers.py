"""Small parts that several networks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Normalisation over the channels of every pixel of a map ``[B,C,H,W]``."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def reset_parameters(self) -> None:
        """Set scale 1 and shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def last(self, x: Tensor) -> Tensor:
        """Normalise ``[...,C]``, channels last."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map ``[B,C,H,W]``."""
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
