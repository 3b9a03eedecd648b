"""Position tables are resized as SAM resizes them."""

from __future__ import annotations

import pytest
import torch

from aespa.models.tables import resize_positions, resize_relative


@pytest.mark.parametrize("grid", [8, 16])
def test_golden_sizes(grid, golden_npz, golden_tensors):
    golden = golden_npz("resize_tables")
    name = "image_encoder.blocks.2.attn.rel_pos_h"
    relative = resize_relative(golden_tensors({name: (127, 64)})[name], 2 * grid - 1)
    torch.testing.assert_close(relative, torch.from_numpy(golden[f"rel_pos_{grid}"]), rtol=0, atol=1e-5)
    name = "image_encoder.pos_embed"
    positions = resize_positions(1000 * golden_tensors({name: (1, 64, 64, 768)})[name], grid)
    expected = torch.from_numpy(golden[f"pos_embed_{grid}"])
    torch.testing.assert_close(positions[..., :16], expected, rtol=0, atol=1e-5)


def test_a_table_of_the_right_size_is_left_alone():
    relative, positions = torch.randn(15, 4), torch.randn(1, 8, 8, 4)
    assert resize_relative(relative, 15) is relative
    assert resize_positions(positions, 8) is positions
