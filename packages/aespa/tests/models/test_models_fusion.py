"""Fusion of features and latents, apart, equals the convolutions on the joined map."""

from __future__ import annotations

import torch

from aespa.models.fusion import Fcomb


def test_fusion_apart_equals_fusion_of_one_map():
    generator = torch.Generator().manual_seed(0)
    fcomb = Fcomb(256)
    features, z = torch.randn(2, 256, 3, 3, generator=generator), torch.randn(5, 2, 64, generator=generator)
    ours = fcomb(features.flatten(2).transpose(1, 2), z)
    for n in range(5):
        tiled = z[n][:, :, None, None].expand(-1, -1, 3, 3)
        expected = fcomb.layers(torch.cat([features, tiled], dim=1))
        torch.testing.assert_close(ours[n], expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)
