"""Is the time error larger in the "valley" of 13–19 h? Tables by period, and a difference that respects stacks."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from infection_mt.analysis.errors import absolute_errors, faithful_valley_test, period_masks, period_table
from infection_mt.analysis.plots import save_figure
from infection_mt.prediction_table import Predictions
from infection_mt.sample_keys import number_stacks
from infection_mt.studies.error_figures import period_figure
from infection_mt.studies.result_tables import load_pooled
from infection_mt.studies.text_tables import text_table
from medshared.files import write_text
from medshared.metrics.statistics import cluster_bootstrap, paired_permutation_test

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Periods:
    """Borders of the periods in hours of the true time."""

    early: float = 6.0
    mid: tuple[float, float] = (6.0, 13.0)
    valley: tuple[float, float] = (13.0, 19.0)

    def labels(self) -> dict[str, str]:
        """Return the text of every period."""
        (low, high), (first, last) = self.valley, self.mid
        return {
            "inf_early": f"early\n(<{self.early:g} h)",
            "inf_mid": f"mid\n({first:g}–{last:g} h)",
            "inf_valley": f"valley\n({low:g}–{high:g} h)",
            "inf_late": f"late\n(>{high:g} h)",
            "uninf_early": f"early\n(<{low:g} h)",
            "uninf_valley": f"valley\n({low:g}–{high:g} h)",
            "uninf_late": f"late\n(>{high:g} h)",
        }


def valley_difference(predictions: Predictions, periods: Periods) -> dict[str, float]:
    """Return how much larger the errors of infected frames are in the valley than in the period before it.

    Stacks are the units: the interval resamples them, and the p-value flips the sign of the differences of the
    stacks' means. Frames of a stack, and the same stack in several folds, are never taken as independent.

    Args:
        predictions: Outputs and truth, of one run or of several folds together.
        periods: Borders.

    Returns:
        ``difference``, ``low``, ``high`` (95 %), ``p_value``, ``n_stacks``; NaN where a period has no frames.
    """
    masks = period_masks(predictions, periods.early, periods.valley, periods.mid)
    valley, mid, error = masks["inf_valley"], masks["inf_mid"], absolute_errors(predictions)
    stacks = number_stacks(predictions.metadata)
    of_stack = [
        error[valley & (stacks == s)].mean() - error[mid & (stacks == s)].mean()
        for s in np.unique(stacks)
        if (valley & (stacks == s)).any() and (mid & (stacks == s)).any()
    ]
    if not of_stack:
        return {**dict.fromkeys(("difference", "low", "high", "p_value"), float("nan")), "n_stacks": 0}
    differences = np.array(of_stack)
    found = cluster_bootstrap(lambda rows: float(differences[rows].mean()), np.arange(len(differences)))
    p_value = paired_permutation_test(differences) if len(differences) > 1 else float("nan")
    return {
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "p_value": float(p_value),
        "n_stacks": len(differences),
    }


def period_report(predictions: Predictions, periods: Periods, *, faithful: bool = False) -> str:
    """Return tables of all periods and the difference between valley and mid as text.

    Args:
        predictions: Outputs and truth.
        periods: Borders.
        faithful: Also give the original's t test, which takes all frames as independent.
    """
    table = period_table(predictions, early=periods.early, valley=periods.valley, mid=periods.mid)
    labels = {name: text.replace("\n", " ") for name, text in periods.labels().items()}
    parts = [f"Absolute time error by period, {len(predictions)} frames"]
    for prefix, title in (("inf_", "Infected"), ("uninf_", "Uninfected")):
        rows = [
            [labels[name], int(row["n"]), row["mean"], row["median"], row["p95"]]
            for name, row in table.items()
            if name.startswith(prefix)
        ]
        parts.append(f"{title}\n" + text_table(["period", "n", "mean h", "median h", "95th pct. h"], rows))
    parts.append(_difference_text(valley_difference(predictions, periods)))
    if faithful:
        test = faithful_valley_test(predictions, early=periods.early, valley=periods.valley)
        parts.append(
            f"Student's t test over frames (as the original): t {test.statistic:.3f}, p {test.p_value:.4f}"
        )
    return "\n\n".join(parts) + "\n"


def _difference_text(found: Mapping[str, Any]) -> str:
    if not found["n_stacks"]:
        return "Valley minus mid, infected: no stack has frames in both periods"
    return (
        f"Valley minus mid, infected: {found['difference']:+.3f} h, 95 % interval "
        f"[{found['low']:+.3f}, {found['high']:+.3f}] over {found['n_stacks']} stacks, p {found['p_value']:.4f}"
    )


def by_class(arguments: argparse.Namespace) -> int:
    """Write tables and boxes of the periods of one run."""
    return _write(arguments, Periods(), "regression_by_class")


def valley(arguments: argparse.Namespace) -> int:
    """Write tables and boxes of the periods of all folds together."""
    periods = Periods(
        arguments.early_cut,
        (arguments.mid_start, arguments.mid_end),
        (arguments.valley_start, arguments.valley_end),
    )
    return _write(arguments, periods, arguments.output_name)


def _write(arguments: argparse.Namespace, periods: Periods, stem: str) -> int:
    predictions, output = load_pooled(arguments, time=True)
    stem = stem.removesuffix(".txt").removesuffix(".png")
    text = period_report(predictions, periods, faithful=getattr(arguments, "faithful", False))
    logger.info("%s", write_text(output / f"{stem}.txt", text))
    masks = period_masks(predictions, periods.early, periods.valley, periods.mid)
    figure = period_figure(predictions, masks, periods.labels())
    logger.info("%s", save_figure(output / f"{stem}.png", figure))
    return 0
