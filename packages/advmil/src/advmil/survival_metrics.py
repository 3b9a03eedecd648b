"""The original's metric tables, under its names; where it was wrong, a faithful partner is beside the right one.

Predictions, times and events are arrays or tensors of n patients. A metric without a value is NaN, with a warning
where it is the concordance.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from advmil import losses
from advmil.config import Config

# Metrics that are better when larger; all others are losses or errors.
LARGER_IS_BETTER = ("c_index",)


@dataclass(frozen=True)
class MetricSettings:
    """Losses that the tables report."""

    recon_norm: losses.Norm = "l1"
    recon_alpha: float = 0.0
    recon_gamma: float = 0.0
    mle_alpha: float = 0.0
    rank_coef: float = 0.0
    rank_gamma: float = 1.0
    rank_norm: losses.Norm = "l1"
    rank_weight: bool = False
    loss_d: losses.DiscriminatorLoss = "bce"
    bce_faithful: bool = False
    mae_faithful: bool = False  # `mae` with a margin of one unit for the censored
    median_lower: bool = False  # of an even number of samples the lower middle one

    @classmethod
    def from_config(cls, config: Config) -> MetricSettings:
        """Take the settings from a configuration."""
        config = config.resolved()
        return cls(
            recon_norm=config.loss_recon_norm,
            recon_alpha=config.loss_recon_alpha,
            recon_gamma=config.loss_recon_gamma,
            mle_alpha=config.loss_mle_alpha,
            rank_coef=config.loss_rank_coef,
            rank_gamma=config.loss_rank_gamma,
            rank_norm=config.loss_rank_norm,
            rank_weight=config.loss_rank_weight,
            loss_d=config.loss_netD,
            bce_faithful=bool(config.loss_bce_legacy),
            median_lower=bool(config.median_lower),
        )


def _flat(values: ArrayLike | Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(values)).detach().reshape(-1).double()


def c_index(risk: ArrayLike | Tensor, event: ArrayLike | Tensor, time: ArrayLike | Tensor) -> float:
    """Return Harrell's concordance; ties in risk within 1e-8 count one half.

    Args:
        risk: Larger means earlier event, ``[n]``; the negative of a predicted time.
        event: 1 = observed, ``[n]``.
        time: ``[n]``.

    Returns:
        In [0, 1]; NaN with a warning where no pair of patients can be compared.
    """
    from medshared.metrics.survival import concordance_index

    arrays = [_flat(values).numpy() for values in (risk, event, time)]
    if not all(np.isfinite(values).all() for values in arrays) or arrays[0].size == 0:
        warnings.warn(
            "the concordance is undefined and returned as NaN: it needs finite predictions of at least one patient",
            stacklevel=2,
        )
        return float("nan")
    return concordance_index(arrays[0], arrays[1] > 0, arrays[2], tied_tol=1e-8)


def median_of_samples(samples: ArrayLike | Tensor, *, lower: bool = False) -> Tensor:
    """Return the median of each patient's samples.

    Args:
        samples: ``[n, draws]`` or ``[n, draws, 1]``.
        lower: Of an even number the lower of the two middle ones, as in the original, instead of their mean.

    Returns:
        ``[n]``.
    """
    values = torch.as_tensor(np.asarray(samples))
    values = values.reshape(values.shape[0], -1)
    if lower:
        return values.median(dim=1).values
    return torch.quantile(values.double(), 0.5, dim=1).to(values.dtype)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else float("nan")


def mae(pred: ArrayLike | Tensor, t: ArrayLike | Tensor, e: ArrayLike | Tensor) -> float:
    """Return the mean of ``|t - p|`` for events and ``relu(t - p)`` for the censored, in units of t."""
    return float(losses.recon_loss(_flat(pred), _flat(t), _flat(e)))


def mae_faithful(pred: ArrayLike | Tensor, t: ArrayLike | Tensor, e: ArrayLike | Tensor) -> float:
    """Return :func:`mae` as in the original: a margin of one unit for the censored, whatever the unit."""
    return float(losses.recon_loss(_flat(pred), _flat(t), _flat(e), gamma=1.0))


def time_errors(pred: Tensor, t: Tensor, e: Tensor, end_time: float) -> dict[str, float]:
    """Return errors relative to the longest time, of events and of the censored apart; NaN for an empty group.

    ``rae``: ``|t - p| / T`` and ``relu(t - p) / T``; ``nre``: ``(p - t) / T`` and ``-relu(t - p) / T``.
    """
    late = (pred - t) / end_time
    event, censored = late[e == 1], late[e != 1]
    return {
        "event_t_rae": _mean(event.abs()),
        "nonevent_t_rae": _mean(torch.relu(-censored)),
        "event_t_nre": _mean(event),
        "nonevent_t_nre": _mean(-torch.relu(-censored)),
    }


def adversarial_metrics(fake_scores: ArrayLike | Tensor | None, settings: MetricSettings) -> dict[str, float]:
    """Return the losses of both networks on fake pairs alone; NaN where the discriminator took no part."""
    scores = None if fake_scores is None else _flat(fake_scores)
    if scores is None or scores.numel() == 0:
        return dict.fromkeys(("loss_fake_netD", "loss_fake_netG", "avg_fake"), float("nan"))
    function = losses.discriminator_loss_faithful if settings.bce_faithful else losses.discriminator_loss
    return {
        "loss_fake_netD": float(function(None, scores, settings.loss_d)),
        "loss_fake_netG": float(losses.generator_loss(scores)),
        "avg_fake": float(scores.mean()),
    }


def continuous_metrics(
    pred: ArrayLike | Tensor,
    t: ArrayLike | Tensor,
    e: ArrayLike | Tensor,
    settings: MetricSettings,
    *,
    end_time: float = 1.0,
    fake_scores: ArrayLike | Tensor | None = None,
    samples: ArrayLike | Tensor | None = None,
) -> dict[str, float]:
    """Return the table of predicted times (``cont_gansurv``, ``surv_reg``).

    Args:
        pred: Predicted times ``[n]``, in the unit of t.
        t: Observed times ``[n]``.
        e: 1 = event, ``[n]``.
        settings: Losses.
        end_time: What relative errors are divided by: 1 for ratio, the longest time for days.
        fake_scores: The discriminator's logits ``[n]``.
        samples: Draws ``[n, k]``; where given, their median takes the place of the prediction in every metric.

    Returns:
        Metrics under the original's names. ``loss_recon_org`` is the monitored loss, with alpha 0.
    """
    if samples is not None:
        pred = median_of_samples(samples, lower=settings.median_lower)
    p, time, event = _flat(pred), _flat(t), _flat(e)
    gamma, norm = settings.recon_gamma, settings.recon_norm
    rank = 0.0
    if settings.rank_coef > 0:
        rank = float(
            losses.rank_loss(
                p,
                time,
                event,
                gamma=settings.rank_gamma,
                norm=settings.rank_norm,
                add_weight=settings.rank_weight,
            )
        )
    alpha = settings.recon_alpha
    return {
        "c_index": c_index(-p, event, time),
        "loss_rank": rank,
        "loss_recon": float(losses.recon_loss(p, time, event, alpha=alpha, gamma=gamma, norm=norm)),
        "loss_recon_org": float(losses.recon_loss(p, time, event, gamma=gamma, norm=norm)),
        **adversarial_metrics(fake_scores, settings),
        **time_errors(p, time, event, end_time),
        "mae": (mae_faithful if settings.mae_faithful else mae)(p, time, event),
    }


def discrete_metrics(
    hazards: ArrayLike | Tensor,
    bins: ArrayLike | Tensor,
    e: ArrayLike | Tensor,
    settings: MetricSettings,
    *,
    time: ArrayLike | Tensor | None = None,
    fake_scores: ArrayLike | Tensor | None = None,
) -> dict[str, float]:
    """Return the table of hazards of time bins (``disc_gansurv``, ``surv_nll``).

    Args:
        hazards: ``[n, K]``.
        bins: Observed bin ``[n]``.
        e: 1 = event, ``[n]``. The original passed 1 - e here, which scores events and censored swapped.
        settings: Losses.
        time: Continuous times ``[n]``; where given, ``c_index`` ranks against them, with fewer ties, and
            ``c_index_bins`` against the bins.
        fake_scores: The discriminator's logits ``[n]``; left out of the table where None.

    Returns:
        Metrics under the original's names; the score is ``sum_k S_k``, large for long survival.
    """
    h = torch.as_tensor(np.asarray(hazards)).detach().double()
    bin_, event = _flat(bins), _flat(e)
    longevity = torch.cumprod(1 - h, dim=1).sum(1)
    against_bins = c_index(-longevity, event, bin_)
    table = {
        "c_index": against_bins if time is None else c_index(-longevity, event, time),
        "loss_mle": float(losses.mle_loss(h, bin_, event, alpha=settings.mle_alpha)),
        "loss_mle_org": float(losses.mle_loss(h, bin_, event)),
    }
    if time is not None:
        table["c_index_bins"] = against_bins
    return table if fake_scores is None else {**table, **adversarial_metrics(fake_scores, settings)}


def discrete_metrics_faithful(
    hazards: ArrayLike | Tensor,
    bins: ArrayLike | Tensor,
    e: ArrayLike | Tensor,
    settings: MetricSettings,
    *,
    fake_scores: ArrayLike | Tensor | None = None,
) -> dict[str, float]:
    """Return :func:`discrete_metrics` as in the original: events and censored swapped, ranked against the bins."""
    return discrete_metrics(hazards, bins, 1 - _flat(e), settings, fake_scores=fake_scores)


def cox_metrics(
    log_hazard: ArrayLike | Tensor, t: ArrayLike | Tensor, e: ArrayLike | Tensor
) -> dict[str, float]:
    """Return the table of log hazards (``surv_cox``): concordance and partial likelihood.

    Args:
        log_hazard: ``[n]``; larger means earlier event.
        t: Times ``[n]``.
        e: 1 = event, ``[n]``.
    """
    theta, time, event = _flat(log_hazard), _flat(t), _flat(e)
    return {
        "c_index": c_index(theta, event, time),
        "loss_ple": float(losses.cox_loss(theta, time, event)),
    }


def cox_metrics_faithful(
    log_hazard: ArrayLike | Tensor, t: ArrayLike | Tensor, e: ArrayLike | Tensor
) -> dict[str, float]:
    """Return :func:`cox_metrics` as in the original, which ranked log hazards as if they were times: 1 - C."""
    theta, time, event = _flat(log_hazard), _flat(t), _flat(e)
    return {**cox_metrics(theta, time, event), "c_index": c_index(-theta, event, time)}
