"""``TIL_prediction/evaluate.py``: a table of TIL scores against the visual ones, with intervals and pictures."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medshared.files import write_json
from medshared.metrics.resampling import cluster_bootstrap_many
from medshared.tables import Column, read_table, write_table
from til_mtl.agreement import Calibration, agreement, bland_altman, calibrate
from til_mtl.data.tiger import read_til_scores
from til_mtl.errors import DataError
from til_mtl.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

FEWEST_SLIDES = 3


@dataclass(frozen=True)
class ScoreEvaluation:
    """What to compare and how.

    Attributes:
        predictions: ``til_scores.csv``.
        truth: CSV ``image-id,tils-score`` or XML.
        survival: CSV ``image-id,time,event``; null without one.
        calibrate: Map onto the visual scale, fitted in cross-validation.
        folds: Of the calibration.
        resamples: Bootstrap resamples of the slides.
        seed: Of folds and bootstrap.
        output: Folder.
    """

    predictions: Path
    truth: Path
    output: Path
    survival: Path | None = None
    calibrate: Calibration = "none"
    folds: int = 5
    resamples: int = 1000
    seed: int = 0


def evaluate_scores(evaluation: ScoreEvaluation) -> dict[str, Any]:
    """Write ``metrics.json``, ``scatter.png``, ``bland_altman.png`` and ``predictions.csv``.

    Args:
        evaluation: What to compare.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        DataError: The tables share fewer than three slides with a score.
        medshared.tables.TableError: A table cannot be read.
    """
    table, left_out = join_scores(evaluation.predictions, evaluation.truth)
    truth = table["truth"].to_numpy()
    raw = table["tils-score"].to_numpy()
    estimate = calibrate(raw, truth, evaluation.calibrate, evaluation.folds, evaluation.seed)
    table = table.assign(calibrated=estimate)
    content: dict[str, Any] = {
        "n": len(table),
        "left_out": left_out,
        "calibration": evaluation.calibrate,
        "agreement": _with_intervals(estimate, truth, evaluation),
        "baseline": {"median_mae": float(np.abs(truth - np.median(truth)).mean())},
    }
    if evaluation.calibrate != "none":
        content["agreement_uncalibrated"] = _with_intervals(raw, truth, evaluation)
    if evaluation.survival is not None:
        content["survival"] = harrell(evaluation.predictions, evaluation.survival)
    evaluation.output.mkdir(parents=True, exist_ok=True)
    for name, figure in (("scatter", draw_scatter), ("bland_altman", draw_bland_altman)):
        save_figure(evaluation.output / f"{name}.png", figure(estimate, truth))
    write_table(evaluation.output / "predictions.csv", table)
    write_json(evaluation.output / "metrics.json", content)
    shown = ("spearman_rho", "pearson_r", "mae", "ccc")
    logger.info(
        "%d slides: %s",
        len(table),
        ", ".join(f"{k} {content['agreement'][k]['estimate']:.3f}" for k in shown),
    )
    return content


def read_predicted_scores(path: Path) -> pd.DataFrame:
    """Read ``til_scores.csv``: columns ``image-id`` and ``tils-score``, empty where a slide has none."""
    columns = [Column("image-id", unique=True), Column("tils-score", "float", required=False)]
    frame = read_table(path, columns)
    if "tils-score" not in frame:
        raise DataError(f"{path}: no column tils-score; give the til_scores.csv that predict.py wrote")
    return frame.filter(["image-id", "tils-score"])


def join_scores(predictions: Path, truth: Path) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Put predicted and visual scores side by side.

    Args:
        predictions: ``til_scores.csv``.
        truth: CSV or XML.

    Returns:
        Columns ``image-id``, ``tils-score``, ``truth``; and the slides left out, by reason.

    Raises:
        DataError: Fewer than three slides are left.
    """
    frame = read_predicted_scores(predictions)
    visual = read_til_scores(truth)
    unscored = frame.loc[frame["tils-score"].isna(), "image-id"].tolist()
    known = frame.dropna(subset="tils-score")
    absent = sorted(set(visual) - set(frame["image-id"]))
    unknown = [name for name in known["image-id"] if name not in visual]
    joined = known[known["image-id"].isin(visual)].reset_index(drop=True)
    joined = joined.assign(truth=[float(visual[name]) for name in joined["image-id"]])
    left_out = {"without_score": unscored, "not_predicted": absent, "without_truth": unknown}
    for reason, names in left_out.items():
        if names:
            logger.warning(
                "%d slides left out, %s: %s", len(names), reason.replace("_", " "), ", ".join(names[:5])
            )
    if len(joined) < FEWEST_SLIDES:
        raise DataError(
            f"{predictions} and {truth} share {len(joined)} slides with a score, at least {FEWEST_SLIDES} are needed; "
            f"ids must be alike (predicted: {', '.join(known['image-id'][:2]) or 'none'}; "
            f"visual: {', '.join(list(visual)[:2])})"
        )
    return joined, left_out


