"""Layers that several networks share: attention pooling, region embedding, position code, the first linear layer."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

REGION_SIDE = 4  # patches along a region's side
REGION_SIZE = REGION_SIDE**2  # consecutive patches of one region


class _ReusedLinear(torch.autograd.Function):
    """A linear layer whose output is known already; only its gradient is computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, known: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight)
        return known.pop()  # from a list: autograd then takes it as new, and the next layer may write into it

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = (grad @ weight.to(grad.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None
        grad_weight = (rows.t() @ x.reshape(-1, x.shape[-1]).to(grad.dtype)).to(weight.dtype)
        return grad_x, grad_weight, rows.sum(0).to(weight.dtype), None


def patch_linear(x: Tensor, weight: Tensor, bias: Tensor | None, known: Tensor | None = None) -> Tensor:
    """Apply a linear layer to every patch; the costly first step of every network here.

    Args:
        x: Features ``[B, N, c]``.
        weight: ``[h, c]``, or ``[h, c, 1, 1]`` of a 1 x 1 convolution.
        bias: ``[h]``.
        known: The layer's output ``[B, N, h]`` where it was computed before with the same weights. It is
            given up: later layers may overwrite it.

    Returns:
        ``[B, N, h]``.
    """
    matrix = weight.flatten(1)
    if known is None:
        return F.linear(x, matrix, bias)
    return _ReusedLinear.apply(x, matrix, bias, [known])  # pyright: ignore[reportReturnType]


def gated(x: Tensor, tanh_branch: nn.Sequential, sigmoid_branch: nn.Sequential) -> Tensor:
    """Return ``drop(tanh(x W1 + b1)) * drop(sigmoid(x W2 + b2))``.

    A product of two independent masks that keep with probability q is one mask that keeps with q^2: it is drawn once.

    Args:
        x: ``[..., d]``.
        tanh_branch: Linear, Tanh, Dropout.
        sigmoid_branch: Linear, Sigmoid, Dropout.

    Returns:
        ``[..., h]``.
    """
    first, second = cast(nn.Dropout, tanh_branch[2]), cast(nn.Dropout, sigmoid_branch[2])
    gate = tanh_branch[:2](x) * sigmoid_branch[:2](x)
    return F.dropout(gate, 1 - (1 - first.p) * (1 - second.p), first.training)


class GAPool(nn.Module):
    """Gated attention pooling, ``[B, N, d] -> [B, d]``.

    ``s = w3 (tanh(x W1 + b1) * sigmoid(x W2 + b2)) + b3``, ``out = sum_n softmax(s)_n x_n``; dropout follows both
    gates.

    Args:
        width: Features of an instance, d.
        hidden: Width of the gates.
        dropout: Rate after each gate.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid(), nn.Dropout(dropout))
        self.fc2 = nn.Linear(hidden, 1)

    def weights(self, x: Tensor) -> Tensor:
        """Return the attention weights ``[B, N, 1]``; they sum to one over N."""
        return torch.softmax(self.fc2(gated(x, self.fc1, self.score)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool instances ``[B, N, d]`` into ``[B, d]``."""
        return (self.weights(x).transpose(1, 2) @ x).squeeze(1)


class GatedAttention(nn.Module):
    """Raw gated attention scores, ``[B, N, L] -> [B, N, 1]``, before any softmax.

    Args:
        width: Features of an instance, L.
        hidden: Width of the gates, D.
        dropout: Rate after each gate.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.attention_b = nn.Sequential(nn.Linear(width, hidden), nn.Sigmoid(), nn.Dropout(dropout))
        self.attention_c = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score instances ``[..., L]`` as ``[..., 1]``."""
        return self.attention_c(gated(x, self.attention_a, self.attention_b))


def attention_pool(scores: Tensor, x: Tensor) -> Tensor:
    """Return ``sum_n softmax(scores)_n x_n``.

    Args:
        scores: ``[B, N, 1]``.
        x: ``[B, N, h]``.

    Returns:
        ``[B, h]``.
    """
    return (torch.softmax(scores, dim=1).transpose(1, 2) @ x).squeeze(1)


def count_regions(n_patches: int) -> int:
    """Return how many regions of 16 patches a bag has.

    Raises:
        ValueError: The number of patches is zero or no multiple of 16.
    """
    if n_patches == 0 or n_patches % REGION_SIZE:
        raise ValueError(
            f"a bag of {n_patches} patches cannot be cut into regions of {REGION_SIZE} consecutive patches: make the "
            "patches with tools/big_to_small_patching.py, or group them into regions by their coordinates"
        )
    return n_patches // REGION_SIZE


class RegionEmbedding(nn.Module):
    """Embed regions of 4 x 4 patches: convolution, LayerNorm, ReLU, pooling; ``[B, N, in] -> [B, N / 16, out]``.

    A region is 16 consecutive rows, row by row. With kernel size 1 the convolution is a linear layer of each patch
    and is computed as one.

    Args:
        in_dim: Features of a patch.
        out_dim: Features of a region.
        kernel: 1 or 3 patches.
        pool: ``avgpool`` or ``gapool`` (gated attention within each region, without dropout).
        stride: Of the convolution; 1 in every configuration of the paper.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int = 1,
        pool: Literal["avgpool", "gapool"] = "avgpool",
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, stride, (kernel - 1) // 2)
        self.norm = nn.LayerNorm(out_dim)
        if pool == "gapool":
            self.pool = GAPool(out_dim, out_dim, 0.0)
        self._gated = pool == "gapool"
        self._linear = kernel == 1 and stride == 1

    def project(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Convolve: ``[B, N, in] -> [B, R P, out]``, P positions a region (16 with stride 1)."""
        n_bags, n_patches, width = x.shape
        regions = count_regions(n_patches)
        if self._linear:
            return patch_linear(x, self.conv.weight, self.conv.bias, known)
        squares = x.reshape(n_bags * regions, REGION_SIDE, REGION_SIDE, width).permute(0, 3, 1, 2)
        out = self.conv(squares)
        return out.flatten(2).transpose(1, 2).reshape(n_bags, -1, out.shape[1])

    def reduce(self, projected: Tensor, regions: int) -> Tensor:
        """Normalise, rectify and pool each region: ``[B, R P, out] -> [B, R, out]``."""
        active = self.norm(projected).relu_().unflatten(1, (regions, -1))
        if not self._gated:
            return active.mean(2)
        return self.pool(active.flatten(0, 1)).unflatten(0, (-1, regions))

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Embed the regions of bags ``[B, N, in]`` as ``[B, R, out]``."""
        return self.reduce(self.project(x, known), count_regions(x.shape[1]))


def position_code(coordinates: Tensor, width: int) -> Tensor:
    """Return sines and cosines of region positions, ``[B, R, 2] -> [B, R, width]``.

    ``[sin(x w), cos(x w), sin(y w), cos(y w)]`` with ``w_j = 10000^(-j / (width / 4 - 1))``, coordinates counted from
    the smallest of each axis.

    Args:
        coordinates: Positions of the regions (x, y), in steps of one region.
        width: Features, a multiple of 4.
    """
    shifted = (coordinates - coordinates.amin(dim=1, keepdim=True)).float()
    quarter = width // 4
    omega = torch.arange(quarter, dtype=torch.float32, device=coordinates.device) / (quarter - 1)
    omega = 1.0 / 10000.0**omega
    x, y = (shifted[..., axis, None] * omega for axis in (0, 1))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1)
