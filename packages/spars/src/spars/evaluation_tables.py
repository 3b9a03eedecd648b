"""The tables of an evaluation: each method over patients, one method against each other, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.metrics.resampling import cluster_bootstrap

METRICS = ("dice", "precision", "recall", "hd95_mm", "volume_error_ml", "lesion_recall")


def per_case(rows: Sequence[Mapping[str, Any]], method: str, metric: str) -> dict[str, float]:
    """Return the mean over seeds of a metric for each case; a case without a defined value is left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method and row[metric] is not None:
            values.setdefault(str(row["case"]), []).append(float(row[metric]))
    return {case: float(np.mean(found)) for case, found in values.items()}


def summarise(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return each method over patients: n, mean, sd (n − 1 and population), median, bootstrap interval.

    A patient counts once, by the mean over the seeds. Values that are undefined count for nothing; how many HD95 are
    is told.

    Args:
        rows: Of ``metrics.csv``.
        seed: Of the bootstrap.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        mine = [row for row in rows if row["method"] == method]
        entry: dict[str, Any] = {
            "n": len({row["case"] for row in mine}),
            "seeds": len({r["seed"] for r in mine}),
        }
        for metric in METRICS:
            values = np.array(list(per_case(rows, method, metric).values()))
            n = len(values)
            entry[f"{metric}_mean"] = float(values.mean()) if n else None
            entry[f"{metric}_sd"] = float(values.std(ddof=1)) if n > 1 else None
            entry[f"{metric}_sd_population"] = float(values.std()) if n else None
            entry[f"{metric}_median"] = float(np.median(values)) if n else None
            entry[f"{metric}_ci95"] = _interval(values, seed) if n > 1 else None
        entry["n_hd95_undefined"] = sum(row["hd95_mm"] is None for row in mine)
        windows = [row["windows_share"] for row in mine if row["windows_share"] is not None]
        entry["windows_share"] = float(np.mean(windows)) if windows else None
        found[method] = entry
    return found


def _interval(values: NDArray[np.float64], seed: int) -> list[float]:
    interval = cluster_bootstrap(lambda i: float(values[i].mean()), np.arange(len(values)), rng=seed)
    return [interval.low, interval.high]


def compare(rows: Sequence[Mapping[str, Any]], method: str, seed: int = 0) -> list[dict[str, Any]]:
    """Compare the Dice of one method with that of each other one, paired by patient.

    Args:
        rows: Of ``metrics.csv``.
        method: The one.
        seed: Of the bootstrap.

    Returns:
        A row for each other method: difference of the means over patients, its 95 % bootstrap interval, and the
        two-sided p of Wilcoxon's signed-rank test (null where all differences are 0).
    """
    from scipy.stats import wilcoxon

    mine = per_case(rows, method, "dice")
    found = []
    for other in dict.fromkeys(str(row["method"]) for row in rows if row["method"] != method):
        theirs = per_case(rows, other, "dice")
        cases = [case for case in mine if case in theirs]
        differences = np.array([mine[case] - theirs[case] for case in cases])
        low, high = _interval(differences, seed) if len(cases) > 1 else (None, None)
        p = float(np.asarray(wilcoxon(differences))[1]) if len(cases) > 1 and differences.any() else None
        found.append(
            {
                "method": method,
                "other": other,
                "n": len(cases),
                "difference": float(differences.mean()),
                "low": low,
                "high": high,
                "p_wilcoxon": p,
            }
        )
    return found


def verdict(summary: Mapping[str, Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Say in words what the agent adds to the classifier that scores for it.

    Args:
        summary: From `summarise`.
        comparisons: From `compare`; empty without an agent.
    """
    full = summary["score_map"]["dice_mean"]
    if not comparisons:
        return f"The score map of all windows reaches Dice {full:.3f}; no agent was evaluated."
    dice = summary["agent"]["dice_mean"]
    parts = [
        f"With {summary['agent']['windows_share']:.0%} of the windows the agent reaches Dice {dice:.3f}, "
        + (
            f"{dice / full:.0%} of the score map of all windows ({full:.3f})."
            if full > 0
            else "the score map of all windows 0."
        )
    ]
    for row in comparisons:
        if row["other"] not in ("random_walk", "greedy", "greedy_restarts", "best_first", "untrained_agent"):
            continue
        sure = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
        word = "better than" if row["difference"] > 0 else "worse than"
        word = word if sure else "not told apart from"
        interval = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
        parts.append(f"It is {word} {row['other']} at that budget: {row['difference']:+.3f}{interval}.")
    if dice < full:
        parts.append("It does not beat the score map itself: what it saves is scores, not errors.")
    return " ".join(parts)
