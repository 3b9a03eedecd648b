"""The cropped convolution equals the plain one, and skips what only multiplies padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from til_mtl.models.cropped_conv import USEFUL_SHARE, CroppedConv2d, useful_share


def _both(batch: int, height: int, width: int, rate: int, *, channels_last: bool = False):
    """Outputs and gradients of the cropped module and of a plain convolution with its parameters."""
    generator = torch.Generator().manual_seed(height * 100 + width * 10 + rate)
    module = CroppedConv2d(5, 4, rate).double()
    x = torch.randn(batch, 5, height, width, generator=generator, dtype=torch.float64)
    upstream = torch.randn(batch, 4, height, width, generator=generator, dtype=torch.float64)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    results = []
    for cropped in (True, False):
        module.cropped = cropped
        module.zero_grad()
        leaf = x.detach().requires_grad_()
        if cropped:
            out = module(leaf)
        else:
            out = functional.conv2d(leaf, module.weight, module.bias, padding=rate, dilation=rate)
        out.backward(upstream)
        assert module.weight.grad is not None
        assert module.bias is not None
        results.append((out.detach(), leaf.grad, module.weight.grad.clone(), module.bias.grad))
    return results


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), rate=st.integers(1, 10), channels_last=st.booleans()
)
def test_equals_the_plain_convolution(height, width, rate, channels_last):
    cropped, plain = _both(2, height, width, rate, channels_last=channels_last)
    for ours, theirs in zip(cropped, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_taps_on_padding_get_gradient_zero_and_still_decay():
    module = CroppedConv2d(3, 2, dilation=18)
    module.cropped = True
    module(torch.randn(2, 3, 16, 16)).square().sum().backward()
    gradient = module.weight.grad
    assert gradient is not None
    assert gradient[:, :, 1, 1].abs().min() > 0
    outer = torch.ones(3, 3, dtype=torch.bool)
    outer[1, 1] = False
    assert torch.count_nonzero(gradient[:, :, outer]) == 0
    before = module.weight.detach().clone()
    torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=0.1).step()
    moved = module.weight.detach()[:, :, outer] - before[:, :, outer]
    assert torch.equal(moved.sign(), -before[:, :, outer].sign())


@pytest.mark.parametrize(
    ("size", "rate", "share"), [(16, 6, 0.5625), (16, 12, 0.25), (16, 18, 1 / 9), (1, 1, 1 / 9)]
)
def test_useful_share(size, rate, share):
    assert useful_share(size, size, rate) == pytest.approx(share)


def test_size_decides_unless_told(monkeypatch):
    module = CroppedConv2d(2, 2, dilation=2)
    used = []
    monkeypatch.setattr(
        "til_mtl.models.cropped_conv._CroppedConvolution.apply",
        lambda x, weight, bias, rate: used.append(tuple(x.shape)) or x,
    )
    for size in (3, 30):
        assert (useful_share(size, size, 2) <= USEFUL_SHARE) == (size == 3)
        module(torch.zeros(1, 2, size, size))
    module.cropped = False
    module(torch.zeros(1, 2, 3, 3))
    assert used == [(1, 2, 3, 3)]


def test_frozen_parts_get_no_gradient():
    module = CroppedConv2d(2, 3, dilation=4)
    module.cropped = True
    module.requires_grad_(False)
    x = torch.randn(1, 2, 4, 5, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert module.weight.grad is None
    module.requires_grad_(True)
    module(x.detach()).sum().backward()
    assert module.weight.grad is not None


def test_autocast_uses_its_dtype():
    module = CroppedConv2d(4, 3, dilation=4)
    module.cropped = True
    x = torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), module(x), rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.float32
