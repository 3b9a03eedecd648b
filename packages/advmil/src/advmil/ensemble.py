"""One patient seen by one or several trained models: one pass of each backbone, any number of draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from advmil.config import Config
from advmil.data.bags import BagInput
from advmil.errors import DataError
from advmil.inference import middle_sample
from advmil.models.generator import Generator
from advmil.new_bags import PatientBag, SlideBag, assemble_patient
from advmil.noise import NoiseSource
from advmil.predictions import Kind, Predictions
from advmil.run_data import place
from advmil.run_files import TrainedModel, load_model

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BagOutput:
    """What one model says of one bag.

    Attributes:
        point: Outputs that stand for the draws, float32 ``[K]``; the median, or the single output.
        draws: Outputs of all draws, float32 ``[k, K]``; null without noise.
    """

    point: NDArray[np.float32]
    draws: NDArray[np.float32] | None


@dataclass(frozen=True)
class Ensemble:
    """Models of one kind, such as the folds of a cross-validation.

    Attributes:
        models: At least one.
        kind: ``continuous``, ``discrete`` or ``cox``.
        training: Predictions of each model for its own training patients.
    """

    models: list[TrainedModel]
    kind: Kind
    training: list[Predictions]

    @property
    def configs(self) -> list[Config]:
        """Resolved configuration of each model."""
        return [model.run.config.resolved() for model in self.models]

    @property
    def end_days(self) -> float:
        """Longest time that any model was trained on."""
        return max(float(part.days.max()) for part in self.training)

    def bags(self, patient: str, slides: Sequence[SlideBag]) -> list[PatientBag]:
        """Return the patient's bag as each model takes it; models of one form share theirs."""
        made: dict[Any, PatientBag] = {}
        bags = []
        for config in self.configs:
            key = (config.bcb_mode, config.regions, config.task, config.bcb_widths[0])
            if key not in made:
                made[key] = assemble_patient(config, patient, slides)
            bags.append(made[key])
        return bags


def load_ensemble(folders: Sequence[Path], device: torch.device | str = "cpu") -> Ensemble:
    """Load the models of finished runs.

    Args:
        folders: Run directories.
        device: Where the networks go.

    Raises:
        DataError: A run is missing or unfinished, given twice, or of another kind or width than the first.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise DataError("a run is given twice: each counts as one member of the ensemble")
    models = [load_model(folder, device) for folder in folders]
    training = [model.run.training_predictions() for model in models]
    first = models[0].run.config
    for model, part in zip(models, training, strict=True):
        if part.kind != training[0].kind:
            raise DataError(
                f"{model.run.folder} predicts {part.kind} outcomes but {models[0].run.folder} {training[0].kind} ones: "
                "only models of one kind can be pooled"
            )
        if model.run.config.bcb_widths[0] != first.bcb_widths[0]:
            raise DataError(
                f"{model.run.folder} takes {model.run.config.bcb_widths[0]} features a patch but "
                f"{models[0].run.folder} {first.bcb_widths[0]}: they cannot read the same files"
            )
    return Ensemble(models, training[0].kind, training)


@torch.no_grad()
def predict_bag(
    model: TrainedModel,
    bag: BagInput,
    device: torch.device | str = "cpu",
    *,
    samples: int = 1,
    noise: NoiseSource | None = None,
) -> BagOutput:
    """Predict one bag with one pass of the backbone.

    Args:
        model: The model.
        bag: What its backbone takes.
        device: Of the network.
        samples: Draws; 1 predicts with a single one.
        noise: Where they come from, in the order of ``samples`` separate passes; null is zero noise.

    Returns:
        Point and draws. A model without noise, zero noise, and a single draw have no draws.
    """
    given = place(bag, device)
    network = cast(Any, model.network)
    if not isinstance(model.network, Generator):
        return BagOutput(_numpy(network(given.x, given.extra)[0]), None)
    embedding = network.embed(given.x, given.extra)
    if noise is None or samples == 1 or not any(model.network.noise_digits):
        return BagOutput(_numpy(network.head(embedding, noise)[0]), None)
    drawn = network.sample(embedding, samples, noise)[0].float()
    return BagOutput(
        _numpy(middle_sample(drawn, bool(model.run.config.resolved().median_lower))), _numpy(drawn)
    )


def _numpy(values: torch.Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def as_predictions(
    model: TrainedModel, kind: Kind, patients: Sequence[str], outputs: Sequence[BagOutput]
) -> Predictions:
    """Put one model's outputs for new patients into the form of a run's predictions; their labels are NaN.

    Args:
        model: The model.
        kind: Of its predictions.
        patients: Ids.
        outputs: One a patient.
    """
    n = len(patients)
    unknown = np.full(n, np.nan)
    points = np.stack([each.point for each in outputs])
    draws = (
        None
        if any(each.draws is None for each in outputs)
        else np.stack([o.draws for o in outputs if o.draws is not None])
    )
    common: dict[str, Any] = {
        "kind": kind,
        "patients": tuple(patients),
        "t": unknown.astype(np.float32),
        "e": np.zeros(n, dtype=np.int64),
        "days": unknown,
        "unit_days": model.unit_days,
        "end_time": float("nan"),
    }
    if kind == "discrete":
        survival = np.cumprod(1 - points, axis=1)
        return Predictions(point=survival.sum(axis=1), hazards=points, edges=model.edges, **common)
    samples = draws[..., 0] if draws is not None and kind == "continuous" else None
    return Predictions(point=points[:, 0], samples=samples, **common)
