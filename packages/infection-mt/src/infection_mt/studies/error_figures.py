"""Figures of the time error and of the class: by time, by confidence, by period, by fold, by field of view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.analysis.errors import CLASSES, absolute_errors, decision_confidence, time_bin_table
from infection_mt.analysis.plots import BLUE, GRAY, GREEN, INFECTED, RED, UNINFECTED, style_axes
from infection_mt.prediction_table import Predictions
from infection_mt.studies.panels import bar_panel, box_panel, line_panel, panel_grid
from medshared.metrics.classification import calibration_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOURS = "Hours since the first frame"
ERROR = "Absolute time error (h)"
COLORS = {"All": GRAY, "Uninfected": UNINFECTED, "Infected": INFECTED}
ONE_CLASS = tuple((name, value) for name, value in CLASSES if value is not None)
MIN_IN_BIN = 10


def edges(predictions: Predictions, size: float) -> NDArray[np.float64]:
    """Return the borders of bins of the hours since the first frame, the last one beyond the last frame."""
    last = float(np.nanmax(predictions.hours)) if np.isfinite(predictions.hours).any() else size
    return np.arange(0.0, (np.floor(last / size) + 1.5) * size, size)


def error_by_time(predictions: Predictions, *, size_hours: float = 6.0) -> Figure:
    """Draw mean and median absolute error, and bias, in bins of the recording, for each class."""
    rows = time_bin_table(
        predictions, size_hours=size_hours, end_hour=float(edges(predictions, size_hours)[-1])
    )
    centers = sorted({row["center"] for row in rows})
    figure, panels = panel_grid(3)
    titles = (
        ("mae", "Mean absolute error"),
        ("median_ae", "Median absolute error"),
        ("bias", "Predicted − true"),
    )
    for axes, (column, title) in zip(panels, titles, strict=True):
        for name in ("Uninfected", "Infected"):
            of_class = {row["center"]: row[column] for row in rows if row["class"] == name}
            y = [of_class.get(center, np.nan) for center in centers]
            axes.plot(
                centers, y, color=COLORS[name], marker="o", markersize=4, label=name.lower(), linewidth=1.8
            )
        style_axes(axes, title, HOURS, "Hours")
        axes.axhline(0.0, color=GRAY, linewidth=0.8)
        axes.legend(frameon=False)
    return figure


def error_boxes_by_time(predictions: Predictions, *, size_hours: float = 6.0) -> Figure:
    """Draw the distribution of absolute errors in bins of the recording, one panel a class."""
    figure, panels = panel_grid(2, columns=2, width=7)
    error, borders = absolute_errors(predictions), edges(predictions, size_hours)
    for axes, (name, value) in zip(panels, ONE_CLASS, strict=True):
        groups = {}
        for low, high in pairwise(borders):
            inside = (predictions.hours >= low) & (predictions.hours < high) & (predictions.label == value)
            groups[f"{low:g}–{high:g}"] = error[inside]
        box_panel(axes, groups, title=f"{name} frames", y_label=ERROR, colors=[COLORS[name]] * len(groups))
        axes.set_xlabel(HOURS)
    return figure


def error_by_confidence(predictions: Predictions) -> Figure:
    """Draw the absolute time error against the confidence of the decision, right and wrong decisions apart."""
    p = predictions
    sure, error, right = decision_confidence(p), absolute_errors(p), correct(p)
    figure, [axes] = panel_grid(1, width=8, height=5)
    for name, chosen, color, size in (("right", right, BLUE, 10), ("wrong", ~right, RED, 26)):
        label = f"{name} decision (n = {int(chosen.sum())})"
        axes.scatter(sure[chosen], error[chosen], s=size, color=color, alpha=0.5, linewidths=0, label=label)
    style_axes(axes, "Time error and confidence", "Confidence of the decision", ERROR)
    axes.set_xlim(0.49, 1.01)
    axes.legend(frameon=False)
    return figure


def confidence_diagnostics(predictions: Predictions) -> Figure:
    """Draw how sure the decisions are, and how often they are right at each confidence."""
    p = predictions
    sure, right = decision_confidence(p), correct(p)
    figure, (histogram, curve) = panel_grid(2, columns=2)
    bins = np.linspace(0.5, 1.0, 11)
    histogram.hist([sure[right], sure[~right]], bins=bins.tolist(), color=[BLUE, RED], stacked=True,
                   label=["right", "wrong"])  # fmt: skip
    histogram.set_yscale("log")
    style_axes(histogram, "Confidence of the decisions", "Confidence", "Frames (log scale)")
    histogram.legend(frameon=False)
    table = calibration_table(sure, right.astype(int), 10)
    curve.plot([0.5, 1], [0.5, 1], color=GRAY, linestyle="--", linewidth=1)
    curve.plot(table.mean_probability, table.observed_rate, color=BLUE, marker="o")
    style_axes(curve, "Accuracy at each confidence", "Confidence", "Share of right decisions")
    curve.set_xlim(0.48, 1.02)
    curve.set_ylim(-0.02, 1.05)
    return figure


def error_by_correctness(predictions: Predictions) -> Figure:
    """Draw the absolute time errors of right and wrong decisions."""
    error, right = absolute_errors(predictions), correct(predictions)
    figure, [axes] = panel_grid(1, width=6)
    groups = {"right decision": error[right], "wrong decision": error[~right]}
    box_panel(axes, groups, title="Time error by decision", y_label=ERROR, colors=[BLUE, RED])
    return figure


def period_figure(
    predictions: Predictions, periods: Mapping[str, NDArray[np.bool_]], labels: Mapping[str, str]
) -> Any:
    """Draw the absolute errors in named periods of the true time, one panel a class.

    Args:
        predictions: Outputs and truth.
        periods: Name (``inf_…`` or ``uninf_…``) → mask.
        labels: Name → text.
    """
    error = absolute_errors(predictions)
    figure, panels = panel_grid(2, columns=2, width=6.5)
    for axes, (prefix, title, color) in zip(
        panels,
        (("inf_", "Infected frames", INFECTED), ("uninf_", "Uninfected frames", UNINFECTED)),
        strict=True,
    ):
        groups = {labels[name]: error[mask] for name, mask in periods.items() if name.startswith(prefix)}
        box_panel(axes, groups, title=title, y_label=ERROR, colors=[color] * len(groups))
    return figure


def class_by_time(predictions: Predictions, rows: Sequence[Any]) -> Figure:
    """Draw windowed accuracy, recall, precision, F1 and AUC.

    Args:
        predictions: Only for their number.
        rows: Windows of :func:`infection_mt.windows.window_predictions`.
    """
    figure, [axes] = panel_grid(1, width=9, height=5)
    names = (
        ("auc", "AUC"),
        ("accuracy", "accuracy"),
        ("f1", "F1"),
        ("precision", "precision"),
        ("recall", "recall"),
    )
    series = {label: ([getattr(w, name) for w in rows], None) for name, label in names}
    title = f"Classification over time ({len(predictions)} frames)"
    line_panel(
        axes,
        [w.center for w in rows],
        series,
        title=title,
        x_label="Centre of the window (h)",
        y_label="Score",
        limits=(0.0, 1.0),
    )
    return figure


def residual_over_time(
    predictions: Predictions, *, bin_hours: float = 3.0, by_fold: ArrayLike | None = None
) -> Figure:
    """Draw predicted − true hours over the recording, one panel a class, with mean and standard deviation of bins.

    Args:
        predictions: Outputs and truth.
        bin_hours: Length of a bin.
        by_fold: Fold of every frame ``[N]``: mean and deviation are then those of the folds' means.
    """
    p = predictions
    figure, panels = panel_grid(2, columns=2, width=7)
    residual, borders = p.time - p.time_target, edges(p, bin_hours)
    centers = (borders[:-1] + borders[1:]) / 2
    which = np.digitize(p.hours, borders) - 1
    folds = None if by_fold is None else np.asarray(by_fold)
    for axes, (name, value) in zip(panels, ONE_CLASS, strict=True):
        of_class = p.label == value
        axes.scatter(p.hours[of_class], residual[of_class], s=7, color=COLORS[name], alpha=0.25, linewidths=0)
        means, spreads = [], []
        for i in range(len(centers)):
            chosen = of_class & (which == i)
            values = residual[chosen]
            if folds is not None:
                values = np.array([residual[chosen & (folds == f)].mean() for f in np.unique(folds[chosen])])
            means.append(values.mean() if values.size else np.nan)
            spreads.append(values.std() if values.size else np.nan)
        axes.errorbar(centers, means, spreads, color="black", marker="o", markersize=4, capsize=3, linewidth=1.4,
                      label="mean ± std " + ("of frames" if folds is None else "across folds"))  # fmt: skip
        axes.axhline(0.0, color=GRAY, linewidth=0.8)
        style_axes(axes, f"{name} frames", HOURS, "Predicted − true time (h)")
        axes.legend(frameon=False)
    return figure


def confusion_by_time(predictions: Predictions, *, bin_hours: float = 2.0) -> Figure:
    """Draw the shares of missed infections and of false alarms in bins of the recording."""
    p = predictions
    wrong, borders = ~correct(p), edges(p, bin_hours)
    centers = (borders[:-1] + borders[1:]) / 2
    series = {}
    for name, value in (("false alarms (mock called infected)", 0), ("missed (infected called mock)", 1)):
        rates = []
        for low, high in pairwise(borders):
            inside = (p.hours >= low) & (p.hours < high) & (p.label == value)
            rates.append(float(wrong[inside].mean()) if inside.any() else np.nan)
        series[name] = (rates, None)
    figure, [axes] = panel_grid(1, width=9, height=4.5)
    line_panel(
        axes,
        centers,
        series,
        title="Wrong decisions over time",
        x_label=HOURS,
        y_label="Share of the class",
        colors=(UNINFECTED, INFECTED),
    )
    axes.set_ylim(-0.03, 1.03)
    return figure


def residual_by_bin(predictions: Predictions, *, bin_hours: float = 2.0) -> Figure:
    """Draw mean and spread of predicted − true hours in bins that hold at least ten frames of a class."""
    p = predictions
    residual, borders = p.time - p.time_target, edges(p, bin_hours)
    figure, panels = panel_grid(2, columns=2, width=6.5)
    for axes, (name, value) in zip(panels, ONE_CLASS, strict=True):
        means, spreads, centers = [], [], []
        for low, high in pairwise(borders):
            inside = (p.hours >= low) & (p.hours < high) & (p.label == value)
            if inside.sum() >= MIN_IN_BIN:
                means.append(residual[inside].mean())
                spreads.append(residual[inside].std())
                centers.append((low + high) / 2)
        line_panel(axes, centers, {name: (means, spreads)}, title=f"{name} frames", x_label=HOURS,
                   y_label="Predicted − true time (h)", colors=[COLORS[name]])  # fmt: skip
        axes.axhline(0.0, color=GRAY, linewidth=0.8)
        if not centers:
            text = f"no bin holds {MIN_IN_BIN} frames"
            axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GRAY)
    return figure


def field_boxes(predictions: Predictions, names: Sequence[str], order: Sequence[str]) -> Figure:
    """Draw the absolute time errors of the worst fields of view or stacks, worst first.

    Args:
        predictions: Outputs and truth.
        names: Field of every frame.
        order: Fields that are drawn, in order.
    """
    error, field = absolute_errors(predictions), np.asarray(names)
    figure, [axes] = panel_grid(1, width=max(6.0, 0.45 * len(order) + 2), height=5)
    box_panel(
        axes,
        {name: error[field == name] for name in order},
        title="Time error, worst fields first",
        y_label=ERROR,
    )
    return figure


def field_scatter(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, labelled: int = 5) -> Figure:
    """Draw every field of view: share of wrong decisions against mean time error.

    Args:
        rows: Of :func:`infection_mt.analysis.errors.error_table`, worst first.
        names: Of the rows.
        labelled: How many of the worst are named.
    """
    figure, [axes] = panel_grid(1, width=7, height=5)
    x = [row["mean_abs_time_error"] for row in rows]
    y = [row["cls_error_rate"] for row in rows]
    axes.scatter(x, y, s=28, color=BLUE, alpha=0.7, linewidths=0)
    for name, at, height in list(zip(names, x, y, strict=True))[:labelled]:
        axes.annotate(name, (at, height), xytext=(5, 4), textcoords="offset points", fontsize=8)
    style_axes(
        axes, "Errors of each field of view", "Mean absolute time error (h)", "Share of wrong decisions"
    )
    axes.margins(x=0.15, y=0.1)
    return figure


def fold_bars(metrics: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the test metrics of every fold: scores on the left, time errors on the right.

    Args:
        metrics: Fold → metric → value.
    """
    scores = {"cls_accuracy": "accuracy", "cls_f1": "F1", "cls_auc": "AUC"}
    errors = {"reg_mae": "MAE", "reg_rmse": "RMSE"}
    figure, panels = panel_grid(2, columns=2, width=7)
    for axes, (names, title, unit, digits) in zip(
        panels, ((scores, "Classification", "Score", 3), (errors, "Time", "Hours", 2)), strict=True
    ):
        series = {
            label: ([fold.get(name, np.nan) for fold in metrics.values()], None)
            for name, label in names.items()
        }
        bar_panel(axes, list(metrics), series, title=title, y_label=unit, decimals=digits)
    return figure


