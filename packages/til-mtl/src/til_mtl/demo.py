"""The demonstration: drawn TIGER data with known truth, from the download's layout to TIL scores of whole slides."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from medshared.configuration import load_config
from medshared.demo import clear_demo
from medshared.files import write_json
from medshared.gpu import one_thread
from til_mtl.config import Config, Task
from til_mtl.errors import DataError
from til_mtl.synthetic_slides import SyntheticTiger, TigerSettings, write_tiger

logger = logging.getLogger(__name__)

PATCH_PX = 64
SLIDE_MARGIN_PX = 8
LEAST_P = 0.1  # of a cell of a held-out region
STEPS_AN_EPOCH, EPOCHS = 20, 6
# One region a patch, as many small regions of the download have it; a quarter of the slides validates. The regions of
# the final evaluation are covered by 2 x 2 overlapping tiles.
DRAWN = TigerSettings(
    patch_px=PATCH_PX,
    region_px=PATCH_PX,
    tissue_regions=208,
    cell_regions=208,
    tissue_px=(384, 288),
    held_out_px=2 * (PATCH_PX - SLIDE_MARGIN_PX),
)
FOLDS = 4
CELL_P = 0.4  # cells from this probability on count for the scores of slides


@dataclass(frozen=True)
class DemoParts:
    """What the demonstration made.

    Attributes:
        tiger: The drawn data and their truth.
        patches: Root of the patch folders.
        runs: Run directories of ``mtl``, ``seg`` and ``det``.
        slides: Folders of the slide results of ``mtl`` and ``stl``.
        regions: Folders of the results of the held-out regions, scored as leaderboard 1 does.
    """

    tiger: SyntheticTiger
    patches: Path
    runs: dict[Task, Path]
    slides: dict[str, Path]
    regions: dict[str, Path]


def demo_keys(task: Task, patches: Path, seed: int, device: str) -> dict[str, Any]:
    """Return the configuration of one network of the demonstration.

    The encoder starts from random weights and is trained; the multi-task network sees as many patches of each task
    as the single-task networks do.

    Args:
        task: Of the network.
        patches: Root of the patch folders.
        seed: Of weights and order.
        device: Where it runs.
    """
    return {
        "task": task,
        "data_dir": str(patches),
        "img_size": (PATCH_PX, PATCH_PX),
        "batch_size": 8 if task == "mtl" else 4,
        "sampling": "balanced" if task == "mtl" else "shuffle",
        "augment": "d4",
        "freeze_encoder": False,
        "channels_last": True,
        "lr": 0.002,  # twice the method's: a short run from random weights gains by it
        "limit_train_batches": STEPS_AN_EPOCH,
        "max_epochs": EPOCHS,
        "t_max": EPOCHS,
        "check_val_every_n_epoch": EPOCHS,
        "save_every_n_epochs": EPOCHS + 1,
        "num_sanity_val_steps": 0,
        "seed_everything": seed,
        "num_workers": 0,
        "device": device,
        "enable_progress_bar": False,
    }


def run_demo(output: Path, *, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Run the demonstration and write ``results.json``, ``report.html`` and ``figures/``.

    Args:
        output: Folder, whose earlier demonstration is replaced.
        seed: Of drawing and training.
        device: Where the networks run.

    Returns:
        What ``results.json`` holds.

    Raises:
        DataError: ``output`` holds something else, or a step failed.
    """
    from til_mtl.demo_report import collect_results, write_demo_report

    started = time.perf_counter()
    clear_output(output)
    home = output / "demo"
    with one_thread():
        tiger = write_tiger(home / "data", seed, DRAWN)
        patches = prepare_patches(tiger, home / "patches")
        runs = _train_all(
            [
                _Job(task, home / task, demo_keys(task, patches, seed, device))
                for task in ("mtl", "seg", "det")
            ]
        )
        jobs = _score_slides(tiger, runs, home, device)
        slides = {side: job.slides for side, job in jobs.items()}
        regions = {side: job.regions for side, job in jobs.items()}
        parts = DemoParts(tiger, patches, runs, slides, regions)
        content, pictures = collect_results(parts, seed)
    content["seconds"] = time.perf_counter() - started
    write_demo_report(output, content, pictures, parts)
    write_json(output / "results.json", content)
    metrics = content["metrics"]
    shown = ", ".join(
        f"{key} {metrics[key]:.3f}" for key in ("dice_tumor", "dice_stroma", "froc", "til_spearman")
    )
    logger.info("%s in %.0f s; %s", shown, content["seconds"], output / "report.html")
    return content


def clear_output(output: Path) -> None:
    """Remove what an earlier demonstration left, and nothing else.

    Raises:
        DataError: The folder holds anything but a demonstration.
    """
    if not clear_demo(output, "data/tiger"):
        raise DataError(f"{output}: not empty and not an earlier demonstration; choose another --output")


