"""Files and figures of the sweeps, under the original's names and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt.analysis.plots import save_figure
from infection_mt.studies.panels import Summary, line_panel, panel_grid
from medshared.metrics.statistics import fold_summary

FoldMetrics = Sequence[Sequence[float]]  # [points][folds]
LABELS = {"auc": "AUC", "accuracy": "Accuracy", "f1": "F1", "precision": "Precision", "recall": "Recall"}


def spread(values: FoldMetrics) -> tuple[list[float], list[float]]:
    """Return mean and population standard deviation over folds of each point, in single precision as the original."""
    summaries: list[dict[str, Any]] = [fold_summary(row, single_precision=True) for row in values]
    return [s["mean"] for s in summaries], [s["std"] for s in summaries]


def interval_stats(values: FoldMetrics) -> dict[str, Any]:
    """Return ``fold_metrics`` ([hours][folds]), ``mean`` and ``std`` of one metric and mode."""
    mean, std = spread(values)
    return {"fold_metrics": [list(row) for row in values], "mean": mean, "std": std}


def window_results(
    starts: Sequence[float], ends: Sequence[float], values: Mapping[str, FoldMetrics]
) -> dict[str, Any]:
    """Return the ``results`` of sliding-window files: metric → starts, ends, centres, fold values, means, stds.

    Args:
        starts: Of the windows in hours.
        ends: Of the windows in hours.
        values: Metric → [windows][folds].
    """
    centers = [(start + end) / 2.0 for start, end in zip(starts, ends, strict=True)]
    results = {}
    for metric, rows in values.items():
        means, stds = spread(rows)
        results[metric] = {
            "window_starts": list(starts),
            "window_ends": list(ends),
            "window_centers": centers,
            "fold_metrics": [list(row) for row in rows],
            "means": means,
            "stds": stds,
        }
    return results


def window_stem(prefix: str, size: float, stride: float) -> str:
    """Return a file stem such as ``sliding_window_w6_s3``; the stride is left out when it is the size.

    Args:
        prefix: Before the numbers.
        size: Of a window in hours.
        stride: In hours.
    """
    return f"{prefix}_w{size:g}" + ("" if stride == size else f"_s{stride:g}")


def write_curves(
    folder: Path,
    stem: str,
    x: Sequence[float],
    curves: Mapping[str, Mapping[str, Summary]],
    *,
    x_label: str,
    title: str = "",
    points: bool = True,
    each: bool = True,
) -> list[Path]:
    """Draw one panel a metric, together and, with ``each``, also alone.

    Args:
        folder: Where to.
        stem: ``<stem>_combined.png`` and ``<stem>_<metric>.png``.
        x: Hours.
        curves: Metric → line → (means, standard deviations).
        x_label: Below the panels.
        title: Above the combined figure.
        points: Mark the values.
        each: Write a figure for every metric too.
    """
    figure, panels = panel_grid(len(curves))
    for axes, (metric, series) in zip(panels, curves.items(), strict=True):
        _panel(axes, x, metric, series, x_label, points)
    if title:
        figure.suptitle(title, fontsize=13)
    written = [save_figure(folder / f"{stem}_combined.png", figure)]
    for metric, series in curves.items() if each else ():
        alone, [axes] = panel_grid(1, width=7.5, height=4.8)
        _panel(axes, x, metric, series, x_label, points)
        written.append(save_figure(folder / f"{stem}_{metric}.png", alone))
    return written


def _panel(
    axes: Any, x: Sequence[float], metric: str, series: Mapping[str, Summary], label: str, points: bool
) -> None:
    name = LABELS.get(metric, metric)
    unit = {"title": name, "x_label": label, "y_label": name}
    line_panel(axes, x, series, **unit, points=points, limits=(0.0, 1.0) if metric in LABELS else None)
    if np.size(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
