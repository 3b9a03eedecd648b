"""Average of several models' predictions, with its own evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt import evaluation
from infection_mt.analysis.comparison import average_predictions
from infection_mt.config import Config
from infection_mt.inference import score, time_scale
from infection_mt.reporting import assess
from medshared.files import write_json


def average(predictions: Sequence[evaluation.Predictions]) -> evaluation.Predictions:
    """Return mean probability and mean time over models, frame by frame.

    Args:
        predictions: Of the same frames; they are joined by sample key, so order may differ.

    Raises:
        ValueError: The models were tested on different frames.
    """
    first = predictions[0]
    for member in predictions[1:]:
        missing = set(first.keys) ^ set(member.keys)
        if missing:
            raise ValueError(
                f"the models were tested on different frames ({len(missing)} are not in both, for example "
                f"{min(missing)}): only models with one test set can be averaged"
            )
    return average_predictions(predictions)


def spread(predictions: Sequence[evaluation.Predictions]) -> dict[str, np.ndarray]:
    """Return the standard deviation over models of probability and time, frame by frame: the ensemble's doubt."""
    keys = predictions[0].keys
    rows = [np.array([{k: i for i, k in enumerate(p.keys)}[key] for key in keys]) for p in predictions]
    return {
        "probability_std": np.std([p.probability[r] for p, r in zip(predictions, rows, strict=True)], axis=0),
        "time_std": np.std([p.time[r] for p, r in zip(predictions, rows, strict=True)], axis=0),
    }


def evaluate_ensemble(runs: Sequence[Path], output: Path, config: Config) -> dict[str, Any]:
    """Average finished runs and score the average beside its members.

    Args:
        runs: Run directories with one test set.
        output: Receives ``test_predictions.npz``, ``test_metadata.jsonl`` and ``results.json``.
        config: Of the runs.
    """
    members = [evaluation.Predictions.load(run) for run in runs]
    averaged = average(members)
    averaged.save(output)
    scale = time_scale(config, averaged)
    results = {
        "members": [str(run) for run in runs],
        **assess(averaged, config, scale),
        "member_metrics": [score(member, config, scale) for member in members],
        "mean_spread": {key: float(value.mean()) for key, value in spread(members).items()},
    }
    write_json(output / "results.json", results)
    return results
