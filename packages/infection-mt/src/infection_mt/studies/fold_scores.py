"""``test_folds.py``: every fold's checkpoint scored on one side of its split."""

from __future__ import annotations

import argparse
import logging

from infection_mt.inference import score, time_scale
from infection_mt.studies.fold_inference import folds_config, predict_folds
from infection_mt.studies.run_folders import find_checkpoints
from infection_mt.studies.single_task import plain_names
from infection_mt.studies.text_tables import text_table
from medshared.files import write_json
from medshared.metrics.statistics import fold_summary

logger = logging.getLogger(__name__)


def evaluate(arguments: argparse.Namespace) -> int:
    """Write ``fold_eval.json``: the metrics of every fold, and their mean and spread."""
    folds = find_checkpoints(arguments.run_dir)
    config = folds_config(folds, arguments.config)
    found = predict_folds(folds, config, split=arguments.split, device=arguments.device)
    short = plain_names if config.task.type != "multitask" else dict
    rows = []
    for fold in folds:
        predictions = found[fold.number]
        metrics = short(score(predictions, config, time_scale(config, predictions)))
        rows.append(
            {"fold": fold.number, "checkpoint": str(fold.path), "n": len(predictions), "metrics": metrics}
        )
    names = list(rows[0]["metrics"])
    content = {
        "run_dir": str(arguments.run_dir),
        "split": arguments.split,
        "folds": rows,
        "aggregated": {name: fold_summary([row["metrics"][name] for row in rows]) for name in names},
    }
    shown = [name for name in names if not name.endswith("loss")][:6]
    lines = [[str(row["fold"]), *(row["metrics"][name] for name in shown)] for row in rows]
    logger.info("\n%s", text_table(["fold", *shown], lines))
    output = arguments.output or arguments.run_dir / "fold_eval.json"
    logger.info("wrote %s", write_json(output, content))
    return 0
