"""Losses as pure functions of tensors.

Every mean over bags has a partner that ends in ``_terms`` and gives one value a bag, so that a group of bags can be
back-propagated bag by bag. Where the original's loss is wrong, the function that restores it ends in ``_faithful``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Norm = Literal["l1", "l2"]
DiscriminatorLoss = Literal["bce", "hinge", "wasserstein"]
LOG_EPS = 1e-8  # the constant of the original's logarithms
MLE_EPS = 1e-7
COX_CLAMP = 10.0  # log hazards above it count as it and get no gradient


def recon_terms(
    pred: Tensor, t: Tensor, e: Tensor, *, alpha: float = 0.0, gamma: float = 0.0, norm: Norm = "l1"
) -> Tensor:
    """Return the time loss of each bag: distance for events, hinge for the censored.

    ``o = e |p - t|``, ``c = (1 - e) relu(gamma - (p - t))``, squared for ``l2``; ``(1 - alpha)(o + c) + alpha o``, so
    alpha takes weight from the censored.

    Args:
        pred: Predicted times ``[n]``.
        t: Observed times ``[n]``, in the same unit.
        e: 1 for an event, 0 for censored, ``[n]``.
        alpha: In [0, 1].
        gamma: How far beyond the censoring time a prediction must lie to cost nothing, in units of time.
        norm: ``l1`` or ``l2``.

    Returns:
        ``[n]``.
    """
    pred, t, e = pred.reshape(-1), t.reshape(-1), e.reshape(-1).to(pred.dtype)
    difference = pred - t
    observed, censored = e * difference.abs(), (1 - e) * F.relu(gamma - difference)
    if norm == "l2":
        observed, censored = observed.square(), censored.square()
    return observed + (1 - alpha) * censored


def recon_loss(
    pred: Tensor, t: Tensor, e: Tensor, *, alpha: float = 0.0, gamma: float = 0.0, norm: Norm = "l1"
) -> Tensor:
    """Return the mean of :func:`recon_terms`."""
    return recon_terms(pred, t, e, alpha=alpha, gamma=gamma, norm=norm).mean()


def rank_loss(
    pred: Tensor, t: Tensor, e: Tensor, *, gamma: float = 1.0, norm: Norm = "l1", add_weight: bool = False
) -> Tensor:
    """Return the mean hinge over pairs that are known to be ordered.

    Pairs (i, j) with ``t_i < t_j`` and an event at i cost ``relu(gamma + p_i - p_j)``, squared for ``l2``.

    Args:
        pred: Predicted times ``[n]``.
        t: Observed times ``[n]``.
        e: 1 for an event, ``[n]``.
        gamma: Margin, in units of time.
        norm: ``l1`` or ``l2``.
        add_weight: Weight the pairs by the softmax of ``p_i - p_j`` instead of evenly.

    Returns:
        A scalar; zero, without gradient, where no pair is comparable.
    """
    pred, t, e = pred.reshape(-1), t.reshape(-1), e.reshape(-1)
    first, second = torch.nonzero((t[:, None] < t[None]) & (e[:, None] == 1), as_tuple=True)
    if len(first) == 0:
        return pred.new_zeros(())
    difference = pred[first] - pred[second]
    cost = F.relu(gamma + difference)
    if norm == "l2":
        cost = cost.square()
    return (torch.softmax(difference, 0) * cost).sum() if add_weight else cost.mean()


def mse_terms(pred: Tensor, t: Tensor, e: Tensor, *, include_censored: bool = True) -> Tensor:
    """Return the squared error of each bag, ``[n]``; that of censored bags is zero unless they are included."""
    pred, t, e = pred.reshape(-1), t.reshape(-1), e.reshape(-1).to(pred.dtype)
    squared = (pred - t).square()
    return squared if include_censored else e * squared


def mse_loss(pred: Tensor, t: Tensor, e: Tensor, *, include_censored: bool = True) -> Tensor:
    """Return the mean of :func:`mse_terms` over all bags, the censored counted in either case."""
    return mse_terms(pred, t, e, include_censored=include_censored).mean()


def mle_terms(hazards: Tensor, t: Tensor, e: Tensor, *, alpha: float = 0.0, eps: float = MLE_EPS) -> Tensor:
    """Return the negative log-likelihood of each bag under discrete hazards.

    With ``S_k = prod_{j <= k} (1 - h_j)``: ``-(log S_{t-1} + log h_t)`` for an event in bin t, ``-log S_t`` for one
    censored in it; the latter is weighted by ``1 - alpha``. Arguments of logarithms are at least eps.

    Args:
        hazards: ``[n, K]`` in [0, 1].
        t: Bin of the event or the censoring, ``[n]``, 0 to K - 1.
        e: 1 for an event, 0 for censored, ``[n]``.
        alpha: In [0, 1].
        eps: Smallest argument of a logarithm.

    Returns:
        ``[n]``.
    """
    bins = t.reshape(-1, 1).long()
    e = e.reshape(-1).to(hazards.dtype)
    survival = F.pad(torch.cumprod(1 - hazards, dim=1), (1, 0), value=1.0)

    def log_of(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index).squeeze(1).clamp(min=eps).log()

    observed = -e * (log_of(survival, bins) + log_of(hazards, bins))
    censored = -(1 - e) * log_of(survival, bins + 1)
    return observed + (1 - alpha) * censored


def mle_loss(hazards: Tensor, t: Tensor, e: Tensor, *, alpha: float = 0.0, eps: float = MLE_EPS) -> Tensor:
    """Return the mean of :func:`mle_terms`."""
    return mle_terms(hazards, t, e, alpha=alpha, eps=eps).mean()


def _log_risk_sets(log_hazard: Tensor, t: Tensor) -> Tensor:
    """Return ``log sum_{t_j >= t_i} exp(theta_j)`` for every i; ties are in each other's set."""
    order = torch.argsort(t, descending=True)
    times = t[order]
    # logcumsumexp over falling times; those tied with i all count, so take the value at the last of its ties.
    cumulated = torch.logcumsumexp(log_hazard[order], 0)
    last = torch.searchsorted(-times, -times, right=True) - 1
    return torch.empty_like(cumulated).index_copy(0, order, cumulated[last])


