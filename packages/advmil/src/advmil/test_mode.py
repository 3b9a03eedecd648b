"""Test mode: a trained model under hidden regions, without noise, or with other draws."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from advmil.config import Config
from advmil.data.bags import BagInput
from advmil.data.regions import mask_regions
from advmil.errors import DataError
from advmil.inference import ChangeBag, predict_generator
from advmil.models.build import build_discriminator, build_generator
from advmil.models.checkpoint import load_network
from advmil.noise import torch_noise
from advmil.outputs import write_config
from advmil.run_data import load_run_data
from advmil.scoring import original_metrics
from advmil.trainer import choose_device
from advmil.training import log_best, open_sink, write_house_files, write_original_files
from medshared.gpu import derive_seed, resolve_precision, seed_everything
from medshared.runs import RunDirectory, run_logging


def run_test_mode(
    config: Config, folder: Path, *, device: str | None = None, resume: bool = False
) -> dict[str, Any]:
    """Score the trained model of ``test_load_path`` under masked regions, zero noise or other draws (test mode).

    Args:
        config: Configuration with ``test: True``.
        folder: Where the results go.
        device: Wins over the configuration's device.
        resume: Write into a finished folder again.

    Returns:
        What ``results.json`` holds.
    """
    config = config.resolved()
    run = RunDirectory(folder)
    run.create(config.model_dump() | {"handler": "adv"}, seed=config.seed, resume=resume)
    with run_logging("advmil", run.path / "log.txt"):
        started = time.perf_counter()
        write_config(run.path / "print_config.txt", config.model_dump())
        data = load_run_data(config)
        where = choose_device(config, device)
        seed_everything(config.seed, deterministic=config.deterministic)
        generator, discriminator = build_generator(config), build_discriminator(config)
        source = Path((config.test_load_path or "").replace("{}", str(config.data_split_seed)))
        for network, letter in ((generator, "G"), (discriminator, "D")):
            load_network(_trained(source, letter), network)
            network.to(where)
        ((name, patients),) = data.sets.items()
        kept: dict[str, int] = {}
        predicted = predict_generator(
            generator,
            discriminator,
            data,
            patients,
            config,
            samples=config.test_sampling_times,
            noise=None if config.test_zero_noise else torch_noise(config.gen_noi_noise_dist),
            device=where,
            precision=resolve_precision(config.precision, where),
            change=_masking(config, kept) if config.test_mask_ratio > 0 else None,
        )
        scores = {name: original_metrics(predicted, config)}
        write_original_files(run.path, data.name, {name: predicted}, scores, config)
        write_house_files(run, {name: predicted})
        sink = open_sink(config, run.path, config.test_wandb_prj)
        try:
            log_best(sink, data.name, name, scores[name], 0)
        finally:
            sink.close()
        results = {
            "handler": "adv",
            "task": config.task,
            "backbone": config.bcb_mode,
            "fold": config.data_split_seed,
            "test_load_path": str(source),
            "mask_ratio": config.test_mask_ratio,
            "regions_kept": kept,
            "sets": scores,
            "seconds": time.perf_counter() - started,
        }
        run.write_results(results)
        return results


def _trained(folder: Path, letter: str) -> Path:
    """Return the weights of a trained network: the best epoch's, or the last one's where none was chosen."""
    for which in ("best", "last"):
        path = folder / f"train_model{letter}-{which}.pth"
        if path.is_file():
            return path
    raise DataError(
        f"test_load_path: {folder} holds no train_model{letter}-best.pth; train with the same configuration first, or "
        "give the folder of a finished run ({} stands for data_split_seed)"
    )


def _masking(config: Config, kept: dict[str, int]) -> ChangeBag:
    """Hide regions of each bag; the choice depends on seed and patient, not on the order or number of workers."""

    def change(patient: str, bag: BagInput) -> BagInput:
        rng = np.random.RandomState(derive_seed(config.seed, "mask", patient) % 2**32)
        masked, stay = mask_regions(
            bag.x[0], config.test_mask_ratio, rng, legacy=bool(config.mask_count_legacy)
        )
        kept[patient] = len(stay)
        return BagInput(masked[None], bag.extra)

    return change
