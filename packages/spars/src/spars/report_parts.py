"""The parts of a report that show volumes: of an evaluation, of predictions, of the original's game."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import read_json
from medshared.metrics.segmentation import overlap
from medshared.report import Report
from medshared.volumes import Volume, read_volume, to_canonical
from spars import figures
from spars.errors import DataError
from spars.figures import ShownCase, save_figure
from spars.overlay import BOTH_NAME, PREDICTION_NAME, write_overlays

if TYPE_CHECKING:
    from spars.config import GameConfig
    from spars.data.layout import Case

logger = logging.getLogger(__name__)

TUMOUR = 2
_SHOWN_CASES = 4  # of a montage


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a table of numbers and names; empty cells become null.

    Args:
        path: CSV file that a run wrote; one that is missing or empty has no rows.
    """
    import pandas as pd

    if not path.is_file() or not path.stat().st_size:
        return []
    try:
        found = pd.read_csv(path).to_dict("records")
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in found
    ]


def spread(ranked: Sequence[str], n: int = _SHOWN_CASES) -> list[str]:
    """Return at most ``n`` of the names: the first, the last and some evenly between.

    Args:
        ranked: From best to worst.
        n: Number of names.
    """
    places = np.linspace(0, len(ranked) - 1, min(n, len(ranked))).round().astype(int)
    chosen: list[int] = places.tolist()
    return [ranked[place] for place in dict.fromkeys(chosen)]


