"""What a prediction run shows: the plate at one glance, a curve for each well, the table of failures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infection_mt.prediction import PredictionReport, PredictionSettings, well_curves
from medshared.files import atomic_open
from medshared.report import Report

INFECTED, UNINFECTED = "#c0392b", "#2c6fbb"


def write_plate_report(output: Path, result: PredictionReport, settings: PredictionSettings) -> None:
    """Write ``plate_map.png``, ``well_curves.png`` and ``report.html`` of a prediction run."""
    report = Report("Predictions on new stacks", subtitle=f"{result.table['stack'].nunique()} stacks")
    for path, reason in result.failed.items():
        report.warning(f"{path} was left out: {reason}")
    report.cards(
        {
            "stacks": str(result.table["stack"].nunique()),
            "frames": str(len(result.table)),
            "wells": str(result.table["well"].nunique()),
            "failed": str(len(result.failed)),
        }
    )
    if len(result.table):
        wells = well_curves(result.table)
        report.section("Plate")
        report.figure(
            save_figure(plate_map(wells), output / "plate_map.png"),
            caption="Mean predicted probability of infection over the last quarter of the recording.",
        )
        report.section("Wells")
        report.figure(
            save_figure(curves_figure(wells), output / "well_curves.png"),
            caption="Mean over positions with one standard deviation.",
        )
        report.table(_last_rows(wells), caption="Last time point of each well.")
    report.config(
        {
            **settings.__dict__,
            "layout": dict(settings.layout),
            "clamp_range": list(settings.clamp_range or []),
        }
    )
    report.write(output / "report.html")


def save_figure(figure: Any, path: Path, dpi: int = 130) -> Path:
    """Write a Matplotlib figure as PNG, atomically."""
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    return path


def well_place(well: str) -> tuple[int, int] | None:
    """Return (row, column), both from 0, of a well such as ``b12``; None for any other name."""
    match = re.fullmatch(r"([a-zA-Z])(\d+)", well)
    return (ord(match[1].lower()) - ord("a"), int(match[2]) - 1) if match else None


def plate_map(wells: pd.DataFrame) -> Any:
    """Draw the plate: one disc a well, coloured by P(infected) over the last quarter of its hours."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    final = wells.groupby("well").apply(_last_quarter, include_groups=False)
    places = {str(well): well_place(str(well)) for well in final.index}
    known = {well: place for well, place in places.items() if place is not None}
    rows = max([3, *(place[0] for place in known.values())]) + 1
    columns = max([5, *(place[1] for place in known.values())]) + 1
    figure = Figure(figsize=(0.9 * columns + 1.6, 0.9 * rows + 0.9))
    axes = figure.add_subplot()
    colours = colormaps["RdYlBu_r"]
    for row in range(rows):
        for column in range(columns):
            axes.add_patch(Circle((column, row), 0.42, facecolor="#f1f1f1", edgecolor="#cccccc"))
    for well, (row, column) in known.items():
        probability, hours = float(final.loc[well, "probability"]), float(final.loc[well, "hours"])
        shade = "#f1f1f1" if np.isnan(probability) else colours(probability)
        axes.add_patch(Circle((column, row), 0.42, facecolor=shade, edgecolor="#444444"))
        dark = np.isnan(probability) or 0.25 < probability < 0.75
        text = "–" if np.isnan(probability) else f"{probability:.2f}"
        label = text if np.isnan(hours) else f"{text}\n{hours:.0f} h"
        axes.text(
            column, row, label, ha="center", va="center", fontsize=8, color="#222222" if dark else "white"
        )
    axes.set_xticks(range(columns), [str(i + 1) for i in range(columns)])
    axes.set_yticks(range(rows), [chr(ord("A") + i) for i in range(rows)])
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("P(infected) and predicted hours, last quarter of the recording", fontsize=10)
    return figure


def curves_figure(wells: pd.DataFrame) -> Any:
    """Draw P(infected) and predicted hours over time, one line a well."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = colormaps["tab20"]
    for i, (well, rows) in enumerate(wells.groupby("well", sort=True)):
        hours = rows["hours_since_start"].to_numpy()
        name = f"{well or 'unknown'} {rows['condition'].iloc[0]}".strip()
        for axes, column in ((left, "probability"), (right, "time")):
            mean, spread = rows[f"{column}_mean"].to_numpy(), rows[f"{column}_std"].to_numpy()
            axes.plot(hours, mean, color=colours(i % 20), label=name, linewidth=1.6)
            axes.fill_between(
                hours, mean - spread, mean + spread, color=colours(i % 20), alpha=0.15, linewidth=0
            )
    left.set(xlabel="hours since the first frame", ylabel="P(infected)", ylim=(-0.03, 1.03))
    right.set(xlabel="hours since the first frame", ylabel="predicted hours")
    left.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _last_quarter(rows: pd.DataFrame) -> pd.Series:
    late = rows[rows["hours_since_start"] >= 0.75 * rows["hours_since_start"].max()]
    return pd.Series(
        {"probability": late["probability_mean"].mean(), "hours": rows["time_mean"].iloc[-1]}, dtype=float
    )


def _last_rows(wells: pd.DataFrame) -> pd.DataFrame:
    last = wells.sort_values("hours_since_start").groupby("well", as_index=False).tail(1).sort_values("well")
    return last.round({"probability_mean": 3, "probability_std": 3, "time_mean": 2, "time_std": 2})
