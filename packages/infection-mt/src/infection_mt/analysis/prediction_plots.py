"""Figures of a run's predictions: predicted against true hours, errors, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infection_mt.analysis.errors import absolute_errors, calibration, linear_fit, time_bin_table
from infection_mt.analysis.plots import BLUE, GRAY, INFECTED, ORANGE, UNINFECTED, new_figure, style_axes
from infection_mt.prediction_table import Predictions
from medshared.metrics.classification import brier_score, expected_calibration_error, roc_curve
from medshared.metrics.regression import regression_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES = (("infected", 1, INFECTED), ("uninfected", 0, UNINFECTED))


def prediction_scatter(predictions: Predictions, *, onset_hour: float | None = None) -> Figure:
    """Draw predicted against true hours for all, infected and uninfected frames.

    Args:
        predictions: Outputs and truth.
        onset_hour: Hour of the infection, drawn as a vertical line.

    Returns:
        Three panels, 18 x 5 inches at 150 dpi.
    """
    p = predictions
    figure = new_figure(18, 5, 150)
    every, *of_class = np.ravel(figure.subplots(1, 3, sharex=True, sharey=True))
    limits = _limits(p)
    for name, value, color in CLASSES:
        _scatter(every, p, p.label == value, color, name)
    _finish_scatter(every, "All frames", p, np.ones(len(p), dtype=bool), limits, onset_hour)
    every.legend(frameon=False, loc="lower right", markerscale=2)
    for axes, (name, value, color) in zip(of_class, CLASSES, strict=True):
        chosen = p.label == value
        _scatter(axes, p, chosen, color, name)
        _finish_scatter(axes, f"{name.capitalize()} frames", p, chosen, limits, onset_hour)
        fit = linear_fit(p.time[chosen], p.time_target[chosen])
        if np.isfinite(fit["slope"]):
            x = np.array(limits)
            label = f"fit: {fit['slope']:.3f}·t {fit['intercept']:+.2f} h"
            axes.plot(x, fit["intercept"] + fit["slope"] * x, color="black", linewidth=1.2, label=label)
            axes.legend(frameon=False, loc="lower right")
    return figure


def _limits(p: Predictions) -> tuple[float, float]:
    values = np.concatenate([p.time, p.time_target])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    margin = max(0.03 * float(np.ptp(values)), 0.5)
    return float(values.min()) - margin, float(values.max()) + margin


def _scatter(axes: Axes, p: Predictions, chosen: NDArray[np.bool_], color: str, label: str) -> None:
    # Rasterised dots stay light in size; many frames overlap, so the dots are faint.
    alpha = 0.6 if chosen.sum() < 500 else 0.3
    axes.scatter(
        p.time_target[chosen], p.time[chosen], s=11, color=color, alpha=alpha, linewidths=0, label=label
    )


def _finish_scatter(
    axes: Axes,
    title: str,
    p: Predictions,
    chosen: NDArray[np.bool_],
    limits: tuple[float, float],
    onset_hour: float | None,
) -> None:
    axes.plot(limits, limits, color=GRAY, linestyle="--", linewidth=1)
    if onset_hour is not None and limits[0] < onset_hour < limits[1]:
        axes.axvline(onset_hour, color=ORANGE, linestyle=":", linewidth=1.5)
        axes.text(onset_hour, limits[1], " onset", color=ORANGE, va="top", fontsize=9)
    metrics = regression_metrics(p.time[chosen], p.time_target[chosen])
    style_axes(axes, title, "True time (h)", "Predicted time (h)")
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    r2 = f"R² {metrics['r2']:.4f}" if np.isfinite(metrics["r2"]) else "R² undefined"
    mae, rmse = f"MAE {metrics['mae']:.3f} h", f"RMSE {metrics['rmse']:.3f} h"
    r = f"r {metrics['pearson']:.4f}" if np.isfinite(metrics["pearson"]) else "r undefined"
    text = f"n = {metrics['n']}\n{mae}\n{rmse}\n{r2}\n{r}" if metrics["n"] else "no frames"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.0}
    axes.text(0.12, 0.93, text, transform=axes.transAxes, va="top", fontsize=9, bbox=box)


def reliability(predictions: Predictions, n_bins: int = 10) -> Figure:
    """Draw the observed rate of infected frames against P(infected), and how many frames each bin holds.

    Args:
        predictions: Outputs and truth.
        n_bins: Equal bins.

    Returns:
        Two panels, 7 x 7 inches at 150 dpi.
    """
    p = predictions
    table = calibration(p, n_bins)
    figure = new_figure(7, 7, 150)
    curve, counts = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    curve.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="perfect")
    curve.plot(table.mean_probability, table.observed_rate, color=BLUE, marker="o", label="model")
    style_axes(curve, "Calibration", "", "Observed rate of infected frames")
    error, brier = (
        expected_calibration_error(p.probability, p.label, n_bins),
        brier_score(p.probability, p.label),
    )
    curve.text(0.03, 0.86, f"expected error {error:.4f}\nBrier score {brier:.4f}", transform=curve.transAxes)
    curve.set_xlim(-0.02, 1.02)
    curve.set_ylim(-0.02, 1.05)
    curve.legend(frameon=False, loc="lower right")
    counts.bar((table.bin_index + 0.5) / n_bins, table.n, 0.9 / n_bins, color=BLUE)
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.8)
    style_axes(counts, "", "P(infected)", "Frames")
    return figure


def roc(predictions: Predictions) -> Figure | None:
    """Draw the receiver operating characteristic.

    Args:
        predictions: Outputs and truth.

    Returns:
        One panel, 6 x 6 inches at 150 dpi; None when only one class is there.
    """
    p = predictions
    if np.unique(p.label).size < 2 or np.isnan(p.logit).any():
        return None
    curve = roc_curve(p.logit, p.label)
    figure = new_figure(6, 6, 150)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    axes.step(curve.false_positive_rate, curve.true_positive_rate, where="post", color=BLUE, linewidth=1.8)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    axes.text(0.55, 0.08, f"AUC {area:.4f}", fontsize=12)
    style_axes(axes, "Receiver operating characteristic", "False positive rate", "True positive rate")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure


def time_error_by_hour(predictions: Predictions, *, bin_hours: float = 3.0) -> Figure:
    """Draw bias and mean absolute time error in bins of the hours since the first frame.

    Args:
        predictions: Outputs and truth.
        bin_hours: Length of a bin.

    Returns:
        Two panels, 12 x 7 inches at 150 dpi.
    """
    p = predictions
    figure = new_figure(12, 7, 150)
    residual, error = figure.subplots(2, 1, sharex=True)
    end = float(np.nanmax(p.hours)) + 1e-6 if np.isfinite(p.hours).any() else bin_hours
    rows = time_bin_table(p, size_hours=bin_hours, end_hour=end)
    for name, value, color in CLASSES:
        chosen = p.label == value
        difference = p.time[chosen] - p.time_target[chosen]
        residual.scatter(p.hours[chosen], difference, s=7, color=color, alpha=0.3, linewidths=0)
        of_class = [row for row in rows if row["class"] == name.capitalize()]
        centers = [row["center"] for row in of_class]
        residual.plot(
            centers, [row["bias"] for row in of_class], color=color, marker="o", label=f"{name} bias"
        )
        error.plot(centers, [row["mae"] for row in of_class], color=color, marker="o", label=f"{name} MAE")
        median = [row["median_ae"] for row in of_class]
        error.plot(centers, median, color=color, linestyle="--", linewidth=1, label=f"{name} median")
    residual.axhline(0.0, color=GRAY, linewidth=0.8)
    style_axes(residual, "Predicted − true time", "", "Hours")
    style_axes(error, "Absolute time error", "Hours since the first frame", "Hours")
    error.set_ylim(bottom=0.0)
    for axes in (residual, error):
        axes.legend(frameon=False, fontsize=9, ncols=2)
    return figure


def error_distribution(predictions: Predictions) -> Figure:
    """Draw the distribution of time errors and the error against the confidence of the decision.

    Args:
        predictions: Outputs and truth.

    Returns:
        Two panels, 13 x 5 inches at 150 dpi.
    """
    p = predictions
    figure = new_figure(13, 5, 150)
    histogram, confidence = figure.subplots(1, 2)
    difference = p.time - p.time_target
    finite = difference[np.isfinite(difference)]
    edges = np.histogram_bin_edges(finite, bins=40) if finite.size else np.array([0.0, 1.0])
    sure = np.where(p.probability >= 0.5, p.probability, 1.0 - p.probability)
    for name, value, color in CLASSES:
        chosen = p.label == value
        histogram.hist(difference[chosen], bins=edges.tolist(), color=color, alpha=0.55, label=name)
        confidence.scatter(
            sure[chosen], absolute_errors(p)[chosen], s=9, color=color, alpha=0.4, linewidths=0, label=name
        )
    histogram.axvline(0.0, color=GRAY, linewidth=0.8)
    style_axes(histogram, "Distribution of the time error", "Predicted − true time (h)", "Frames")
    style_axes(confidence, "Time error and confidence", "Confidence of the class", "Absolute time error (h)")
    confidence.set_xlim(0.49, 1.01)
    for axes in (histogram, confidence):
        axes.legend(frameon=False, markerscale=2)
    return figure


def probability_over_time(predictions: Predictions, *, max_stacks: int = 60) -> Figure:
    """Draw P(infected) and the predicted hour along every stack.

    Args:
        predictions: Outputs and truth.
        max_stacks: Draw at most so many stacks, evenly chosen.

    Returns:
        Two panels, 13 x 5 inches at 150 dpi.
    """
    p = predictions
    figure = new_figure(13, 5, 150)
    probability, time = figure.subplots(1, 2, sharex=True)
    for stack in _spread(np.unique(p.stack_index).tolist(), max_stacks):
        rows = np.nonzero(p.stack_index == stack)[0]
        rows = rows[np.argsort(p.hours[rows], kind="stable")]
        color = INFECTED if p.label[rows[0]] == 1 else UNINFECTED
        probability.plot(p.hours[rows], p.probability[rows], color=color, alpha=0.5, linewidth=1)
        time.plot(p.hours[rows], p.time[rows], color=color, alpha=0.5, linewidth=1)
    for axes in (probability, time):
        for name, _, color in CLASSES:
            axes.plot([], [], color=color, label=f"{name} stacks")
        axes.legend(frameon=False)
    style_axes(probability, "P(infected) along each stack", "Hours since the first frame", "P(infected)")
    style_axes(time, "Predicted time along each stack", "Hours since the first frame", "Predicted hours")
    probability.set_ylim(-0.03, 1.03)
    return figure


def _spread(values: Sequence[int], n: int) -> list[int]:
    if len(values) <= n:
        return list(values)
    return [values[int(i)] for i in np.linspace(0, len(values) - 1, n)]
