"""The prompt encoder of SAM: clicks, boxes and a previous mask, with the original's key names."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from aespa.models.layers import LayerNorm2d

DIM = 256
INSIDE, OUTSIDE, NOT_A_POINT = 1, 0, -1


class RandomPositions(nn.Module):
    """Positions as sines and cosines of random frequencies."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, DIM // 2))

    def reset_parameters(self) -> None:
        """Draw the frequencies."""
        nn.init.normal_(self.positional_encoding_gaussian_matrix)

    def forward(self, places: Tensor) -> Tensor:
        """Encode places ``[...,2]`` in [0, 1] to ``[...,256]``, in float32."""
        matrix = self.positional_encoding_gaussian_matrix
        with torch.autocast(places.device.type, enabled=False):
            turns = 2 * math.pi * ((2 * places.to(matrix.dtype) - 1) @ matrix)
        return torch.cat([turns.sin(), turns.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Prompts to embeddings.

    Args:
        image_size: side S of the image in pixels.
        grid: tokens a side g of the image embedding.
    """

    def __init__(self, image_size: int, grid: int) -> None:
        super().__init__()
        self.image_size, self.grid = image_size, grid
        self.pe_layer = RandomPositions()
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, DIM) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, DIM)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, DIM, 1),
        )
        self.no_mask_embed = nn.Embedding(1, DIM)

    def dense_positions(self) -> Tensor:
        """Return the encoded centres of the image's tokens ``[1,256,g,g]``."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        centres = (torch.arange(self.grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]

    def sparse(self, coords: Tensor, labels: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Encode clicks and boxes.

        Args:
            coords: ``[B,T,2]`` pixel indices, first the one that is encoded as x.
            labels: ``[B,T]``; 1 inside, 0 outside, -1 no point; any other label adds nothing to the place.
            boxes: ``[B,4]`` two opposite corners, or ``None``.

        Returns:
            ``[B,T+1,256]``; the last is the not-a-point token, or with boxes ``[B,T+2,256]`` with their corners.
        """
        embeddings = [cast(nn.Embedding, each).weight for each in self.point_embeddings]
        nothing = self.not_a_point_embed.weight
        parts = []
        if coords.shape[1]:
            places = self.pe_layer((coords + 0.5) / self.image_size)
            kind = labels[..., None]
            places = torch.where(kind == NOT_A_POINT, torch.zeros_like(places), places)
            for label, embedding in (
                (NOT_A_POINT, nothing),
                (OUTSIDE, embeddings[0]),
                (INSIDE, embeddings[1]),
            ):
                places = places + (kind == label) * embedding
            parts.append(places)
        if boxes is None:
            parts.append(nothing.expand(len(coords), 1, DIM))
        else:
            corners = self.pe_layer((boxes.reshape(-1, 2, 2) + 0.5) / self.image_size)
            parts.append(corners + torch.cat(embeddings[2:])[None])
        return torch.cat(parts, dim=1)

    def dense(self, previous: Tensor | None, batch: int) -> Tensor:
        """Encode a previous mask.

        Args:
            previous: logits ``[B,1,4g,4g]``, or ``None``.
            batch: B.

        Returns:
            ``[B,256,g,g]``.
        """
        if previous is not None:
            return self.mask_downscaling(previous)
        return self.no_mask_embed.weight.view(1, DIM, 1, 1).expand(batch, -1, self.grid, self.grid)


def check_prompts(coords: Tensor, labels: Tensor, previous: Tensor | None, low_res: int) -> None:
    """Raise a message where shapes of prompts do not fit together."""
    if coords.ndim != 3 or coords.shape[-1] != 2 or labels.shape != coords.shape[:2]:
        raise ValueError(
            f"clicks must be coords [B,T,2] with labels [B,T], found {list(coords.shape)} and {list(labels.shape)}"
        )
    if previous is not None and previous.shape != (len(coords), 1, low_res, low_res):
        raise ValueError(
            f"the previous logits must be [{len(coords)}, 1, {low_res}, {low_res}], found {list(previous.shape)}"
        )
