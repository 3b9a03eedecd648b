"""The demonstration: a cohort with known truth, from raw slides to survival curves, and what AdvMIL adds to it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from advmil.config import Config, Handler
from advmil.config_rules import with_task_format
from advmil.errors import DataError
from advmil.synthetic import CohortSettings, SyntheticCohort, generate_cohort
from medshared.configuration import load_config
from medshared.demo import clear_demo
from medshared.files import write_json
from medshared.gpu import derive_seed, one_thread

logger = logging.getLogger(__name__)

SLIDE_PATIENTS = 4
BACKBONE = "patch"
EPOCHS = 30
BIMODAL_EPOCHS = 30
PERMUTED_RUNS, PERMUTED_EPOCHS = 12, 8
REAL_TABLE_EPOCHS = 10


@dataclass(frozen=True)
class DemoParts:
    """Run directories of the demonstration and the cohorts that they were trained on.

    Attributes:
        cohort: The main cohort.
        bimodal: The variant whose times are multiplied by 1 or 0.4 at random; null for a real table.
        runs: Name → run directory: ``advmil``, ``base``, ``permuted_<k>``, and ``bimodal_<model>``.
        slides: Slide files that were taken through the preparation.
    """

    cohort: SyntheticCohort
    bimodal: SyntheticCohort | None
    runs: dict[str, Path]
    slides: list[Path]


def with_demo_data(mapping: Mapping[str, Any], handler: Handler, folder: Path) -> dict[str, Any]:
    """Make a synthetic cohort below a folder and point a configuration at it, at demo size.

    Args:
        mapping: A configuration's keys; those of the data and of the sizes are replaced.
        handler: ``adv`` or ``base``.
        folder: The output directory; the cohort goes to ``<folder>-data``.
    """
    home = folder.with_name(f"{folder.name}-data")
    backbone = mapping.get("bcb_mode", "patch")
    n_folds = len(mapping["data_split_seed"]) if isinstance(mapping.get("data_split_seed"), list) else 1
    cohort = generate_cohort(home, 0, CohortSettings(n_patients=80, n_folds=max(n_folds, 5)))
    if backbone in ("graph", "cluster"):
        make_graphs_and_clusters(cohort, backbone)
    keys: dict[str, Any] = {
        key: value for key, value in mapping.items() if key != "path_coordx5"
    } | cohort.config()
    keys["epochs"] = keys["ssl_epochs"] = 8
    bins = int(keys.get("time_bins") or 4)
    task = keys.get("task") or ("cont_gansurv" if handler == "adv" else "surv_reg")
    keys["task"] = task
    if task == "disc_gansurv":
        keys |= {"gen_dims": f"32-{bins}", "disc_nety_in_dim": bins}
    if task == "surv_nll":
        keys["pdh_dims"] = f"32-{bins}"
    keys.setdefault("save_path", str(folder))
    return keys


def make_graphs_and_clusters(cohort: SyntheticCohort, backbone: str) -> None:
    """Make what the graph or cluster backbone reads, from the cohort's features."""
    from advmil.data.tables import read_cohort
    from advmil.prepare.clusters import write_clusters
    from advmil.prepare.graphs import write_graph

    table = read_cohort(cohort.table)
    for patient in table.patients.values():
        files = [cohort.features / f"{slide}.pt" for slide in patient.slides]
        if backbone == "cluster":
            write_clusters(files, cohort.folder / "cluster" / f"{patient.id}.npy", restarts=1)
            continue
        for slide, file in zip(patient.slides, files, strict=True):
            coordinates = cohort.coordinates / "patches" / f"{slide}.h5"
            write_graph(file, coordinates, cohort.folder / "graph" / f"{slide}.pt")


