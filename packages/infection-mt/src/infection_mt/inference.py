"""A trained network over a frame table, and the score of what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infection_mt import evaluation
from infection_mt.config import Config
from infection_mt.data.loading import evaluation_batches, iterate_batches, normalise
from infection_mt.data.prepare import table_targets, time_settings
from infection_mt.data.table import FrameTable
from infection_mt.targets import clamp_hours
from medshared.distributed import collected, process_count, process_rank


@torch.inference_mode()
def predict_table(
    model: Any,
    table: FrameTable,
    store: Any,
    config: Config,
    *,
    device: torch.device,
    batch_size: int,
    shared: bool = False,
) -> evaluation.Predictions:
    """Run a network over a frame table in evaluation mode.

    Args:
        model: A network of :mod:`infection_mt.models` (or Fabric's wrapper of one) on ``device``.
        table: N frames.
        store: Holds the prepared frames.
        config: Gives transforms, targets and the infected class.
        device: Where the network is.
        batch_size: Frames a batch.
        shared: All processes of the run call this and take turns with the batches.

    Returns:
        Predictions of all N frames in table order.
    """
    was_training = model.training
    model.eval()
    batches = evaluation_batches(len(table), batch_size)
    mine = batches[process_rank() :: process_count()] if shared else batches
    found: list[tuple[Tensor | None, Tensor | None]] = []
    for _, frames in iterate_batches(store, table, mine):
        x = normalise(frames.to(device), config.data.transforms)
        outputs = model.outputs(x)
        found.append((_on_cpu(outputs.logits), _on_cpu(outputs.time)))
    found = collected(found) if shared else found
    logits = [each for each, _ in found if each is not None]
    times = [each for _, each in found if each is not None]
    model.train(was_training)
    hours = torch.cat(times).numpy()[:, 0] if times else None
    if hours is not None and config.multitask.clamp_predictions:
        hours = clamp_hours(hours, time_settings(config).clamp_range)
    return evaluation.Predictions.from_outputs(
        infected_columns(torch.cat(logits).numpy(), config) if logits else None,
        hours,
        table.infected(),
        table_targets(config, table),
        metadata=[table.metadata(i) for i in range(len(table))],
    )


def _on_cpu(output: Tensor | None) -> Tensor | None:
    return None if output is None else output.float().cpu()


def infected_columns(logits: NDArray[np.float32], config: Config) -> NDArray[np.float64]:
    """Return [N, 2] logits (uninfected, infected) of any number of declared classes.

    The odds of the infected class against all others stay what the softmax says; a single logit stays [N, 1].

    Args:
        logits: [N, C].
        config: Names the infected class by ``data.infected_label``.
    """
    z = logits.astype(np.float64)
    if z.shape[1] == 1:
        return z
    infected = config.data.infected_label
    others = np.delete(z, infected, axis=1)
    return np.stack([np.logaddexp.reduce(others, axis=1), z[:, infected]], axis=1)


def score(
    predictions: evaluation.Predictions, config: Config, time_scale: float, threshold: float = 0.5
) -> dict[str, float]:
    """Return the metrics of the run's task (the original's order for the multi-task model).

    Args:
        predictions: Outputs and truth.
        config: Task and weights.
        time_scale: Hours at which the time part of ``combined`` is 0.
        threshold: Decision on P(infected).
    """
    p, m, faithful = predictions, config.multitask, bool(config.metrics.faithful_auc)
    logits = np.stack([np.zeros(len(p)), p.logit], axis=1)
    if config.task.type == "regression":
        return evaluation.evaluate_regression(p.time, p.label, p.time_target, faithful=faithful)
    if config.task.type == "classification":
        found = evaluation.evaluate_classification(logits, p.label, threshold=threshold, faithful=faithful)
        return {f"cls_{name}": value for name, value in found.items()}
    return evaluation.evaluate_multitask(
        logits,
        p.time,
        p.label,
        p.time_target,
        classification_weight=m.classification_weight,
        regression_weight=m.regression_weight,
        time_scale_hours=time_scale,
        faithful_auc=faithful,
        threshold=threshold,
    )


def time_scale(config: Config, predictions: evaluation.Predictions) -> float:
    """Return the hours at which the time part of ``combined`` is 0: as configured, the clamp's end, or the data's."""
    upper = time_settings(config).clamp_range[1]
    return config.selection.time_scale_hours or upper or max(float(predictions.time_target.max()), 1.0)