def add_evaluation(
    report: Report, folder: Path, results: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Add the verdict, the methods side by side, and volumes.

    Args:
        report: The page.
        folder: Of the evaluation.
        results: Of ``results.json``; empty where the evaluation is not finished.
        config: Of ``config.yaml``.
    """
    from spars.evaluation_tables import per_case

    summary: dict[str, dict[str, Any]] = read_json(folder / "summary.json")
    rows = read_rows(folder / "metrics.csv")
    shown = "agent" if "agent" in summary else "score_map"
    mine = summary[shown]
    report.section("Verdict")
    report.cards(
        {
            f"Dice of the {shown.replace('_', ' ')}": (mine["dice_mean"], _spread_of(mine)),
            "score map of all windows": (summary["score_map"]["dice_mean"], _spread_of(summary["score_map"])),
            **_beside(summary),
            "HD95 (mm)": (mine["hd95_mm_mean"], f"undefined in {mine['n_hd95_undefined']} maps"),
            "lesions found": (mine["lesion_recall_mean"], "share, mean over patients"),
        }
    )
    if results.get("verdict"):
        report.text(results["verdict"])
    if results.get("play"):
        play = results["play"]
        ratio = "" if play["ratio"] is None else f", ratio {play['ratio']:.2f}"
        report.text(
            f"Mean score of the windows that players are at, from random equal starts: agent {play['agent']:.3f}, "
            f"random walk {play['random_walk']:.3f}{ratio}."
        )
    _add_methods(report, folder, summary, rows, results, shown)
    _add_volumes(report, folder, per_case(rows, shown, "dice"), config)


def _spread_of(entry: Mapping[str, Any]) -> str:
    if entry["dice_sd"] is None:
        return "one patient"
    low, high = entry["dice_ci95"]
    return f"± {entry['dice_sd']:.3f} over {entry['n']} patients; 95 % interval of the mean {low:.3f} to {high:.3f}"


def _beside(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    names = {"random_walk": "random walk", "greedy_restarts": "greedy climb, restarted"}
    return {
        title: (summary[name]["dice_mean"], _spread_of(summary[name]))
        for name, title in names.items()
        if name in summary
    }


def _add_methods(
    report: Report,
    folder: Path,
    summary: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
    shown: str,
) -> None:
    from spars.evaluation_tables import per_case

    report.section("Methods")
    values = {name: per_case(rows, name, "dice") for name in summary}
    path = folder / "figures" / "methods.png"
    caption = "Every patient counts once, by the mean over the seeds of a method that is random"
    report.figure(save_figure(path, figures.draw_methods(values, shown)), caption)
    points = [
        (name, entry["windows_share"], entry["dice_mean"], entry["dice_sd"])
        for name, entry in summary.items()
        if entry.get("windows_share") and name not in ("score_map_0.5", "top_windows")
    ]
    if points:
        figure = figures.draw_dice_over_share(points, shown)
        path = save_figure(folder / "figures" / "dice_over_share.png", figure)
        report.figure(
            path, "Dice against the share of windows that a method scores of a volume it has not seen"
        )
    texts = results.get("methods") or {}
    columns = ("dice_mean", "dice_sd", "dice_median", "precision_mean", "recall_mean", "hd95_mm_mean")
    more = ("volume_error_ml_mean", "lesion_recall_mean", "windows_share", "n")
    table = [
        {
            "method": name,
            **{_heading(key): entry[key] for key in (*columns, *more)},
        }
        for name, entry in summary.items()
    ]
    report.table(table, "Mean over patients; HD95 over those where it is defined")
    if texts:
        report.table(
            [{"method": name, "what it does": text} for name, text in texts.items()], "The methods in words"
        )
    _add_comparisons(report, results.get("comparisons") or read_rows(folder / "comparisons.csv"), shown)
    readings = read_json(folder / "readings.json")
    report.table(
        [{"method": name, **reading} for name, reading in readings.items()],
        "How each method's map is read, chosen on validation patients; Dice there",
    )


def _add_comparisons(report: Report, comparisons: Sequence[Mapping[str, Any]], shown: str) -> None:
    if comparisons:
        paired = [
            {
                "against": row["other"],
                "difference": row["difference"],
                "from": row["low"],
                "to": row["high"],
                "p (Wilcoxon)": row["p_wilcoxon"],
                "n": row["n"],
            }
            for row in comparisons
        ]
        report.table(
            paired, f"Dice of the {shown} minus that of each method, paired by patient, 95 % interval"
        )


def _heading(key: str) -> str:
    return key.removesuffix("_mean").replace("hd95_mm", "HD95 mm").replace("_", " ")


# ---------------------------------------------------------------------- volumes


def _add_volumes(report: Report, folder: Path, dice: Mapping[str, float], config: Mapping[str, Any]) -> None:
    ranked = sorted(dice, key=lambda name: -dice[name])
    chosen = spread(ranked)
    try:
        cases = _cases_of(config)
        shown = [load_shown(cases[name], folder, config.get("label_map")) for name in chosen]
    except (DataError, FileNotFoundError, KeyError) as error:
        logger.warning("%s: no pictures of volumes: %s", folder, error)
        report.section("Volumes")
        report.warning(f"The volumes cannot be shown: {error}")
        return
    report.section("Volumes")
    path = save_figure(folder / "figures" / "montage.png", figures.draw_montage(shown))
    report.figure(
        path, "From the best to the worst patient, three planes through the largest tumour cross-sections"
    )
    middle = shown[len(shown) // 2]
    if middle.probability is not None:
        path = save_figure(folder / "figures" / "probability.png", figures.draw_probability(middle))
        report.figure(path, f"Probability map of {middle.name}")
    affine = np.diag([*middle.spacing, 1.0])
    _add_overlays(report, folder, middle.prediction, middle.truth, affine, middle.name, "mm")


def _cases_of(config: Mapping[str, Any]) -> dict[str, Case]:
    from spars.data.layout import find_cases

    data_dir = config.get("data_dir")
    return {case.name: case for case in find_cases(None if data_dir is None else Path(data_dir))}


def load_shown(
    case: Case, folder: Path, label_map: Mapping[int, int] | None = None, note: str = ""
) -> ShownCase:
    """Read a case and what ``pred/`` and ``prob/`` of a folder say of it, in canonical axes.

    Args:
        case: From `spars.data.layout`.
        folder: Holds ``pred`` and perhaps ``prob``.
        label_map: As in the configuration.
        note: Below the name; else the Dice, where the truth is known.

    Raises:
        DataError: A file cannot be read, or is of another volume.
        FileNotFoundError: There is no segmentation of this case.
    """
    from spars.data.cases import read_image, read_label

    image = read_image(case)

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        if array.shape != image.shape:
            raise DataError(
                f"{case.name}: the segmentation has {array.shape} voxels, the image {image.shape}"
            )
        return to_canonical(Volume(array, image.affine))[0].array

    canonical, _ = to_canonical(image)
    prediction = read_volume(folder / "pred" / f"{case.name}.nii.gz").array
    path = folder / "prob" / f"{case.name}.nii.gz"
    probability = turned(read_volume(path).array) if path.is_file() else None
    keys = None if label_map is None else {int(key): int(value) for key, value in label_map.items()}
    truth = None if case.label is None else turned(read_label(case, keys).array == TUMOUR)
    found = turned(prediction > 0)
    if truth is not None and not note:
        note = f"Dice {overlap(found, truth, 1.0).dice:.2f}"
    return ShownCase(case.name, canonical.array, canonical.spacing, found, truth, probability, note)


def _add_overlays(
    report: Report,
    folder: Path,
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None,
    affine: NDArray[np.float64],
    name: str,
    unit: str,
) -> None:
    try:
        files = write_overlays(folder, prediction, truth, affine, name, unit)
    except ImportError as error:
        logger.warning("%s", error)
        report.text(str(error))
        return
    page = BOTH_NAME if truth is not None else PREDICTION_NAME
    picture = next(path for path in files if path.name == f"{page}.png")
    report.figure(picture, f"Surfaces of {name}; {page}.html shows them so that they can be turned")


def add_predictions(report: Report, folder: Path, _: Mapping[str, Any], __: Mapping[str, Any]) -> None:
    """Add what was found in new volumes, and some of them.

    Args:
        report: The page.
        folder: Of the predictions.
    """
    from spars.data.layout import Case

    rows = read_rows(folder / "predictions.csv")
    done = [row for row in rows if row["status"] == "done"]
    report.section("Result")
    report.cards(
        {
            "volumes": (len(done), f"{len(rows) - len(done)} could not be used"),
            "with tumour": sum(row["tumour_ml"] > 0 for row in done),
            "share of windows scored": float(np.mean([row["windows_share"] for row in done]))
            if done
            else None,
        }
    )
    if len(done) < len(rows):
        failed = [
            f"{row['case']}: {row['message'] or row['status']}" for row in rows if row["status"] != "done"
        ]
        report.warning("\n\n".join(["Some volumes could not be used.", *failed]))
    if done:
        told = [name for name in rows[0] if name not in ("status", "file", "message")]
        report.table([{name: row[name] for name in told} for row in done], "Every volume that could be used")
    ranked = [str(row["case"]) for row in sorted(done, key=lambda row: -row["tumour_ml"])]
    found = {str(row["case"]): row for row in done}
    shown = []
    for name in spread(ranked):
        note = f"{found[name]['tumour_ml']:.1f} ml"
        try:
            shown.append(load_shown(Case(name, Path(found[name]["file"])), folder, note=note))
        except (DataError, FileNotFoundError) as error:
            logger.warning("%s: is not shown: %s", name, error)
    if shown:
        report.section("Volumes")
        path = save_figure(folder / "figures" / "montage.png", figures.draw_montage(shown))
        report.figure(
            path, "From the largest to the smallest finding, planes through its largest cross-sections"
        )


def add_game_map(report: Report, folder: Path, config: Mapping[str, Any]) -> None:
    """Add the map of a game in mode paper or faithful.

    Args:
        report: The page.
        folder: Of the run, with ``map.npz``.
        config: Of ``config.yaml``.
    """
    from spars.config import GameConfig
    from spars.data.grid import load_grid_case
    from spars.data.layout import find_cases, named_case

    try:
        with np.load(folder / "map.npz", allow_pickle=False) as arrays:
            total, threshold = arrays["map"], float(arrays["threshold"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder / 'map.npz'}: cannot be read ({error}); train again") from error
    prediction = total > threshold
    report.section("Map")
    report.table(
        [
            {
                "voxels above the threshold": int(prediction.sum()),
                "threshold": threshold,
                "highest sum": float(total.max()),
                "voxels ever visited": int(np.count_nonzero(total)),
            }
        ]
    )
    keys: GameConfig = GameConfig.model_validate(config)
    try:
        case = load_grid_case(named_case(find_cases(keys.data_dir), keys.case), keys)
    except DataError as error:
        logger.warning("%s: no pictures of the volume: %s", folder, error)
        report.warning(f"The volume cannot be shown: {error}")
        case = None
    truth = None if case is None else case.tumour
    if case is not None and case.image.shape == prediction.shape:
        probability = np.clip(total / max(float(total.max()), 1e-9), 0, 1)
        shown = ShownCase(keys.case, case.image, case.spacing, prediction, truth, probability, keys.mode)
        path = save_figure(
            folder / "figures" / "map.png", figures.draw_probability(shown, "share of highest sum")
        )
        report.figure(path, "The map as a share of its highest sum, with the segmentation and the truth")
    elif case is not None:
        report.text(
            f"The volume has {'×'.join(map(str, case.image.shape))} voxels and the grid "
            f"{'×'.join(map(str, prediction.shape))}: as in the original, map and label lie in different frames, and "
            "are shown in voxels of the grid."
        )
    millimetres = keys.mode == "paper" and case is not None
    affine = np.diag([*case.spacing, 1.0]) if millimetres and case is not None else np.eye(4)
    _add_overlays(report, folder, prediction, truth, affine, keys.case, "mm" if millimetres else "voxels")