def run_demo(
    output: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    table: Path | None = None,
    splits: str | None = None,
    fold: int = 0,
) -> dict[str, Any]:
    """Run the demonstration and write ``results.json``, ``report.html`` and ``figures/``.

    Args:
        output: Folder, whose earlier demonstration is replaced.
        seed: Of cohort, slides and training.
        device: Where the networks run.
        table: A real table of slides, which gets synthetic bags, instead of a synthetic cohort.
        splits: Its split files, ``{}`` for the fold.
        fold: Fold of ``splits``.

    Returns:
        What ``results.json`` holds.

    Raises:
        DataError: ``table`` without ``splits`` or the other way round, or files that cannot be used.
    """
    from advmil.demo_report import collect_results, write_demo_report

    if (table is None) != (splits is None):
        raise DataError("--table and --splits belong together: give both, or neither for a synthetic cohort")
    started = time.perf_counter()
    _clear(output)
    with one_thread():
        if table is not None and splits is not None:
            parts = _real_table_parts(output, table, splits, fold, seed, device)
        else:
            parts = _synthetic_parts(output, seed, device)
        content, pictures = collect_results(parts, output)
    content["seed"] = seed
    content["seconds"] = time.perf_counter() - started
    write_demo_report(output, content, pictures)
    write_json(output / "results.json", content)
    logger.info(
        "C-index %.4f in %.0f s; %s",
        content["metrics"]["c_index"],
        content["seconds"],
        output / "report.html",
    )
    return content


def _clear(output: Path) -> None:
    """Remove what an earlier demonstration left, and nothing else; any other folder is refused."""
    if not clear_demo(output, "cohort"):
        raise DataError(f"{output}: not empty and not an earlier demonstration; choose another --output")


@dataclass(frozen=True)
class TrainingJob:
    """One training of the demonstration.

    Attributes:
        folder: Run directory.
        handler: ``adv`` or ``base``.
        keys: Configuration.
        device: Where the networks live.
    """

    folder: Path
    handler: Handler
    keys: dict[str, Any]
    device: str


def _job(
    cohort: SyntheticCohort, handler: Handler, folder: Path, device: str, seed: int, **changes: Any
) -> TrainingJob:
    # Bags this small fit into memory together, which saves calls; the numbers are the same.
    keys = (
        cohort.config() | {"bcb_mode": BACKBONE, "epochs": EPOCHS, "seed": seed, "memory": "group"} | changes
    )
    return TrainingJob(folder, handler, keys, device)


def train_job(job: TrainingJob) -> None:
    """Train one run on one thread."""
    from advmil.training import train_run

    with one_thread():
        config = with_task_format(load_config(Config, job.keys, label="demonstration"), job.handler)
        logger.info("training %s", job.folder.name)
        train_run(config, job.handler, job.folder, device=job.device, report=False)


