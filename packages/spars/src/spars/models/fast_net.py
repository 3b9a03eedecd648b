"""The original's classifier on stretched crops, with the first convolution computed on the crop.

The game stretches a crop of n voxels to N by repeating voxels, m(i) = floor(i·n/N), and the first convolution, which
takes 80 % of all multiply-adds, then mostly multiplies copies. Its output i sees the sources m(i), m(i + 1), m(i + 2).
With N ≥ 2n the steps between them are (0, 0), (0, 1) or (1, 0), so that the three weights of an axis act on the crop
as one of three *patterns* of two weights: (w₀ + w₁ + w₂, 0), (w₀ + w₁, w₂), (w₀, w₁ + w₂). All 27 combinations are
computed at every voxel of the crop, as one matrix product. The maximum over 2×2×2 is then taken axis by axis as the
larger of the even and the odd outputs, and where few pairs of outputs differ, once for each different pair.

Batch norms are folded into the convolutions, and the maximum is taken before ReLU, which commutes with it. Nothing is
approximated: results differ from the plain forward by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from spars.errors import DataError
from spars.models.net import Net
from spars.original.resize import nearest_sources

Size = tuple[int, int, int]

MOST_DIFFERENT = 0.6  # share of different pairs above which repeating them costs more than computing them all


@dataclass(frozen=True)
class AxisPlan:
    """How one axis of the first convolution and its pooling is computed.

    Attributes:
        sources: Source of each voxel that is computed on; None where that is the crop itself.
        length: Number of those voxels, n.
        select: bool ``[K, T, 3]``: which of the three weights belong to tap t of pattern k.
        even: int64 ``[U, 2]``: pattern and voxel of the first output of each different pair.
        odd: The same of the second.
        expand: int64 ``[P]``: pair of each pooled output; None where every one has its own.
    """

    sources: NDArray[np.int64] | None
    length: int
    select: NDArray[np.bool_]
    even: NDArray[np.int64]
    odd: NDArray[np.int64]
    expand: NDArray[np.int64] | None

    @property
    def patterns(self) -> int:
        """Number of patterns, K."""
        return self.select.shape[0]

    @property
    def taps(self) -> int:
        """Number of taps of a pattern, T."""
        return self.select.shape[1]


def plan_axis(n: int, target: int) -> AxisPlan:
    """Plan an axis of ``n`` voxels that is stretched to ``target``.

    An axis on which the patterns would not pay (below about twofold stretching) is stretched before, and has the one
    pattern of three taps.
    """
    on_crop = _plan(nearest_sources(n, target), None, n)
    if on_crop.patterns * on_crop.taps * n < 3 * target:
        return on_crop
    return _plan(np.arange(target), nearest_sources(n, target), target)


def _plan(where: NDArray[np.int64], sources: NDArray[np.int64] | None, length: int) -> AxisPlan:
    """Plan an axis on whose voxels ``where`` the outputs' three inputs lie."""
    offsets = np.stack([where[:-2], where[1:-1], where[2:]], axis=1) - where[:-2, None]
    kinds, kind = np.unique(offsets, axis=0, return_inverse=True)
    select = kinds[:, None, :] == np.arange(kinds.max() + 1)[None, :, None]
    outputs = np.stack([kind.reshape(-1), where[:-2]], axis=1)
    pooled = len(outputs) // 2
    pairs = np.concatenate([outputs[0 : 2 * pooled : 2], outputs[1 : 2 * pooled : 2]], axis=1)
    different, first, pair = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(
        first
    )  # in the order of the outputs, which keeps the gather's memory accesses ascending
    if len(different) > MOST_DIFFERENT * pooled:
        return AxisPlan(sources, length, select, pairs[:, :2], pairs[:, 2:], None)
    rank = np.argsort(order)
    different = different[order]
    return AxisPlan(sources, length, select, different[:, :2], different[:, 2:], rank[pair.reshape(-1)])


