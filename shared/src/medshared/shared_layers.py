"""Layers that see the whole batch while each process computes its share of it (see `medshared.distributed`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medshared.distributed import Share, process_count, summed
from medshared.processes import ProcessesError

_share: Share | None = None


@contextmanager
def computing(share: Share) -> Iterator[Share]:
    """Tell the layers, within the block, which share of the batch passes through them."""
    global _share
    before, _share = _share, share
    try:
        yield share
    finally:
        _share = before


def share_layers(network: nn.Module, device: torch.device) -> None:
    """Replace the dropout and batch-norm layers of a network in place, if several processes train it.

    Parameters, buffers and their names stay. On CUDA batch norm becomes torch's ``SyncBatchNorm``.

    Args:
        network: before its optimiser is built.
        device: where it runs.

    Raises:
        ProcessesError: when it has a kind of dropout that this module does not know.
    """
    if process_count() == 1:
        return
    for name, layer in list(network.named_children()):
        if type(layer) is nn.Dropout:
            setattr(network, name, SharedDropout(layer.p, layer.inplace).train(layer.training))
        elif isinstance(layer, nn.modules.dropout._DropoutNd):
            raise ProcessesError(f"{type(layer).__name__} ({name}) cannot be shared by several processes yet")
        elif isinstance(layer, _BatchNorm):
            setattr(network, name, _synchronised(layer, device))
        else:
            share_layers(layer, device)


def _synchronised(layer: _BatchNorm, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    return SharedBatchNorm(layer)


class SharedDropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch in every process: each drops what one process would drop."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of this process's rows."""
        share = _share
        if not self.training or not self.p or share is None or share.whole:
            return super().forward(input)
        shape = (share.n, *input.shape[1:])
        # As torch draws for a tensor of that layout.
        last = input.ndim == 4 and not input.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        kept = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=layout)
        return input * kept.bernoulli_(1 - self.p).div_(1 - self.p)[share.own]


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the samples of all processes, on any device (torch's own needs CUDA).

    Args:
        layer: whose parameters and statistics are taken over.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
        for name, parameter in layer.named_parameters(recurse=False):
            setattr(self, name, parameter)
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(self, name, buffer)
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm: expected at least two dimensions, found {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise this process's rows by the statistics of all."""
        self._check_input_dim(input)
        share = _share
        if not (self.training or self.running_mean is None) or share is None or share.whole:
            return super().forward(input)
        output, mean, variance, n = _Normalise.apply(input, self.weight, self.bias, self.eps)  # type: ignore[misc]
        if self.training and self.running_mean is not None and self.running_var is not None:
            self._follow(mean, variance * (n / (n - 1)))
        return output

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow those of the batch."""
        assert self.running_mean is not None  # noqa: S101 - checked by the caller
        assert self.running_var is not None  # noqa: S101
        factor = 0.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(variance.to(self.running_var.dtype), factor)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *([1] * (like.ndim - 2)))


def _wide(values: Tensor) -> Tensor:
    """Return values in at least single precision, in which sums are taken."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


class _Normalise(torch.autograd.Function):
    """``(x − mean) / √(variance + ε) · weight + bias`` with mean and variance over all processes."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):  # type: ignore[override]
        dims = [0, *range(2, x.ndim)]
        values = _wide(x)
        count = values.new_tensor([values.numel() / values.shape[1]])
        found = summed(torch.cat([values.sum(dims), count]))
        n = found[-1]
        mean = found[:-1] / n
        centred = values - _per_channel(mean, values)
        variance = summed(centred.square().sum(dims)) / n
        scale = torch.rsqrt(variance + eps)
        normed = centred * _per_channel(scale, values)
        ctx.save_for_backward(normed, weight, scale, n)
        ctx.mark_non_differentiable(mean, variance, n)
        output = normed if weight is None else normed * _per_channel(weight, values)
        if bias is not None:
            output = output + _per_channel(bias, values)
        return output.to(x.dtype), mean, variance, n

    @staticmethod
    def backward(ctx, grad: Tensor, *_):  # type: ignore[override]
        normed, weight, scale, n = ctx.saved_tensors
        dims = [0, *range(2, grad.ndim)]
        wide = _wide(grad)
        of_bias, of_weight = wide.sum(dims), (wide * normed).sum(dims)
        total = summed(torch.cat([of_bias, of_weight])) / n
        mean, slope = total.chunk(2)
        factor = scale if weight is None else scale * weight
        inner = wide - _per_channel(mean, wide) - normed * _per_channel(slope, wide)
        of_input = (inner * _per_channel(factor, wide)).to(grad.dtype)
        has_weight = weight is not None
        return of_input, of_weight if has_weight else None, of_bias if has_weight else None, None


class _GatherRows(torch.autograd.Function):
    """Rows of all processes in order; the gradient of one's own rows, times the number of processes."""

    @staticmethod
    def forward(ctx, rows: Tensor, places: Tensor, n: int):  # type: ignore[override]
        ctx.save_for_backward(places)
        whole = rows.new_zeros((n, *rows.shape[1:]))
        whole[places] = rows.detach()
        return summed(whole)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (places,) = ctx.saved_tensors
        return grad[places] * process_count(), None, None


@dataclass(frozen=True)
class SharedRows:
    """Rows that several processes compute, each its own.

    Attributes:
        n: of all processes.
        places: int64 [own], which of them are this one's.
    """

    n: int
    places: Tensor

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in order, with gradient: see `medshared.distributed.Share.gather`."""
        if len(rows) != len(self.places):
            raise ValueError(f"expected {len(self.places)} rows of this process, found {len(rows)}")
        return _GatherRows.apply(rows, self.places.to(rows.device), self.n)  # type: ignore[return-value]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, without gradient."""
        return summed(values)


def rows_of(share: Share, chosen: Tensor | None = None) -> SharedRows | None:
    """Return which rows of a batch, or of some chosen ones, this process computes; None when it computes them all.

    Args:
        share: of the batch.
        chosen: bool [n]; by default all.
    """
    if share.whole:
        return None
    own = torch.zeros(share.n, dtype=torch.bool)
    own[share.own] = True
    if chosen is not None:
        own = own[chosen.cpu()]
    return SharedRows(len(own), own.nonzero().squeeze(1))
