"""The two-way transformer of the mask decoder: prompt tokens and image tokens attend to each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from aespa.config import Block

DIM, HEADS, DEPTH = 256, 8, 2


class Attention(nn.Module):
    """Attention at an inner width.

    Args:
        inner: width of queries, keys and values; 256 or less.
    """

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.inner = inner
        self.q_proj = nn.Linear(DIM, inner)
        self.k_proj = nn.Linear(DIM, inner)
        self.v_proj = nn.Linear(DIM, inner)
        self.out_proj = nn.Linear(inner, DIM)

    def reset_parameters(self) -> None:
        """Draw q, k and v as one layer of three outputs; all biases are zero."""
        bound = math.sqrt(6 / (DIM + 3 * self.inner))
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        self.out_proj.reset_parameters()
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: ``[B,m,256]`` to ``[B,n,256]``."""
        split = [
            project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        ]
        out = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TokenMlp(nn.Module):
    """Two layers with a ReLU between; the names are those of the original's checkpoints."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(DIM, hidden), nn.ReLU(inplace=True)))
        self.fc = nn.Linear(hidden, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``[...,256]``."""
        return self.fc(self.layers(x))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, to the image, pass an MLP; then the image attends to them.

    Args:
        block: ``sam``: in the first layer the tokens' places are not added and the attention replaces its input;
            ``efficient`` (EfficientSAM, the original): places are added to the tokens themselves after the first
            layer, and every attention adds to its input.
        first: whether this is the first layer.
        hidden: width of the MLP.
    """

    def __init__(self, block: Block, first: bool, hidden: int) -> None:
        super().__init__()
        self.block, self.first = block, first
        self.self_attn = Attention(DIM)
        self.norm1 = nn.LayerNorm(DIM)
        self.cross_attn_token_to_image = Attention(DIM // 2)
        self.norm2 = nn.LayerNorm(DIM)
        self.mlp = TokenMlp(hidden)
        self.norm3 = nn.LayerNorm(DIM)
        self.norm4 = nn.LayerNorm(DIM)
        self.cross_attn_image_to_token = Attention(DIM // 2)

    def among_tokens(self, q: Tensor, places: Tensor) -> Tensor:
        """Return the tokens ``[B,t,256]`` after attention among themselves."""
        if self.block == "efficient":
            q = q if self.first else q + places
            return self.norm1(q + self.self_attn(q, q, q))
        if self.first:
            return self.norm1(self.self_attn(q, q, q))
        return self.norm1(q + self.self_attn(q + places, q + places, q))

    def with_image(self, q: Tensor, k: Tensor, places: Tensor, image_places: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens ``[B,t,256]`` and image tokens ``[B,n,256]`` after attending to each other."""
        k_placed = k + image_places
        q = self.norm2(q + self.cross_attn_token_to_image(q + places, k_placed, k))
        q = self.norm3(q + self.mlp(q))
        return q, self.norm4(k + self.cross_attn_image_to_token(k_placed, q + places, q))


class TwoWayTransformer(nn.Module):
    """Two blocks and a last attention of the tokens to the image.

    Args:
        block: see `TwoWayBlock`.
        hidden: width of the MLPs.
    """

    def __init__(self, block: Block, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(block, i == 0, hidden) for i in range(DEPTH))
        self.final_attn_token_to_image = Attention(DIM // 2)
        self.norm_final_attn = nn.LayerNorm(DIM)

    def forward(self, tokens: Tensor, image: Tensor, image_places: Tensor) -> tuple[Tensor, Tensor]:
        """Transform.

        Args:
            tokens: ``[B,t,256]``.
            image: image tokens ``[N*B,n,256]``, all of the first sample first; N may be 1.
            image_places: encoded places of the image tokens ``[1,n,256]``.

        Returns:
            Tokens ``[N*B,t,256]`` and image tokens ``[N*B,n,256]``.
        """
        q, k, places = tokens, image, tokens
        for layer in cast(Iterable[TwoWayBlock], self.layers):
            q = layer.among_tokens(q, places)
            if len(q) != len(k):  # until here all samples of an image have the same tokens
                samples = len(k) // len(q)
                q, places = q.repeat(samples, 1, 1), places.repeat(samples, 1, 1)
            q, k = layer.with_image(q, k, places, image_places)
        attended = self.final_attn_token_to_image(q + places, k + image_places, k)
        return self.norm_final_attn(q + attended), k
