"""What one run shows a person: pictures and one page, made again from its files at any time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medshared.configuration import load_yaml_or_json
from medshared.files import read_json
from medshared.report import Report
from medshared.runs import RunDirectory
from til_mtl.figures import draw_froc, draw_learning, draw_patches, save_figure
from til_mtl.patch_scores import PatchScores

if TYPE_CHECKING:
    from til_mtl.trainer import Trainer

logger = logging.getLogger(__name__)

_SHOWN_PATCHES = 3  # of each task
_TITLES = {
    "mtl": "Multi-task network",
    "seg": "Single-task tissue network",
    "det": "Single-task cell network",
}


def write_run_report(trainer: Trainer, results: Mapping[str, Any], scores: Mapping[str, PatchScores]) -> Path:
    """Draw the pictures of a run and write its page.

    Args:
        trainer: Holds the selected weights.
        results: What ``results.json`` will hold.
        scores: By set.
    """
    run = trainer.run
    save_figure(run.figures / "patches.png", draw_patches(_examples(trainer)))
    _draw_run(run, results, scores)
    return _write_page(run, results)


def rewrite_run_report(folder: Path) -> Path:
    """Write the page of a finished run again from its files.

    Args:
        folder: Run directory.
    """
    run, results = RunDirectory(folder), read_json(folder / "results.json")
    files = {name: folder / f"predictions_{name}.npz" for name in results["metrics"]}
    scores = {name: PatchScores.read(path) for name, path in files.items() if path.is_file()}
    _draw_run(run, results, scores)
    return _write_page(run, results)


def _draw_run(run: RunDirectory, results: Mapping[str, Any], scores: Mapping[str, PatchScores]) -> None:
    keys = {
        "mtl": ["loss", "dice_tumor", "dice_stroma"],
        "seg": ["loss", "dice_tumor", "dice_stroma"],
        "det": ["loss"],
    }
    save_figure(run.figures / "learning.png", draw_learning(run.metrics_rows, keys[results["task"]]))
    curves = {name: curve for name, found in scores.items() if (curve := found.curve()) is not None}
    if curves:
        save_figure(run.figures / "froc.png", draw_froc(curves))


def _examples(trainer: Trainer) -> list[dict[str, Any]]:
    """Return some validation patches with annotation and prediction."""
    from til_mtl.batches import batch_of
    from til_mtl.peaks import find_peaks

    store, config = trainer.data.stores["val"], trainer.config
    chosen = np.concatenate([np.flatnonzero(store.tasks == task)[:_SHOWN_PATCHES] for task in (0, 1)])
    trainer.model.eval()
    with torch.no_grad():
        maps = trainer.maps(batch_of(config, store, chosen, trainer.fabric.device))
    images, masks = store.images(chosen), store.masks(chosen)
    rows = []
    for k, index in enumerate(chosen):
        row: dict[str, Any] = {"name": store.names[index], "image": images[k]}
        if store.tasks[index] == 0 and maps.seg is not None:
            row |= {"truth": masks[k], "prediction": maps.seg[k].argmax(0).cpu().numpy()}
        elif maps.det is not None:
            cells = maps.det[k].float().softmax(0)[1].cpu().numpy()
            # Only what is more likely a cell than not; the FROC goes further down.
            found = find_peaks(cells, 0.5, float(config.resolved_value("nms")))
            row |= {"truth": store.points(int(index)), "prediction": found[:, :2] + 0.5}
        rows.append(row)
    return rows


def _write_page(run: RunDirectory, results: Mapping[str, Any]) -> Path:
    report = Report(_TITLES[results["task"]], subtitle=run.path.name)
    name = "test" if "test" in results["metrics"] else "val"
    wanted = ("dice_tumor", "dice_stroma", "dice_mean", "froc", "cell_f1")
    report.section("Result")
    report.cards(
        {
            key: (value, f"{name} set")
            for key, value in results["metrics"].get(name, {}).items()
            if key in wanted
        }
    )
    rows = [{"set": part, **values} for part, values in results["metrics"].items()]
    if rows:
        report.table(
            rows, caption="Dice of the tissue map (argmax), TIGER's FROC, and F1 at its best threshold"
        )
    if name == "val":
        report.text(
            "There is no test set: the epoch was selected on the patches that these numbers describe."
        )
    report.section("Pictures")
    captions = {
        "patches": "Validation patches. Orange: tumour, blue: stroma, grey: other; circles: cells",
        "froc": "Sensitivity against false positives per mm²; the score is the mean at the six vertical lines",
        "learning": "Values over the run",
    }
    for key, caption in captions.items():
        if (run.figures / f"{key}.png").is_file():
            report.figure(run.figures / f"{key}.png", caption)
    report.section("Effort")
    effort = {
        key: results[key] for key in ("best_epoch", "steps", "training_seconds", "seconds") if key in results
    }
    report.table([effort | {f"{key} patches": n for key, n in results["samples"].items()}])
    report.config(load_yaml_or_json(run.path / "config.yaml"))
    report.provenance(read_json(run.path / "environment.json"))
    return report.write(run.path / "report.html")
