"""The preference distribution: a mixture of K Gaussians over one number, predicted from prompts and the last mask."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

TINY = 1e-6  # added to variances; stands for a sum of densities that is zero


class Mixture(NamedTuple):
    """A mixture for every image.

    Attributes:
        weights: ``[B,K]``, not negative; they sum to 1.
        means: ``[B,K]``.
        variances: ``[B,K]``, positive.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor


class EMWeights(nn.Module):
    """Responsibilities of the last mask to mixture weights.

    Args:
        n_components: number K of Gaussians.
    """

    def __init__(self, n_components: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(n_components, 64)
        self.fc2 = nn.Linear(64, 128)
        self.fc3 = nn.Linear(128, 256)
        self.fc4 = nn.Linear(256, 128)
        self.fc5 = nn.Linear(128, 64)
        self.fc6 = nn.Linear(64, n_components)

    def forward(self, responsibilities: Tensor) -> Tensor:
        """Refine ``[B,K]`` to weights ``[B,K]`` that sum to 1, in float32 whatever the precision around it is."""
        with torch.autocast(responsibilities.device.type, enabled=False):
            x = responsibilities.float()
            for layer in (self.fc1, self.fc2, self.fc3, self.fc4, self.fc5):
                x = functional.relu(layer(x))
            return self.fc6(x).softmax(dim=-1)


class EMMeanVariance(nn.Module):
    """Prompt embeddings to means and variances.

    Args:
        n_components: number K of Gaussians.
        variance: what makes variances positive.
    """

    def __init__(self, n_components: int, variance: Literal["softplus", "relu"]) -> None:
        super().__init__()
        self.n_components, self.variance = n_components, variance
        self.conv1d_1 = nn.Conv1d(256, 128, 3, padding=1)
        self.conv1d_2 = nn.Conv1d(128, 64, 3, padding=1)
        self.conv1 = nn.Conv2d(256, 128, 3, padding=1)
        self.conv2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 32, 3, padding=1)
        self.fc1 = nn.Linear(192, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 2 * n_components)

    def forward(self, sparse: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Predict for every image.

        Args:
            sparse: embedded clicks ``[B,t,256]``.
            places: encoded places of the image's tokens ``[1,256,g,g]``.

        Returns:
            Means and variances, each ``[B,K]``.
        """
        x = functional.relu(self.conv1d_1(sparse.transpose(1, 2)))
        x = functional.relu(self.conv1d_2(x)).mean(dim=-1)
        y = functional.relu(self.conv1(places))
        y = functional.relu(self.conv2(y))
        y = functional.relu(self.conv3(y))
        y = functional.adaptive_avg_pool2d(y, 2).flatten(1)
        x = torch.cat([x, y.expand(len(x), -1)], dim=-1)
        x = self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))
        means, raw = x.float().split(self.n_components, dim=-1)
        positive = functional.relu(raw) if self.variance == "relu" else functional.softplus(raw)
        return means, positive + TINY


def responsibilities(
    values: Tensor,
    mixture: Mixture,
    rule: Literal["log", "original"] = "log",
    counts: Tensor | None = None,
) -> Tensor:
    """Return how much each component answers for the values, on average (`compute_weights` in the original).

    Args:
        values: ``[B,n]``, such as the probabilities of an image's pixels.
        mixture: the mixture of every image.
        rule: ``log`` works in log space, so that the result always sums to 1; ``original`` divides densities, which
            underflow to zero for a value that is far from all components.
        counts: how often each value occurs ``[B,n]``; ``None`` = once.

    Returns:
        ``[B,K]``.
    """
    mean, variance = mixture.means[:, None].float(), mixture.variances[:, None].float()
    weights = mixture.weights[:, None].float()
    exponent = -0.5 * (values[..., None].float() - mean).square() / variance
    if rule == "log":
        # Far from all components the exponents are so large that a weight's logarithm added to them would be lost.
        exponent = exponent - exponent.detach().amax(dim=-1, keepdim=True)
        # A weight of exactly zero is no component at all, and has no gradient.
        logits = exponent + weights.clamp_min(torch.finfo(torch.float32).tiny).log() - 0.5 * variance.log()
        shares = logits.softmax(dim=-1)
    else:
        density = weights * (exponent - 0.5 * (2 * math.pi * variance).log()).exp()
        total = density.sum(dim=-1, keepdim=True)
        shares = density / torch.where(total == 0, TINY, total)
    if counts is None:
        return shares.mean(dim=1)
    share_of = counts / counts.sum(dim=1, keepdim=True)
    return torch.einsum("bnk,bn->bk", shares, share_of.to(shares.dtype))
