"""Fixtures of the advmil suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs(quick_runs):
    """Every test of this suite trains small networks in small runs."""


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory):
    """Thirty patients with features of width 16, clusters and graphs, two folds."""
    from advmil.prepare.clusters import write_clusters
    from advmil.prepare.graphs import write_graph
    from advmil.synthetic import CohortSettings, generate_cohort

    folder = tmp_path_factory.mktemp("cohort")
    cohort = generate_cohort(folder, 3, CohortSettings(n_patients=30, width=16, n_folds=2))
    for slide in sorted(cohort.features.glob("*.pt")):
        write_graph(
            slide, cohort.coordinates / "patches" / f"{slide.stem}.h5", folder / "graph" / f"{slide.stem}.pt"
        )
    for patient in cohort.truth["patient_id"]:
        files = sorted(cohort.features.glob(f"{patient}-S*.pt"))
        write_clusters(files, folder / "cluster" / f"{patient}.npy", restarts=1)
    return cohort


@pytest.fixture
def tiny_settings(tiny_cohort) -> Callable[..., dict[str, Any]]:
    """Return configuration keys that train on the tiny cohort in about a second."""

    def settings(**changes: Any) -> dict[str, Any]:
        base = tiny_cohort.config() | {
            "bcb_dims": "16-8-8",
            "gen_dims": "8-1",
            "pdh_dims": "8-1",
            "disc_netx_out_dim": 4,
            "disc_nety_hid_dims": "3-4",
            "bp_every_batch": 4,
            "epochs": 4,
            "es_warmup": 1,
            "times_test_sample": 5,
            "device": "cpu",
        }
        return base | changes

    return settings


@pytest.fixture(scope="session")
def tiny_run(tiny_cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a finished AdvMIL run (abmil) on the tiny cohort."""
    from advmil.config import Config
    from advmil.training import train_run

    folder = tmp_path_factory.mktemp("runs") / "abmil"
    keys = tiny_cohort.config() | {
        "bcb_mode": "abmil",
        "bcb_dims": "16-8-8",
        "gen_dims": "8-1",
        "disc_netx_out_dim": 4,
        "disc_nety_hid_dims": "3-4",
        "bp_every_batch": 4,
        "epochs": 3,
        "es_warmup": 1,
        "times_test_sample": 10,
        "device": "cpu",
    }
    train_run(Config.model_validate(keys), "adv", folder)
    return folder


@pytest.fixture(scope="session")
def untrained_run(tiny_cohort) -> Callable[..., Path]:
    """Write a finished run directory with random weights, in no time: configuration, weights, training predictions."""
    from advmil.config import Config
    from advmil.data.tables import read_cohort
    from advmil.models.build import build_baseline, build_discriminator, build_generator
    from advmil.predictions import Predictions
    from medshared.configuration import dump_yaml
    from medshared.files import write_json, write_npz

    table = read_cohort(tiny_cohort.table)
    patients = tuple(table.patients)[:20]
    e, days = table.outcomes(patients)

    def write(folder: Path, handler: str = "adv", seed: int = 0, **changes: Any) -> Path:
        small = {"bcb_dims": "16-8-8", "gen_dims": "8-1", "pdh_dims": "8-1", "bcb_mode": "abmil"}
        small |= {"disc_netx_out_dim": 4, "disc_nety_hid_dims": "3-4"}
        config = Config.model_validate(tiny_cohort.config() | small | changes)
        folder.mkdir(parents=True)
        torch.manual_seed(seed)
        if handler == "adv":
            networks = {"modelG": build_generator(config), "modelD": build_discriminator(config)}
        else:
            networks = {"model": build_baseline(config)}
        for name, network in networks.items():
            torch.save(network.state_dict(), folder / f"train_{name}-best.pth")
        unit = {"ratio": table.max_time, "origin": 1.0}.get(config.time_format, float("nan"))
        edges = [0.0, 300.0, 700.0, 1200.0, 4000.0] if config.is_discrete else None
        kind = "discrete" if config.is_discrete else "cox" if config.task == "surv_cox" else "continuous"
        point = np.random.default_rng(seed).uniform(size=len(patients)).astype(np.float32)
        hazards = np.full((len(patients), 4), 0.2, dtype=np.float32) if edges else None
        known = Predictions(
            kind, patients, days.astype(np.float32), e, days, point, unit, 1.0, None, hazards, None,
            None if edges is None else np.asarray(edges),
        )  # fmt: skip
        write_npz(folder / "predictions_train.npz", **known.arrays())
        (folder / "config.yaml").write_text(dump_yaml(config.model_dump() | {"handler": handler}))
        labels = {"time_format": config.time_format, "unit_days": unit, "end_time": 1.0, "edges": edges}
        write_json(folder / "results.json", {"run_name": "train", "labels": labels, "sets": {}})
        return folder

    return write
