"""The original's metrics of a set of predictions, by the kind of model."""

from __future__ import annotations

from advmil.config import Config
from advmil.predictions import Predictions
from advmil.survival_metrics import MetricSettings, continuous_metrics, cox_metrics, discrete_metrics

# What the original calls the loss of a set, and monitors.
MONITORED_LOSS = {"continuous": "loss_recon_org", "discrete": "loss_mle_org", "cox": "loss_ple"}


def original_metrics(predictions: Predictions, config: Config) -> dict[str, float]:
    """Return the original's table of metrics of a set.

    Args:
        predictions: Of the set; where there are draws, ``point`` is already their median.
        config: Losses.
    """
    p, settings = predictions, MetricSettings.from_config(config)
    if not len(p):
        return {}
    if p.kind == "cox":
        return cox_metrics(p.point, p.days, p.e)
    if p.hazards is not None:
        return discrete_metrics(p.hazards, p.t, p.e, settings, time=p.days, fake_scores=p.fake_scores)
    return continuous_metrics(p.point, p.t, p.e, settings, end_time=p.end_time, fake_scores=p.fake_scores)
