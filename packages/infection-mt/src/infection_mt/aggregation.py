"""Means over folds: of single numbers, and of windows aligned by their centre."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medshared.metrics.statistics import fold_summary

WindowLists = tuple[Sequence[float], Mapping[str, Sequence[float | None]]]
CENTER_DECIMALS = 6  # centres that agree to a micro-hour are the same window


def aggregate_folds(
    fold_results: Sequence[Mapping[str, Any]], *, single_precision: bool = False
) -> dict[str, Any]:
    """Return the content of ``cv_summary.json``.

    Args:
        fold_results: One mapping per fold with ``test_metrics`` (name → number), for example the folds'
            results.json.
        single_precision: Average in float32, as the original's sweeps do.

    Returns:
        ``num_folds``, ``fold_results`` and ``aggregated_metrics``: mean, population std, min, max and
        values by metric. Folds in which a metric is undefined do not enter its mean.

    Raises:
        ValueError: Without folds.

    Example:
        >>> folds = [{"test_metrics": {"f1": 0.5}}, {"test_metrics": {"f1": 1.0}}]
        >>> aggregate_folds(folds)["aggregated_metrics"]
        {'f1': {'mean': 0.75, 'std': 0.25, 'min': 0.5, 'max': 1.0, 'values': [0.5, 1.0]}}
    """
    if not fold_results:
        raise ValueError("no folds to aggregate")
    names = list(dict.fromkeys(name for fold in fold_results for name in fold["test_metrics"]))
    aggregated = {}
    for name in names:
        found = [fold["test_metrics"].get(name) for fold in fold_results]
        values = [float("nan") if value is None else float(value) for value in found]
        aggregated[name] = fold_summary(values, single_precision=single_precision)
    return {
        "num_folds": len(fold_results),
        "fold_results": [dict(fold) for fold in fold_results],
        "aggregated_metrics": aggregated,
    }


def aggregate_windows(folds: Sequence[WindowLists], *, faithful: bool = False) -> dict[str, Any]:
    """Average windowed metrics over folds.

    Args:
        folds: Per fold the centres in hours and one list per metric (None where undefined), see
            `infection_mt.windows.window_lists`.
        faithful: Align by list position under the first fold's centres, as the original: wrong when a fold
            lacks a window.

    Returns:
        ``window_centers`` and ``aggregated``: per metric ``mean``, ``std`` (population) and ``n`` (folds
        that count) for each centre; None without any.

    Raises:
        ValueError: Without folds.
        IndexError: With ``faithful``, when a later fold has more windows than the first.

    Example:
        >>> result = aggregate_windows([([3.0, 6.0], {"auc": [0.5, 0.6]}), ([6.0], {"auc": [0.8]})])
        >>> result["aggregated"]["auc"]["n"], round(result["aggregated"]["auc"]["mean"][1], 3)
        ([1, 2], 0.7)
    """
    if not folds:
        raise ValueError("no folds to aggregate")
    names = list(dict.fromkeys(name for _, metrics in folds for name in metrics))
    if faithful:
        centers = [float(center) for center in folds[0][0]]
        positions = [list(range(len(fold_centers))) for fold_centers, _ in folds]
        if max(len(position) for position in positions) > len(centers):
            raise IndexError(f"a fold has more windows than the {len(centers)} of the first fold")
    else:
        keyed = [
            [round(float(center), CENTER_DECIMALS) for center in fold_centers] for fold_centers, _ in folds
        ]
        column = {center: i for i, center in enumerate(sorted({c for row in keyed for c in row}))}
        centers = list(column)
        positions = [[column[center] for center in row] for row in keyed]
    aggregated = {}
    for name in names:
        values = np.full((len(folds), len(centers)), np.nan)
        for row, ((_, metrics), position) in enumerate(zip(folds, positions, strict=True)):
            given = metrics.get(name, [])
            values[row, position[: len(given)]] = [np.nan if value is None else value for value in given]
        aggregated[name] = _column_summary(values)
    return {"window_centers": centers, "aggregated": aggregated}


def _column_summary(values: np.ndarray) -> dict[str, list[Any]]:
    """Return mean, population std and number of the defined values of every column."""
    columns = [column[~np.isnan(column)] for column in values.T]
    return {
        "mean": [float(column.mean()) if column.size else None for column in columns],
        "std": [float(column.std()) if column.size else None for column in columns],
        "n": [int(column.size) for column in columns],
    }


def cv_temporal_metrics(
    folds: Sequence[WindowLists], *, size_hours: float, stride_hours: float, faithful: bool = False
) -> dict[str, Any]:
    """Return the content of ``cv_temporal_metrics.json``.

    Args:
        folds: See `aggregate_windows`.
        size_hours: Length of a window.
        stride_hours: Distance of neighbouring windows.
        faithful: See `aggregate_windows`.

    Returns:
        ``num_folds``, ``window_centers``, ``aggregated_metrics`` (mean and std by metric), ``window_size``,
        ``stride``.
    """
    result = aggregate_windows(folds, faithful=faithful)
    aggregated = {
        name: {"mean": lists["mean"], "std": lists["std"]} for name, lists in result["aggregated"].items()
    }
    return {
        "num_folds": len(folds),
        "window_centers": result["window_centers"],
        "aggregated_metrics": aggregated,
        "window_size": float(size_hours),
        "stride": float(stride_hours),
    }
