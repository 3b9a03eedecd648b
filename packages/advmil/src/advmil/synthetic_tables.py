"""Other cohorts around the same recipe: permuted labels, and synthetic bags for the patients of a real table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from advmil.data.splits import check_split, read_split
from advmil.data.tables import Cohort, read_cohort
from advmil.synthetic import (
    CohortSettings,
    SyntheticCohort,
    draw_directions,
    draw_features,
    plan_slide,
    region_coordinates,
    write_features,
    write_grid,
)
from medshared.metrics.survival_curves import kaplan_meier
from medshared.tables import write_table

PERMUTATIONS = 5000


def permute_labels(
    table: Path, parts: Sequence[Sequence[str]], output: Path, seed: int, signal: Mapping[str, float]
) -> list[float]:
    """Write a table in which outcomes are shuffled within parts of the patients.

    With few patients a random permutation leaves a chance association between outcomes and bags, which a model can
    learn. Of many permutations of a part the one is taken that leaves the least: the largest correlation of times and
    events with the true signal of the bags, and with its square, is smallest.

    Args:
        table: Table of slides.
        parts: Patients whose outcomes are shuffled among them, normally those of training and of validation.
        output: The new table.
        seed: Of the permutations.
        signal: What the bags tell, by patient, such as the true share of tumour.

    Returns:
        The largest correlation that is left in each part.
    """
    cohort = read_cohort(table)
    rng = np.random.RandomState(seed)
    outcome: dict[str, tuple[int, float]] = {}
    left = []
    for part in parts:
        event, time = cohort.outcomes(list(part))
        known = np.asarray([signal[patient] for patient in part])
        order, correlation = _least_correlated(event, time, known, rng)
        left.append(correlation)
        outcome |= {p: (int(event[k]), float(time[k])) for p, k in zip(part, order, strict=True)}
    frame = cohort.slides.copy()
    frame["t"] = frame["t"].astype(float)
    for column, which in (("e", 0), ("t", 1)):
        frame[column] = [
            outcome[p][which] if p in outcome else value
            for p, value in zip(frame["patient_id"], frame[column], strict=True)
        ]
    write_table(output, frame)
    return left


def _least_correlated(
    event: NDArray[np.int64],
    time: NDArray[np.float64],
    signal: NDArray[np.float64],
    rng: np.random.RandomState,
) -> tuple[NDArray[np.int64], float]:
    outcomes = np.stack(
        [_standardised(time), _standardised(np.log(time)), _standardised(event.astype(float))]
    )
    signals = np.stack([_standardised(signal), _standardised((signal - signal.mean()) ** 2)])
    candidates = [rng.permutation(len(time)) for _ in range(PERMUTATIONS)]
    left = [float(np.abs(outcomes[:, order] @ signals.T).max() / len(time)) for order in candidates]
    best = int(np.argmin(left))
    return candidates[best], left[best]


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values - values.mean()) / max(float(values.std()), 1e-12)


def draw_risk(cohort: Cohort, rng: np.random.RandomState) -> NDArray[np.float64]:
    """Return a risk in [0, 1] for each patient of a real table that fits what is known of their time.

    An event at time t has risk S(t) by the cohort's Kaplan–Meier curve, a censored patient a uniform draw from the
    risks of longer times, both with a little noise: early deaths have risks near 1.
    """
    event, time = cohort.outcomes(list(cohort.patients))
    survival = kaplan_meier(event, time).at(time)
    later = survival * rng.uniform(size=len(time))
    z = np.where(event == 1, survival, later)
    return np.clip(z + 0.03 * rng.standard_normal(len(z)), 0.0, 1.0)


def cohort_from_table(
    folder: Path, table: Path, splits: str, fold: int, seed: int, settings: CohortSettings | None = None
) -> SyntheticCohort:
    """Write synthetic bags for the slides of a real table whose splits are given.

    Args:
        folder: Root of the cohort.
        table: Table of slides in the original's format.
        splits: Pattern of its split files; ``{}`` stands for the fold.
        fold: Fold that must exist and fit the table.
        seed: Of the bags.
        settings: Width and signal of the features.

    Returns:
        The cohort; ``truth`` has ``patient_id``, ``z``, ``t``, ``e``, ``tumour_fraction``, ``n_slides``.

    Raises:
        DataError: Table or split cannot be used.
    """
    settings = settings or CohortSettings()
    cohort = read_cohort(table)
    check_split(read_split(splits.replace("{}", str(fold))), cohort)
    rng = np.random.RandomState(seed)
    directions = draw_directions(settings.width, rng)
    z = draw_risk(cohort, rng)
    w = rng.uniform(size=len(z))
    made = SyntheticCohort(folder, pd.DataFrame(), directions)
    rows = []
    for risk, nuisance, patient in zip(z.tolist(), w.tolist(), cohort.patients.values(), strict=True):
        shares = []
        for slide in patient.slides:
            plan = plan_slide(slide, risk, nuisance, rng)
            shares.append(plan.tumour)
            write_features(
                made.features / f"{slide}.pt", draw_features(plan, directions, settings.signal, rng)
            )
            write_grid(made.coordinates / "patches" / f"{slide}.h5", region_coordinates(len(plan.tumour)))
        rows.append(
            {
                "patient_id": patient.id,
                "z": risk,
                "t": patient.time,
                "e": patient.event,
                "tumour_fraction": float(np.concatenate(shares).mean()),
                "n_slides": len(patient.slides),
            }
        )
    truth = pd.DataFrame(rows)
    write_table(folder / "truth.csv", truth)
    return SyntheticCohort(folder, truth, directions)
