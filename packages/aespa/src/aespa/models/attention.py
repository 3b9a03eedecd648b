"""Attention of the image encoder with decomposed relative positions, over the image or in windows.

SAM pads a map with zeros to whole windows; the padded tokens take part as keys and values and are cut off after.
Their keys and values are constant (the biases), so only their number and places matter: all of them together act as
one more key whose logit is the logarithm of the sum of theirs. This module computes real tokens only and adds that
key, which gives the same result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _bands(grid: int, window: int) -> list[tuple[int, int, int]]:
    """Return (start, number of windows, tokens a window) of the whole windows and of the cut one of an axis."""
    whole, rest = divmod(grid, window)
    bands = [(0, whole, window)] if whole else []
    return [*bands, (whole * window, 1, rest)] if rest else bands


class RelativeAttention(nn.Module):
    """Attention whose logits grow by ``q_i . rel_h[y_i - y_j + L-1] + q_i . rel_w[x_i - x_j + L-1]``.

    Args:
        width: channels.
        heads: attention heads.
        side: tokens a side L of a window, or of the map for attention over the whole image.
    """

    distances: Tensor

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        places = torch.arange(side)
        self.register_buffer("distances", places[:, None] - places + side - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x: normalised tokens ``[B,g,g,C]``.

        Returns:
            ``[B,g,g,C]``.
        """
        qkv = self.qkv(x)
        bands = _bands(x.shape[1], self.side)
        if len(bands) == 1 and bands[0][1] == 1:
            return self.proj(self._windows(qkv, 1, 1))
        rows = []
        for top, n_rows, height in bands:
            row = qkv[:, top : top + n_rows * height]
            parts = [
                self._windows(row[:, :, left : left + n_columns * width], n_rows, n_columns)
                for left, n_columns, width in bands
            ]
            rows.append(torch.cat(parts, dim=2))
        return self.proj(torch.cat(rows, dim=1))

    def _windows(self, qkv: Tensor, n_rows: int, n_columns: int) -> Tensor:
        """Attend in equal windows: ``[B,n_rows*h,n_columns*w,3C]`` → ``[B,n_rows*h,n_columns*w,C]``."""
        batch, height, width, channels = qkv.shape
        h, w, depth = height // n_rows, width // n_columns, channels // 3 // self.heads
        split = qkv.reshape(batch, n_rows, h, n_columns, w, 3, self.heads, depth)
        split = split.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, self.heads, h * w, depth)
        out = self._attend(split[0], split[1], split[2], h, w)
        out = out.view(batch, n_rows, n_columns, self.heads, h, w, depth).permute(0, 1, 4, 2, 5, 3, 6)
        return out.reshape(batch, height, width, channels // 3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, h: int, w: int) -> Tensor:
        """Attend among the ``h x w`` real tokens of windows of L x L; all ``[n,heads,h*w,D]``."""
        n, heads, tokens, depth = q.shape
        grid = q.view(n, heads, h, w, depth)
        by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, self.rel_h[self.distances[:h]].to(q.dtype))
        by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, self.rel_w[self.distances[:w]].to(q.dtype))
        bias = by_row[..., :h, None] + by_column[..., None, :w]
        bias = bias.reshape(n, heads, tokens, tokens)
        if h < self.side or w < self.side:
            padded = _padded_bias(by_row, by_column, h, w).to(q.dtype).reshape(n, heads, tokens, 1)
            bias = torch.cat([bias, padded], dim=-1)
            _, key, value = self.qkv.bias.to(q.dtype).view(3, 1, heads, 1, depth).unbind()
            k = torch.cat([k, key.expand(n, -1, -1, -1)], dim=2)
            v = torch.cat([v, value.expand(n, -1, -1, -1)], dim=2)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _padded_bias(by_row: Tensor, by_column: Tensor, h: int, w: int) -> Tensor:
    """Return the logarithm of the summed exponentials of the biases of all padded keys.

    The padded keys are the columns from ``w`` on, and of the columns before them the rows from ``h`` on; over a
    rectangle the sum is a product of a sum over rows and one over columns.

    Args:
        by_row: ``[...,L]`` biases of a query by the key's row.
        by_column: ``[...,L]`` by the key's column.
        h: real rows.
        w: real columns.

    Returns:
        ``[...]``.
    """
    precise = torch.promote_types(by_row.dtype, torch.float32)
    by_row, by_column = by_row.to(precise), by_column.to(precise)
    parts = []
    if w < by_column.shape[-1]:
        parts.append(by_row.logsumexp(-1) + by_column[..., w:].logsumexp(-1))
    if h < by_row.shape[-1]:
        parts.append(by_row[..., h:].logsumexp(-1) + by_column[..., :w].logsumexp(-1))
    return parts[0] if len(parts) == 1 else torch.logaddexp(parts[0], parts[1])
