"""Figures of a run's epochs and windows; matplotlib's objects only, so that figures share no state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infection_mt.analysis.training_log import TrainingLog
from infection_mt.window_rules import WindowMetrics
from medshared.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#555555"
INFECTED, UNINFECTED = RED, BLUE
LINE_WIDTH = 1.8


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """Return an empty figure.

    Args:
        width: Inches.
        height: Inches.
        dpi: Pixels per inch when saved.

    Returns:
        A figure that belongs to no window and no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Padding in inches; titles and end labels stay clear of the border.
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(path: Path | str, figure: Figure) -> Path:
    """Write a figure as PNG, atomically.

    Args:
        path: Target.
        figure: What to write, at its own resolution.

    Returns:
        The path.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return write_bytes(path, buffer.getvalue())


def style_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Give axes their texts, a light grid and no box.

    Args:
        axes: What to style.
        title: Above the panel.
        x: Below it.
        y: Left of it.
    """
    axes.set_title(title, fontsize=12, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_series(axes: Axes, epochs: Sequence[int], values: np.ndarray, label: str, color: str) -> bool:
    """Draw one series; gaps stay gaps, and a single epoch shows as a point."""
    if not np.isfinite(values).any():
        return False
    marker = "o" if len(epochs) <= 30 else None
    axes.plot(epochs, values, color=color, label=label, marker=marker, markersize=3.5, linewidth=LINE_WIDTH)
    return True


def _finish_epochs(axes: Axes, drawn: bool, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    if drawn and len(axes.get_lines()) > 1:
        axes.legend(frameon=False, fontsize=9)
    elif not drawn:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GRAY)


def training_curves(log: TrainingLog) -> Figure:
    """Draw training and validation of the total, classification and regression loss.

    Args:
        log: The epochs.

    Returns:
        Three panels, 18 x 5 inches at 200 dpi.
    """
    figure = new_figure(18, 5, 200)
    panels = (("Total loss", ("total_loss", "loss")), ("Classification loss", ("cls_loss",)))
    panels += (("Regression loss", ("reg_loss",)),)
    for axes, (title, names) in zip(np.ravel(figure.subplots(1, 3)), panels, strict=True):
        drawn = False
        for label, split, color in (("Training", "train", BLUE), ("Validation", "val", ORANGE)):
            for name in names:
                drawn |= _draw_series(axes, log.epochs, log.series(f"{split}_{name}"), label, color)
        style_axes(axes, title, "Epoch", "Loss")
        _use_log_scale(axes, log, names)
        _finish_epochs(axes, drawn, log.epochs)
    return figure


def _use_log_scale(axes: Axes, log: TrainingLog, names: Sequence[str]) -> None:
    """A first epoch far above the rest would hide the rest on a linear axis."""
    values = np.concatenate([log.series(f"{split}_{name}") for split in ("train", "val") for name in names])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 20 * np.median(values):
        axes.set_yscale("log")


def validation_metrics(log: TrainingLog) -> Figure | None:
    """Draw the validation metrics of every epoch.

    Args:
        log: The epochs.

    Returns:
        Six panels, 15 x 10 inches at 150 dpi; None when no validation metric was logged.
    """
    if not any(row for row in log.validation.values()):
        return None
    r2 = "reg_r2" if np.isfinite(log.series("val_reg_r2")).any() else "combined"
    panels = (
        ("Classification", "Score", (("cls_accuracy", "accuracy"), ("cls_precision", "precision"))),
        ("Area under the ROC curve", "AUC", (("cls_auc", "auc"),)),
        ("Time error", "Hours", (("reg_mae", "MAE"), ("reg_rmse", "RMSE"))),
        (
            "Losses",
            "Loss",
            (("total_loss", "total"), ("cls_loss", "classification"), ("reg_loss", "regression")),
        ),
        (
            ("R² of the time", "R²", ((r2, "R²"),))
            if r2 == "reg_r2"
            else ("Combined score", "0.6·F1 + 0.4·time", ((r2, "combined"),))
        ),
        ("Squared time error", "Hours²", (("reg_mse", "MSE"),)),
    )
    figure = new_figure(15, 10, 150)
    colors = (BLUE, ORANGE, GREEN, PURPLE)
    for index, (axes, (title, unit, series)) in enumerate(
        zip(np.ravel(figure.subplots(2, 3)), panels, strict=True)
    ):
        if index == 0:
            series = (*series, ("cls_recall", "recall"), ("cls_f1", "F1"))
        drawn = False
        for (name, label), color in zip(series, colors, strict=False):
            drawn |= _draw_series(axes, log.epochs, log.series(f"val_{name}"), label, color)
        style_axes(axes, title, "Epoch", unit)
        if unit in ("Loss", "Hours", "Hours²"):
            _use_log_scale(axes, log, [name for name, _ in series])
        _finish_epochs(axes, drawn, log.epochs)
    return figure


def temporal_generalization(
    windows: Sequence[WindowMetrics],
    *,
    title: str = "Performance over time",
    reliable_from: float | None = None,
) -> Figure:
    """Draw windowed metrics with their intervals, the time error, and the frames behind them.

    Args:
        windows: In order of time.
        title: Above the figure.
        reliable_from: Hour to mark.

    Returns:
        Three panels, 12 x 9 inches at 150 dpi.
    """
    figure = new_figure(12, 9, 150)
    scores, error, counts = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 1]})
    centers = [window.center for window in windows]
    metrics = (("auc", "AUC", BLUE), ("accuracy", "accuracy", GREEN), ("f1", "F1", ORANGE))
    for name, label, color in (("precision", "precision", PURPLE), ("recall", "recall", RED)):
        _draw_window_metric(scores, windows, name, label, color, linestyle="--")
    for name, label, color in metrics:
        _draw_window_metric(scores, windows, name, label, color)
    if reliable_from is not None:
        scores.axvline(reliable_from, color=GRAY, linestyle=":", label=f"AUC ≥ 0.99 from {reliable_from:g} h")
    style_axes(scores, title, "", "Score")
    scores.legend(frameon=False, ncols=3, fontsize=9, loc="lower right")
    _draw_window_metric(error, windows, "mae", "MAE", BLUE)
    _draw_window_metric(error, windows, "bias", "bias", ORANGE)
    style_axes(error, "Time error", "", "Hours")
    error.axhline(0.0, color=GRAY, linewidth=0.8)
    if error.get_legend_handles_labels()[0]:
        error.legend(frameon=False, fontsize=9)
    else:
        error.text(0.5, 0.5, "no time output", transform=error.transAxes, ha="center", color=GRAY)
    width = 0.35 * (centers[1] - centers[0]) if len(centers) > 1 else 1.0
    for offset, color, field, label in (
        (-width / 2, UNINFECTED, "n_uninfected", "uninfected"),
        (width / 2, INFECTED, "n_infected", "infected"),
    ):
        counts.bar(
            [c + offset for c in centers],
            [getattr(w, field) for w in windows],
            width,
            color=color,
            label=label,
        )
    style_axes(counts, "Frames", "Centre of the window (hours since the first frame)", "Number")
    counts.set_ylim(0, 1.5 * max([1, *(max(w.n_infected, w.n_uninfected) for w in windows)]))
    counts.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
    return figure


