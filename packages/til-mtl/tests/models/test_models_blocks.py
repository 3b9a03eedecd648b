"""Residual blocks against goldens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from til_mtl.models.blocks import BasicBlock, Bottleneck, make_layer

BLOCKS = {
    "basic_block_s2_d1": lambda: BasicBlock(16, 24, stride=2),
    "basic_block_s1_d2": lambda: BasicBlock(16, 16, dilation=2),
    "bottleneck_s1_d2": lambda: Bottleneck(32, 16, dilation=2),
    "bottleneck_s2_d1": lambda: Bottleneck(64, 16, stride=2),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_golden_blocks(case, golden_npz, fill_golden_weights):
    golden = golden_npz("modules")
    block = fill_golden_weights(BLOCKS[case](), 0).eval().double()
    with torch.no_grad():
        out = block(torch.from_numpy(golden[f"{case}.x"]).double())
    np.testing.assert_allclose(out.numpy(), golden[f"{case}.y0_f64"], rtol=1e-9, atol=1e-12)


def test_make_layer_gives_the_stride_to_the_first_block_and_the_dilation_to_all():
    layer = make_layer(Bottleneck, 8, channels=4, num_blocks=3, stride=2, dilation=2)
    assert [block.conv2.stride for block in layer] == [(2, 2), (1, 1), (1, 1)]
    assert [block.conv2.dilation for block in layer] == [(2, 2)] * 3
    assert [len(block.downsample) for block in layer] == [2, 0, 0]
    assert layer(torch.zeros(2, 8, 6, 6)).shape == (2, 16, 3, 3)