def _cox_terms(log_hazard: Tensor, t: Tensor, clamp: float | None) -> Tensor:
    theta = log_hazard.reshape(-1)
    if clamp is not None:
        theta = theta.clamp(max=clamp)
    return theta - _log_risk_sets(theta, t.reshape(-1))


def cox_loss(log_hazard: Tensor, t: Tensor, e: Tensor, *, clamp: float | None = COX_CLAMP) -> Tensor:
    """Return the negative log partial likelihood (Breslow), divided by the number of bags.

    ``-mean_i e_i (theta_i - log sum_{t_j >= t_i} exp theta_j)``; O(n log n).

    Args:
        log_hazard: ``[n]``.
        t: Times ``[n]``.
        e: 1 for an event, ``[n]``.
        clamp: Largest log hazard that counts; None for no limit.

    Returns:
        A scalar; zero without any event.
    """
    terms = _cox_terms(log_hazard, t, clamp)
    return -(terms * e.reshape(-1).to(terms.dtype)).mean()


def cox_loss_faithful(log_hazard: Tensor, t: Tensor, e: Tensor, *, clamp: float | None = COX_CLAMP) -> Tensor:
    """Return the original's training loss, whose labels had one axis too many.

    The product of terms ``[n]`` and events ``[n, 1]`` became ``[n, n]``: the mean over all bags, times the share of
    events, so that every censored patient counts as an event.
    """
    terms = _cox_terms(log_hazard, t, clamp)
    return -terms.mean() * e.reshape(-1).to(terms.dtype).mean()


def fake_terms(fake: Tensor, kind: DiscriminatorLoss) -> Tensor:
    """Return what each fake pair's logit costs the discriminator.

    ``bce``: ``softplus(f)``; ``hinge``: ``relu(1 + f)``; ``wasserstein``: ``f``.
    """
    if kind == "bce":
        return F.softplus(fake)
    return F.relu(1 + fake) if kind == "hinge" else fake


def fake_terms_faithful(fake: Tensor, kind: DiscriminatorLoss) -> Tensor:
    """Return :func:`fake_terms` with the original's BCE, ``-(1 - log(sigmoid(f) + 1e-8))``.

    A bracket is in the wrong place: fakes that are still believed get no gradient, rejected ones the full one.
    """
    if kind == "bce":
        return -(1 - torch.log(torch.sigmoid(fake) + LOG_EPS))
    return fake_terms(fake, kind)


def real_terms(real: Tensor, kind: DiscriminatorLoss) -> Tensor:
    """Return what each real pair's logit costs the discriminator.

    ``bce``: ``softplus(-r)``; ``hinge``: ``relu(1 - r)``; ``wasserstein``: ``-r``.
    """
    if kind == "bce":
        return F.softplus(-real)
    return F.relu(1 - real) if kind == "hinge" else -real


def real_terms_faithful(real: Tensor, kind: DiscriminatorLoss) -> Tensor:
    """Return :func:`real_terms` with the original's BCE, ``-log(sigmoid(r) + 1e-8)``."""
    return -torch.log(torch.sigmoid(real) + LOG_EPS) if kind == "bce" else real_terms(real, kind)


def discriminator_loss(real: Tensor | None, fake: Tensor, kind: DiscriminatorLoss = "bce") -> Tensor:
    """Return the discriminator's loss: the mean over fake pairs plus the mean over real pairs.

    Args:
        real: Logits of real pairs; None or empty where a group has none.
        fake: Logits of fake pairs.
        kind: ``bce``, ``hinge`` or ``wasserstein``.
    """
    loss = fake_terms(fake, kind).mean()
    return loss if real is None or real.numel() == 0 else loss + real_terms(real, kind).mean()


def discriminator_loss_faithful(real: Tensor | None, fake: Tensor, kind: DiscriminatorLoss = "bce") -> Tensor:
    """Return :func:`discriminator_loss` with the original's BCE."""
    loss = fake_terms_faithful(fake, kind).mean()
    return loss if real is None or real.numel() == 0 else loss + real_terms_faithful(real, kind).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Return the generator's adversarial loss, ``-mean(logit)``, whatever the discriminator's loss."""
    return -fake.mean()


def l1_penalty(parameters: Iterable[Tensor], coef: float | None) -> Tensor:
    """Return ``coef`` times the sum of absolute weights; zero where coef is None or at most 1e-8."""
    weights = list(parameters)
    if coef is None or coef <= 1e-8 or not weights:
        return torch.zeros(())
    return coef * torch.stack([weight.abs().sum() for weight in weights]).sum()
