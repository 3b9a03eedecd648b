"""Keys and types of the files this package writes under the original's names (schemas.json)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infection_mt import windows as w
from infection_mt.config import WindowsConfig
from infection_mt.evaluation import (
    MULTITASK_METRICS,
    evaluate_classification,
    evaluate_multitask,
    evaluate_regression,
)
from infection_mt.prediction_table import Predictions
from medshared.files import read_json, write_json
from medshared.tables import read_jsonl

SCHEMAS = json.loads((Path(__file__).parent / "golden" / "schemas.json").read_text())
N = 40


def predictions() -> Predictions:
    rng = np.random.default_rng(0)
    label = np.arange(N) % 2
    hours = np.repeat(np.arange(N // 2) * 2.0, 2)
    metadata = [
        {
            "path": f"x_s5_{'b2' if y else 'c4'}_p1_t0-94_ec.tiff",
            "condition": "infected" if y else "uninfected",
            "position": "1",
            "frame_index": int(h * 2),
            "hours_since_start": float(h),
            "label": int(y),
        }
        for y, h in zip(label, hours, strict=True)
    ]
    logits = np.stack([np.zeros(N), rng.normal(3 * label - 1.5, 1)], axis=1)
    return Predictions.from_outputs(logits, hours + rng.normal(0, 1, N), label, hours, metadata=metadata)


def check(found: Any, schema: Any, where: str = "") -> None:
    """Compare a JSON value with its skeleton; null stands for an undefined number."""
    if isinstance(schema, dict):
        assert list(found) == list(schema), where
        for key in schema:
            check(found[key], schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(found, list), where
        for item in found:
            check(item, schema[1], f"{where}[]")
    else:
        allowed = {"int": int, "float": (float, type(None)), "str": str}[schema]
        assert isinstance(found, allowed), where
        assert not isinstance(found, bool), where


@pytest.mark.parametrize(
    ("schema", "fold"),
    [
        (SCHEMAS["single_run"]["temporal_metrics.json"], False),
        (SCHEMAS["multitask_cv"]["fold_1/temporal_metrics.json"], True),
    ],
)
def test_temporal_metrics(schema: dict, fold: bool, tmp_path: Path) -> None:
    config = WindowsConfig()
    paths = w.write_temporal_metrics(tmp_path, w.window_predictions(predictions(), config), config, fold=fold)
    check(read_json(paths[0]), schema)
    assert paths[1].read_text().startswith("start,end,center,n,n_infected,n_uninfected,auc,accuracy")


def test_temporal_metrics_with_limits(tmp_path: Path) -> None:
    windows = w.window_predictions(predictions())
    content = w.temporal_metrics(windows, size_hours=6, stride_hours=3, start_hour=0, end_hour=48)
    schema = SCHEMAS["single_run"]["generate_temporal_analysis: temporal_metrics.json"]
    check(read_json(write_json(tmp_path / "t.json", content)), schema)


def test_cross_validation_summaries(tmp_path: Path) -> None:
    p = predictions()
    logits = np.stack([np.zeros(N), p.logit], axis=1)
    metrics = evaluate_multitask(logits, p.time, p.label, p.time_target)
    folds = [
        {
            "fold_index": i,
            "best_val_metric": 0.9,
            "test_metrics": {name: metrics[name] for name in MULTITASK_METRICS},
        }
        for i in range(2)
    ]
    written = read_json(write_json(tmp_path / "cv_summary.json", w.aggregate_folds(folds)))
    check(written, SCHEMAS["multitask_cv"]["cv_summary.json"])
    lists = w.window_lists(w.window_predictions(p))
    content = w.cv_temporal_metrics([lists, lists], size_hours=6, stride_hours=3)
    written = read_json(write_json(tmp_path / "cv_temporal_metrics.json", content))
    check(written, SCHEMAS["multitask_cv"]["cv_temporal_metrics.json"])


def test_metric_names() -> None:
    p = predictions()
    logits = np.stack([np.zeros(N), p.logit], axis=1)
    multitask = evaluate_multitask(logits, p.time, p.label, p.time_target)
    assert list(multitask)[:12] == list(SCHEMAS["single_run"]["results.json"]["test_metrics"])
    regression = evaluate_regression(p.time, p.label, p.time_target)
    assert list(regression)[:4] == list(SCHEMAS["regression_cv"]["fold_1/results.json"]["test_metrics"])
    classification = evaluate_classification(p.logit, p.label)
    assert list(classification) == list(SCHEMAS["classification"]["cv_summary.json"][1]["test"])


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMAS["single_run"]["test_predictions.npz"],
        SCHEMAS["multitask_cv"]["fold_1/test_predictions.npz"],
        SCHEMAS["regression_cv"]["fold_1/test_predictions.npz"],
    ],
)
def test_predictions(schema: dict, tmp_path: Path) -> None:
    npz, jsonl = predictions().save(tmp_path)
    with np.load(npz, allow_pickle=False) as stored:
        for name, expected in schema.items():
            assert str(stored[name].dtype) == expected["dtype"]
            assert stored[name].ndim == expected["ndim"]
        assert set(stored.files) - set(schema) == {"sample_key", "logit", "hours", "stack_index"}
    for row in read_jsonl(jsonl):
        check(row, SCHEMAS["single_run"]["test_metadata.jsonl"])
