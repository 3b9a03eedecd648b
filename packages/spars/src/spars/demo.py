"""The demonstration: drawn CT volumes with known tumours, from files to agents compared with everything else."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medshared.configuration import load_config
from medshared.demo import clear_demo
from medshared.files import read_json, write_json
from medshared.gpu import one_thread
from spars.config import ClassifierConfig, GameConfig
from spars.errors import DataError

logger = logging.getLogger(__name__)

Labels = Literal["mask", "image"]
WEIGHTS = "classifier.pth"
ITERATIONS = 120


@dataclass(frozen=True)
class DemoParts:
    """What the demonstration made.

    Attributes:
        data: Folder of the drawn volumes, in the layout of MSD Task03_Liver.
        classifier: Run directory of stage A.
        game: Run directory of stage B.
        evaluation: Folder of the comparison on the test volumes.
        labels: Who told the classifier what windows hold: voxels, or one label a volume.
    """

    data: Path
    classifier: Path
    game: Path
    evaluation: Path
    labels: Labels


def classifier_keys(data: Path, seed: int, labels: Labels, device: str) -> dict[str, Any]:
    """Return the configuration of the classifier.

    Args:
        data: Folder of the volumes.
        seed: Of weights and crops.
        labels: ``mask`` (windows labelled by voxels) or ``image`` (one label a volume).
        device: Where it runs.
    """
    from spars.classifier_training import demo_classifier_keys

    return {
        **demo_classifier_keys(),
        "data_dir": data,
        "seed": seed,
        "device": device,
        "label_source": "mask" if labels == "mask" else "csv",
        "weights_out": WEIGHTS,
    }


def game_keys(data: Path, classifier: Path, cache: Path, seed: int, device: str) -> dict[str, Any]:
    """Return the configuration of the game and of its evaluation.

    Args:
        data: Folder of the volumes.
        classifier: Run directory of the classifier.
        cache: Folder of score tables.
        seed: Of weights, games and searches.
        device: Where it runs.
    """
    from spars.synthetic import HU_WINDOW, SIZE, WINDOW

    return {
        "data_dir": data,
        "seed": seed,
        "device": device,
        "full_image_size": SIZE,
        "window_size": WINDOW,
        "hu_window": HU_WINDOW,
        "classifier_weights": classifier / WEIGHTS,
        "cache_dir": cache,
        "table_batch": 256,
        "iterations": ITERATIONS,
        "save_every": ITERATIONS,
    }


def run_demo(output: Path, *, seed: int = 0, labels: Labels = "mask", device: str = "auto") -> dict[str, Any]:
    """Run the demonstration and write ``results.json``, ``report.html`` and ``figures/``.

    Args:
        output: Folder, whose earlier demonstration is replaced.
        seed: Of drawing and training.
        labels: What the classifier learns from.
        device: Where networks run.

    Returns:
        What ``results.json`` holds.

    Raises:
        DataError: ``output`` holds something else.
    """
    from spars.demo_report import write_demo_report

    started = time.perf_counter()
    if not clear_demo(output, "data"):
        raise DataError(f"{output}: not empty and not an earlier demonstration; choose another --output")
    with one_thread():
        parts, steps = _run_stages(output / "demo", seed, labels, device)
        content = collect_results(parts, seed)
    content["steps_seconds"] = steps
    content["seconds"] = time.perf_counter() - started
    write_demo_report(output, content, parts)
    write_json(output / "results.json", content)
    metrics, baseline = content["metrics"], content["baseline"]
    logger.info(
        "window AUC %.3f, score map %.3f, agent %.3f at %.0f %% of the scores, random walk %.3f, in %.0f s; %s",
        *(metrics["window_auc"], metrics["score_map_dice"], metrics["dice_mean"]),
        *(100 * metrics["classifier_calls_share"], baseline["random_walk_dice"], content["seconds"]),
        output / "report.html",
    )
    return content


def _run_stages(home: Path, seed: int, labels: Labels, device: str) -> tuple[DemoParts, dict[str, float]]:
    from spars.classifier_training import train_classifier
    from spars.evaluation import evaluate
    from spars.synthetic import write_synthetic
    from spars.training import train_game

    parts = DemoParts(home / "data", home / "classifier", home / "game", home / "evaluation", labels)
    seconds: dict[str, float] = {}

    def timed(name: str, began: float) -> float:
        seconds[name] = time.perf_counter() - began
        return time.perf_counter()

    clock = time.perf_counter()
    write_synthetic(parts.data, seed=seed)
    clock = timed("data", clock)
    keys = classifier_keys(parts.data, seed, labels, device)
    train_classifier(load_config(ClassifierConfig, keys, label="demonstration"), parts.classifier)
    clock = timed("classifier", clock)
    config = load_config(
        GameConfig,
        game_keys(parts.data, parts.classifier, home / "cache", seed, device),
        label="demonstration",
    )
    train_game(config, parts.game)
    clock = timed("self-play", clock)
    evaluate(config, parts.evaluation, agent=parts.game / "agent.pt")
    timed("evaluation", clock)
    return parts, seconds


def collect_results(parts: DemoParts, seed: int) -> dict[str, Any]:
    """Return what ``results.json`` holds but the seconds.

    Args:
        parts: What the demonstration made.
        seed: Of the demonstration.
    """
    found = read_json(parts.evaluation / "results.json")
    summary = found["summary"]

    def dice(method: str) -> float:
        return summary[method]["dice_mean"]

    return {
        "seed": seed,
        "labels": parts.labels,
        "metrics": {
            **window_scores(parts),
            "score_map_dice": dice("score_map"),
            "dice_mean": dice("agent"),
            "dice_sd": summary["agent"]["dice_sd"],
            "hd95_mm": summary["agent"]["hd95_mm_mean"],
            "policy_score_over_random_walk": found["play"]["ratio"],
            "classifier_calls_share": summary["agent"]["windows_share"],
        },
        "baseline": {
            "random_walk_dice": dice("random_walk"),
            "greedy_dice": dice("greedy"),
            "greedy_restarts_dice": dice("greedy_restarts"),
            "best_first_dice": dice("best_first"),
            "untrained_agent_dice": dice("untrained_agent"),
            "cam_dice": dice("cam"),
            "all_positive_dice": dice("all_positive"),
        },
        "comparisons": found["comparisons"],
        "verdict": found["verdict"],
    }


def window_scores(parts: DemoParts) -> dict[str, float]:
    """Return how well the classifier tells windows of the test volumes apart, over all windows of all volumes.

    Args:
        parts: What the demonstration made.

    Returns:
        ``window_auc`` (any tumour voxel) and ``window_auc_50_voxels`` (at least 50, against none or fewer).
    """
    from medshared.configuration import load_yaml_or_json
    from spars.boards import load_boards
    from spars.classifier_metrics import window_metrics
    from spars.crops import window_counts
    from spars.data.layout import find_cases
    from spars.data.splits import choose_cases

    config = load_config(
        GameConfig, load_yaml_or_json(parts.evaluation / "config.yaml"), label="evaluation"
    ).resolved()
    boards = load_boards(config, choose_cases(config, find_cases(parts.data))["test"])
    scores = np.concatenate([board.scores() for board in boards])
    counts = []
    for board in boards:
        label = board.grid.label
        assert label is not None  # noqa: S101 - drawn volumes have labels
        counts.append(window_counts(label, board.table.lattice).ravel())
    found = window_metrics(scores, np.concatenate(counts))
    return {key: float(found[key] or 0.0) for key in ("window_auc", "window_auc_50_voxels")}
