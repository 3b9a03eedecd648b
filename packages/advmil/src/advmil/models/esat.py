"""ESAT, the transformer backbone (``bcb_mode: patch``)."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from advmil.models.backbone import Backbone
from advmil.models.layers import REGION_SIZE, GAPool, RegionEmbedding, count_regions, position_code

HEADS = 8


class EncoderLayer(nn.TransformerEncoderLayer):
    """A post-norm transformer layer over regions: 8 heads, feed-forward width h, ReLU; ``[B, R, h] -> [B, R, h]``.

    ``x = norm1(x + attention(x))``, ``x = norm2(x + W2 relu(W1 x))``. Written out on
    ``scaled_dot_product_attention`` so that evaluation and training run the same arithmetic.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, HEADS, width, dropout, batch_first=True)

    def forward(self, src: Tensor, *_: object, **__: object) -> Tensor:
        """Let regions ``[B, R, h]`` attend to each other."""
        x = self.norm1(src + self.dropout1(self._attend(src)))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm2(x + self.dropout2(self.linear2(hidden)))

    def _attend(self, x: Tensor) -> Tensor:
        attention = self.self_attn
        n_bags, n_regions, width = x.shape
        projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        split = projected.view(n_bags, n_regions, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        dropout = attention.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(split[0], split[1], split[2], dropout_p=dropout)
        return attention.out_proj(heads.transpose(1, 2).reshape(n_bags, n_regions, width))


class _Encoder(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(width, dropout)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class ESAT(Backbone):
    """Region embedding, one transformer layer over the regions, gated attention pooling.

    ``[1, N, c] -> [1, N / 16, h] -> [1, h]``.

    Args:
        dims: Input, hidden and embedding width; the last two are equal and a multiple of 8.
        dropout: Rate in the transformer layer and in the pooling.
    """

    def __init__(self, dims: tuple[int, ...], dropout: float = 0.25) -> None:
        super().__init__()
        in_dim, hidden, out_dim = dims
        if hidden != out_dim or hidden % HEADS:
            raise ValueError(
                f"bcb_dims of the patch backbone: expected hidden and embedding width equal and a multiple of {HEADS}, "
                f"found {hidden} and {out_dim}"
            )
        self.patch_embedding_layer = RegionEmbedding(in_dim, hidden)
        self.patch_encoder_layer = _Encoder(hidden, dropout)
        self.pool = GAPool(hidden, hidden, dropout)

    def first_layer(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Project the patches of every region: ``[1, N, c] -> [1, N, h]``."""
        return self.patch_embedding_layer.project(x, known)

    def encode(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Encode projected regions; ``extra`` holds their positions ``[1, R, 2]`` where they are used."""
        return self.pool(self._regions(patches, extra))

    def attention(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the pooling weight of each patch's region, shared evenly within the region, ``[N]``."""
        weights = self.pool.weights(self._regions(self.first_layer(x), extra))[0, :, 0]
        return weights.repeat_interleave(REGION_SIZE) / REGION_SIZE

    def _regions(self, patches: Tensor, positions: Tensor | None) -> Tensor:
        regions = self.patch_embedding_layer.reduce(patches, count_regions(patches.shape[1]))
        if positions is not None:
            regions = regions + position_code(positions, regions.shape[-1]).to(regions.dtype)
        return self.patch_encoder_layer(regions)
