"""Attention over real tokens only equals SAM's, which pads to whole windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aespa.models.attention import RelativeAttention, _bands, _padded_bias

WINDOW = 14


def _pair(side: int, window: int, seed: int = 0, dtype=torch.float64):
    """Our attention and SAM's block around an attention with the same weights."""
    from segment_anything.modeling.image_encoder import Attention

    generator = torch.Generator().manual_seed(seed)
    ours = RelativeAttention(12, 2, side).to(dtype)
    theirs = Attention(12, 2, True, use_rel_pos=True, input_size=(side, side)).to(dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.7, generator=generator)
    theirs.load_state_dict({k.replace("rel_", "rel_pos_"): v for k, v in ours.state_dict().items()})
    return ours, theirs


def _padded(attention, x: torch.Tensor) -> torch.Tensor:
    from segment_anything.modeling.image_encoder import window_partition, window_unpartition

    windows, padded = window_partition(x, WINDOW)
    return window_unpartition(attention(windows), WINDOW, padded, x.shape[1:3])


@pytest.mark.parametrize("grid", [1, 3, 8, 13, 14, 15, 16, 28, 31])
def test_windows_equal_padded_windows(grid):
    ours, theirs = _pair(WINDOW, WINDOW)
    x = torch.randn(2, grid, grid, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(ours(x), _padded(theirs, x), rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_padded_windows():
    ours, theirs = _pair(WINDOW, WINDOW)
    x = torch.randn(2, 16, 16, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for run in (ours, lambda x: _padded(theirs, x)):
        (run(x) * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum().backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        other = reference[name.replace("rel_", "rel_pos_")]
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.parametrize("grid", [2, 8, 16])
def test_attention_over_the_image_equals_sam(grid):
    ours, theirs = _pair(grid, 0)
    x = torch.randn(2, grid, grid, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


@given(side=st.integers(2, 6), h=st.integers(1, 6), w=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_one_key_stands_for_all_padded_ones(side, h, w, seed):
    h, w = min(h, side), min(w, side)
    if h == side and w == side:
        w -= 1
    generator = torch.Generator().manual_seed(seed)
    by_row, by_column = (5 * torch.randn(3, side, generator=generator) for _ in range(2))
    every = by_row[:, :, None] + by_column[:, None, :]
    padded = torch.ones(side, side, dtype=torch.bool)
    padded[:h, :w] = False
    torch.testing.assert_close(
        _padded_bias(by_row, by_column, h, w), every[:, padded].logsumexp(-1), rtol=1e-5, atol=1e-5
    )


@given(grid=st.integers(1, 70), window=st.integers(1, 20))
def test_bands_cover_an_axis_once(grid, window):
    covered = [
        start + n * length + i
        for start, count, length in _bands(grid, window)
        for n in range(count)
        for i in range(length)
    ]
    assert covered == list(range(grid))
    assert all(length <= window for _, _, length in _bands(grid, window))
