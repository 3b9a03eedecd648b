"""Pictures of runs: learning curves, predicted against observed time, survival by risk, calibration, curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advmil.curves import predicted_survival
from advmil.evaluation import Evaluation, risk_groups
from advmil.predictions import Predictions
from medshared.files import write_bytes
from medshared.metrics.survival_curves import kaplan_meier, log_rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
GREY = "#888888"


def _figure(width: float = 5.5, height: float = 4.0) -> tuple[Figure, Any]:
    """Return a figure that belongs to no window and needs no closing, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_history(rows: Sequence[Mapping[str, Any]], loss: str, best_epoch: int) -> Figure:
    """Draw the monitored loss and the C-index of each epoch, with the chosen epoch marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, metric, title in zip(
        figure.subplots(1, 2), (loss, "c_index"), ("loss", "C-index"), strict=True
    ):
        for colour, name in zip(COLOURS, ("train", "validation", "test"), strict=False):
            # Semi-supervised runs have names of their own for what an epoch trained on.
            names = [f"{name}/{metric}"] if name != "train" else _training_keys(rows, metric)
            points = [
                (row["epoch"], row[key])
                for row in rows
                for key in names
                if isinstance(row.get(key), (int, float))
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=name)
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"chosen: epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel=title)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _training_keys(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Return the columns of a metric of the training set: train, labeled_train, fold0_mixed_train, …."""
    keys = dict.fromkeys(key for row in rows for key in row if key.endswith(f"train/{metric}"))
    return list(keys)


def draw_histogram(predictions: Predictions, bins: int = 20) -> Figure:
    """Draw the distribution of predicted times over that of the observed ones, events and censored apart."""
    figure, axes = _figure()
    t, event = predictions.t.astype(np.float64), predictions.e == 1
    values = {"predicted": predictions.point.astype(np.float64), "event": t[event], "censored": t[~event]}
    finite = {name: x[np.isfinite(x)] for name, x in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(finite.values())), bins)
    for (name, x), colour in zip(finite.items(), COLOURS, strict=False):
        axes.hist(x, edges, histtype="step", color=colour, label=f"{name} (n = {len(x)})")
    axes.set(xlabel="time in the unit of time_format", ylabel="patients")
    axes.legend(frameon=False, fontsize=8)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return write_bytes(path, buffer.getvalue())


def draw_scatter(predictions: Predictions, level: float = 0.9) -> Figure:
    """Draw predicted against observed days with each patient's interval; censored patients as open circles."""
    figure, axes = _figure()
    point, event = predictions.point_days, predictions.e == 1
    if point is None:
        raise ValueError(f"a {predictions.kind} model predicts no time")
    if predictions.samples_days is not None:
        low, high = np.quantile(predictions.samples_days, [(1 - level) / 2, (1 + level) / 2], axis=1)
        axes.vlines(predictions.days, low, high, color="#cccccc", linewidth=1, zorder=1)
    axes.scatter(predictions.days[event], point[event], s=14, color=COLOURS[0], label="event", zorder=2)
    axes.scatter(
        predictions.days[~event],
        point[~event],
        s=16,
        facecolors="none",
        edgecolors=COLOURS[1],
        label="censored",
        zorder=2,
    )
    limit = float(max(predictions.days.max(), point.max())) * 1.05
    axes.plot([0, limit], [0, limit], color=GREY, linewidth=0.8)
    axes.set(xlabel="observed time (days)", ylabel="predicted time (days)", xlim=(0, limit), ylim=(0, limit))
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_risk_groups(predictions: Predictions, n_groups: int = 2) -> Figure:
    """Draw Kaplan–Meier curves of equal groups by predicted risk, with the log-rank test."""
    figure, axes = _figure()
    groups = risk_groups(predictions.risk, n_groups)
    names = (
        ("lower risk", "higher risk") if n_groups == 2 else tuple(f"group {k + 1}" for k in range(n_groups))
    )
    for k, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        chosen = groups == k
        if not chosen.any():
            continue
        curve = kaplan_meier(predictions.e[chosen], predictions.days[chosen])
        times = np.concatenate([[0.0], curve.time])
        axes.step(
            times,
            np.concatenate([[1.0], curve.survival]),
            where="post",
            color=colour,
            label=f"{name} (n = {chosen.sum()})",
        )
        axes.fill_between(
            times,
            np.concatenate([[1.0], curve.low]),
            np.concatenate([[1.0], curve.high]),
            step="post",
            color=colour,
            alpha=0.12,
            linewidth=0,
        )
    test = log_rank(predictions.e, predictions.days, groups)
    axes.set(xlabel="days", ylabel="survival", ylim=(0, 1.02), title=f"log-rank {_p_text(test.p_value)}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _p_text(p: float) -> str:
    if np.isnan(p):
        return "undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def draw_curves(
    predictions: Predictions, grid: ArrayLike, *, train: Predictions | None = None, n: int = 6
) -> Figure:
    """Draw predicted survival curves of some patients, evenly spread over the risk, with their observed time."""
    figure, axes = _figure()
    survival = predicted_survival(predictions, grid, train)
    if survival is None:
        raise ValueError("a log-risk needs the training predictions for curves")
    order = np.argsort(predictions.risk)
    chosen = order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(int)]
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 0.9, len(chosen)))
    for row, shade in zip(chosen.tolist(), shades, strict=True):
        axes.plot(np.asarray(grid), survival[row], color=shade, label=predictions.patients[row])
        axes.plot(
            predictions.days[row],
            np.interp(predictions.days[row], np.asarray(grid), survival[row]),
            marker="o" if predictions.e[row] else "|",
            color=shade,
        )
    axes.set(xlabel="days", ylabel="predicted survival", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=7, title="● event   | censored", title_fontsize=7)
    return figure


def draw_brier(evaluation: Evaluation) -> Figure:
    """Draw the Brier score over time against the Kaplan–Meier curve of the training patients."""
    figure, axes = _figure()
    axes.plot(evaluation.grid, evaluation.brier, color=COLOURS[0], label="model")
    axes.plot(
        evaluation.grid,
        evaluation.km_brier,
        color=GREY,
        linestyle="--",
        label="Kaplan–Meier of the training set",
    )
    axes.set(xlabel="days", ylabel="Brier score")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_calibration(histogram: NDArray[np.float64], p_value: float) -> Figure:
    """Draw the D-calibration histogram: bars of equal height are calibrated."""
    figure, axes = _figure()
    share = np.asarray(histogram) / max(float(np.sum(histogram)), 1e-12)
    n = len(share)
    axes.bar((np.arange(n) + 0.5) / n, share, width=0.9 / n, color=COLOURS[0])
    axes.axhline(1 / n, color=GREY, linestyle="--")
    axes.set(
        xlabel="predicted survival at the patient's own time",
        ylabel="share of patients",
        title=f"D-calibration {_p_text(p_value)}",
    )
    return figure
