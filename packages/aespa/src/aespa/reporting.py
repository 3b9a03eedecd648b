"""What a run shows a person: pictures and one page, made from the files of its folder at any time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aespa.errors import DataError
from aespa.figures import draw_rounds, draw_training, save_figure
from medshared.configuration import load_yaml_or_json
from medshared.files import read_json
from medshared.report import Report
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)

_CURVES = {
    "dice": "followed rater",
    "proposal_dice": "picked proposal",
    "random_click_dice": "random clicks",
    "native_dice": "at the images' own resolution",
    "plain_sam_dice": "plain SAM, same clicks",
    "plain_sam_own_clicks_dice": "plain SAM, its own clicks",
}


def write_report(folder: Path, results: Mapping[str, Any] | None = None) -> Path:
    """Write ``figures/*.png`` and ``report.html`` of a training or an evaluation.

    Args:
        folder: Run directory.
        results: What ``results.json`` will hold, where it is not written yet.

    Raises:
        DataError: The folder holds neither.
    """
    summary_file = folder / "summary.json"
    rows = RunDirectory(folder).metrics_rows
    if not summary_file.is_file() and not rows:
        raise DataError(
            f"{folder}: expected the folder of a training or an evaluation (metrics.csv or summary.json), found "
            f"{', '.join(sorted(path.name for path in folder.iterdir())[:5]) if folder.is_dir() else 'no folder'}"
        )
    finished = results is not None or (folder / "results.json").is_file()
    found = results if results is not None else read_json(folder / "results.json") if finished else {}
    config = load_yaml_or_json(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
    report = Report(
        f"{config.get('mode', 'aespa')} on {config.get('dataset', 'images')}", subtitle=folder.name
    )
    if not finished:
        report.warning("The run is not finished: what follows is where it stood.")
    if summary_file.is_file():
        _add_summary(report, folder, read_json(summary_file))
    if rows:
        report.section("Training")
        report.figure(save_figure(folder / "figures" / "training.png", draw_training(rows)), "Loss and Dice")
        report.table(rows, caption="metrics.csv")
    facts = {key: value for key, value in found.items() if not isinstance(value, (dict, list))}
    if facts:
        report.section("Run").table([{"key": key, "value": value} for key, value in facts.items()])
    report.config(config)
    if (folder / "environment.json").is_file():
        report.provenance(read_json(folder / "environment.json"))
    return report.write(folder / "report.html")


def _add_summary(report: Report, folder: Path, summary: Mapping[str, Mapping[str, Any]]) -> None:
    report.section("Result")
    cards = {
        "Dice, late rounds": "dice_late",
        "Dice, round 0": "dice_r0",
        "majority mask": "majority_dice",
        "interactions to 0.85": "interactions_to_0_85",
        "random clicks": "random_click_dice_late",
    }
    report.cards({name: _card(summary[key]) for name, key in cards.items() if key in summary})
    curves = {}
    for key, name in _CURVES.items():
        values = []
        while (entry := summary.get(f"{key}_r{len(values)}")) is not None and entry["mean"] is not None:
            values.append(entry["mean"])
        if values:
            curves[name] = values
    figure = draw_rounds(curves, {"majority mask": summary["majority_dice"]["mean"]})
    report.figure(save_figure(folder / "figures" / "rounds.png", figure), "Mean Dice by round")
    rows = [{"measure": key, **entry} for key, entry in summary.items()]
    report.table(rows, caption="Means over images; 95 % intervals from resampling patients")


def _card(entry: Mapping[str, Any]) -> tuple[Any, str]:
    if entry["low"] is None or entry["high"] is None:
        return entry["mean"], f"{entry['n']} images"
    return entry["mean"], f"95 % interval {entry['low']:.3f} to {entry['high']:.3f}"


def try_report(folder: Path, results: Mapping[str, Any] | None = None) -> Path | None:
    """Write the report of a run; a fault is logged, so that a page costs no training.

    Args:
        folder: Run directory.
        results: As for `write_report`.
    """
    try:
        return write_report(folder, results)
    except Exception as error:  # whatever it is: a page costs no training
        logger.error(
            "%s: no report: %s", folder, error, exc_info=not isinstance(error, (OSError, ValueError))
        )
        return None
