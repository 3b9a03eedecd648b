"""The image encoder of SAM (a vision transformer), with the original's key names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aespa.models.architecture import WINDOW, Architecture
from aespa.models.attention import RelativeAttention
from aespa.models.fusion import Fcomb
from aespa.models.layers import LayerNorm2d
from aespa.models.tables import resize_positions

NECK = 256  # channels of the embedding


class PatchEmbed(nn.Module):
    """One token of every patch."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Turn ``[B,3,S,S]`` into ``[B,g,g,C]``."""
        return self.proj(images).permute(0, 2, 3, 1)


class Mlp(nn.Module):
    """Two layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``[...,C]``."""
        return self.lin2(self.act(self.lin1(x)))


class Block(nn.Module):
    """Attention and MLP, each on normalised tokens and added to what it was given."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = RelativeAttention(width, heads, side)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to tokens ``[B,g,g,C]``."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """Images ``[B,3,S,S]`` to an embedding ``[B,256,g,g]``; holds the fusion of latents, as in the original.

    Args:
        architecture: the network's architecture.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        size, self.grid = architecture.size, architecture.grid
        stored = size.stored_grid or self.grid
        self.pos_embed = nn.Parameter(torch.zeros(1, stored, stored, size.width))
        self.patch_embed = PatchEmbed(size.patch, size.width)
        self.blocks = nn.ModuleList(
            Block(size.width, size.heads, self.grid if i in size.global_blocks else WINDOW)
            for i in range(size.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(size.width, NECK, 1, bias=False),
            LayerNorm2d(NECK),
            nn.Conv2d(NECK, NECK, 3, padding=1, bias=False),
            LayerNorm2d(NECK),
        )
        self.fcomb = Fcomb(NECK)

    def forward(self, images: Tensor) -> Tensor:
        """Encode.

        Args:
            images: ``[B,3,S,S]`` in [0, 1].

        Returns:
            The neck's output ``[B,256,g,g]``.
        """
        x = self.patch_embed(images)
        x = x + resize_positions(self.pos_embed, self.grid)
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
