"""Networks over patients: one pass of the backbone each, any number of draws of the head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from advmil.config import Config
from advmil.data.bags import BagInput
from advmil.data.labels import Labels, label_mask
from advmil.models.discriminator import Discriminator
from advmil.models.generator import Generator
from advmil.noise import NoiseSource
from advmil.predictions import Predictions
from advmil.run_data import RunData, place

logger = logging.getLogger(__name__)

Centre = Literal["median", "mean"]
ChangeBag = Callable[[str, BagInput], BagInput]


def autocast(device: torch.device, precision: str) -> Any:
    """Return the arithmetic of a forward pass: plain float32, or bfloat16 where it is safe."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def middle_sample(samples: Tensor, lower: bool, centre: Centre = "median") -> Tensor:
    """Return the median over draws, or their mean.

    Args:
        samples: [..., k, outputs].
        lower: The lower of the two middle draws for even k, as in the original, instead of their mean.
        centre: ``median`` or ``mean``.

    Returns:
        [..., outputs].
    """
    if centre == "mean":
        return samples.mean(dim=-2)
    if lower:
        return samples.median(dim=-2).values
    return samples.quantile(0.5, dim=-2)


@torch.no_grad()
def predict_generator(
    generator: Generator,
    discriminator: Discriminator | None,
    data: RunData,
    patients: Sequence[str],
    config: Config,
    *,
    samples: int,
    noise: NoiseSource | None,
    device: torch.device,
    precision: str = "32-true",
    change: ChangeBag | None = None,
    centre: Centre = "median",
) -> Predictions:
    """Predict patients with AdvMIL.

    The draws come in the original's order: one that the discriminator judges, then, when more than one is wanted,
    all that the prediction is the median of.

    Args:
        generator: G.
        discriminator: D; null leaves its scores out.
        data: Bags and labels.
        patients: Who.
        config: Resolved configuration.
        samples: Draws a patient; 1 predicts with the single draw.
        noise: Source of the draws; null is zero noise.
        device: Of the networks.
        precision: As :func:`medshared.gpu.resolve_precision` gives it.
        change: Applied to every bag, such as masking.
        centre: What stands for the draws.
    """
    generator.eval()
    if discriminator is not None:
        discriminator.eval()
    rows = data.rows(patients)
    points, draws, scores = [], [], []
    for patient, row, bag in _bags(data, patients, rows, device, change):
        with autocast(device, precision):
            embedding = generator.embed(bag.x, bag.extra)
            first = generator.head(embedding, noise).float()
            if discriminator is not None:
                pair = first * _known_bins(data.labels, row, first)
                scores.append(discriminator(bag.x, pair).float().reshape(()))
            if samples > 1:
                drawn = generator.sample(embedding, samples, noise)[0].float()
                draws.append(drawn)
                first = middle_sample(drawn, bool(config.median_lower), centre)[None]
        if not torch.isfinite(first).all():
            logger.warning("patient %s: the prediction is not finite", patient)
        points.append(first[0])
    outputs = _numpy(points)
    stacked = _numpy(draws) if draws else None
    return assemble(config, data.labels, patients, rows, outputs, stacked, _numpy(scores) if scores else None)


@torch.no_grad()
def predict_baseline(
    network: nn.Module,
    data: RunData,
    patients: Sequence[str],
    config: Config,
    *,
    device: torch.device,
    precision: str = "32-true",
) -> Predictions:
    """Predict patients with a baseline; arguments as of :func:`predict_generator`."""
    network.eval()
    rows = data.rows(patients)
    outputs = []
    for _, _, bag in _bags(data, patients, rows, device, None):
        with autocast(device, precision):
            outputs.append(network(bag.x, bag.extra)[0].float())
    return assemble(config, data.labels, patients, rows, _numpy(outputs), None, None)


def _bags(
    data: RunData, patients: Sequence[str], rows: np.ndarray, device: torch.device, change: ChangeBag | None
) -> Iterator[tuple[str, int, BagInput]]:
    """Yield patient, row of the labels, and bag on the device; the next bags are read meanwhile."""
    for (patient, bag), row in zip(data.source.iterate(patients), rows.tolist(), strict=True):
        yield patient, row, place(change(patient, bag) if change else bag, device)


def _known_bins(labels: Labels, row: int, hazards: Tensor) -> Tensor | float:
    """Return the mask of the bins that the discriminator may see of a prediction; 1 for times."""
    if labels.time_format != "quantile":
        return 1.0
    t, e = (torch.tensor([float(values[row])]) for values in (labels.t, labels.e))
    return label_mask(t, e, hazards.shape[-1])[1].to(hazards.device)


def _numpy(values: Sequence[Tensor]) -> np.ndarray:
    return torch.stack(list(values)).cpu().numpy() if values else np.zeros((0, 1), dtype=np.float32)


def assemble(
    config: Config,
    labels: Labels,
    patients: Sequence[str],
    rows: np.ndarray,
    outputs: np.ndarray,
    draws: np.ndarray | None,
    scores: np.ndarray | None,
) -> Predictions:
    """Put outputs [n, k] and draws [n, samples, k] beside the labels."""
    common: dict[str, Any] = {
        "patients": tuple(patients),
        "t": labels.t[rows],
        "e": labels.e[rows],
        "days": labels.days[rows],
        "unit_days": labels.unit_days,
        "end_time": labels.end_time,
        "fake_scores": scores,
    }
    if config.is_discrete:
        survival = np.cumprod(1 - outputs, axis=1)
        return Predictions(
            kind="discrete", point=survival.sum(axis=1), hazards=outputs, edges=labels.edges, **common
        )
    kind = "cox" if config.task == "surv_cox" else "continuous"
    return Predictions(
        kind=kind, point=outputs[:, 0], samples=None if draws is None else draws[..., 0], **common
    )
