"""``validate_on_run2.py``: an ensemble of folds on a whole plate whose wells have known conditions."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from infection_mt.analysis.plots import GRAY, UNINFECTED, save_figure, style_axes
from infection_mt.plate_report import write_plate_report
from infection_mt.prediction import (
    PredictionSettings,
    find_stacks,
    load_ensemble,
    parse_layout,
    plate_summary,
    predict_stacks,
    well_curves,
)
from infection_mt.studies.panels import COLORS, bar_panel, panel_grid
from infection_mt.studies.run_folders import find_checkpoints
from medshared.files import write_json
from medshared.gpu import select_device

logger = logging.getLogger(__name__)
Table = Any  # a pandas DataFrame; what pandas says of the types of its selections is too wide to help
MOCK = "mock"
PHASES = ((0.0, 6.0), (6.0, 12.0), (12.0, 24.0), (24.0, float("inf")))  # (a, b], the first with its start
ACCURACY_WINDOWS = ((0.0, 6.0), (6.0, 12.0), (12.0, 24.0), (24.0, 46.0))  # closed


def validate(arguments: argparse.Namespace) -> int:
    """Predict a plate, write ``run2_predictions.json``, and compare the conditions; 1 when a stack failed."""
    layout = parse_layout(arguments.plate_layout)
    weights = [fold.path for fold in find_checkpoints(arguments.model_dir)]
    ensemble = load_ensemble(weights, select_device(arguments.device))
    settings = PredictionSettings(
        frames_per_hour=arguments.frames_per_hour,
        stride=arguments.stride,
        layout=layout,
        max_positions=arguments.max_positions,
        seed=arguments.seed,
    )
    output = arguments.output_dir
    stacks, shard = find_stacks([arguments.data_dir]), arguments.shard
    result = predict_stacks(stacks, ensemble, output, settings, resume=arguments.resume, shard=shard)
    if shard.count > 1:  # the tables and figures of all are made without a shard
        return 1 if result.failed else 0
    if not len(result.table):
        raise ValueError(f"{arguments.data_dir}: no stack could be predicted; see {output / 'failed.csv'}")
    write_plate_report(output, result, settings)
    wells = well_curves(result.table)
    write_json(output / "run2_predictions.json", plate_summary(wells, len(weights), layout))
    known = wells[wells["condition"] != ""]
    unplaced = sorted(set(wells["well"]) - set(known["well"]))
    if unplaced:
        logger.warning("wells %s are in no condition of --plate-layout", ", ".join(unplaced))
    if len(known):
        accuracy = accuracy_by_window(result.table)
        write_json(output / "run2_accuracy.json", accuracy)
        save_figure(output / "condition_curves.png", condition_curves(known))
        save_figure(output / "phase_bars.png", phase_bars(known))
        save_figure(output / "accuracy_windows.png", accuracy_figure(accuracy))
    save_figure(output / "well_grid.png", well_grid(wells))
    logger.info("%d stacks, %d failed: %s", result.done + result.reused, len(result.failed), output)
    return 1 if result.failed else 0


def conditions_of(wells: Table) -> list[str]:
    """Return the conditions in order of appearance, the mock wells last."""
    return sorted(dict.fromkeys(wells["condition"]), key=lambda name: name == MOCK)


def by_condition(wells: Table) -> Table:
    """Return mean and population deviation over wells for each condition and hour."""
    grouped = wells.groupby(["condition", "hours_since_start"], sort=True)
    curves = grouped.agg(
        n_wells=("well", "nunique"),
        probability_mean=("probability_mean", "mean"),
        probability_std=("probability_mean", lambda v: float(np.std(v))),
        time_mean=("time_mean", "mean"),
        time_std=("time_mean", lambda v: float(np.std(v))),
    )
    return curves.reset_index()


def accuracy_by_window(table: Table) -> list[dict[str, Any]]:
    """Return the share of right decisions of each condition in the original's closed windows of hours."""
    rows = []
    for start, end in ACCURACY_WINDOWS:
        inside = table[(table["hours_since_start"] >= start) & (table["hours_since_start"] <= end)]
        row: dict[str, Any] = {"start": start, "end": end}
        for condition in conditions_of(table[table["condition"] != ""]):
            chosen = inside[(inside["condition"] == condition) & (inside["infected"] >= 0)]
            right = (chosen["infected"] == 1) != (condition == MOCK)
            row[condition] = {"n": len(chosen), "accuracy": float(right.mean()) if len(chosen) else None}
        rows.append(row)
    return rows


