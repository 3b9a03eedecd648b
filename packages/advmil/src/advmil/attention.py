"""Attention of a trained model: how much each patch counts for its patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from advmil.data.bags import BagLayout
from advmil.data.regions import REGION
from advmil.errors import DataError
from advmil.models.backbone import Backbone
from advmil.new_bags import PatientBag
from advmil.run_data import place
from advmil.run_files import TrainedModel
from medshared.tables import write_table

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PatchAttention:
    """Attention of the patches of one patient, one entry a patch, in the order of slides and rows.

    Attributes:
        slides: Names of the slides.
        slide_index: Position in ``slides``, int64 ``[n]``.
        row: Row of the patch in the slide's file, int64 ``[n]``.
        coordinates: Top left corners in the unit of the slide's file, ``[n, 2]``; NaN or null where unknown.
        weight: Attention ``[n]``; sums to one over the patient.
        region_score: Discriminator's inner product of the patch's region with the predicted time, ``[n]``; null
            unless asked for.
    """

    slides: tuple[str, ...]
    slide_index: NDArray[np.int64]
    row: NDArray[np.int64]
    coordinates: Floats | None
    weight: Floats
    region_score: Floats | None = None

    @property
    def rank(self) -> Floats:
        """Percentile of each patch's weight among the patient's patches, in (0, 100), ``[n]``; ties share theirs."""
        return percentile_ranks(self.weight)

    def table(self, patient: str) -> pd.DataFrame:
        """Return one row a patch: patient_id, slide, row, x, y, weight, rank, and region_score where there is one."""
        xy = np.full((len(self.row), 2), np.nan) if self.coordinates is None else self.coordinates
        columns: dict[str, Any] = {
            "patient_id": patient,
            "slide": np.asarray(self.slides, dtype=object)[self.slide_index],
            "row": self.row,
            "x": _whole(xy[:, 0]),
            "y": _whole(xy[:, 1]),
            "weight": self.weight,
            "rank": self.rank,
        }
        if self.region_score is not None:
            columns["region_score"] = self.region_score
        return pd.DataFrame(columns)

    def of_slide(self, index: int) -> PatchAttention:
        """Return the part of one slide; the weights keep their scale."""
        chosen = self.slide_index == index
        return PatchAttention(
            (self.slides[index],),
            np.zeros(int(chosen.sum()), dtype=np.int64),
            self.row[chosen],
            None if self.coordinates is None else self.coordinates[chosen],
            self.weight[chosen],
            None if self.region_score is None else self.region_score[chosen],
        )


def percentile_ranks(values: Floats) -> Floats:
    """Return the percentile of each value among all: the share below it and half of those equal, in (0, 100).

    Example:
        >>> percentile_ranks(np.array([0.1, 0.4, 0.4, 0.9])).tolist()
        [12.5, 50.0, 50.0, 87.5]
    """
    return (rankdata(values) - 0.5) / max(len(values), 1) * 100


@torch.no_grad()
def attend(
    models: Sequence[TrainedModel],
    bags: Sequence[PatientBag],
    device: torch.device,
    *,
    region_scores: bool = False,
) -> PatchAttention:
    """Return the attention of a patient's patches, averaged over models.

    Slides of a patient are attended together. Where the run repeats patches to fill its regions, the weights of the
    repetitions are added up. The backbone ``patch`` weighs regions and ``cluster`` weighs clusters; their weight is
    shared evenly among their patches.

    Args:
        models: Trained models.
        bags: The patient's bag as each model takes it.
        device: Of the networks.
        region_scores: Also score each region against the predicted time; only the first model is asked.

    Raises:
        DataError: Region scores of a model that has none.
    """
    keys, weights = None, []
    for model, bag in zip(models, bags, strict=True):
        given = place(bag.input, device)
        found = cast(Backbone, cast(Any, model.network).backbone).attention(given.x, given.extra)
        index, inverse = _patches(bag.layout)
        summed = np.bincount(inverse, weights=found.double().cpu().numpy(), minlength=len(index))
        weights.append(summed)
        keys = keys if keys is not None else (bag.layout, index, inverse)
    if keys is None:
        raise ValueError("no model to take the attention of")
    layout, index, inverse = keys
    scores = None
    if region_scores:
        per_row = _region_scores(models[0], bags[0], device)
        scores = np.bincount(inverse, weights=per_row) / np.bincount(inverse)
    mean = np.mean(weights, axis=0)
    return PatchAttention(
        layout.slides,
        layout.slide_index[index],
        layout.row[index],
        None if layout.coordinates is None else layout.coordinates[index],
        mean / mean.sum(),
        scores,
    )


def _patches(layout: BagLayout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first bag row of each patch, and the patch of each bag row."""
    pairs = np.stack([layout.slide_index, layout.row], axis=1)
    _, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _region_scores(model: TrainedModel, bag: PatientBag, device: torch.device) -> Floats:
    """Return ``<region, τ(t̂)>`` of each row's region, t̂ the prediction without noise."""
    discriminator, config = model.discriminator, model.run.config
    if discriminator is None or config.disc_type != "prj" or config.disc_prj_iprd != "instance":
        raise DataError(
            f"{model.run.folder}: region scores need a discriminator with disc_type: prj and disc_prj_iprd: instance"
        )
    given = place(bag.input, device)
    if given.x.shape[1] % REGION:
        raise DataError(f"{given.x.shape[1]} patches are no whole number of regions: no region scores")
    time = cast(Any, model.network)(given.x, given.extra)
    embed = discriminator.net_pair_one
    regions = embed.fc1(embed.embedding(given.x))[0]
    score = regions @ discriminator.embed_t(time)[0]
    return score.double().cpu().numpy().repeat(REGION)


def write_attention(path: Path, attention: PatchAttention, patient: str) -> Path:
    """Write the table of a patient's attention as CSV, atomically."""
    write_table(path, attention.table(patient))
    return path


def _whole(values: Floats) -> Any:
    """Return whole numbers as integers, missing ones as empty cells, anything else unchanged."""
    known = values[np.isfinite(values)]
    if len(known) and not np.array_equal(known, np.rint(known)):
        return values
    return pd.array(values, dtype="Float64").astype("Int64")
