"""What a model says of a set of patients, beside what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["continuous", "discrete", "cox"]


@dataclass(frozen=True)
class Predictions:
    """Predictions of a set of patients.

    Attributes:
        kind: ``continuous``: ``point`` is a time; ``discrete``: ``survival`` holds a curve; ``cox``: ``point`` is
            a log-risk.
        patients: Ids, [n].
        t: Labels in the unit of ``time_format``, float32 [n].
        e: 1 = event observed, [n].
        days: Time of event or censoring in days, [n].
        point: Predicted time in the unit of ``t``, or log-risk, float32 [n]; the risk score of ``discrete`` (sum of
            the survival curve: large = long survival).
        samples: Draws of the time in the unit of ``t``, float32 [n, k]; null without noise.
        hazards: Hazard of each bin, float32 [n, K]; null unless discrete.
        fake_scores: Discriminator's logits of the predicted pairs, [n]; null without discriminator.
        unit_days: Days of one unit of ``t``; NaN for bins.
        end_time: What relative errors are divided by, in the unit of ``t``.
        edges: Edges of the bins in days, [K + 1]; null unless discrete.
    """

    kind: Kind
    patients: tuple[str, ...]
    t: NDArray[np.float32]
    e: NDArray[np.int64]
    days: Floats
    point: NDArray[np.float32]
    unit_days: float
    end_time: float
    samples: NDArray[np.float32] | None = None
    hazards: NDArray[np.float32] | None = None
    fake_scores: NDArray[np.float32] | None = None
    edges: Floats | None = None

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def risk(self) -> Floats:
        """Risk of each patient, [n]: higher means an earlier event."""
        point = self.point.astype(np.float64)
        return point if self.kind == "cox" else -point

    @property
    def survival(self) -> NDArray[np.float32]:
        """Survival after each bin, [n, K], of a discrete model."""
        if self.hazards is None:
            raise ValueError(f"a {self.kind} model has no survival after each bin")
        return np.cumprod(1 - self.hazards, axis=1)

    @property
    def point_days(self) -> Floats | None:
        """Predicted time in days, [n]; null where the model predicts none."""
        return self.point.astype(np.float64) * self.unit_days if self.kind == "continuous" else None

    @property
    def samples_days(self) -> Floats | None:
        """Draws of the time in days, [n, k]; null without noise."""
        if self.samples is None or self.kind != "continuous":
            return None
        return self.samples.astype(np.float64) * self.unit_days

    def table(self, level: float = 0.9) -> pd.DataFrame:
        """Return one row a patient: truth in days, risk, predicted days with an interval where there are draws."""
        columns: dict[str, Any] = {
            "patient_id": list(self.patients),
            "event": self.e,
            "days": self.days,
            "risk": self.risk,
        }
        if self.point_days is not None:
            columns["predicted_days"] = self.point_days
        if self.samples_days is not None:
            tail = (1 - level) / 2
            low, high = np.quantile(self.samples_days, [tail, 1 - tail], axis=1)
            columns |= {
                "predicted_days_low": low,
                "predicted_days_high": high,
                "sample_sd_days": self.samples_days.std(1),
            }
        return pd.DataFrame(columns)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays under their names, for ``numpy.savez``; read back by :func:`from_arrays`."""
        found: dict[str, np.ndarray] = {
            "kind": np.asarray(self.kind),
            "patients": np.asarray(self.patients, dtype=np.str_),
            "unit_days": np.asarray(self.unit_days),
            "end_time": np.asarray(self.end_time),
        }
        for name in ("t", "e", "days", "point", "samples", "hazards", "fake_scores", "edges"):
            value = getattr(self, name)
            if value is not None:
                found[name] = value
        return found


def from_arrays(arrays: dict[str, np.ndarray]) -> Predictions:
    """Restore predictions from what :meth:`Predictions.arrays` returned.

    Raises:
        KeyError: An array is missing.
    """
    optional = {name: arrays.get(name) for name in ("samples", "hazards", "fake_scores", "edges")}
    return Predictions(
        kind=str(arrays["kind"]),  # type: ignore[arg-type]
        patients=tuple(arrays["patients"].tolist()),
        t=arrays["t"],
        e=arrays["e"],
        days=arrays["days"],
        point=arrays["point"],
        unit_days=float(arrays["unit_days"]),
        end_time=float(arrays["end_time"]),
        **optional,
    )


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Join predictions of disjoint sets of patients, such as the test parts of all folds.

    Raises:
        ValueError: Nothing to join, a patient in two parts, or parts of different kinds, units or draws.
    """
    if not parts:
        raise ValueError("nothing to join: expected predictions of at least one set")
    first = parts[0]
    patients = tuple(patient for part in parts for patient in part.patients)
    if len(set(patients)) < len(patients):
        raise ValueError("the sets share patients; folds can be joined when their test parts are disjoint")
    if any(
        part.kind != first.kind or not np.isclose(part.unit_days, first.unit_days, equal_nan=True)
        for part in parts
    ):
        raise ValueError("the sets were predicted in different units or by models of different kinds")

    draws = {None if part.samples is None else part.samples.shape[1] for part in parts}
    if len(draws) > 1:
        raise ValueError(f"the sets have different numbers of draws a patient: {sorted(map(str, draws))}")
    edges = {None if part.edges is None else tuple(part.edges.tolist()) for part in parts}
    if len(edges) > 1:
        raise ValueError("the sets have different time bins (labels_from: train sets them in each fold)")

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else np.concatenate(values)

    return Predictions(
        kind=first.kind,
        patients=patients,
        **{name: joined(name) for name in ("t", "e", "days", "point", "samples", "hazards", "fake_scores")},
        unit_days=first.unit_days,
        end_time=first.end_time,
        edges=first.edges,
    )
