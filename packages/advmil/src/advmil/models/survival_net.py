"""The baseline: a backbone and a head without noise."""

from __future__ import annotations

from torch import Tensor, nn

from advmil.models.backbone import Backbone
from advmil.models.generator import build_head, scale_output


class SurvivalNet(nn.Module):
    """``[1, N, c] -> [1, k]``: a time (``surv_reg``), a log hazard (``surv_cox``) or hazards of bins (``surv_nll``).

    Args:
        backbone: Turns a bag into ``H`` ``[1, d]``.
        dims: d and the number of outputs k.
        hops: Hidden layers of the head.
        norm: LayerNorm in them.
        dropout: Rate in them.
        out_scale: ``sigmoid``, or ``none`` for Cox.
    """

    def __init__(
        self,
        backbone: Backbone,
        dims: tuple[int, ...],
        *,
        hops: int = 1,
        norm: bool = False,
        dropout: float = 0.25,
        out_scale: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_layer = build_head(dims[0], dims[-1], hops=hops, norm=norm, dropout=dropout)
        self.out_scale = out_scale
        self.n_outputs = dims[-1]

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the parameters that reach no output."""
        return tuple(f"backbone.{name}" for name in self.backbone.unused)

    def embed(self, x: Tensor, extra: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Turn a bag ``[1, N, c]`` into ``H`` ``[1, d]``; arguments as of the backbone."""
        return self.backbone(x, extra, known)

    def head(self, embedding: Tensor) -> Tensor:
        """Turn ``H`` ``[B, d]`` into outputs ``[B, k]``."""
        for layer in self.out_layer:
            embedding = layer(embedding)
        return scale_output(embedding, self.out_scale)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Predict for a bag ``[1, N, c]``: ``[1, k]``."""
        return self.head(self.embed(x, extra))
