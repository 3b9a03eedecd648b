"""What the demonstration shows: scores against the known truth, and against what needs no learning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medshared.files import read_json
from medshared.report import Report
from medshared.slides import open_slide
from til_mtl.agreement import agreement
from til_mtl.baselines import darkness_scores, majority_dice, median_mae, random_scores, slide_darkness
from til_mtl.compare import paired_table, shown_table
from til_mtl.config import Config
from til_mtl.figures import draw_froc, save_figure
from til_mtl.patch_scores import PatchScores
from til_mtl.run_data import find_store
from til_mtl.score_evaluation import draw_bland_altman, draw_scatter, read_predicted_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from til_mtl.demo import DemoParts

DARKNESS_SIGMA_PX = 3.0
RANDOM_DOTS = 40
RESAMPLES = 500
_SIDES = {"multi-task": "mtl", "single-task": "stl"}


def collect_results(parts: DemoParts, seed: int) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Score everything.

    Args:
        parts: What the demonstration made.
        seed: Of the demonstration.

    Returns:
        What ``results.json`` holds (without ``seconds``), and the figures by name.
    """
    multi = PatchScores.read(parts.runs["mtl"] / "predictions_val.npz")
    single = PatchScores.join(
        [PatchScores.read(parts.runs[task] / "predictions_val.npz") for task in ("seg", "det")]
    )
    metrics, found = {}, {}
    truth = {each.slide: each.score for each in parts.tiger.slide_truth}
    table = pd.DataFrame({"image-id": list(truth), "planted": list(truth.values())})
    for side, scores, prefix in (("mtl", multi, ""), ("stl", single, "stl_")):
        of_patches = scores.metrics()
        metrics |= {prefix + key: of_patches[key] for key in ("dice_tumor", "dice_stroma", "froc", "cell_f1")}
        frame = read_predicted_scores(parts.slides[side] / "til_scores.csv").rename(
            columns={"tils-score": side}
        )
        table = table.merge(frame, on="image-id", how="left", validate="one_to_one")
        # A slide without a score would be worse than any error; it is counted as the median of all truths.
        found[side] = agreement(table[side].fillna(np.median(list(truth.values()))), table["planted"])
        metrics |= {
            f"{prefix}til_spearman": found[side]["spearman_rho"],
            f"{prefix}til_mae": found[side]["mae"],
        }
        metrics[f"{prefix}slides_without_score"] = sum(1.0 for value in table[side] if np.isnan(value))
    table["darkness"] = [_darkness_of(parts, slide) for slide in table["image-id"]]
    baseline, curves = _baselines(parts, multi, single, table, seed)
    content = {
        "metrics": metrics,
        "baseline": baseline,
        "seed": seed,
        "slides": table.to_dict("records"),
        "agreement": found,
        "leaderboard": {side: _leaderboard(folder) for side, folder in parts.regions.items()},
        "comparison": paired_table(multi, single, resamples=RESAMPLES, seed=seed),
        "effort": {task: _effort(run) for task, run in parts.runs.items()},
    }
    scored = table.dropna(subset="mtl")
    predicted, planted = scored["mtl"].to_numpy(), scored["planted"].to_numpy()
    pictures = {
        "til_scores": draw_scatter(predicted, planted),
        "bland_altman": draw_bland_altman(predicted, planted),
        "froc": draw_froc(curves),
    }
    return content, pictures


