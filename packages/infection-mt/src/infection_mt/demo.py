"""The demonstration: synthetic stacks in the original layout, the multi-task model against its single-task halves.

Also shows what goes wrong when label and well are one: a model trained on a plate whose infected well is lit
unevenly looks perfect there and does worse on a plate where the mock well is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infection_mt.config import Config
from infection_mt.synthetic import SyntheticData, SyntheticParams, generate
from medshared.configuration import merge_mappings
from medshared.files import write_json

logger = logging.getLogger(__name__)
TASKS = ("multitask", "classification", "regression")
STACKS_PER_CLASS = 52

# Small enough for two CPU cores and good enough to learn the synthetic task.
DEMO_SETTINGS: Mapping[str, Any] = {
    "multitask": {"infection_onset_hour": 1.0},
    "data": {
        "split_ratios": [0.6, 0.2, 0.2],
        "split_seed": 123,
        "batch_size": 32,
        "num_workers": 0,
        "transforms": {"image_size": 48, "random_flip": True, "random_rotation": True},
        "frames": {
            "frames_per_hour": 0.25,
            "infected_window_hours": [4, 48],
            "uninfected_window_hours": [0, 48],
        },
    },
    "model": {"name": "resnet10", "pretrained": False, "hidden_dim": 64, "dropout": 0.1},
    "training": {"epochs": 10, "grad_clip": 1.0},
    "optimizer": {"lr": 1.5e-3, "weight_decay": 1e-4},
    "scheduler": {"eta_min": 1e-5},
}


def with_demo_data(settings: Mapping[str, Any], folder: Path, seed: int = 0) -> dict[str, Any]:
    """Make the demonstration data and put it, and settings that suit it, into a configuration mapping.

    Args:
        settings: A user's configuration; its experiment name, task, seed, weights and switches stay.
        folder: Receives ``demo_data``.
        seed: Of the data.
    """
    data = generate(folder / "demo_data", SyntheticParams(seed=seed, stacks_per_class=STACKS_PER_CLASS))
    source = {
        "infected_dir": str(data.infected_dir),
        "uninfected_dir": str(data.uninfected_dir),
        "manifest": None,
    }
    merged = merge_mappings(merge_mappings(settings, DEMO_SETTINGS), {"data": source})
    merged["data"]["cache_dir"] = None
    merged["training"] = {**DEMO_SETTINGS["training"]}
    return merged


def demo_config(data: SyntheticData, output: Path, *, seed: int, task: str = "multitask") -> Config:
    """Return the configuration of one demonstration run."""
    return Config.model_validate(
        merge_mappings(
            DEMO_SETTINGS,
            {
                "experiment_name": "demo",
                "seed": seed,
                "output_dir": output,
                "task": {"type": task},
                "data": {"infected_dir": data.infected_dir, "uninfected_dir": data.uninfected_dir},
            },
        )
    )


def run_demo(output: Path, *, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Run the demonstration and write ``results.json``, ``report.html`` and ``figures/`` into ``output``.

    Args:
        output: Folder, created.
        seed: Of the data and of the training.
        device: As in :func:`medshared.gpu.select_device`.

    Returns:
        What ``results.json`` holds.
    """
    from infection_mt.demo_report import confounded_results, explain_figures, write_demo_report
    from infection_mt.training import RunOptions, train_run

    started = time.perf_counter()
    options = RunOptions(device=device)
    data = generate(output / "data", SyntheticParams(seed=seed, stacks_per_class=STACKS_PER_CLASS))
    runs: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        config = demo_config(data, output, seed=seed, task=task)
        runs[task] = train_run(config, output / task, options)
    confounded = confounded_results(output, seed=seed, options=options)
    figures = explain_figures(output, data)
    multitask, classification, regression = (runs[task] for task in TASKS)
    test = multitask["test_metrics"]
    results = {
        "metrics": {"auc": test["cls_auc"], "f1": test["cls_f1"], "mae_hours": test["reg_mae"]},
        "baseline": {
            "auc": 0.5,
            "mae_hours": multitask["baseline"]["mean_mae"],
            "single_task_auc": classification["test_metrics"]["cls_auc"],
            "single_task_mae_hours": regression["test_metrics"]["reg_mae"],
        },
        "confounded": confounded,
        "seed": seed,
        "seconds": time.perf_counter() - started,
    }
    write_demo_report(output, results, runs, figures)
    results["seconds"] = time.perf_counter() - started
    write_json(output / "results.json", results)
    logger.info("demo finished in %.0f s: %s", results["seconds"], results["metrics"])
    return results
