"""TIGER's leaderboard 1: Dice of tumour and stroma, FROC of lymphocytes, over all annotated regions together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medshared.files import write_json
from medshared.metrics.detection import TARGETS, FrocCurve, Region, froc_curve, froc_score, sensitivity_at
from medshared.metrics.segmentation import confusion_matrix, dice_from_confusion
from medshared.process import progress
from medshared.tables import write_table
from til_mtl.errors import DataError
from til_mtl.figures import draw_froc, save_figure
from til_mtl.leaderboard_files import NOT_ANNOTATED, Predictions, Truth, find_truth, read_truth_mask

logger = logging.getLogger(__name__)

TISSUES = ("tumour", "stroma", "rest")


def evaluate_l1(
    pred_dir: Path, truth_dir: Path, mpp: float = 0.5, radius_px: float = 8.0, output: Path | None = None
) -> dict[str, Any]:
    """Score predicted regions as the challenge does.

    Dice comes from one confusion matrix over all regions, pixels that nobody annotated left out. The FROC pools all
    regions whose cells are annotated: see `medshared.metrics.detection.froc_curve`. Folders are described in
    `til_mtl.leaderboard_files`.

    Args:
        pred_dir: Predictions.
        truth_dir: Annotated regions.
        mpp: µm per pixel of the regions.
        radius_px: Hit radius in pixels, inclusive; 8 px are 4 µm.
        output: Folder of ``l1_metrics.json``, ``froc.csv`` and ``froc.png``; by default that of the predictions.

    Returns:
        The metrics as written: ``dice`` (``tumour``, ``stroma``, ``rest``, ``mean_tumour_stroma``) and ``froc``
        (``score``, ``targets``, ``sensitivities``, …); a part that was not predicted is null, with its reason under
        ``left_out``.

    Raises:
        DataError: Files that are missing or do not fit, by name.
    """
    if not mpp > 0 or not radius_px >= 0:
        raise DataError(f"--mpp must be positive and --radius-px not negative, found {mpp} and {radius_px}")
    truth = find_truth(truth_dir)
    predictions = Predictions(pred_dir, mpp, truth)
    left_out: dict[str, str] = {}
    metrics: dict[str, Any] = {"dice": None, "froc": None, "left_out": left_out}
    curve = None
    if not truth.masks or not predictions.has_tissue:
        side = "annotated tissue" if not truth.masks else "predicted tissue (<region>.png)"
        left_out["dice"] = f"no {side} in {truth_dir if not truth.masks else pred_dir}"
    else:
        metrics["dice"] = _tissue_metrics(truth, predictions)
    if not truth.cells or not predictions.has_cells:
        side = "annotated cells (tiger-coco.json)" if not truth.cells else "predicted cells (<region>.json)"
        left_out["froc"] = f"no {side} in {truth_dir if not truth.cells else pred_dir}"
    else:
        metrics["froc"], curve = _cell_metrics(truth, predictions, mpp, radius_px)
    for part, reason in left_out.items():
        logger.warning("%s is left out: %s", part, reason)
    _write(output or pred_dir, metrics, curve)
    return metrics


def tissue_confusion(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count one region's pixels by true and predicted tissue.

    Args:
        prediction: uint8 ``[H, W]``: 0 tumour, 1 stroma, 2 rest.
        truth: The same, and 255 where nobody annotated.

    Returns:
        int64 ``[3, 3]``, rows are the truth.
    """
    return confusion_matrix(prediction, truth, len(TISSUES), ignore=NOT_ANNOTATED)


def _tissue_metrics(truth: Truth, predictions: Predictions) -> dict[str, Any]:
    confusion = np.zeros((len(TISSUES), len(TISSUES)), np.int64)
    for name, file in progress(truth.masks.items(), total=len(truth.masks), description="tissue"):
        expected = read_truth_mask(file)
        found = predictions.tissue(name, (expected.shape[1], expected.shape[0]))
        confusion += tissue_confusion(found, expected)
    dice = dice_from_confusion(confusion)
    by_name = {name: float(value) for name, value in zip(TISSUES, dice, strict=True)}
    return {
        **by_name,
        "mean_tumour_stroma": float(dice[:2].mean()),
        "confusion": confusion.tolist(),
        "n_regions": len(truth.masks),
    }


def _cell_metrics(
    truth: Truth, predictions: Predictions, mpp: float, radius_px: float
) -> tuple[dict[str, Any], FrocCurve]:
    regions, area_px = [], 0
    for name, cells in progress(truth.cells.items(), total=len(truth.cells), description="cells"):
        found = predictions.cells(name)
        regions.append(Region(found[:, :2], found[:, 2], cells.centres))
        area_px += cells.size[0] * cells.size[1]
    area = area_px * mpp**2 / 1e6
    if area == 0:
        raise DataError("tiger-coco.json: the annotated regions have no area")
    curve = froc_curve(regions, radius_px, area)
    values: dict[str, Any] = {
        "score": froc_score(curve),
        "targets": list(TARGETS),
        "sensitivities": sensitivity_at(curve).tolist(),
        "area_mm2": area,
        "radius_px": radius_px,
        "mpp": mpp,
        "n_regions": len(regions),
        "n_truth": curve.n_truth,
        "n_predictions": sum(len(np.asarray(region.probabilities)) for region in regions),
    }
    return values, curve


def _write(output: Path, metrics: dict[str, Any], curve: FrocCurve | None) -> None:
    if curve is not None:
        table = pd.DataFrame(
            {
                "threshold": curve.thresholds,
                "sensitivity": curve.sensitivities,
                "fp_per_mm2": curve.false_positives,
            }
        )
        write_table(output / "froc.csv", table)
        save_figure(output / "froc.png", draw_froc({"predictions": curve}))
    write_json(output / "l1_metrics.json", metrics)
    dice, froc = metrics["dice"], metrics["froc"]
    shown = [f"Dice tumour {dice['tumour']:.4f}, stroma {dice['stroma']:.4f}"] if dice else []
    shown += [f"FROC {froc['score']:.4f}"] if froc else []
    logger.info("%s; %s", ", ".join(shown) or "nothing to score", output / "l1_metrics.json")
