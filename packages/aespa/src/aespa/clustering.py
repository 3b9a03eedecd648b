"""Proposals: the many masks that SPA draws for an image, grouped by K-means, and the click between two groups.

All distances between samples and centres follow from the N x N matrix of inner products, so that the pixels are passed
over once and every image of a batch is clustered at the same time. Where logits are enlarged by nearest neighbour, all
squared distances are r² times those of the small maps: clusters of the small maps are those of the large ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from aespa.clicks import CANDIDATES, NO_CLICK, Clicks

_MOST_STEPS = 300


class Clusters(NamedTuple):
    """K-means of the samples of each image.

    Attributes:
        labels: int64 ``[B, N]``, cluster of every sample; which number a cluster has means nothing.
        sizes: int64 ``[B, k]``, samples of every cluster; 0 where fewer samples differ than clusters are wanted.
        inertia: float64 ``[B]``, summed squared distance of the samples from their centres.
        initial: int64 ``[B, k]``, samples that were the first centres.
    """

    labels: Tensor
    sizes: Tensor
    inertia: Tensor
    initial: Tensor


class Choice(NamedTuple):
    """The cluster of each image whose centre is nearest to a mask.

    Attributes:
        members: bool ``[B, N]``, samples of that cluster.
        select: ``[B, D]``, mean of its samples.
        exclude: ``[B, D]``, mean of all other samples; equal to ``select`` when there are none.
        has_alternative: bool ``[B]``, False where all samples are in one cluster.
    """

    members: Tensor
    select: Tensor
    exclude: Tensor
    has_alternative: Tensor


def kmeans(
    samples: Tensor, k: int, generator: torch.Generator | None = None, *, initial: Tensor | None = None
) -> Clusters:
    """Group the samples of every image into k clusters, by Lloyd's steps from one greedy k-means++ start.

    A cluster that loses its last sample gets the one that lies farthest from its own centre.

    Args:
        samples: ``[B, N, D]`` or ``[N, D]`` (taken as one image), any unit.
        k: Clusters, from 1 to N.
        generator: Of the start, on any device; None = a fixed one, so that equal samples give equal
            clusters in any batch.
        initial: int64 ``[B, k]``, samples to start from instead.

    Returns:
        The clusters, on the device of the samples.

    Raises:
        ValueError: For more clusters than samples, naming both.

    Example:
        >>> clusters = kmeans(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2)
        >>> bool(clusters.labels[0, 0] == clusters.labels[0, 1] != clusters.labels[0, 2])
        True
    """
    batch = samples[None] if samples.ndim == 2 else samples
    return _cluster(_gram(_centred(batch)[0]), k, generator, initial)


def choose_cluster(
    samples: Tensor,
    mask: Tensor,
    k: int,
    generator: torch.Generator | None = None,
    *,
    joint: bool = False,
    clusters: Clusters | None = None,
) -> Choice:
    """Cluster the samples and take the cluster whose centre is nearest to the wanted mask.

    Args:
        samples: ``[B, N, D]`` probabilities.
        mask: ``[B, D]``, the wanted mask in [0, 1], at the samples' resolution.
        k: Clusters, from 1 to N.
        generator: As in `kmeans`.
        joint: One clustering and one choice for all images of the batch, as the original: an image's clusters then
            depend on the images beside it.
        clusters: Clusters that are known already, instead.

    Returns:
        Members and means of the nearest cluster of each image, in the dtype of the samples.
    """
    b, n, d = samples.shape
    if tuple(mask.shape) != (b, d):
        raise ValueError(f"mask must be [{b}, {d}], found {list(mask.shape)}")
    x, wanted = samples, mask.to(samples.dtype)
    if joint:
        x, wanted = samples.transpose(0, 1).reshape(1, n, b * d), wanted.reshape(1, b * d)
    moved, centre = _centred(x)
    gram = _gram(moved)
    found = _cluster(gram, k, generator, None) if clusters is None else clusters
    share = _membership(found.labels, found.sizes.shape[1])
    squared = torch.einsum("bnk,bnm,bmk->bk", share, gram, share)
    inner = torch.einsum(
        "bnk,bn->bk", share, torch.einsum("bnd,bd->bn", moved, wanted.to(moved.dtype) - centre)
    )
    distance = (squared - 2 * inner).masked_fill(found.sizes == 0, math.inf)
    members = found.labels == distance.argmin(dim=1, keepdim=True)
    if joint:
        members = members.expand(b, n)
    return _means(samples, members)


def selection_clicks(
    select: Tensor,
    exclude: Tensor,
    target: Tensor,
    has_alternative: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    candidates: int = CANDIDATES,
    enlarge: str = "bilinear",
    pixel: Tensor | None = None,
) -> Clicks:
    """Click on every image where the chosen proposal differs most from all others.

    Args:
        select: ``[B, h, w]`` probabilities, mean of the chosen cluster.
        exclude: Same shape, mean of all other samples.
        target: ``[B, S, S]``, the wanted mask in [0, 1]; the label of a click is its value above 0.5.
        has_alternative: bool ``[B]``; where False, there is nothing to choose and no click (label -1).
        generator: Of the draw.
        candidates: Pixels with the largest difference, of which one is drawn.
        enlarge: How maps smaller than the target are enlarged: ``"bilinear"`` or ``"nearest"``.
        pixel: ``[B]`` uniform numbers in [0, 1) drawn elsewhere.

    Returns:
        The clicks; ``target`` is passed on, nobody (-1) is followed.
    """
    b, size = len(target), target.shape[-1]
    difference = (select - exclude).abs()
    if difference.shape[-1] != size:
        options = {} if enlarge == "nearest" else {"align_corners": False}
        difference = functional.interpolate(difference[:, None], (size, size), mode=enlarge, **options)[:, 0]
    n = min(candidates, size * size)
    top = difference.flatten(1).topk(n, dim=1).indices
    if pixel is None:
        pixel = torch.rand(b, generator=generator, device="cpu" if generator is None else generator.device)
    rows = torch.arange(b, device=target.device)
    chosen = top[rows, (pixel.to(target.device) * n).long().clamp(max=n - 1)]
    labels = (target.flatten(1)[rows, chosen] > 0.5).long()
    coords = torch.stack([chosen % size, chosen // size], dim=1).float()
    if has_alternative is not None:
        labels = labels.masked_fill(~has_alternative, NO_CLICK)
        coords = coords.masked_fill(~has_alternative[:, None], 0.0)
    return Clicks(coords, labels, target, torch.full_like(labels, -1))


def _cluster(gram: Tensor, k: int, generator: torch.Generator | None, initial: Tensor | None) -> Clusters:
    """Group samples by their inner products ``[B, N, N]``."""
    n = gram.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"n_clusters must lie between 1 and the number of samples, {n}, found {k}")
    if initial is None:
        initial = _plus_plus(gram, k, generator)
    labels, inertia = _lloyd(gram, initial.to(gram.device))
    sizes = functional.one_hot(labels, k).sum(dim=1)
    return Clusters(labels, sizes, inertia, initial)


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples around their mean, in the precision that distances need, and the mean."""
    precise = x.detach() if x.device.type == "mps" else x.detach().double()  # Metal has no double precision
    centre = precise.mean(dim=1)
    return precise - centre[:, None], centre


