"""The demonstration: drawn images with raters who differ in a known way, from files to masks that follow a rater."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aespa.config import Config, Mode
from aespa.errors import DataError
from medshared.configuration import load_yaml_or_json
from medshared.demo import clear_demo
from medshared.files import write_json, write_text
from medshared.gpu import one_thread

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

SIZE_PX = 64
N_TRAIN, N_TEST = 480, 64
VOLUMES = (2, 2)  # MBHSeg volumes for training and testing
EPOCHS: dict[Mode, int] = {"AESPA": 4, "SPA": 1, "SAM": 2}
SAMPLES, CLUSTERS = 6, 2  # of SPA while it trains
SHOWN_SAMPLES, SHOWN_CLUSTERS = 48, 4  # and when it is measured
SPA_IMAGES = 24  # that many of the held-out ones
MODES: tuple[Mode, ...] = ("SPA", "AESPA", "SAM")  # the longest first


@dataclass(frozen=True)
class DemoParts:
    """What the demonstration made.

    Attributes:
        lidc: Data in LIDC's layout.
        mbhseg: Slices in MBHSeg-Binary's layout, cut from volumes.
        raw: The volumes.
        runs: Run directory of each method.
    """

    lidc: Path
    mbhseg: Path
    raw: Path
    runs: dict[Mode, Path]


def demo_keys(mode: Mode, data: Path, seed: int, device: str = "auto") -> dict[str, Any]:
    """Return the configuration of one network of the demonstration.

    Args:
        mode: The method.
        data: In LIDC's layout.
        seed: Of weights, order, clicks and latents.
        device: Where it runs.
    """
    return {
        "mode": mode,
        "exp_name": f"demo_{mode}",
        "dataset": "LIDC",
        "data_path": data,
        "image_size": SIZE_PX,
        "encoder": "tiny",
        "b": 8,
        "lr": 5e-4,
        "lr_step": 2,
        "epochs": EPOCHS[mode],
        "val_freq": EPOCHS[mode],
        "num_samples": SAMPLES,
        "n_clusters": CLUSTERS,
        "val_fraction": 0.05,
        "seed": seed,
        "device": device,
        "w": 1,
        "progress": False,
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
    from aespa.demo_report import write_demo_report
    from aespa.demo_results import collect_results

    started = time.perf_counter()
    if not clear_demo(output, "data/lidc"):
        raise DataError(f"{output}: not empty and not an earlier demonstration; choose another --output")
    home = output / "demo"
    with one_thread():
        parts = make_data(home, seed)
        jobs = [_Job(demo_keys(mode, parts.lidc, seed, device), parts.runs[mode]) for mode in MODES]
        side_by_side(_train_job, jobs, device)
        content, pictures = collect_results(parts, seed, device)
    content["seconds"] = time.perf_counter() - started
    write_demo_report(output, content, pictures)
    write_json(output / "results.json", content)
    metrics = content["metrics"]
    shown = ", ".join(
        f"{key} {metrics[key]:.3f}"
        for key in ("dice_neutral_round0", "dice_follow_round1", "dice_follow_late", "spa_dice_late")
    )
    logger.info("%s in %.0f s; %s", shown, content["seconds"], output / "report.html")
    return content


def make_data(home: Path, seed: int) -> DemoParts:
    """Draw the data sets and cut the volumes into slices.

    Args:
        home: Receives the folders.
        seed: Of drawing.

    Raises:
        DataError: A volume failed.
    """
    from aespa.prepare.mbhseg import process_mbhseg
    from aespa.synthetic import write_lidc, write_mbhseg

    data = home / "data"
    write_lidc(data / "lidc", N_TRAIN, N_TEST, seed)
    write_mbhseg(data / "MBHSeg", *VOLUMES, seed)
    if process_mbhseg(data / "MBHSeg", data):
        raise DataError(f"{data}: cutting the volumes failed; see the report there")
    runs: dict[Mode, Path] = {mode: home / mode.lower() for mode in MODES}
    return DemoParts(data / "lidc", data / "MBHSeg-Binary", data / "MBHSeg", runs)


@dataclass(frozen=True)
class _Job:
    """One network to train."""

    keys: dict[str, Any]
    folder: Path


def _train_job(job: _Job) -> None:
    from aespa.training import train_run
    from medshared.configuration import load_config

    with one_thread():
        train_run(load_config(Config, job.keys, label="demonstration"), job.folder, measure=False)


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], device: str) -> list[Result]:
    """Do some work in as many processes as there are cores; one after the other on a GPU or a single core.

    Args:
        work: A function of a module, for one item.
        items: The longest first.
        device: Where the work runs.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2 or device not in ("auto", "cpu") or torch.cuda.is_available():
        return [work(item) for item in items]
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(cores, len(items)), mp_context=context) as pool:
        return [done.result() for done in [pool.submit(work, item) for item in items]]


def demo_run_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw data for ``-demo`` of a training script and return the keys that it needs.

    Args:
        arguments: Of the script; ``output`` names the folder beside which the data go. What its flags set stays,
            and of its configuration file the method, the data set and the seed; its sizes do not.
    """
    beside = (arguments.output or Path("runs") / "aespa").absolute()
    read: dict[str, Any] = load_yaml_or_json(arguments.config) if arguments.config else {}
    kept = {key: read[key] for key in ("mode", "dataset", "seed") if read.get(key) is not None}
    given = kept | {name: value for name, value in vars(arguments).items() if name in Config.model_fields}
    dataset = str(given.get("dataset", "LIDC"))
    keys = demo_keys("AESPA", _small_data(beside.with_name("aespa-demo-data"), dataset), 0)
    keys |= {"epochs": 2, "val_freq": 2, "val_fraction": 0.0, "dataset": dataset}
    fixed = ("data_path", "dataset")
    return {key: value for key, value in keys.items() if key in fixed or key not in given}


def _small_data(home: Path, dataset: str) -> Path:
    """Draw a small data set, unless it is there, and return its folder."""
    from aespa.prepare.mbhseg import process_mbhseg
    from aespa.synthetic import make_demo_data

    volumes = {"MBHSeg-Binary": "MBHSeg-Binary", "MBHSeg-Multiclass": "MBHSeg-Multi"}
    folder, finished = home / volumes.get(dataset, dataset), home / f"{dataset}.finished"
    if finished.is_file():
        return folder
    if dataset in volumes:
        if process_mbhseg(make_demo_data(home / "MBHSeg", "MBHSeg", 2, 1, 0), home):
            raise DataError(f"{home}: cutting the volumes failed; see the report there")
    else:
        make_demo_data(folder, dataset, 24, 8, 0)
    write_text(finished, "")
    logger.info("%s: drawn data", folder)
    return folder
