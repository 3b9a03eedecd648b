"""The page of one slide: its score, what it is made of, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.report import Report

if TYPE_CHECKING:
    from medshared.slides import FaultList


def write_slide_page(
    path: Path, facts: Mapping[str, Any], settings: Mapping[str, Any], overlay: Path, faults: FaultList
) -> Path:
    """Write ``report.html`` of one slide.

    Args:
        path: The page.
        facts: What `til_mtl.slides.slide_run.score_slide` found out.
        settings: How the slide was looked at.
        overlay: Picture of the slide with tissues and cells.
        faults: Tiles that cannot be decoded.
    """
    row = facts["row"]
    report = Report(f"TIL score of {row['image-id']}", facts["file"])
    report.section("Score")
    if facts["reason"]:
        report.warning(facts["reason"])
    score = row["tils-score"]
    report.cards(
        {
            "TIL score": (score, "percent" if score is not None else "none"),
            "lymphocytes on stroma": (row["n_lymphocytes_stroma"], f"of {row['n_lymphocytes']} found"),
            "per mm² of stroma": row["density_per_mm2"],
            "stroma": (row["stroma_area_mm2"], "mm²"),
            "tumour": (row["tumor_area_mm2"], "mm²"),
            "tissue": (row["tissue_area_mm2"], "mm²"),
        }
    )
    report.section("Slide")
    report.figure(overlay, "Red: tumour, green: stroma, blue: other tissue; yellow: lymphocytes")
    if len(faults):
        report.warning(
            f"{len(faults)} of {facts['n_tiles']} tiles cannot be decoded. They are left out of all areas and hold no "
            "cells."
        )
        report.table(
            [fault._asdict() for fault in faults],
            "Tiles that cannot be decoded (level-0 pixels)",
            max_rows=50,
        )
    report.section("How it was made")
    seconds = facts["seconds_in"]
    report.table(
        [{"step": step, "seconds": value} for step, value in seconds.items()],
        "Where the time went; reading and network pass beside the other steps",
    )
    report.config(settings, "Settings")
    return report.write(path)