def _draw_window_metric(
    axes: Axes, windows: Sequence[WindowMetrics], name: str, label: str, color: str, linestyle: str = "-"
) -> None:
    values = np.array([getattr(window, name) for window in windows], dtype=np.float64)
    if not np.isfinite(values).any():
        return
    centers = [window.center for window in windows]
    axes.plot(
        centers,
        values,
        color=color,
        marker="o",
        markersize=4,
        label=label,
        linestyle=linestyle,
        linewidth=LINE_WIDTH,
    )
    found = [window.intervals.get(name) for window in windows]
    bounds: list[Any] = [(np.nan, np.nan) if i is None else (i.low, i.high) for i in found]
    low, high = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
    if np.isfinite(low).any():
        axes.fill_between(centers, low, high, color=color, alpha=0.15, linewidth=0)


def window_overlay(
    models: Mapping[str, Sequence[WindowMetrics]], metrics: Sequence[str] = ("auc", "f1")
) -> Figure:
    """Draw the windowed metrics of several models over each other.

    Args:
        models: Name → windows.
        metrics: Fields of `WindowMetrics`, one panel each.

    Returns:
        One row of panels, 6 x 5 inches each at 150 dpi.
    """
    figure = new_figure(6.5 * len(metrics), 5, 150)
    panels = np.ravel(figure.subplots(1, len(metrics), squeeze=False))
    for axes, metric in zip(panels, metrics, strict=True):
        for (name, windows), color in zip(
            models.items(), (BLUE, ORANGE, GREEN, PURPLE, RED, GRAY), strict=False
        ):
            _draw_window_metric(axes, windows, metric, name, color)
        style_axes(axes, metric.upper(), "Centre of the window (h)", metric)
        axes.legend(frameon=False)
    return figure
