"""The mask decoder of SAM: tokens of prompts and image features to masks of low resolution."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from aespa.models.architecture import Architecture
from aespa.models.layers import LayerNorm2d
from aespa.models.two_way import DIM, TwoWayTransformer

MASKS = 4  # mask 0 is the single answer; 1 to 3 are SAM's alternatives
UPSCALED = 32  # channels of the upscaled map


class TokenLayers(nn.Module):
    """Linear layers with ReLU between.

    Args:
        widths: of the input, the hidden layers and the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``[...,C]``."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(functional.relu(x))
        return x


class MaskDecoder(nn.Module):
    """Image features and prompts to logits.

    Args:
        architecture: the network's architecture.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.grid = architecture.grid
        self.transformer = TwoWayTransformer(architecture.block, architecture.size.decoder_mlp)
        self.iou_token = nn.Embedding(1, DIM)
        self.mask_tokens = nn.Embedding(MASKS, DIM)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(DIM, 64, 2, stride=2),
            LayerNorm2d(64),
            nn.GELU(),
            nn.ConvTranspose2d(64, UPSCALED, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            TokenLayers(DIM, DIM, DIM, UPSCALED) for _ in range(MASKS)
        )
        self.iou_prediction_head = TokenLayers(DIM, DIM, DIM, MASKS)

    def transform(
        self, image: Tensor, places: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the transformer.

        Args:
            image: image features ``[N,B,g*g,256]``, channels last.
            places: ``[1,256,g,g]``.
            sparse: ``[B,t,256]``.
            dense: ``[B,256,g,g]``.

        Returns:
            Tokens ``[N*B,5+t,256]`` (quality, four masks, prompts) and image tokens ``[N*B,g*g,256]``.
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        image = image + dense.flatten(2).transpose(1, 2)
        return self.transformer(tokens, image.flatten(0, 1), places.flatten(2).transpose(1, 2))

    def upscale(self, image: Tensor) -> Tensor:
        """Upscale image tokens four times.

        The convolutions do not overlap, so each is a matrix product of every token with the weights of its 2 x 2
        pixels; the order stays token by token until `_unfold`.

        Args:
            image: ``[n,g*g,256]``.

        Returns:
            ``[n,g*g,2,2,2,2,32]``: row and column of the first doubling, then of the second.
        """
        first, norm, _, second, _ = self.output_upscaling
        x = _double(image, cast(nn.ConvTranspose2d, first))
        x = functional.gelu(cast(LayerNorm2d, norm).last(x))
        return functional.gelu(_double(x, cast(nn.ConvTranspose2d, second)))

    def masks(self, tokens: Tensor, image: Tensor, chosen: slice = slice(0, 1)) -> Tensor:
        """Return the logits of the chosen masks ``[n,m,4g,4g]`` from what `transform` returns."""
        numbers = range(MASKS)[chosen]
        weights = torch.stack([self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in numbers], dim=-1)
        upscaled = self.upscale(image)
        logits = torch.bmm(upscaled.flatten(1, -2), weights)  # [n, pixels, m]
        g = self.grid
        logits = logits.view(len(tokens), g, g, 2, 2, 2, 2, len(numbers))
        return logits.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(len(tokens), len(numbers), 4 * g, 4 * g)

    def forward(
        self, image: Tensor, places: Tensor, sparse: Tensor, dense: Tensor, multimask: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Decode one sample an image, with SAM's estimate of the quality.

        Args:
            image: ``[B,256,g,g]``, or ``[1,256,g,g]`` for all prompts.
            places: ``[1,256,g,g]``.
            sparse: ``[B,t,256]``.
            dense: ``[B,256,g,g]``.
            multimask: SAM's three alternatives instead of the single mask.

        Returns:
            Logits ``[B,m,4g,4g]`` and qualities ``[B,m]``, m = 3 or 1.
        """
        features = image.flatten(2).transpose(1, 2).expand(len(sparse), -1, -1)
        tokens, image = self.transform(features[None], places, sparse, dense)
        chosen = slice(1, MASKS) if multimask else slice(0, 1)
        return self.masks(tokens, image, chosen), self.iou_prediction_head(tokens[:, 0])[:, chosen]


def _double(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Apply a 2 x 2 transposed convolution of stride 2 to each token: ``[...,C]`` → ``[...,2,2,D]``."""
    weight = layer.weight.permute(2, 3, 1, 0)  # row, column, out, in
    bias = None if layer.bias is None else layer.bias.repeat(4)
    return functional.linear(x, weight.flatten(0, 2), bias).unflatten(-1, weight.shape[:3])