def condition_curves(wells: Table) -> Any:
    """Draw P(infected) and predicted hours of each condition, mean and deviation over wells."""
    curves = by_condition(wells)
    figure, panels = panel_grid(2, columns=2, width=6.5)
    colors = condition_colors(wells)
    for axes, column, label in zip(
        panels, ("probability", "time"), ("P(infected)", "Predicted hours"), strict=True
    ):
        for condition in conditions_of(wells):
            rows = curves[curves["condition"] == condition]
            hours, mean = rows["hours_since_start"].to_numpy(), rows[f"{column}_mean"].to_numpy()
            spread, color = rows[f"{column}_std"].to_numpy(), colors[condition]
            n = int(rows["n_wells"].max())
            axes.plot(
                hours, mean, color=color, linewidth=1.8, label=f"{condition} ({n} well{'s' if n > 1 else ''})"
            )
            axes.fill_between(hours, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        style_axes(axes, label, "Hours since the first frame", label)
        axes.legend(frameon=False, fontsize=9)
    panels[0].set_ylim(-0.03, 1.03)
    return figure


def phase_bars(wells: Table) -> Any:
    """Draw the mean P(infected) of each condition in four phases, deviation over wells."""
    colors = condition_colors(wells)
    names = ["≤ 6 h", "6–12 h", "12–24 h", "> 24 h"]
    series = {}
    for condition in conditions_of(wells):
        rows = wells[wells["condition"] == condition]
        means, spreads = [], []
        for i, (low, high) in enumerate(PHASES):
            hours = rows["hours_since_start"]
            inside = rows[((hours >= low) if i == 0 else (hours > low)) & (hours <= high)]
            of_wells = inside.groupby("well")["probability_mean"].mean().to_numpy()
            means.append(of_wells.mean() if of_wells.size else np.nan)
            spreads.append(of_wells.std() if of_wells.size else np.nan)
        series[condition] = (means, spreads)
    figure, [axes] = panel_grid(1, width=9, height=4.8)
    chosen = [colors[name] for name in series]
    bar_panel(axes, names, series, title="P(infected) by phase", y_label="P(infected)", colors=chosen)
    axes.set_ylim(0, 1.3)
    return figure


def accuracy_figure(rows: list[dict[str, Any]]) -> Any:
    """Draw the share of right decisions of each condition in the windows of `accuracy_by_window`."""
    conditions = [name for name in rows[0] if name not in ("start", "end")]
    series = {name: ([row[name]["accuracy"] for row in rows], None) for name in conditions}
    figure, [axes] = panel_grid(1, width=9, height=4.8)
    names = [f"{row['start']:g}–{row['end']:g} h" for row in rows]
    colors = {name: COLORS[1:][i % 5] for i, name in enumerate(c for c in conditions if c != MOCK)}
    bar_panel(axes, names, series, title="Right decisions by phase", y_label="Share of frames", decimals=2,
              colors=[colors.get(name, UNINFECTED) for name in conditions])  # fmt: skip
    axes.set_ylim(0, 1.3)
    return figure


def well_grid(wells: Table) -> Any:
    """Draw P(infected) over time, one panel a well."""
    colors = condition_colors(wells)
    names = sorted(set(wells["well"]))
    figure, panels = panel_grid(len(names), columns=4, width=3.4, height=2.6)
    for axes, well in zip(panels, names, strict=True):
        rows = wells[wells["well"] == well]
        condition = str(rows["condition"].iloc[0])
        hours, mean = rows["hours_since_start"].to_numpy(), rows["probability_mean"].to_numpy()
        spread = rows["probability_std"].to_numpy()
        axes.plot(hours, mean, color=colors[condition], linewidth=1.6)
        axes.fill_between(
            hours, mean - spread, mean + spread, color=colors[condition], alpha=0.2, linewidth=0
        )
        style_axes(axes, f"{well or 'unknown'} {condition}".strip(), "Hours", "P(infected)")
        axes.set_ylim(-0.03, 1.03)
    return figure


def condition_colors(wells: Table) -> Mapping[str, str]:
    """Return a colour for each condition; mock wells are blue as everywhere, unplaced ones gray."""
    others = [name for name in conditions_of(wells) if name not in (MOCK, "")]
    return {MOCK: UNINFECTED, "": GRAY, **{name: COLORS[1:][i % 5] for i, name in enumerate(others)}}