def _gram(x: Tensor) -> Tensor:
    """Return the inner products ``[B, N, N]``."""
    return x @ x.transpose(1, 2)


def _membership(labels: Tensor, k: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return ``[B, N, k]`` whose columns average the members; a column of an empty cluster is 0."""
    if labels.device.type == "mps":
        dtype = torch.float32
    hot = functional.one_hot(labels, k).to(dtype)
    return hot / hot.sum(dim=1, keepdim=True).clamp(min=1)


def _squared_distances(gram: Tensor) -> Tensor:
    """Return ``[B, N, N]`` between samples."""
    squares = torch.diagonal(gram, dim1=1, dim2=2)
    return (squares[:, :, None] + squares[:, None, :] - 2 * gram).clamp(min=0)


def _plus_plus(gram: Tensor, k: int, generator: torch.Generator | None) -> Tensor:
    """Choose samples as first centres: each the best of a few that were drawn in proportion to their distance."""
    b, n, _ = gram.shape
    distance = _squared_distances(gram)
    trials = 2 + int(math.log(k))
    if generator is None:  # the same chance for every image, whatever batch it is in
        uniform = torch.rand(1, k, trials, generator=torch.Generator().manual_seed(0)).expand(b, -1, -1)
    else:
        uniform = torch.rand(b, k, trials, generator=generator, device=generator.device)
    uniform = uniform.to(gram)
    rows = torch.arange(b, device=gram.device)
    chosen = [(uniform[:, 0, 0] * n).long().clamp(max=n - 1)]
    nearest = distance[rows, chosen[0]]
    for step in range(1, k):
        cumulated = nearest.cumsum(dim=1)
        level = uniform[:, step] * cumulated[:, -1:]
        candidates = torch.searchsorted(cumulated, level, right=True).clamp(max=n - 1)  # [B, trials]
        lowered = torch.minimum(nearest[:, None], distance[rows[:, None], candidates])  # [B, trials, N]
        best = lowered.sum(dim=2).argmin(dim=1)
        chosen.append(candidates[rows, best])
        nearest = lowered[rows, best]
    return torch.stack(chosen, dim=1)


def _lloyd(gram: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """Assign and average in turn until nothing changes; return labels ``[B, N]`` and inertia ``[B]``."""
    k = initial.shape[1]
    squares = torch.diagonal(gram, dim1=1, dim2=2)
    to_first = gram.gather(2, initial[:, None].expand(-1, gram.shape[1], -1))
    distance = squares.gather(1, initial)[:, None] - 2 * to_first
    labels = distance.argmin(dim=2)
    for _ in range(_MOST_STEPS):
        labels = _refill(labels, distance + squares[:, :, None], k)
        distance = _to_centres(gram, labels, k)
        updated = distance.argmin(dim=2)
        if torch.equal(updated, labels):
            break
        labels = updated
    own = (_to_centres(gram, labels, k) + squares[:, :, None]).gather(2, labels[:, :, None])[..., 0]
    return labels, own.clamp(min=0).sum(dim=1)


def _to_centres(gram: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return squared distances ``[B, N, k]`` from the centres, less each sample's own square."""
    share = _membership(labels, k).to(gram.dtype)
    inner = gram @ share
    squared = (share * inner).sum(dim=1)
    empty = share.sum(dim=1) == 0
    return (squared[:, None] - 2 * inner).masked_fill(empty[:, None], math.inf)


def _refill(labels: Tensor, distance: Tensor, k: int) -> Tensor:
    """Give every empty cluster the sample farthest from its centre, if one lies off its centre at all."""
    sizes = functional.one_hot(labels, k).sum(dim=1)
    if bool((sizes > 0).all()):
        return labels
    labels = labels.clone()
    scale = distance.masked_fill(distance.isinf(), 0).abs().amax().clamp(min=1e-300)
    for image in (sizes == 0).any(dim=1).nonzero()[:, 0].tolist():
        own = distance[image].gather(1, labels[image, :, None])[:, 0]
        for cluster in (sizes[image] == 0).nonzero()[:, 0].tolist():
            alone = sizes[image][labels[image]] == 1
            off = own.masked_fill(alone, 0)
            farthest = int(off.argmax())
            if off[farthest] <= 1e-12 * scale:
                break
            sizes[image, labels[image, farthest]] -= 1
            labels[image, farthest], sizes[image, cluster], own[farthest] = cluster, 1, 0
    return labels


def _means(samples: Tensor, members: Tensor) -> Choice:
    """Average members and others of every image."""
    weights = torch.stack([members, ~members], dim=1).to(samples.dtype)
    counts = weights.sum(dim=2)
    select, exclude = (weights @ samples / counts.clamp(min=1)[..., None]).unbind(dim=1)
    has_alternative = counts[:, 1] > 0
    return Choice(members, select, torch.where(has_alternative[:, None], exclude, select), has_alternative)
