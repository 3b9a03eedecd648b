"""Decision thresholds and bins of time: tables and the log text of the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from infection_mt.probabilities import sigmoid
from medshared.metrics.classification import binary_metrics, confusion_counts, counts_to_metrics, roc_auc


def threshold_table(
    probability: ArrayLike, label: ArrayLike, thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
) -> list[dict[str, float]]:
    """Precision, recall and F1 of the decision ``p >= threshold`` for several thresholds.

    Args:
        probability: P(infected), shape ``[N]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        thresholds: In [0, 1].

    Returns:
        One row per threshold: ``precision``, ``recall``, ``f1`` (0 for 0/0), ``threshold``, ``tp``, ``fp``,
        ``fn``.

    Example:
        >>> threshold_table([0.2, 0.8], [0, 1], [0.5])[0]["f1"]
        1.0
    """
    p = np.asarray(probability, dtype=np.float64)
    rows = []
    for threshold in thresholds:
        tp, fp, fn, tn = confusion_counts(p >= threshold, label)
        metrics = counts_to_metrics(tp, fp, fn, tn)
        rows.append(
            {
                **{name: metrics[name] for name in ("precision", "recall", "f1")},
                "threshold": float(threshold),
                "tp": float(tp),
                "fp": float(fp),
                "fn": float(fn),
            }
        )
    return rows


def format_threshold_table(split: str, rows: Sequence[dict[str, float]]) -> str:
    """Return the threshold table as the original logs it.

    Args:
        split: ``val`` or ``test``.
        rows: Of `threshold_table`.

    Returns:
        A headline and one line per threshold.
    """
    lines = [
        f"  thr={row['threshold']:.2f} | P={row['precision']:.2f} | R={row['recall']:.2f} | "
        f"F1={row['f1']:.2f} | TP={int(row['tp'])}"
        for row in rows
    ]
    return "\n".join([f"{split} threshold sweep:", *lines])


def time_bins(
    logit: ArrayLike, label: ArrayLike, hours: ArrayLike, bins: Sequence[tuple[float, float]]
) -> list[dict[str, Any]]:
    """Classification metrics in half-open bins [a, b) of the hours since the first frame.

    Args:
        logit: Log-odds of infected, shape ``[N]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        hours: Hours since the first frame, shape ``[N]``.
        bins: Pairs of hours.

    Returns:
        One row per bin: ``start``, ``end``, ``n`` and, unless empty, ``accuracy``, ``precision``,
        ``recall``, ``f1``, ``auc``.

    Example:
        >>> time_bins([1.0, -1.0], [1, 0], [2.0, 9.0], [(0, 8)])[0]["n"]
        1
    """
    z, truth, h = np.asarray(logit, dtype=np.float64), np.asarray(label), np.asarray(hours, dtype=np.float64)
    rows: list[dict[str, Any]] = []
    for start, end in bins:
        chosen = (h >= start) & (h < end)
        row: dict[str, Any] = {"start": float(start), "end": float(end), "n": int(chosen.sum())}
        if row["n"]:
            metrics = binary_metrics(sigmoid(z[chosen]), truth[chosen])
            del metrics["specificity"]
            row.update(metrics, auc=roc_auc(z[chosen], truth[chosen]))
        rows.append(row)
    return rows


def format_time_bins(split: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the time bins as the original logs them.

    Args:
        split: ``val`` or ``test``.
        rows: Of `time_bins`.

    Returns:
        One line per bin, three decimals.
    """
    lines = []
    for row in rows:
        names = [name for name in row if name not in ("start", "end", "n")]
        text = " | ".join(f"{name}:{row[name]:.3f}" for name in names) if names else "metrics=NA (no data)"
        lines.append(f"{split} time bin [{row['start']}h, {row['end']}h): samples={row['n']} | {text}")
    return lines
