"""A dilated 3x3 convolution that multiplies only where its taps see the map and not the padding.

On a map of 16x16 a tap of dilation 12 covers 4 of 16 rows, one of dilation 18 none: of the nine taps' products 56 %
(dilation 6), 25 % (12) and 11 % (18) are not with padding. Each useful tap is one matrix product over the part of the
map that it covers; the sum is the convolution's, up to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

USEFUL_SHARE = 0.6  # of the taps' products, above which the plain convolution is at least as fast


class _Tap(NamedTuple):
    """One weight of the kernel: its place, and the windows of input and output that it connects."""

    row: int
    column: int
    source: tuple[slice, slice, slice]  # of [B, H, W, C]
    target: tuple[slice, slice, slice]


def useful_share(height: int, width: int, dilation: int) -> float:
    """Return the share of a same-padded 3x3 convolution's products that are not with padding.

    Args:
        height: Of the map, in pixels.
        width: Of the map, in pixels.
        dilation: Of the kernel, in pixels.

    Returns:
        A number in (0, 1]; 1/9 when only the centre of the kernel sees the map.
    """

    def side(length: int) -> float:
        return (length + 2 * max(0, length - dilation)) / (3 * length)

    return side(height) * side(width)


class CroppedConv2d(nn.Conv2d):
    """A 3x3 convolution with bias, whose padding equals its dilation, for maps not much larger than that.

    The parameters and their names are those of ``nn.Conv2d``. Weights of taps that see only padding get the
    gradient 0, as in the plain convolution, so that weight decay still applies to them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        dilation: Of the kernel, and the padding.

    Attributes:
        cropped: True or False prescribes or forbids cropping; None (default) decides by the map's size.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.cropped: bool | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[B, in_channels, H, W]`` to ``[B, out_channels, H, W]``."""
        rate = int(self.dilation[0])
        cropped = self.cropped
        if cropped is None:
            cropped = useful_share(input.shape[-2], input.shape[-1], rate) <= USEFUL_SHARE
        if not cropped or self.bias is None:
            return super().forward(input)
        weight, bias, kind = self.weight, self.bias, input.device.type
        if torch.is_autocast_enabled(kind):  # a custom function is not among those that autocast knows
            dtype = torch.get_autocast_dtype(kind)
            input, weight, bias = input.to(dtype), weight.to(dtype), bias.to(dtype)
        return _CroppedConvolution.apply(input, weight, bias, rate)  # type: ignore[no-any-return]


def _useful_taps(height: int, width: int, rate: int) -> list[_Tap]:
    """List the taps that see the map; the centre, which sees all of it, comes first."""

    def windows(shift: int, length: int) -> tuple[slice, slice]:
        source = slice(max(0, shift), length + min(0, shift))
        return source, slice(source.start - shift, source.stop - shift)

    taps = []
    for row, column in [(1, 1), *((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))]:
        down, right = (row - 1) * rate, (column - 1) * rate
        if abs(down) < height and abs(right) < width:
            (rows, target_rows), (columns, target_columns) = windows(down, height), windows(right, width)
            batch = slice(None)
            taps.append(_Tap(row, column, (batch, rows, columns), (batch, target_rows, target_columns)))
    return taps


class _CroppedConvolution(torch.autograd.Function):
    """Matrix products over pixels-by-channels, written out so that no full-size temporary is made per tap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rate: int) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).contiguous()  # no copy of a map in channels_last
        matrices = weight.permute(2, 3, 0, 1)  # [3, 3, O, C]
        if matrices.stride(-1) != 1:  # weights in channels_last are matrices as they are
            matrices = matrices.contiguous()
        height, width = x.shape[-2:]
        out = pixels.new_empty((*pixels.shape[:3], weight.shape[0]))
        for tap in _useful_taps(height, width, rate):
            matrix = matrices[tap.row, tap.column].t()
            source = pixels[tap.source].reshape(-1, weight.shape[1])
            if tap.row == tap.column == 1:
                torch.addmm(bias, source, matrix, out=out.view(-1, weight.shape[0]))
            else:
                window = out[tap.target]
                window += (source @ matrix).view(window.shape)
        ctx.save_for_backward(pixels, matrices)
        ctx.rate = rate
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - an effect of the decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        pixels, matrices = ctx.saved_tensors
        need_input, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad = grad_outputs[0].permute(0, 2, 3, 1).contiguous()
        (_, height, width, channels), outputs = pixels.shape, grad.shape[-1]
        grad_pixels = torch.empty_like(pixels) if need_input else None
        grad_matrices = torch.zeros_like(matrices) if need_weight else None  # in the layout of the weights
        for tap in _useful_taps(height, width, ctx.rate):
            part = grad[tap.target].reshape(-1, outputs)
            if grad_matrices is not None:
                source = pixels[tap.source].reshape(-1, channels)
                torch.mm(part.t(), source, out=grad_matrices[tap.row, tap.column])
            if grad_pixels is not None and tap.row == tap.column == 1:
                torch.mm(part, matrices[1, 1], out=grad_pixels.view(-1, channels))
            elif grad_pixels is not None:
                window = grad_pixels[tap.source]
                window += (part @ matrices[tap.row, tap.column]).view(window.shape)
        return (
            None if grad_pixels is None else grad_pixels.permute(0, 3, 1, 2),
            None if grad_matrices is None else grad_matrices.permute(2, 3, 0, 1),
            grad.sum((0, 1, 2)) if need_bias else None,
            None,
        )