def confusion_matrices(folds: Mapping[str, Predictions]) -> Figure:
    """Draw the confusion matrix of every fold, and of all together when there are several."""
    figure, panels = panel_grid(len(folds), width=3.8, height=3.8)
    for axes, (name, p) in zip(panels, folds.items(), strict=True):
        matrix = np.zeros((2, 2), dtype=int)
        np.add.at(matrix, (p.label, (p.probability >= 0.5).astype(int)), 1)
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i in range(2):
            for j in range(2):
                color = "white" if share[i, j] > 0.6 else "black"
                axes.text(j, i, f"{matrix[i, j]}\n{share[i, j]:.1%}", ha="center", va="center", color=color)
        axes.set_xticks([0, 1], ["mock", "infected"])
        axes.set_yticks([0, 1], ["mock", "infected"], rotation=90, va="center")
        style_axes(axes, name, "Decision", "Truth")
        axes.grid(False)
    return figure


def error_histograms(folds: Mapping[str, Predictions]) -> Figure:
    """Draw the distribution of predicted − true hours of every fold, the classes apart."""
    figure, panels = panel_grid(len(folds), width=5)
    every = np.concatenate([p.time - p.time_target for p in folds.values()])
    bins = np.histogram_bin_edges(every[np.isfinite(every)], bins=40).tolist()
    for axes, (name, p) in zip(panels, folds.items(), strict=True):
        residual = p.time - p.time_target
        for label, value in ONE_CLASS:
            chosen = residual[p.label == value]
            text = (
                f"{label.lower()}: {chosen.mean():+.2f} ± {chosen.std():.2f} h"
                if chosen.size
                else label.lower()
            )
            axes.hist(chosen, bins=bins, color=COLORS[label], alpha=0.55, label=text)
        axes.axvline(0.0, color=GRAY, linewidth=0.8)
        style_axes(axes, name, "Predicted − true time (h)", "Frames")
        axes.margins(y=0.25)
        axes.legend(frameon=False, fontsize=9, loc="upper right")
    return figure