def _baselines(
    parts: DemoParts, multi: PatchScores, single: PatchScores, table: pd.DataFrame, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return what needs no learning, and the FROC curves of all."""
    config = Config(
        data_dir=parts.patches, img_size=(parts.tiger.patch_px, parts.tiger.patch_px), num_workers=0
    )
    store = find_store(config, "val")
    assert store is not None  # noqa: S101 - the networks were validated on it
    distance = parts.tiger.cell_px * 0.75
    dark = darkness_scores(store, multi, sigma_px=DARKNESS_SIGMA_PX, distance_px=distance)
    dots = random_scores(store, multi, seed=seed, per_patch=RANDOM_DOTS)
    baseline = {
        "majority_dice": majority_dice(store, config.num_classes_seg),
        "darkness_froc": dark.froc(),
        "darkness_cell_f1": dark.metrics()["cell_f1"],
        "random_froc": dots.froc(),
        "darkness_spearman": agreement(table["darkness"], table["planted"])["spearman_rho"],
        "median_til_mae": median_mae(table["planted"].tolist()),
    }
    named = {"multi-task": multi, "single-task": single, "darkness": dark, "random dots": dots}
    curves = {name: curve for name, scores in named.items() if (curve := scores.curve()) is not None}
    return baseline, curves


def _darkness_of(parts: DemoParts, slide: str) -> float:
    with open_slide(parts.tiger.slides / f"{slide}.tif") as opened:
        image = opened.read_level((0, 0), 0, opened.dimensions)
    with np.load(parts.tiger.truth / "slides" / f"{slide}.npz", allow_pickle=False) as truth:
        return slide_darkness(image, truth["segmentation"] > 0)


def _leaderboard(folder: Path) -> dict[str, float]:
    """Return what leaderboard 1 says about the held-out regions."""
    scored = read_json(folder / "l1_metrics.json")
    dice = scored["dice"]
    return {"dice_tumor": dice["tumour"], "dice_stroma": dice["stroma"], "froc": scored["froc"]["score"]}


def _effort(run: Path) -> dict[str, Any]:
    results = read_json(run / "results.json")
    return {key: results[key] for key in ("steps", "training_seconds")}


def write_demo_report(
    output: Path, content: Mapping[str, Any], pictures: Mapping[str, Figure], parts: DemoParts
) -> Path:
    """Write ``figures/*.png`` and ``report.html``.

    Args:
        output: Folder of the demonstration.
        content: What ``results.json`` holds.
        pictures: Figures by name.
        parts: What the demonstration made.
    """
    files = {
        name: save_figure(output / "figures" / f"{name}.png", figure) for name, figure in pictures.items()
    }
    metrics, baseline = content["metrics"], content["baseline"]
    report = Report("til-mtl: TIL scores on drawn slides", subtitle=f"seed {content['seed']}")
    report.text(
        "All images are drawn, so that the truth is known. Distractor nuclei are as dark as lymphocytes: darkness "
        "alone finds them too. The networks start from random weights and never saw the slides."
    )
    report.section("Result of the multi-task network")
    report.cards(
        {
            "Dice tumour": (
                metrics["dice_tumor"],
                f"one class everywhere: {baseline['majority_dice']:.2f} (both)",
            ),
            "Dice stroma": (metrics["dice_stroma"], "validation patches"),
            "FROC": (metrics["froc"], f"darkness: {baseline['darkness_froc']:.3f}"),
            "Spearman of TIL scores": (
                metrics["til_spearman"],
                f"darkness: {baseline['darkness_spearman']:.2f}",
            ),
            "MAE of TIL scores": (metrics["til_mae"], f"median for all: {baseline['median_til_mae']:.1f}"),
        }
    )
    report.figure(files["til_scores"], "Planted and predicted score of each slide, without calibration")
    report.figure(files["bland_altman"], "Their difference against their mean")
    report.figure(files["froc"], "Sensitivity against false positives per mm² on validation patches")
    _add_slides(report, content, parts)
    _add_comparison(report, content)
    report.section("What needs no learning")
    report.table([{"baseline": key, "value": value} for key, value in baseline.items()])
    return report.write(output / "report.html")


def _add_comparison(report: Report, content: Mapping[str, Any]) -> None:
    """Show both sides on validation patches and on slides."""
    report.section("Multi-task against single-task")
    report.table(shown_table(content["comparison"]), caption="95 % intervals from resampling patients")
    sides = [
        {
            "statistic": key,
            "multi-task": content["agreement"]["mtl"][key],
            "single-task": content["agreement"]["stl"][key],
        }
        for key in ("spearman_rho", "pearson_r", "mae", "ccc", "bias")
    ]
    report.table(sides, caption="Slides: predicted against planted TIL score")
    rows = [{"network": name, **content["leaderboard"][side]} for name, side in _SIDES.items()]
    report.table(rows, caption="Regions that no training saw, scored as TIGER's leaderboard 1")
    report.text(
        "One small run of each network: which side is ahead here says nothing about real slides. The multi-task "
        "network does with one encoder what the single-task networks need two for."
    )
    report.table(
        [{"network": task, **effort} for task, effort in content["effort"].items()], caption="Effort"
    )


def _add_slides(report: Report, content: Mapping[str, Any], parts: DemoParts) -> None:
    """Show each slide's scores, and the lowest, a middle and the highest one."""
    report.section("Slides")
    report.table(content["slides"], caption="TIL score in percent; darkness is no score, only ranked")
    ordered = sorted(content["slides"], key=lambda row: row["planted"])
    for row in (ordered[0], ordered[len(ordered) // 2], ordered[-1]):
        overlay = parts.slides["mtl"] / row["image-id"] / "overlay.png"
        if overlay.is_file():
            report.figure(
                overlay, f"{row['image-id']}: planted {row['planted']:.1f} %, predicted {row['mtl']:.1f} %"
            )
