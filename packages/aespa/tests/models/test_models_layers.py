"""Channel normalisation equals its definition."""

from __future__ import annotations

import torch

from aespa.models.layers import LayerNorm2d


def test_channels_are_normalised_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    layer = LayerNorm2d(5).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2, generator=generator)
        layer.bias.normal_(generator=generator)
    centred = x - x.mean(dim=1, keepdim=True)
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    expected = expected * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.last(x.permute(0, 2, 3, 1)), expected.permute(0, 2, 3, 1))