def fold_curves(logs: Mapping[str, Any]) -> Figure:
    """Draw the losses and the main validation metrics of every fold over its epochs.

    Args:
        logs: Fold → :class:`infection_mt.analysis.training_log.TrainingLog`.
    """
    panels = {
        "Training loss": ("train_total_loss", "train_loss"),
        "Validation loss": ("val_total_loss", "val_loss", "val_cls_loss"),
        "Validation F1": ("val_cls_f1",), "Validation MAE (h)": ("val_reg_mae",),
    }  # fmt: skip
    figure, axes_of = panel_grid(4, columns=2, width=6.5, height=3.8)
    for axes, (title, names) in zip(axes_of, panels.items(), strict=True):
        for (fold, log), color in zip(
            logs.items(), (BLUE, RED, GREEN, "#E69F00", "#CC79A7") * 9, strict=False
        ):
            values = next((s for name in names if np.isfinite(s := log.series(name)).any()), None)
            if values is not None:
                marker = "o" if len(log.epochs) <= 30 else None
                axes.plot(log.epochs, values, color=color, label=fold, marker=marker, markersize=3.5)
        style_axes(axes, title, "Epoch", "")
        if axes.get_lines():
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GRAY)
    return figure


def correct(predictions: Predictions) -> NDArray[np.bool_]:
    """Return whether each frame was decided rightly at 0.5, [N]."""
    return (predictions.probability >= 0.5) == (predictions.label == 1)
