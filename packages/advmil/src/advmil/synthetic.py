"""A cohort with known truth, in the original's formats: table, splits, features, coordinates.

Each patient has a hidden risk ``z``; the share of "tumour" regions in the bags follows it, the survival time falls
with it, and a second kind of region ("irrelevant tissue") varies without meaning. A model that reads the bags can
therefore be compared with an oracle that knows the true share of tumour.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from advmil.data.splits import write_split
from medshared.bags import ClamAttributes, write_coordinates
from medshared.files import write_bytes
from medshared.tables import write_table

REGION_PATCHES = 16  # small patches of one big patch
GRID_STEP = 1024  # level-0 pixels from one small patch to the next
BIMODAL_FACTORS = (1.0, 0.4)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CohortSettings:
    """What kind of cohort to draw.

    Attributes:
        n_patients: Number of patients.
        width: Width of the features.
        n_folds: Number of split files.
        bimodal: Multiply each true time by 1 or 0.4 with equal chance, whatever the bag shows: a distribution of
            times that no single number describes.
        signal: Shift of tumour and irrelevant regions along their direction, in standard deviations.
        slide_patients: Patients of the test part of fold 0 whose slides are left to be drawn as images
            (:mod:`advmil.synthetic_slides`) and taken through ``advmil prepare``.
    """

    n_patients: int = 160
    width: int = 64
    n_folds: int = 1
    bimodal: bool = False
    signal: float = 2.0
    slide_patients: int = 0


@dataclass(frozen=True)
class SlidePlan:
    """One slide: which of its regions hold what.

    Attributes:
        slide: Slide id, ``<patient>-S<k>``.
        tumour: [R] bool.
        irrelevant: [R] bool.
    """

    slide: str
    tumour: NDArray[np.bool_]
    irrelevant: NDArray[np.bool_]


@dataclass(frozen=True)
class SyntheticCohort:
    """Where a cohort lies and what is true of it.

    Attributes:
        folder: Root of the cohort.
        truth: One row a patient: patient_id, z, w, time_true, t, e, tumour_fraction, n_slides.
        directions: Tumour and irrelevant direction in feature space, [2, width].
        to_draw: Plans of the slides that have no features yet.
    """

    folder: Path
    truth: pd.DataFrame
    directions: Floats
    to_draw: list[SlidePlan] = field(default_factory=list)

    @property
    def table(self) -> Path:
        """Table of slides."""
        return self.folder / "table" / "syn_path_full.csv"

    @property
    def splits(self) -> str:
        """Pattern of the split files; ``{}`` stands for the fold."""
        return str(self.folder / "split" / "syn-fold{}.npz")

    @property
    def features(self) -> Path:
        """Folder of ``<slide>.pt``."""
        return self.folder / "feat" / "pt_files"

    @property
    def coordinates(self) -> Path:
        """Folder whose ``patches/`` holds ``<slide>.h5``."""
        return self.folder / "tiles"

    def config(self) -> dict[str, object]:
        """Return the keys of a configuration that reads this cohort at a size that trains in seconds."""
        width = self.directions.shape[1]
        return {
            "path_patch": str(self.features),
            "path_graph": str(self.folder / "graph"),
            "path_cluster": str(self.folder / "cluster"),
            "path_label": str(self.table),
            "data_split_path": self.splits,
            "bcb_dims": f"{width}-32-32",
            "gen_dims": "32-1",
            "pdh_dims": "32-1",
            "gen_dropout": 0.25,
            "disc_netx_in_dim": width,
            "disc_netx_out_dim": 16,
            "disc_nety_hid_dims": "8-16",
            "opt_netG_lr": 2e-3,
            "opt_netD_lr": 2e-3,
            "opt_net_lr": 2e-3,
            "bp_every_batch": 8,
            "epochs": 30,
            "es_warmup": 5,
            "num_workers": 0,
        }


def draw_directions(width: int, rng: np.random.RandomState) -> Floats:
    """Return two orthonormal directions, [2, width]."""
    q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    return q[:, :2].T.copy()


def plan_slide(slide: str, z: float, w: float, rng: np.random.RandomState) -> SlidePlan:
    """Draw which regions of a slide are tumour and which are irrelevant tissue.

    Args:
        slide: Slide id.
        z: Risk in [0, 1]; the share of tumour regions is 0.05 + 0.85 z.
        w: Nuisance in [0, 1]; the expected share of irrelevant regions.
        rng: Source of randomness.
    """
    n_regions = int(rng.randint(8, 13))
    tumour = np.zeros(n_regions, dtype=bool)
    tumour[rng.permutation(n_regions)[: round(n_regions * (0.05 + 0.85 * z))]] = True
    irrelevant = np.zeros(n_regions, dtype=bool)
    irrelevant[rng.permutation(n_regions)[: rng.binomial(n_regions, w)]] = True
    return SlidePlan(slide, tumour, irrelevant)


def draw_features(
    plan: SlidePlan, directions: Floats, signal: float, rng: np.random.RandomState
) -> NDArray[np.float32]:
    """Draw the features of a slide, [16 R, width] float32: unit noise, shifted in whole regions."""
    n = len(plan.tumour) * REGION_PATCHES
    features = rng.standard_normal((n, directions.shape[1]))
    for flags, direction in zip((plan.tumour, plan.irrelevant), directions, strict=True):
        features += signal * np.repeat(flags, REGION_PATCHES)[:, None] * direction
    return features.astype(np.float32)


def region_coordinates(n_regions: int) -> NDArray[np.int64]:
    """Return level-0 coordinates of the small patches of regions in a square grid, [16 R, 2]."""
    columns = int(np.ceil(np.sqrt(n_regions)))
    region = np.arange(n_regions)
    corner = np.stack([region % columns, region // columns], axis=1) * 4 * GRID_STEP
    k = np.arange(REGION_PATCHES)
    offset = np.stack([k % 4, k // 4], axis=1) * GRID_STEP
    return (corner[:, None] + offset[None]).reshape(-1, 2).astype(np.int64)


def generate_cohort(folder: Path, seed: int, settings: CohortSettings | None = None) -> SyntheticCohort:
    """Write a cohort.

    Args:
        folder: Root, created.
        seed: Same seed, same cohort.
        settings: Kind of cohort.

    Returns:
        Paths and truth; slides of ``settings.slide_patients`` have no features yet.
    """
    settings = settings or CohortSettings()
    rng = np.random.RandomState(seed)
    directions = draw_directions(settings.width, rng)
    truth = _draw_patients(settings, rng)
    test = _write_splits(folder, truth["patient_id"].tolist(), seed, settings.n_folds)
    drawn = set(test[: settings.slide_patients])
    cohort = SyntheticCohort(folder, truth, directions)
    rows, shares, counts = [], [], []
    for patient in truth.to_dict("records"):
        slides = [f"{patient['patient_id']}-S{k + 1}" for k in range(1 + int(rng.uniform() < 0.3))]
        plans = [plan_slide(slide, float(patient["z"]), float(patient["w"]), rng) for slide in slides]
        for plan in plans:
            if patient["patient_id"] in drawn:
                cohort.to_draw.append(plan)
            else:
                _write_slide(cohort, plan, draw_features(plan, directions, settings.signal, rng))
            rows.append((plan.slide, patient["patient_id"], int(patient["e"]), float(patient["t"])))
        shares.append(float(np.concatenate([plan.tumour for plan in plans]).mean()))
        counts.append(len(plans))
    truth["tumour_fraction"], truth["n_slides"] = shares, counts
    write_table(cohort.table, pd.DataFrame(rows, columns=["pathology_id", "patient_id", "e", "t"]))
    write_table(folder / "truth.csv", truth)
    return cohort


def _draw_patients(settings: CohortSettings, rng: np.random.RandomState) -> pd.DataFrame:
    """Draw risk, nuisance, true time and what is observed of it."""
    n = settings.n_patients
    z, w, noise = rng.uniform(size=n), rng.uniform(size=n), rng.standard_normal(n)
    time = 2000 * np.exp(-2.2 * z + 0.1 * noise)
    if settings.bimodal:
        time = time * np.asarray(BIMODAL_FACTORS)[rng.randint(0, 2, size=n)]
    censoring = rng.uniform(200, 3500, size=n)
    return pd.DataFrame(
        {
            "patient_id": [f"P{i:04d}" for i in range(n)],
            "z": z,
            "w": w,
            "time_true": time,
            "t": np.maximum(1, np.round(np.minimum(time, censoring))),
            "e": (time <= censoring).astype(int),
        }
    )


def _write_splits(folder: Path, patients: list[str], seed: int, n_folds: int) -> list[str]:
    """Write the split files (55/15/30 %) and return the test patients of fold 0."""
    first: list[str] = []
    n = len(patients)
    for fold in range(n_folds):
        order = [patients[i] for i in np.random.RandomState(seed + fold).permutation(n)]
        train, val, test = np.split(np.asarray(order, dtype=np.str_), [round(0.55 * n), round(0.70 * n)])
        write_split(folder / "split" / f"syn-fold{fold}.npz", train.tolist(), val.tolist(), test.tolist())
        first = first or test.tolist()
    return first


def _write_slide(cohort: SyntheticCohort, plan: SlidePlan, features: NDArray[np.float32]) -> None:
    write_features(cohort.features / f"{plan.slide}.pt", features)
    write_grid(cohort.coordinates / "patches" / f"{plan.slide}.h5", region_coordinates(len(plan.tumour)))


def write_features(path: Path, features: NDArray[np.float32]) -> Path:
    """Write a ``.pt`` feature file: a float32 tensor [n, width]."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(features)), buffer)
    return write_bytes(path, buffer.getvalue())


def write_grid(path: Path, coordinates: NDArray[np.int64]) -> Path:
    """Write coordinates as CLAM does, for small patches of 256 px at level 1 of a 1/4/16 pyramid."""
    width, height = ((coordinates.max(axis=0) + GRID_STEP) // 4).tolist()
    size = (width, height)
    attributes = ClamAttributes(256, 1, (4.0, 4.0), size, size, path.stem, path.parent.name)
    return write_coordinates(path, coordinates, attributes)
