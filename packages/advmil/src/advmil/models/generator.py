"""The generator: a backbone and a head with noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advmil.models.backbone import Backbone
from advmil.noise import NoiseSource


def head_widths(width: int, hops: int) -> list[int]:
    """Return the input width of every layer of a head: ``d, d // 2, d // 4, ...``; halving stops above one."""
    widths = [width]
    while len(widths) <= hops and widths[-1] // 2 > 1:
        widths.append(widths[-1] // 2)
    return widths


def build_head(
    width: int, n_outputs: int, *, hops: int, norm: bool, dropout: float, noise: Sequence[int] = ()
) -> nn.ModuleList:
    """Build the layers of a head: hidden ones with ReLU and dropout, the last one linear.

    Args:
        width: Width of the embedding, d.
        n_outputs: Outputs of the last layer.
        hops: Hidden layers; each halves the width.
        norm: LayerNorm in the hidden layers.
        dropout: Rate in the hidden layers.
        noise: One digit a layer; 1 doubles the layer's input, for the noise beside it.
    """
    inputs = head_widths(width, hops)
    outputs = [*inputs[1:], n_outputs]
    layers = nn.ModuleList()
    for number, (n_in, n_out) in enumerate(zip(inputs, outputs, strict=True)):
        factor = 2 if number < len(noise) and noise[number] else 1
        parts: list[nn.Module] = [nn.Linear(factor * n_in, n_out)]
        if number < len(inputs) - 1:
            parts += [nn.LayerNorm(n_out)] if norm else []
            parts += [nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Sequential(*parts))
    return layers


def scale_output(x: Tensor, out_scale: str) -> Tensor:
    """Apply ``sigmoid``, ``exp``, or nothing for any other name."""
    if out_scale == "sigmoid":
        return torch.sigmoid(x)
    return torch.exp(x) if out_scale == "exp" else x


class Generator(nn.Module):
    """``t = G(X, noise)``: one draw of the time to death, or of the hazards of all time bins.

    Args:
        backbone: Turns a bag into ``H`` ``[1, d]``.
        dims: d and the number of outputs.
        noise: One digit a layer of the head; 1 concatenates noise as wide as the layer's input.
        hops: Hidden layers of the head.
        norm: LayerNorm in the head's hidden layers.
        dropout: Rate in the head's hidden layers.
        out_scale: ``sigmoid``, ``exp``, or anything else for none.
    """

    def __init__(
        self,
        backbone: Backbone,
        dims: tuple[int, ...],
        *,
        noise: tuple[int, ...] = (0, 1),
        hops: int = 1,
        norm: bool = False,
        dropout: float = 0.6,
        out_scale: str = "sigmoid",
    ) -> None:
        super().__init__()
        width, self.n_outputs = dims[0], dims[-1]
        # The head comes before the backbone, as in the original: the optimiser's state is ordered by parameter.
        self.MLPs = build_head(width, self.n_outputs, hops=hops, norm=norm, dropout=dropout, noise=noise)
        self.backbone = backbone
        self.noise_digits = noise
        self.out_scale = out_scale
        widths = head_widths(width, hops)
        # Width of the noise before each layer, None where there is none.
        self.noise_widths = [w if i < len(noise) and noise[i] else None for i, w in enumerate(widths)]

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the parameters that reach no output."""
        return tuple(f"backbone.{name}" for name in self.backbone.unused)

    def embed(self, x: Tensor, extra: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Turn a bag ``[1, N, c]`` into ``H`` ``[1, d]``; arguments as of the backbone."""
        return self.backbone(x, extra, known)

    def draw(self, n_rows: int, noise: NoiseSource | None) -> list[Tensor | None]:
        """Draw the noise of one pass of the head: ``[n_rows, width]`` a noisy layer; zeros without a source."""
        source = noise or torch.zeros
        return [None if width is None else source((n_rows, width)) for width in self.noise_widths]

    def head(self, embedding: Tensor, noise: NoiseSource | None = None) -> Tensor:
        """Turn ``H`` ``[B, d]`` into outputs ``[B, k]``, with noise from a source or zeros."""
        return self._apply_head(embedding, self.draw(len(embedding), noise))

    def _apply_head(self, hidden: Tensor, draws: Sequence[Tensor | None]) -> Tensor:
        for layer, draw in zip(self.MLPs, draws, strict=True):
            if draw is not None:
                hidden = torch.cat([hidden, draw.to(hidden.device, hidden.dtype)], dim=-1)
            hidden = layer(hidden)
        return scale_output(hidden, self.out_scale)

    def forward(
        self,
        x: Tensor,
        extra: Tensor | None = None,
        *,
        noise: NoiseSource | None = None,
        zero_noise: bool = False,
    ) -> Tensor:
        """Draw one prediction.

        Args:
            x: Features ``[1, N, c]``.
            extra: Cluster ids or edges, where the backbone needs them.
            noise: Where the noise comes from; None is zeros.
            zero_noise: Zeros, whatever the source.

        Returns:
            ``[1, k]``.
        """
        return self.head(self.embed(x, extra), None if zero_noise else noise)

    def sample(self, embedding: Tensor, n: int, noise: NoiseSource | None = None) -> Tensor:
        """Draw n predictions from one embedding, in one pass of the head.

        The noise is drawn in the order of n separate passes, so both give the same numbers. In training mode the
        head's dropout differs from draw to draw, as it would in separate passes.

        Args:
            embedding: ``H`` ``[B, d]`` of :meth:`embed`.
            n: Draws.
            noise: Where the noise comes from; None is zeros, which makes all draws equal.

        Returns:
            ``[B, n, k]``.
        """
        n_bags = len(embedding)
        passes = [self.draw(n_bags, noise) for _ in range(n)]
        stacked = [
            None if parts[0] is None else torch.stack([part for part in parts if part is not None], dim=1)
            for parts in zip(*passes, strict=True)
        ]
        return self._apply_head(embedding[:, None].expand(-1, n, -1), stacked)
