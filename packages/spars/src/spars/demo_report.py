"""The page of the demonstration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.report import Report

if TYPE_CHECKING:
    from spars.demo import DemoParts

_KIND = {
    "mask": "windows labelled by voxels, as the original does",
    "image": "one label a volume (multiple-instance learning)",
}


def write_demo_report(output: Path, content: dict[str, Any], parts: DemoParts) -> Path:
    """Write ``report.html`` and ``figures/``.

    Args:
        output: Folder of the demonstration.
        content: What ``results.json`` holds.
        parts: What the demonstration made.
    """
    figures = output / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for source in (parts.evaluation, parts.game, parts.classifier):
        for picture in sorted((source / "figures").glob("*.png")):
            shutil.copyfile(picture, figures / f"{source.name}_{picture.name}")
    report = Report("spars", f"Demonstration, seed {content['seed']}: {_KIND[content['labels']]}")
    report.cards(
        {**content["metrics"], **{key: content["baseline"][key] for key in ("random_walk_dice", "cam_dice")}}
    )
    report.text(content["verdict"])
    cam, agent = content["baseline"]["cam_dice"], content["metrics"]["dice_mean"]
    if cam > agent:
        report.warning(
            f"Grad-CAM of the same classifier on the whole volume, which needs no game, reaches Dice {cam:.3f}."
        )
    report.section("Methods at a glance")
    rows = [
        {"method": key.removesuffix("_dice"), "Dice": value} for key, value in content["baseline"].items()
    ]
    rows += [
        {"method": "agent", "Dice": agent},
        {"method": "score map of all windows", "Dice": content["metrics"]["score_map_dice"]},
    ]
    report.table(sorted(rows, key=lambda row: -row["Dice"]), "Mean Dice on the test volumes")
    report.table(content["comparisons"], "The agent against each method, paired by patient")
    report.section("Figures")
    # The comparison first, then the players, then the classifier.
    order = (parts.evaluation.name, parts.game.name, parts.classifier.name)
    for picture in sorted(
        figures.glob("*.png"), key=lambda path: (order.index(path.stem.split("_")[0]), path)
    ):
        report.figure(picture, picture.stem.replace("_", " "))
    report.section("Folders")
    named = {
        "data": parts.data,
        "classifier": parts.classifier,
        "game": parts.game,
        "evaluation": parts.evaluation,
    }
    report.table(
        [{"part": name, "folder": str(folder.relative_to(output))} for name, folder in named.items()],
        "Each run folder holds its own report.html",
    )
    return report.write(output / "report.html")