def prepare_patches(tiger: SyntheticTiger, out: Path, *, all_folds: bool = False) -> Path:
    """Turn the drawn download into patch folders.

    Args:
        tiger: What was drawn.
        out: Receives the folders.
        all_folds: Also write ``fold1`` and so on.

    Raises:
        DataError: A region failed.
    """
    from til_mtl.prepare.options import PrepareOptions
    from til_mtl.prepare.tiger_patches import prepare_tiger

    options = PrepareOptions(
        tiger=tiger.tiger,
        out=out,
        patch=tiger.patch_px,
        cell_size=tiger.cell_px,
        mpp=tiger.spacing_um,
        folds=FOLDS,
        all_folds=all_folds,
        jobs=2,
    )
    if prepare_tiger(options):
        raise DataError(f"{out}: the preparation failed; see prepare-report.json there")
    return out


@dataclass(frozen=True)
class _Job:
    """One network to train."""

    task: Task
    folder: Path
    keys: dict[str, Any]


def _train_job(job: _Job) -> None:
    from til_mtl.training import train_run

    with one_thread():
        train_run(load_config(Config, job.keys, label="demonstration"), job.folder)


def _train_all(jobs: Sequence[_Job]) -> dict[Task, Path]:
    """Train all networks, the longest first."""
    _side_by_side(_train_job, jobs, jobs[0].keys["device"])
    return {job.task: job.folder for job in jobs}


def _side_by_side(work: Callable[[Any], None], items: Sequence[Any], device: str) -> None:
    """Do some work in as many processes as there are cores; one after the other on a GPU or a single core."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2 or device not in ("auto", "cpu") or torch.cuda.is_available():
        for item in items:
            work(item)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(cores, len(items), 4), mp_context=context) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()


@dataclass(frozen=True)
class _SlideJob:
    """All slides and held-out regions through one network, or through a pair."""

    tiger: SyntheticTiger
    run: Path
    det_run: Path | None
    home: Path
    side: str
    device: str

    @property
    def slides(self) -> Path:
        """Folder of the slides' results."""
        return self.home / f"slides-{self.side}"

    @property
    def regions(self) -> Path:
        """Folder of the regions' results."""
        return self.home / f"regions-{self.side}"


def _score_slides(
    tiger: SyntheticTiger, runs: dict[Task, Path], home: Path, device: str
) -> dict[str, _SlideJob]:
    jobs = [
        _SlideJob(tiger, runs["mtl"], None, home, "mtl", device),
        _SlideJob(tiger, runs["seg"], runs["det"], home, "stl", device),
    ]
    _side_by_side(_slide_job, jobs, device)
    return {job.side: job for job in jobs}


def _slide_job(job: _SlideJob) -> None:
    from til_mtl.leaderboard import evaluate_l1
    from til_mtl.slides.maps import load_model
    from til_mtl.slides.options import SlideOptions
    from til_mtl.slides.pipeline import run_slides
    from til_mtl.slides.regions import run_regions

    best = Path("checkpoints") / "best.pt"
    slides = SlideOptions(
        checkpoint=job.run / best,
        det_checkpoint=None if job.det_run is None else job.det_run / best,
        slides=job.tiger.slides,
        masks=job.tiger.tissue_masks,
        out=job.slides,
        mpp=job.tiger.spacing_um,
        patch=job.tiger.patch_px,
        margin=SLIDE_MARGIN_PX,
        conf=CELL_P,
        cell_um=job.tiger.cell_um,
        device=job.device,
    )
    # The FROC takes cells of low probability as well.
    regions = replace(
        slides, slides=None, masks=None, regions=job.tiger.held_out / "images", out=job.regions, conf=LEAST_P
    )
    with one_thread():
        network = cache(partial(load_model, slides))
        for failed, out in (
            (run_slides(slides, network), job.slides),
            (run_regions(regions, network), job.regions),
        ):
            if failed:
                raise DataError(f"{out}: a picture failed; see predict-report.json there")
    evaluate_l1(job.regions, job.tiger.held_out, job.tiger.spacing_um)


def demo_run_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw and prepare data for ``--demo`` of a training script and return the keys that it needs.

    Args:
        arguments: Of the script; ``output`` names the folder beside which the data go.
    """
    beside = (arguments.output or Path("runs") / "til-mtl-synthetic").absolute()
    home = beside.with_name("til-mtl-demo-data")
    if not (home / "patches" / "manifest.csv").is_file():
        shutil.rmtree(home, ignore_errors=True)
        small = TigerSettings(
            patch_px=PATCH_PX, tissue_regions=12, cell_regions=12, held_out_regions=2, slides=2
        )
        prepare_patches(write_tiger(home / "data", 0, small), home / "patches", all_folds=True)
    logger.info("%s: drawn data", home)
    keys = {"data_dir": home / "patches", "img_size": (PATCH_PX, PATCH_PX), "limit_train_batches": 4}
    keys |= {"max_epochs": 2, "freeze_encoder": False, "num_sanity_val_steps": 0}
    given = {name for name in vars(arguments) if name in Config.model_fields}
    return {key: value for key, value in keys.items() if key not in given or key in ("data_dir", "img_size")}
