"""The parts of the demonstration around its three runs: the confounded plate, the pictures, the page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infection_mt.comparison import HEADERS, compare_runs, comparison_rows
from infection_mt.demo import DEMO_SETTINGS, TASKS, demo_config
from infection_mt.reporting import number
from infection_mt.synthetic import SyntheticData, SyntheticParams, generate
from infection_mt.training import RunOptions, train_run
from medshared.configuration import merge_mappings
from medshared.report import Report

CONFOUNDED = {"training": {"epochs": 6}, "metrics": {"bootstrap_resamples": 200}}


def confounded_results(output: Path, *, seed: int, options: RunOptions) -> dict[str, Any]:
    """Train where label and well are one and the infected well is lit unevenly; test there and on a swapped plate.

    Returns:
        AUC and F1 on held-out stacks of the same plate and on the second plate, and the warnings that the run gave.
    """
    from infection_mt.config import Config
    from infection_mt.rescoring import rescore

    params = SyntheticParams(seed=seed + 1, variant="confounded", stacks_per_class=16)
    data = generate(output / "confounded_data", params)
    settings = merge_mappings(demo_config(data, output, seed=seed).model_dump(exclude_unset=True), CONFOUNDED)
    run = output / "confounded"
    same = train_run(Config.model_validate(settings), run, options)
    other = rescore(run, run / "second_plate", folders=data.plates["plate2"], device=options.device)
    return {
        "same_plate": _scores(same["test_metrics"]),
        "second_plate": _scores(other["test_metrics"]),
        "warnings": same["warnings"],
    }


def explain_figures(output: Path, data: SyntheticData) -> dict[str, Path]:
    """Make the demonstration's own pictures: example frames, Grad-CAM of both outputs, the plate of new stacks."""
    from infection_mt.cam_pictures import write_cam_pictures
    from infection_mt.plate_report import write_plate_report
    from infection_mt.prediction import PredictionSettings, find_stacks, load_ensemble, predict_stacks

    run, figures = output / "multitask", output / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    pictures = write_cam_pictures(run, output / "cam", split="test", num_samples=6, device="cpu")
    cams = _contact_sheet(pictures, ("input", "overlay", "time_overlay"), figures / "grad_cam.png")
    import torch

    ensemble = load_ensemble([run / "checkpoints" / "best.pt"], torch.device("cpu"))
    new = generate(output / "new_stacks", SyntheticParams(seed=7919, stacks_per_class=8, wells_per_class=4))
    settings = PredictionSettings(frames_per_hour=DEMO_SETTINGS["data"]["frames"]["frames_per_hour"])
    predicted = output / "predictions"
    result = predict_stacks(
        find_stacks([new.infected_dir, new.uninfected_dir]), ensemble, predicted, settings
    )
    write_plate_report(predicted, result, settings)
    found = {"Grad-CAM": cams}
    for title, name in {"Plate map": "plate_map.png", "Well curves": "well_curves.png"}.items():
        found[title] = Path(shutil.copy(predicted / name, figures / name))
    for title, name in {"Hours": "prediction_scatter.png", "Windows": "temporal_generalization.png"}.items():
        if (run / name).exists():
            found[title] = Path(shutil.copy(run / name, figures / name))
    return found


def write_demo_report(
    output: Path,
    results: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Path],
) -> None:
    """Write the demonstration's ``report.html``."""
    metrics, baseline, confounded = results["metrics"], results["baseline"], results["confounded"]
    report = Report(
        "infection-mt demonstration", subtitle=f"synthetic time-lapse stacks, seed {results['seed']}"
    )
    report.cards(
        {
            "AUC": (number(metrics["auc"]), f"chance {baseline['auc']}"),
            "F1": number(metrics["f1"]),
            "Mean time error": (
                f"{number(metrics['mae_hours'], 2)} h",
                f"always the training mean: {number(baseline['mae_hours'], 2)} h",
            ),
        }
    )
    report.section("Does the second task help?")
    report.text(
        "The same network was trained for both tasks, for the class alone and for the time alone, on one split "
        "and with one seed. One split of synthetic data proves little either way; the table shows how to ask."
    )
    report.table(_task_rows(runs), "Held-out stacks", headers=TASK_HEADERS)
    rows = compare_runs([output / task for task in TASKS], output / "comparison")
    report.table(comparison_rows(rows), "Paired differences", headers=HEADERS)
    report.section("When label and well are one")
    for warning in confounded["warnings"]:
        report.warning(warning)
    report.text(
        "Here the infected well is lit unevenly. On held-out stacks of the same plate the model looks excellent; on a "
        "plate where the mock well has the ramp it does worse. Only a split by well or plate can show this."
    )
    report.table(
        [
            ["same plate", *map(number, confounded["same_plate"].values())],
            ["second plate", *map(number, confounded["second_plate"].values())],
        ],
        "Confounded data",
        headers=["tested on", "AUC", "F1"],
    )
    report.section("Pictures")
    for title, path in figures.items():
        report.figure(path, caption=CAPTIONS.get(title, title))
    report.config(runs["multitask"]["config"])
    report.write(output / "report.html")


TASK_HEADERS = ("trained for", "AUC", "F1", "mean time error (h)", "best epoch")
CAPTIONS = {
    "Grad-CAM": "Test frames (top), where they speak for infection (middle) and for the predicted hour (bottom).",
    "Plate map": "New stacks of eight wells: mean P(infected) and hours, last quarter of the recording.",
    "Well curves": "The same wells over time, mean and standard deviation over positions.",
    "Hours": "Predicted against true hours on held-out stacks.",
    "Windows": "Class metrics in sliding windows.",
}


def _scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"auc": metrics["cls_auc"], "f1": metrics["cls_f1"]}


def _task_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for task, result in runs.items():
        test = result["test_metrics"]
        values = [number(test[k]) if k in test else "–" for k in ("cls_auc", "cls_f1", "reg_mae")]
        rows.append([task, *values, str(result["best_epoch"])])
    return rows


def _contact_sheet(pictures: Sequence[Path], kinds: Sequence[str], path: Path, scale: int = 3) -> Path:
    """Lay pictures out, one row a kind, enlarged without smoothing."""
    rows = []
    for kind in kinds:
        chosen = [p for p in pictures if p.stem.split("_", 4)[-1] == kind]
        rows.append(np.concatenate([np.asarray(Image.open(p)) for p in chosen], axis=1))
    sheet = np.concatenate(rows).repeat(scale, axis=0).repeat(scale, axis=1)
    from infection_mt.cam_pictures import save_png

    save_png(path, sheet)
    return path
