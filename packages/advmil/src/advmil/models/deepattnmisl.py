"""DeepAttnMISL, attention over clusters of patches (``bcb_mode: cluster``)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from advmil.models.backbone import Backbone
from advmil.models.layers import Dropout, GatedAttention, attention_pool, patch_linear

CLUSTERS = 8


class DeepAttnMISL(Backbone):
    """Mean of ``relu(x W)`` over each cluster, then gated attention over the clusters.

    ``[1, N, c] -> [1, K, h] -> [1, h]``. An empty cluster is a vector of zeros.

    Args:
        dims: Input, hidden and embedding width; the last two are equal.
        dropout: Rate in every place.
        n_clusters: K; cluster ids run from 0 to K - 1.
    """

    def __init__(self, dims: tuple[int, ...], dropout: float = 0.25, n_clusters: int = CLUSTERS) -> None:
        super().__init__()
        in_dim, hidden, out_dim = dims
        if hidden != out_dim:
            raise ValueError(
                f"bcb_dims of the cluster backbone: expected hidden and embedding width equal, "
                f"found {hidden} and {out_dim}"
            )
        self.n_clusters = n_clusters
        self.phis = nn.Sequential(nn.Conv2d(in_dim, hidden, 1), nn.ReLU())
        self.attention_net = nn.Sequential(
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout),
            GatedAttention(hidden, hidden, dropout),
        )

    def first_layer(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Map every patch: ``[1, N, c] -> [1, N, h]``."""
        layer = cast(nn.Conv2d, self.phis[0])
        return patch_linear(x, layer.weight, layer.bias, known)

    def encode(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Pool the mapped patches by their clusters ``extra`` ``[N]``."""
        hidden = self._clusters(patches, _cluster_ids(extra, patches.shape[1]))
        return attention_pool(self.attention_net[3](hidden), hidden)

    def attention(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the attention weight of each patch's cluster, shared evenly within the cluster, ``[N]``.

        The weight of empty clusters belongs to no patch; what is left is scaled to sum to one.
        """
        ids = _cluster_ids(extra, x.shape[1])
        hidden = self._clusters(self.first_layer(x), ids)
        weights = torch.softmax(self.attention_net[3](hidden), dim=1)[0, :, 0]
        sizes = torch.bincount(ids, minlength=self.n_clusters)
        shared = (weights / sizes.clamp(min=1))[ids]
        return shared / shared.sum()

    def _clusters(self, patches: Tensor, ids: Tensor) -> Tensor:
        active = patches.relu_()[0]
        # One row a cluster, 1 / size where the patch belongs to it: the means are one matrix product.
        member = (ids[None] == torch.arange(self.n_clusters, device=ids.device)[:, None]).to(active.dtype)
        means = (member / member.sum(1, keepdim=True).clamp(min=1)) @ active
        return self.attention_net[:3](means[None])


def _cluster_ids(extra: Tensor | None, n_patches: int) -> Tensor:
    if extra is None:
        raise ValueError("the cluster backbone needs the cluster id of every patch; see path_cluster")
    ids = extra.reshape(-1).long()
    if len(ids) != n_patches:
        raise ValueError(f"{len(ids)} cluster ids for {n_patches} patches: cluster the features anew")
    return ids