def _train_all(jobs: Sequence[TrainingJob]) -> dict[str, Path]:
    """Train all runs, on CPU in as many processes as there are cores and at most four; the longest come first."""
    ordered = sorted(jobs, key=lambda job: -int(job.keys["epochs"]))
    processes = min(
        4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if processes < 2 or any(job.device not in ("auto", "cpu") for job in jobs) or _has_cuda():
        for job in ordered:
            train_job(job)
    else:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            for done in as_completed([pool.submit(train_job, job) for job in ordered]):
                done.result()
    return {job.folder.name: job.folder for job in jobs}


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _synthetic_parts(output: Path, seed: int, device: str) -> DemoParts:
    home = output / "demo"
    cohort = generate_cohort(home / "cohort", seed, CohortSettings(slide_patients=SLIDE_PATIENTS))
    slides = _prepare_slides(cohort, home, seed, device)
    jobs = [
        _job(cohort, "adv", home / "advmil", device, seed),
        _job(cohort, "base", home / "base", device, seed, task="surv_reg"),
        *_permuted_jobs(cohort, home, device, seed),
    ]
    bimodal = generate_cohort(home / "bimodal", seed, CohortSettings(bimodal=True))
    # The published weight of the adversarial term, none, and one that lets it speak as loud as the time loss.
    for name, weight in (("advmil", 0.004), ("advmil_without", 0.0), ("advmil_strong", 1.0)):
        changes: dict[str, Any] = {"loss_gan_coef": weight, "epochs": BIMODAL_EPOCHS}
        jobs.append(_job(bimodal, "adv", home / f"bimodal_{name}", device, seed, **changes))
    for name, task in (("base", "surv_reg"), ("cox", "surv_cox")):
        changes = {"task": task, "epochs": BIMODAL_EPOCHS}
        jobs.append(_job(bimodal, "base", home / f"bimodal_{name}", device, seed, **changes))
    return DemoParts(cohort, bimodal, _train_all(jobs), slides)


def _permuted_jobs(cohort: SyntheticCohort, home: Path, device: str, seed: int) -> list[TrainingJob]:
    """Return some short runs on shuffled labels: one alone may rank the bags either way by chance."""
    from advmil.data.splits import read_split
    from advmil.synthetic_tables import permute_labels

    split = read_split(cohort.splits.replace("{}", "0"))
    signal = dict(zip(cohort.truth["patient_id"], cohort.truth["tumour_fraction"], strict=True))
    jobs = []
    for k in range(PERMUTED_RUNS):
        table, own_seed = home / f"permuted_labels_{k}.csv", derive_seed(seed, "permuted", k) % 2**31
        left = permute_labels(cohort.table, (split.train, split.val), table, own_seed, signal)
        logger.info(
            "permuted labels keep correlations of at most %s with the bags", [f"{x:.3f}" for x in left]
        )
        changes = {"path_label": str(table), "epochs": PERMUTED_EPOCHS}
        jobs.append(_job(cohort, "adv", home / f"permuted_{k}", device, own_seed, **changes))
    return jobs


def _prepare_slides(cohort: SyntheticCohort, home: Path, seed: int, device: str) -> list[Path]:
    """Draw the planned slides, take them through the preparation, and add their features to the cohort's."""
    from advmil.prepare.pipeline import Preparation, run
    from advmil.prepare.process_list import SlideParameters
    from advmil.synthetic_slides import PATCH_PX, draw_slides, make_encoder, save_encoder

    slides = draw_slides(cohort, home / "slides", seed)
    weights = save_encoder(home / "encoder.pt", make_encoder(cohort, seed))
    preparation = Preparation(
        slides=home / "slides",
        output=home / "processed",
        patch_size=PATCH_PX,
        encoder="synthetic",
        weights=weights,
        device=device,
        parameters=SlideParameters(line_thickness=24),
    )
    _, code = run(preparation)
    if code:
        raise DataError(f"{preparation.output}: the preparation failed; see prepare-report.json there")
    for slide in slides:
        for source, target in (
            (
                preparation.feature_folder / "pt_files" / f"{slide.stem}.pt",
                cohort.features / f"{slide.stem}.pt",
            ),
            (
                preparation.encoded_tiles / "patches" / f"{slide.stem}.h5",
                cohort.coordinates / "patches" / f"{slide.stem}.h5",
            ),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    return slides


def _real_table_parts(output: Path, table: Path, splits: str, fold: int, seed: int, device: str) -> DemoParts:
    from advmil.synthetic_tables import cohort_from_table

    home = output / "demo"
    cohort = cohort_from_table(home / "cohort", table, splits, fold, seed)
    paths = {
        "path_label": str(table),
        "data_split_path": splits,
        "data_split_seed": fold,
        "epochs": REAL_TABLE_EPOCHS,
        "bp_every_batch": 16,
    }
    jobs = [
        _job(cohort, "adv", home / "advmil", device, seed, **paths),
        _job(cohort, "base", home / "base", device, seed, **(paths | {"task": "surv_reg"})),
    ]
    return DemoParts(cohort, None, _train_all(jobs), [])


def truth_of(cohort: SyntheticCohort, patients: tuple[str, ...]) -> pd.DataFrame:
    """Return the truth of patients, in their order."""
    return cohort.truth.set_index("patient_id").loc[list(patients)]


def oracle_risk(cohort: SyntheticCohort, patients: tuple[str, ...]) -> np.ndarray:
    """Return the risk that a reader of the bags could know at best: the true share of tumour regions."""
    return truth_of(cohort, patients)["tumour_fraction"].to_numpy(dtype=np.float64)