class FastNet(nn.Module):
    """``Net`` in evaluation mode for crops of one size, stretched by repeating voxels; exact up to rounding.

    Equal to ``net(stretch_nearest(crop, target))``; about ten times as fast at 48×48×24 on a CPU core.
    The weights are copied: build it again after training. It has no gradients.

    Args:
        net: The classifier.
        crop_shape: Size of the crops in voxels.
        target: What they are stretched to; None: the classifier's ``in_shape``.

    Raises:
        DataError: A crop without voxels.
    """

    def __init__(self, net: Net, crop_shape: Size, target: Size | None = None) -> None:
        super().__init__()
        if min(crop_shape) < 1:
            raise DataError(f"crop_shape must be positive, found {crop_shape}")
        self.crop_shape = crop_shape
        self.target = target or net.in_shape
        self.plans = [plan_axis(n, size) for n, size in zip(crop_shape, self.target, strict=True)]
        weight, bias = fold_norm(net.conv1, net.bn1)
        self.channels = len(bias)
        self.responses: Tensor
        self.bias: Tensor
        self.register_buffer("responses", _response_weights(weight, self.plans))
        self.register_buffer("bias", bias)
        later = ((net.conv2, net.bn2), (net.conv3, net.bn3), (net.conv4, net.bn4))
        self.later = nn.ModuleList(_folded(conv, norm) for conv, norm in later)
        self.linear = nn.ModuleList(_copy(layer) for layer in (net.fc1, net.fc2, net.fc3, net.fc4, net.fc5))

    @torch.no_grad()
    def forward(self, crops: Tensor) -> Tensor:
        """Map crops ``[n, *crop_shape]``, not stretched, to logits ``[n, 2]``.

        Raises:
            DataError: The crops have another size.
        """
        if crops.ndim != 4 or tuple(crops.shape[1:]) != self.crop_shape:
            raise DataError(
                f"FastNet was built for crops [n, {', '.join(map(str, self.crop_shape))}], found {list(crops.shape)}"
            )
        # One by one: a pooled map has 46 MB, and only the linear layers are faster together.
        maps = [self._features(crop.to(self.bias.dtype)) for crop in crops]
        x = torch.cat(maps) if maps else crops.new_zeros((0, cast(nn.Linear, self.linear[0]).in_features))
        for layer in self.linear[:-1]:
            x = torch.relu(layer(x))
        return self.linear[-1](x)

    def _features(self, crop: Tensor) -> Tensor:
        x = self.pooled_first(crop).permute(3, 0, 1, 2)[None]  # channels last in memory
        for index, convolution in enumerate(self.later):
            x = convolution(x)
            if index < 2:
                x = functional.max_pool3d(x, 2)
            x = torch.relu(x)
        return x.reshape(1, -1)

    def pooled_first(self, crop: Tensor) -> Tensor:
        """Map a crop to the first pooled map of the stretched crop, ``[127, 127, 89, 8]`` at the default size."""
        x, y, z = self.plans
        responses = self._respond(crop).view(x.patterns, y.patterns, x.length, -1)
        along_x = _larger_of_pairs(x, lambda pattern, voxel: responses[pattern, :, voxel], axis=1)
        along_x = along_x.view(y.patterns, len(x.even), y.length, -1)
        along_y = _larger_of_pairs(y, lambda pattern, voxel: along_x[pattern, :, voxel], axis=1)
        along_y = along_y.view(len(x.even), len(y.even), z.length, z.patterns, self.channels)
        pooled = _larger_of_pairs(z, lambda pattern, voxel: along_y[:, :, voxel, pattern], axis=2)
        pooled = torch.relu_(pooled.add_(self.bias))
        for axis in (2, 1, 0):  # the smallest rows while there are few of them
            expand = self.plans[axis].expand
            if expand is not None:
                pooled = pooled.index_select(axis, torch.from_numpy(expand).to(pooled.device))
        return pooled

    def _respond(self, crop: Tensor) -> Tensor:
        """Return the responses of all patterns, ``[Kx·Ky, nx·ny·nz, Kz·channels]``."""
        for axis, plan in enumerate(self.plans):
            if plan.sources is not None:
                crop = crop.index_select(axis, torch.from_numpy(plan.sources).to(crop.device))
        # The last outputs see taps beyond the crop with weight zero.
        x = functional.pad(crop, [n for plan in reversed(self.plans) for n in (0, plan.taps - 1)])
        for axis, plan in enumerate(self.plans):
            x = x.unfold(axis, plan.taps, 1)
        taps = x.reshape(-1, self.responses.shape[1])
        return taps.expand(len(self.responses), *taps.shape).bmm(self.responses)


def fold_norm(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that does what ``norm(convolution(x))`` does in evaluation mode."""
    weight, bias = convolution.weight.detach().double(), cast(Tensor, convolution.bias).detach().double()
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.detach().double() / torch.sqrt(variance + norm.eps)
    bias = (bias - mean) * scale + norm.bias.detach().double()
    dtype = convolution.weight.dtype
    return (weight * scale[:, None, None, None, None]).to(dtype), bias.to(dtype)


def _folded(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> nn.Conv3d:
    copy = nn.Conv3d(
        convolution.in_channels,
        convolution.out_channels,
        kernel_size=3,
        stride=2,
        dtype=convolution.weight.dtype,
    )
    weight, bias = fold_norm(convolution, norm)
    copy.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last_3d), requires_grad=False)
    copy.bias = nn.Parameter(bias, requires_grad=False)
    return copy


def _copy(layer: nn.Linear) -> nn.Linear:
    copy = nn.Linear(layer.in_features, layer.out_features, dtype=layer.weight.dtype, device="meta")
    copy.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    copy.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return copy


def _response_weights(weight: Tensor, plans: list[AxisPlan]) -> Tensor:
    """Return the patterns' weights as matrices ``[Kx·Ky, Tx·Ty·Tz, Kz·channels]``."""
    x, y, z = (torch.from_numpy(plan.select).to(weight) for plan in plans)
    summed = torch.einsum("cpqr,asp,dtq,eur->adstuec", weight[:, 0], x, y, z)
    return summed.reshape(len(x) * len(y), x.shape[1] * y.shape[1] * z.shape[1], len(z) * len(weight))


def _larger_of_pairs(plan: AxisPlan, pick: Callable[[int, int], Tensor], axis: int) -> Tensor:
    """Stack, along an axis, the larger of the two outputs of every pair.

    Slices are several times faster here than gathering by an index tensor: no copies of the operands.

    Args:
        plan: Of the spatial axis.
        pick: From a pattern and a voxel to the responses there.
        axis: Where the pairs go.
    """
    pairs = list(zip(plan.even.tolist(), plan.odd.tolist(), strict=True))
    first = pick(*pairs[0][0])
    result = first.new_empty((*first.shape[:axis], len(pairs), *first.shape[axis:]))
    for index, (even, odd) in enumerate(pairs):
        torch.maximum(pick(*even), pick(*odd), out=result.select(axis, index))
    return result
