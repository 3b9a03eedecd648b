"""The page that ``infection-mt prepare`` writes, and its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infection_mt.config import Config
from infection_mt.data.stacks import Stack
from medshared.files import atomic_open
from medshared.report import Report

_MOST_PIXELS = 240  # most pixels of a frame's side on the sheet


def contact_sheet(shown: Sequence[tuple[Stack, list[NDArray[np.uint8]]]], path: Path) -> Path:
    """Draw the first, middle and last frame of some stacks, as the network sees them: a class a block of rows.

    Args:
        shown: Stack and its three frames [C, S, S].
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    rows = sorted(shown, key=lambda item: -item[0].label)
    figure = Figure(figsize=(7.2, 2.35 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for line, (stack, frames) in zip(panels, rows, strict=True):
        numbers = (0, stack.n_frames // 2, stack.n_frames - 1)
        for axes, frame, number, name in zip(line, frames, numbers, ("first", "middle", "last"), strict=True):
            image = frame[0] if len(frame) == 1 else np.moveaxis(frame, 0, 2)
            step = max(1, image.shape[0] // _MOST_PIXELS)
            axes.imshow(image[::step, ::step], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{name}, page {number}", fontsize=8)
        where = stack.key if stack.well else stack.path.stem[-24:]
        line[0].set_ylabel(f"{stack.condition}\n{where}", fontsize=9)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=130)
    return path


def write_audit_report(
    output: Path,
    config: Config,
    problems: Sequence[str],
    warnings: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    sheet: Path | None,
    duplicates: pd.DataFrame | None,
) -> None:
    """Write ``report.html``.

    Args:
        output: Folder.
        config: Of the run to come.
        problems: What would stop it.
        warnings: What limits its results.
        tables: ``bad``, ``stacks``, ``overlaps`` and ``drift``.
        sheet: Contact sheet.
        duplicates: Stacks that look alike, when they were looked for.
    """
    bad, stacks, overlaps = tables["bad"], tables["stacks"], tables["overlaps"]
    whole = len([page for page in bad["page"] if page is None])
    verdict = "a run would stop" if problems else "ready to train"
    report = Report("Data check", subtitle=f"{config.experiment_name} · {verdict}")
    for text in (*problems, *warnings):
        report.warning(text)
    report.cards(
        {
            "stacks": len(stacks),
            "frames": sum(stacks["n_frames"]) if len(stacks) else 0,
            "wells": stacks["well"].nunique() if len(stacks) else 0,
            "bad stacks": whole,
            "bad pages": len(bad) - whole,
            "overlapping pairs": "not checked" if config.split.overlap == "off" else len(overlaps),
        }
    )
    if len(bad):
        report.section("What cannot be used")
        report.table(_short_names(bad), "Stacks (no page number) and single pages.")
    if sheet is not None:
        report.section("Frames")
        report.figure(sheet, "First, middle and last frame of some stacks, as the network sees them.")
    report.section("Stacks")
    if len(stacks):
        report.table(_by_class(stacks), "Stacks and frames of each class and well.")
        report.table(_short_names(stacks), "All stacks.")
    report.section("Overlapping neighbours")
    if config.split.overlap == "off":
        report.text("Not checked: split.overlap is off.")
    elif len(overlaps):
        report.table(_short_names(overlaps), "Pairs that share cells; shifts in pixels of the page.")
    else:
        report.text("No pair of stacks of one well shows the same cells.")
    if duplicates is not None:
        report.section("Stacks that look alike")
        if len(duplicates):
            report.table(duplicates, "Perceptual hash of the first frames.")
        else:
            report.text("None: the perceptual hashes of all first frames differ.")
    _illumination(report, tables["drift"])
    report.config(config.model_dump(mode="json"))
    report.write(output / "report.html")


def _illumination(report: Report, drift: pd.DataFrame) -> None:
    if drift.empty:
        return
    report.section("Brightness and illumination")
    grouped = drift.groupby(["label", "well", "page"], sort=True)
    columns = ("mean", "gradient_x", "gradient_y")
    wells = grouped.agg(**{name: (name, "mean") for name in columns}).reset_index()
    report.table(
        wells,
        "Mean over the stacks of a well. The mean is in gray values as stored; gradients are the change across "
        "the page as a share of the mean.",
    )


def _by_class(stacks: pd.DataFrame) -> pd.DataFrame:
    grouped = stacks.groupby(["condition", "label", "plate", "well"], sort=True)
    return grouped.agg(stacks=("path", "size"), frames=("n_frames", "sum")).reset_index()


def _short_names(table: pd.DataFrame) -> pd.DataFrame:
    names = [column for column in ("path", "a", "b") if column in table]
    return table.assign(**{column: table[column].map(lambda path: Path(path).name) for column in names})
