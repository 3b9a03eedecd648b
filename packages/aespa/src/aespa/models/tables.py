"""Position tables of the image encoder for another number of tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resize_relative(table: Tensor, rows: int) -> Tensor:
    """Resize a table of relative positions linearly, as SAM does in every forward.

    Args:
        table: ``[2L-1, D]``, one row for every distance.
        rows: rows wanted.

    Returns:
        ``[rows, D]``; the table itself when it has as many.
    """
    if table.shape[0] == rows:
        return table
    columns = table.t()[None]
    return functional.interpolate(columns, size=rows, mode="linear", align_corners=False)[0].t().contiguous()


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Resize a table of absolute positions bicubically.

    Args:
        table: ``[1, G, G, C]``.
        grid: tokens a side that are wanted.

    Returns:
        ``[1, grid, grid, C]``; the table itself when it has that size.
    """
    if table.shape[1] == grid:
        return table
    maps = table.permute(0, 3, 1, 2)
    resized = functional.interpolate(maps, size=(grid, grid), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)
