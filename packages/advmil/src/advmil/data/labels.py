"""Labels of patients in the three time formats, for a whole cohort at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from advmil.data.tables import Cohort
from advmil.errors import DataError

EDGE_MARGIN = 1e-5  # days by which the outermost edges lie outside the times


@dataclass(frozen=True)
class Labels:
    """Labels of patients.

    Attributes:
        patients: Patient ids, in the order of the arrays.
        t: Time in the unit of the format, float32 ``[n]``: days, share of ``max_time``, or index of the bin.
        e: 1 = event observed, 0 = censored, int64 ``[n]``.
        days: Time in days, float64 ``[n]``.
        time_format: ``origin``, ``ratio`` or ``quantile``.
        end_time: What relative errors are divided by, in the unit of ``t``: 1 for ratio, else the largest
            time.
        unit_days: Days of one unit of ``t``: 1 for origin, ``max_time`` for ratio, NaN for bins.
        edges: Edges of the bins in days, float64 ``[bins + 1]``; null unless quantile. Bin k holds
            ``edges[k] <= days < edges[k + 1]``.
    """

    patients: tuple[str, ...]
    t: np.ndarray
    e: np.ndarray
    days: np.ndarray
    time_format: str
    end_time: float
    unit_days: float
    edges: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def as_original(self) -> np.ndarray:
        """The original's two label columns, float64 ``[n, 2]``: (t, e), but (bin, 1 - e) for quantile."""
        second = 1 - self.e if self.time_format == "quantile" else self.e
        return np.stack([self.t.astype(np.float64), second.astype(np.float64)], axis=1)


def bin_edges(cohort: Cohort, patients: Sequence[str], bins: int) -> np.ndarray:
    """Return the edges of time bins: quantiles of the event times of the given patients.

    The outermost edges enclose all times of the table: they separate nobody, and every patient has a bin.

    Args:
        cohort: The table.
        patients: Patients whose observed events set the inner edges.
        bins: Number of bins.

    Returns:
        Edges in days, float64 ``[bins + 1]``.

    Raises:
        DataError: Without an observed event.
    """
    event, time = cohort.outcomes(patients)
    if not event.any():
        raise DataError(
            f"none of the {len(patients)} patients of {cohort.path} that set the time bins has an observed event: "
            "time_format quantile needs some"
        )
    edges = np.quantile(time[event == 1], np.linspace(0.0, 1.0, bins + 1))
    edges[0], edges[-1] = cohort.min_time - EDGE_MARGIN, cohort.max_time + EDGE_MARGIN
    return edges


def make_labels(
    cohort: Cohort,
    patients: Sequence[str],
    time_format: Literal["origin", "ratio", "quantile"],
    *,
    bins: int = 4,
    labels_from: Literal["train", "table"] = "train",
    train_patients: Sequence[str] | None = None,
) -> Labels:
    """Return the labels of patients.

    ``origin``: days. ``ratio``: days divided by the largest time of the whole table (a unit, the same for every
    part). ``quantile``: index of the time bin, whose edges are quantiles of the event times of the training
    patients (``labels_from: train``) or, as in the original, of the whole table, test patients included.

    Args:
        cohort: The table.
        patients: Patient ids.
        time_format: See above.
        bins: Number of bins.
        labels_from: Patients that set the bins.
        train_patients: Training patients, needed for quantile with ``labels_from: train``.

    Returns:
        The labels in the order of ``patients``.

    Raises:
        DataError: Unknown patients, or no event to set the bins.
    """
    event, days = cohort.outcomes(patients)
    edges = None
    end_time, unit_days = 1.0, float("nan")
    if time_format == "origin":
        t, end_time, unit_days = days, cohort.max_time, 1.0
    elif time_format == "ratio":
        t, unit_days = days / cohort.max_time, cohort.max_time
    else:
        if labels_from == "train" and train_patients is None:
            raise ValueError("labels_from 'train' needs train_patients")
        known = tuple(cohort.patients) if labels_from == "table" or train_patients is None else train_patients
        edges = bin_edges(cohort, known, bins)
        t = np.clip(np.searchsorted(edges, days, side="right") - 1, 0, bins - 1)
    return Labels(tuple(patients), t.astype(np.float32), event, days, time_format, end_time, unit_days, edges)


def label_mask(t: Tensor, e: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return the time vector of real pairs of the discrete task and the bins that are known.

    An event is a one-hot vector of its bin. A censored patient's vector would be the bins after the censoring,
    all of which the mask hides: it is zero once masked.

    Args:
        t: Index of the bin, shape ``[n]`` or ``[n, 1]``.
        e: 1 = event observed, 0 = censored, of the same shape.
        bins: Number of bins K.

    Returns:
        The vector and the mask (1 for bins up to ``t``), each float32 ``[n, K]``.

    Example:
        >>> label, mask = label_mask(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]), 4)
        >>> label.tolist(), mask.tolist()
        ([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    """
    k = torch.arange(bins, device=t.device, dtype=t.dtype)
    at, event = t.reshape(-1, 1), e.reshape(-1, 1) > 0.5
    label = torch.where(event, k == at, k > at)
    return label.float(), (k <= at).float()


@dataclass(frozen=True)
class FoldWarning:
    """A part of a split whose metrics will be undefined or mean little.

    Attributes:
        part: Name of the part.
        patients: Patients in it.
        events: Observed events among them.
        text: What follows from it, for a log or report.
    """

    part: str
    patients: int
    events: int
    text: str


def fold_warnings(cohort: Cohort, parts: dict[str, tuple[str, ...]]) -> list[FoldWarning]:
    """Name the parts of a split that have no patients, no event or only one.

    Args:
        cohort: The table.
        parts: Patients by part, e.g. ``Split.parts``.

    Returns:
        One warning for each such part, empty when all is well.
    """
    found: list[FoldWarning] = []
    for part, ids in parts.items():
        events = int(cohort.outcomes(ids)[0].sum())
        if not ids:
            text = f"{part}: no patients; nothing is reported for it"
        elif events == 0:
            text = f"{part}: all {len(ids)} patients are censored; the C-index is undefined"
        elif events == 1:
            text = f"{part}: one event among {len(ids)} patients; the C-index rests on that patient alone"
        else:
            continue
        found.append(FoldWarning(part, len(ids), events, text))
    return found