def _with_intervals(estimate: np.ndarray, truth: np.ndarray, evaluation: ScoreEvaluation) -> dict[str, Any]:
    """Return each statistic with its 95 % interval over slides."""
    found = cluster_bootstrap_many(
        lambda rows: agreement(estimate[rows], truth[rows]),
        np.arange(len(truth)),
        evaluation.resamples,
        rng=evaluation.seed,
    )
    return {
        name: {"estimate": value.estimate, "low": value.low, "high": value.high}
        for name, value in found.items()
        if name != "n"
    }


def harrell(predictions: Path, survival: Path) -> dict[str, Any]:
    """Return Harrell's C of the risk −score.

    Args:
        predictions: ``til_scores.csv``.
        survival: CSV ``image-id,time,event`` (months, 0/1).

    Returns:
        ``c_index`` (NaN without an event), ``n``, ``n_events``.

    Raises:
        DataError: No slide is in both tables.
    """
    from medshared.metrics.survival import concordance_index

    columns = [Column("image-id", unique=True), Column("time", "float", minimum=0)]
    columns.append(Column("event", "int", minimum=0, maximum=1))
    table = read_table(survival, columns)
    scores = read_predicted_scores(predictions).dropna()
    joined = scores.merge(table, on="image-id")
    if joined.empty:
        raise DataError(
            f"{survival}: no slide of {predictions} is in it; the column image-id must hold the same ids"
        )
    event = joined["event"].to_numpy().astype(bool)
    value = math.nan
    if event.any():
        value = concordance_index(-joined["tils-score"].to_numpy(), event, joined["time"].to_numpy())
    return {"c_index": value, "n": len(joined), "n_events": int(event.sum())}


def _axes() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained", dpi=120)
    return figure, figure.subplots()


def draw_scatter(estimate: np.ndarray, truth: np.ndarray) -> Figure:
    """Draw predicted against visual scores, with the line of equality."""
    figure, axes = _axes()
    top = max(100.0, float(estimate.max()), float(truth.max()))
    axes.plot([0, top], [0, top], color="0.6", linewidth=1, label="equality")
    axes.scatter(truth, estimate, s=22, alpha=0.75, color="#33658a", label=f"{len(truth)} slides")
    axes.set(xlabel="visual TIL score (%)", ylabel="predicted TIL score (%)", xlim=(0, top), ylim=(0, top))
    axes.set_aspect("equal")
    axes.legend(frameon=False)
    return figure


def draw_bland_altman(estimate: np.ndarray, truth: np.ndarray) -> Figure:
    """Draw differences against means, with bias and limits of agreement."""
    figure, axes = _axes()
    limits = bland_altman(estimate, truth)
    axes.scatter((estimate + truth) / 2, estimate - truth, s=22, alpha=0.75, color="#33658a")
    for value, style, name in (
        (limits.bias, "-", "bias"),
        (limits.low, "--", "−1.96 s.d."),
        (limits.high, "--", "+1.96 s.d."),
    ):
        if not math.isnan(value):
            axes.axhline(value, color="#b3541e", linestyle=style, linewidth=1)
            axes.annotate(
                f"{name} {value:.1f}",
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
            )
    axes.set(xlabel="mean of predicted and visual score (%)", ylabel="predicted − visual (points)")
    return figure
