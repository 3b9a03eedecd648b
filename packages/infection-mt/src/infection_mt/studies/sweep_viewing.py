"""Finished sweeps: pictures from their JSON files, and which window's model is the best."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infection_mt.models.checkpoint import infer_architecture
from infection_mt.studies.panels import Summary
from infection_mt.studies.sweep_files import write_curves
from infection_mt.studies.text_tables import text_table
from medshared.files import read_json, write_json
from medshared.weights import extract_state_dict, load_checkpoint

logger = logging.getLogger(__name__)


def draw(arguments: argparse.Namespace) -> int:
    """Draw the curves of a sweep's JSON file."""
    x, curves, label = read_curves(arguments.data)
    if arguments.metrics:
        missing = [metric for metric in arguments.metrics if metric not in curves]
        if missing:
            raise ValueError(f"{arguments.data}: holds no {', '.join(missing)}; it has {', '.join(curves)}")
        curves = {metric: curves[metric] for metric in arguments.metrics}
    output = arguments.output_dir or arguments.data.parent
    stem = arguments.data.stem.removesuffix("_data")
    written = write_curves(
        output,
        stem,
        x,
        curves,
        x_label=label,
        points=not arguments.hide_points,
        each=not arguments.combined_only,
    )
    for path in written:
        logger.info("wrote %s", path)
    return 0


def read_curves(path: Path) -> tuple[list[float], dict[str, dict[str, Summary]], str]:
    """Read an interval or sliding-window sweep: hours, metric → line → (means, deviations), label of the axis.

    Raises:
        ValueError: The file is neither.
    """
    content = read_json(path)
    curves: dict[str, dict[str, Summary]]
    if isinstance(content, Mapping) and "stats" in content:
        curves = {
            metric: {mode: (s["mean"], s["std"]) for mode, s in modes.items()}
            for metric, modes in content["stats"].items()
        }
        return content["hours"], curves, f"End of the interval from {content['start_hour']:g} h (h)"
    if isinstance(content, Mapping) and "results" in content:
        results = content["results"]
        curves = {metric: {"mean of folds": (r["means"], r["stds"])} for metric, r in results.items()}
        centers = next(iter(results.values()))["window_centers"]
        return centers, curves, f"Centre of the {content['window_size']:g} h window (h)"
    raise ValueError(f"{path}: is no sweep: expected 'stats' (intervals) or 'results' (windows)")


def table(arguments: argparse.Namespace) -> int:
    """List the checkpoints of a sweep with their interval, fold and scores, best first."""
    files = sorted(arguments.checkpoint_dir.rglob("*_best.pth")) if arguments.checkpoint_dir.is_dir() else []
    if not files:
        raise FileNotFoundError(f"{arguments.checkpoint_dir}: holds no sweep checkpoints (fold_01_best.pth)")
    rows = [describe(path, arguments.metric) for path in files]
    rows.sort(
        key=lambda row: (-(row[arguments.metric] if row[arguments.metric] is not None else -1.0), row["file"])
    )
    headers = ["file", "interval", "fold", "epoch", "best_val_score", arguments.metric, "backbone"]
    logger.info("\n%s", text_table(headers, [[row[h] for h in headers] for row in rows]))
    logger.info(
        "best: %s, %s h, %s %s",
        rows[0]["file"],
        rows[0]["interval"],
        arguments.metric,
        rows[0][arguments.metric],
    )
    if arguments.output is not None:
        write_json(arguments.output, rows)
    return 0


def describe(path: Path, metric: str) -> dict[str, Any]:
    """Return what a sweep's checkpoint says of itself."""
    content = load_checkpoint(path)
    start = content.get("window_start", content.get("start_hour"))
    end = content.get("window_end", content.get("upper_hour"))
    if content.get("training_interval") is not None:
        start, end = content["training_interval"]
    best = (content.get("best_metrics") or {}).get(metric)
    return {
        "file": f"{path.parent.name}/{path.name}",
        "interval": "–" if start is None or end is None else f"{start:g}-{end:g}",
        "fold": content.get("fold"),
        "epoch": content.get("epoch"),
        "best_val_score": content.get("best_val_score"),
        metric: None if best is None else float(best),
        "backbone": infer_architecture(extract_state_dict(content)).backbone,
    }
