"""A trained network over a frame table, and the score of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from infection_mt import evaluation
from infection_mt.config import Config
from infection_mt.data.loading import evaluation_batches, iterate_batches, normalise
from infection_mt.data.prepare import table_targets
from infection_mt.data.table import FrameTable


@torch.inference_mode()
def predict_table(
    model: Any, table: FrameTable, store: Any, config: Config, *, device: torch.device, batch_size: int
) -> evaluation.Predictions:
    """Run a network over a frame table in evaluation mode.

    Args:
        model: A network of :mod:`infection_mt.models` (or Fabric's wrapper of one) on ``device``.
        table: N frames.
        store: Holds the prepared frames.
        config: Gives transforms, targets and the infected class.
        device: Where the network is.
        batch_size: Frames a batch.

    Returns:
        Predictions of all N frames in table order.
    """
    was_training = model.training
    model.eval()
    logits: list[Tensor] = []
    times: list[Tensor] = []
    for _, frames in iterate_batches(store, table, evaluation_batches(len(table), batch_size)):
        x = normalise(frames.to(device), config.data.transforms)
        outputs = model.outputs(x)
        if outputs.logits is not None:
            logits.append(outputs.logits.float().cpu())
        if outputs.time is not None:
            times.append(outputs.time.float().cpu())
    model.train(was_training)
    return evaluation.Predictions.from_outputs(
        table,
        logits=torch.cat(logits).numpy() if logits else None,
        time=torch.cat(times).numpy()[:, 0] if times else None,
        time_target=table_targets(config, table),
        infected_class=config.data.infected_label,
        clamp=config.multitask.clamp_range if config.multitask.clamp_predictions else None,
    )


def score(
    predictions: evaluation.Predictions, config: Config, time_scale: float, threshold: float = 0.5
) -> dict[str, float]:
    """Return the metrics of the run's task (spec 6.4 order for the multi-task model)."""
    m = config.multitask
    return evaluation.evaluate(
        predictions,
        task=config.task.type,
        classification_weight=m.classification_weight,
        regression_weight=m.regression_weight,
        time_scale_hours=time_scale,
        faithful_auc=bool(config.metrics.faithful_auc),
        threshold=threshold,
    )


def metric_line(metrics: Mapping[str, float]) -> str:
    """Return the original's log form, ``name:0.1234 | …``."""
    return " | ".join(f"{name}:{value:.4f}" for name, value in metrics.items())
