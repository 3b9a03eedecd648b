"""The discriminator: scores pairs of a bag and a time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from advmil.models.layers import GAPool, RegionEmbedding


class BagEmbedding(NamedTuple):
    """What a score needs of a bag; it does not depend on the time.

    Attributes:
        regions: Mean over the regions' vectors, ``[B, o]``.
        bag: The pooled bag ``[B, o]``; the mean over the regions again where no part of the score uses it.
    """

    regions: Tensor
    bag: Tensor


def _bottleneck(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width // 2), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width // 2, width)
    )


class EmbedX(nn.Module):
    """Embed a bag region by region, ``[B, N, c] -> [B, R, o]``, and pool it, ``[B, o]``.

    Args:
        in_dim: Features of a patch, c.
        out_dim: o.
        kernel: 1 or 3 patches of the region embedding.
        pool: ``avgpool`` or ``gapool`` within a region.
        dropout: Rate in every place.
    """

    def __init__(
        self, in_dim: int, out_dim: int, kernel: int, pool: Literal["avgpool", "gapool"], dropout: float
    ) -> None:
        super().__init__()
        self.embedding = RegionEmbedding(in_dim, out_dim, kernel, pool)
        self.fc1 = _bottleneck(out_dim, dropout)
        self.pool = GAPool(out_dim, out_dim, dropout)
        self.fc2 = _bottleneck(out_dim, dropout)

    def forward(self, x: Tensor, pooled: bool = True) -> BagEmbedding:
        """Embed bags ``[B, N, c]``; without ``pooled`` only the mean of the regions."""
        regions = self.fc1(self.embedding(x))
        mean = regions.mean(1)
        return BagEmbedding(mean, self.fc2(self.pool(regions)) if pooled else mean)


def _embed_t(in_dim: int, widths: tuple[int, ...], norm: bool, dropout: float) -> nn.ModuleList:
    layers = nn.ModuleList()
    for n_in, n_out in zip((in_dim, *widths[:-1]), widths, strict=True):
        normed: list[nn.Module] = [nn.LayerNorm(n_out)] if norm else []
        layers.append(nn.Sequential(nn.Linear(n_in, n_out), *normed, nn.ReLU(), nn.Dropout(dropout)))
    return layers


class Discriminator(nn.Module):
    """A logit for ``(X, t)``; high for pairs that look real.

    Projection (``prj``): ``mean_r <region_r, tau> + linear``, RLIP, or ``<bag, tau> + linear``. The mean of inner
    products is the inner product with the mean, so only the mean over regions is kept. Concatenation (``cat``):
    linear in ``[bag, tau]``.

    Args:
        in_dim: Features of a patch.
        out_dim: Width of both embeddings, o.
        kind: ``prj`` or ``cat``.
        kernel: 1 or 3 patches of the region embedding.
        pool: ``avgpool`` or ``gapool`` within a region.
        dropout: Rate in the bag's embedding.
        time_dim: 1, or the number of time bins.
        time_widths: Layers of the time's embedding; the last is o.
        time_norm: LayerNorm in them.
        time_dropout: Rate in them.
        path: Linear term on ``x`` (pooled bag) or ``y`` (time); anything else is none.
        product: ``instance`` (RLIP) or ``bag``.
    """

    def __init__(
        self,
        in_dim: int = 1024,
        out_dim: int = 128,
        *,
        kind: Literal["prj", "cat"] = "prj",
        kernel: int = 1,
        pool: Literal["avgpool", "gapool"] = "avgpool",
        dropout: float = 0.25,
        time_dim: int = 1,
        time_widths: tuple[int, ...] = (64, 128),
        time_norm: bool = False,
        time_dropout: float = 0.0,
        path: str = "x",
        product: Literal["instance", "bag"] = "instance",
    ) -> None:
        super().__init__()
        self.net_pair_one = EmbedX(in_dim, out_dim, kernel, pool, dropout)
        self.net_pair_two = _embed_t(time_dim, time_widths, time_norm, time_dropout)
        self.kind, self.path, self.product = kind, path, product
        if kind == "cat":
            self.fc = nn.Linear(2 * out_dim, 1)
        elif path in ("x", "y"):
            self.prj_layer = nn.Linear(out_dim, 1)
        self._pooled = kind == "cat" or path == "x" or product == "bag"

    def embed_x(self, x: Tensor) -> BagEmbedding:
        """Embed bags ``[B, N, c]``, the costly part, which real and fake times share."""
        return self.net_pair_one(x, self._pooled)

    def embed_t(self, t: Tensor) -> Tensor:
        """Embed times ``[B, k]`` as ``[B, o]``."""
        for layer in self.net_pair_two:
            t = layer(t)
        return t

    def score(self, embedded: BagEmbedding, t: Tensor) -> Tensor:
        """Score times against embedded bags.

        Args:
            embedded: Of :meth:`embed_x`, for B bags, or for one bag that all times are scored against.
            t: Times or time vectors ``[B, k]``.

        Returns:
            Logits ``[B, 1]``.
        """
        tau = self.embed_t(t)
        regions, bag = embedded
        if self.kind == "cat":
            return self.fc(torch.cat([bag.expand(len(tau), -1), tau], dim=-1))
        factor = regions if self.product == "instance" else bag
        logit = (factor * tau).sum(-1, keepdim=True)
        if self.path == "x":
            logit = logit + self.prj_layer(bag)
        elif self.path == "y":
            logit = logit + self.prj_layer(tau)
        return logit

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Score pairs of bags ``[B, N, c]`` and times ``[B, k]`` as logits ``[B, 1]``."""
        return self.score(self.embed_x(x), t)
