"""``advmil predict``: new slides or bags → risk, time, survival curve and attention, as files that a user can open."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from advmil.attention import PatchAttention, attend, write_attention
from advmil.ensemble import BagOutput, Ensemble, load_ensemble, predict_bag
from advmil.errors import DataError
from advmil.new_bags import SlideBag, find_coordinates, read_slide_bag
from advmil.noise import torch_noise
from advmil.pooled import Curves, PooledPredictions, pool, pooled_curves, prediction_table, sample_arrays
from advmil.prediction_inputs import (
    Inputs,
    Item,
    check_mixture,
    collect_inputs,
    group_patients,
    prepare_slides,
)
from medshared.batch import ITEM_ERRORS
from medshared.files import write_json, write_npz
from medshared.gpu import derive_seed
from medshared.process import progress
from medshared.tables import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

REPORT = "prediction-report.json"
SHOWN = 6  # curves in the picture


@dataclass(frozen=True)
class PredictionSettings:
    """How to predict.

    Attributes:
        samples: Noise draws of each model for a patient.
        zero_noise: One deterministic prediction instead.
        seed: Of the draws; each patient has a stream of its own, whatever else is predicted beside it.
        level: Of the intervals, in (0, 1).
        attention: Write attention tables.
        region_scores: Add the discriminator's score of each region to them.
    """

    samples: int = 200
    zero_noise: bool = False
    seed: int = 0
    level: float = 0.9
    attention: bool = True
    region_scores: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"--samples: expected at least 1 draw, found {self.samples}")
        if not 0 < self.level < 1:
            raise ValueError(f"--level: expected a probability between 0 and 1, found {self.level}")


@dataclass(frozen=True)
class PatientResult:
    """One patient, predicted.

    Attributes:
        patient: Id.
        slides: Its slides.
        n_patches: Patches of all of them.
        outputs: One of each model.
        attention: Of the patches; null unless asked for.
    """

    patient: str
    slides: tuple[str, ...]
    n_patches: int
    outputs: list[BagOutput]
    attention: PatchAttention | None


def predict_patient(
    ensemble: Ensemble,
    patient: str,
    slides: Sequence[SlideBag],
    settings: PredictionSettings,
    device: torch.device,
) -> PatientResult:
    """Predict one patient: one pass of each backbone, then all draws of the head at once.

    The models draw from the patient's own stream one after the other.

    Args:
        ensemble: The models.
        patient: Id; with the seed it sets the draws.
        slides: Features of the slides, in order.
        settings: How.
        device: Of the networks.

    Raises:
        DataError: The bags do not fit the models, or a prediction is not finite.
    """
    bags = ensemble.bags(patient, slides)
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, patient))
    outputs = []
    for model, bag, config in zip(ensemble.models, bags, ensemble.configs, strict=True):
        noise = None if settings.zero_noise else torch_noise(config.gen_noi_noise_dist, generator)
        found = predict_bag(model, bag.input, device, samples=settings.samples, noise=noise)
        if not np.isfinite(found.point).all():
            raise DataError(f"{model.run.folder}: the prediction of patient {patient} is not finite")
        outputs.append(found)
    attention = None
    if settings.attention:
        attention = attend(ensemble.models, bags, device, region_scores=settings.region_scores)
    return PatientResult(patient, tuple(s.slide for s in slides), bags[0].n_patches, outputs, attention)


def predict_inputs(
    ensemble: Ensemble,
    inputs: Inputs,
    patients: Mapping[str, Sequence[str]],
    settings: PredictionSettings,
    output: Path,
    device: torch.device,
    coordinates: Path | None = None,
) -> list[PatientResult]:
    """Predict all patients; one that fails is recorded in ``inputs`` and left behind.

    Args:
        ensemble: The models.
        inputs: Feature files of the slides.
        patients: Patient → slides.
        settings: How.
        output: Receives ``attention/<patient>.csv``.
        device: Of the networks.
        coordinates: Folder of CLAM files of coordinates.
    """
    results = []
    for patient, slides in progress(patients.items(), total=len(patients), description="predict"):
        try:
            _check_name(patient)
            bags = [_read(inputs, slide, coordinates) for slide in slides]
            found = predict_patient(ensemble, patient, bags, settings, device)
            if found.attention is not None:
                write_attention(output / "attention" / f"{patient}.csv", found.attention, patient)
        except ITEM_ERRORS as error:
            logger.error("patient %s: %s", patient, error)
            inputs.items.append(Item("patient", patient, "failed", str(error)))
            continue
        inputs.items.append(Item("patient", patient, "done", f"{found.n_patches} patches"))
        results.append(found)
    return results


def _check_name(patient: str) -> None:
    if any(sign in patient for sign in "/\\\0") or patient in (".", ".."):
        raise DataError(f"patient id {patient!r} cannot name a file: use one without slashes")


def _read(inputs: Inputs, slide: str, coordinates: Path | None) -> SlideBag:
    reason = inputs.failed(slide)
    if reason is not None:
        raise DataError(reason)
    return read_slide_bag(inputs.features[slide], find_coordinates(coordinates, slide), slide)


def predict_new(arguments: argparse.Namespace) -> int:
    """Run ``advmil predict``.

    Writes ``predictions.csv``, ``curves.csv``, ``samples.npz``, ``figures/curves.png``, ``attention/<patient>.csv``
    and, last, ``prediction-report.json`` with what became of every input.

    Returns:
        Exit code: 1 when an input, slide or patient failed.

    Raises:
        DataError: Runs that cannot be used, features of several encoders, or a table that names none of the slides.
    """
    from medshared.gpu import select_device

    settings = PredictionSettings(
        arguments.samples,
        arguments.zero_noise,
        arguments.seed,
        arguments.level,
        not arguments.no_attention,
        arguments.region_scores,
    )
    device = select_device(arguments.device)
    ensemble = load_ensemble(arguments.run, device)
    inputs = collect_inputs(arguments.inputs)
    patients = group_patients(inputs, arguments.table)
    chosen = {slide for slides in patients.values() for slide in slides}
    inputs.slides = {slide: path for slide, path in inputs.slides.items() if slide in chosen}
    if inputs.slides:
        prepare_slides(inputs, arguments, arguments.output / "prepared")
    check_mixture([inputs.features[s] for s in sorted(chosen & {*inputs.features})], ensemble.configs[0])
    output: Path = arguments.output
    results = predict_inputs(ensemble, inputs, patients, settings, output, device, arguments.coordinates)
    if results:
        write_predictions(ensemble, results, settings, output)
    return _report(arguments, ensemble, settings, inputs, len(results))


def write_predictions(
    ensemble: Ensemble, results: Sequence[PatientResult], settings: PredictionSettings, output: Path
) -> PooledPredictions:
    """Write tables, draws and the picture of predicted patients, each file atomically.

    Args:
        ensemble: The models.
        results: At least one patient.
        settings: How they were predicted.
        output: Folder.
    """
    pooled = pool(ensemble, [r.patient for r in results], [r.outputs for r in results])
    curves = pooled_curves(pooled, level=settings.level, seed=settings.seed)
    slides, patches = [r.slides for r in results], [r.n_patches for r in results]
    table = prediction_table(pooled, curves, slides, patches, settings.level)
    write_npz(output / "samples.npz", **sample_arrays(pooled))
    write_table(output / "curves.csv", curves.table(pooled.patients))
    from advmil.reporting import save_figure

    save_figure(draw_new_curves(pooled, curves), output / "figures" / "curves.png")
    write_table(output / "predictions.csv", table)
    return pooled


def draw_new_curves(pooled: PooledPredictions, curves: Curves, n: int = SHOWN) -> Figure:
    """Draw the curves of some patients, evenly spread over the risk, with the intervals of the curves."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(pooled.risk, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(int)]
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(chosen)))
    for row, shade in zip(chosen.tolist(), shades, strict=True):
        axes.plot(curves.grid, curves.survival[row], color=shade, label=pooled.patients[row])
        axes.fill_between(curves.grid, curves.low[row], curves.high[row], color=shade, alpha=0.2, linewidth=0)
    axes.set(xlabel="days", ylabel="predicted survival", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=7, title="lowest to highest risk", title_fontsize=7)
    return figure


def _report(
    arguments: argparse.Namespace,
    ensemble: Ensemble,
    settings: PredictionSettings,
    inputs: Inputs,
    predicted: int,
) -> int:
    """Write what became of everything, say it in a line, and return the exit code."""
    from advmil import __version__

    failed = [item for item in inputs.items if item.status == "failed"]
    content: dict[str, Any] = {
        "advmil": __version__,
        "runs": [str(model.run.folder) for model in ensemble.models],
        "kind": ensemble.kind,
        "settings": settings,
        "inputs": [str(path) for path in arguments.inputs],
        "table": arguments.table,
        "predicted": predicted,
        "failed": len(failed),
        "items": inputs.items,
    }
    write_json(arguments.output / REPORT, content)
    for item in failed:
        if item.kind != "patient":
            logger.error("%s", item.message)
    logger.info("%d patients predicted, %d failures; %s", predicted, len(failed), arguments.output / REPORT)
    if not predicted and not failed:
        raise DataError("nothing to predict: no input was found")
    return 1 if failed or not predicted else 0
