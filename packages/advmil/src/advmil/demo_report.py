"""What the demonstration found: numbers, pictures, and words for what the adversarial part adds and does not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from advmil import figures
from advmil.evaluation import Evaluation, compare_predictions
from advmil.reporting import save_figure
from advmil.run_evaluation import evaluate_run
from advmil.run_files import FinishedRun, open_run
from medshared.metrics.survival import concordance_index
from medshared.report import Report

if TYPE_CHECKING:
    from advmil.demo import DemoParts

BIMODAL_TITLES = {
    "advmil": "AdvMIL",
    "advmil_without": "AdvMIL, adversarial weight 0",
    "advmil_strong": "AdvMIL, adversarial weight 1",
    "base": "the plain regressor",
    "cox": "the Cox model",
}
BIMODAL_MODELS = tuple(BIMODAL_TITLES)
TARGETS = {
    "c_index": "at least 0.85",
    "mae_ratio": "at most half of the constant's",
    "spearman_risk": "at least 0.85",
    "ibs": "below Kaplan-Meier's",
}


def collect_results(parts: DemoParts, output: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Score all runs of the demonstration and draw the pictures.

    Args:
        parts: What was trained on what.
        output: Receives ``figures/``.

    Returns:
        Content of ``results.json`` without the time, and picture file → caption.
    """
    runs = {name: open_run(folder) for name, folder in parts.runs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluations = {
            name: evaluate_run(run, resamples=500) for name, run in runs.items() if name != "permuted"
        }
    metrics, baseline = _main_numbers(runs, evaluations, parts)
    content: dict[str, Any] = {
        "metrics": metrics,
        "baseline": baseline,
        "oracle": _oracle(runs["advmil"], parts),
    }
    content["comparison"] = _comparison(runs["advmil"], runs["base"])
    if parts.bimodal is not None:
        content["bimodal"] = {
            name.removeprefix("bimodal_"): evaluations[name].flat()
            for name in runs
            if name.startswith("bimodal")
        }
    pictures = _pictures(runs, evaluations, parts, output)
    return content, pictures


def _main_numbers(
    runs: dict[str, FinishedRun], evaluations: dict[str, Evaluation], parts: DemoParts
) -> tuple[dict[str, Any], dict[str, Any]]:
    from advmil.demo import truth_of

    run, found = runs["advmil"], evaluations["advmil"]
    predictions, train = run.predictions("test"), run.training_predictions()
    samples = predictions.samples
    z = truth_of(parts.cohort, predictions.patients)["z"].to_numpy(dtype=np.float64)
    flat = found.flat()
    metrics = {
        "c_index": flat["c_index"],
        "c_index_low": flat["c_index_low"],
        "c_index_high": flat["c_index_high"],
        "mae_ratio": run.results["sets"]["test"]["mae"],
        "ibs": flat["ibs"],
        "spearman_risk": float(spearmanr(predictions.risk, z)[0]),  # type: ignore[arg-type]
        "sample_sd": float(samples.std(axis=1).mean()) if samples is not None else 0.0,
        "interval_coverage_90": flat["coverage"],
        "d_calibration_p": flat["d_calibration_p"],
        "crps_days": flat["crps_days"],
        "auc": flat["auc"],
        "uno_c_index": flat["uno_c_index"],
        "c_index_last_epoch": run.results["last_epoch"]["test"]["c_index"],
        "base_c_index": evaluations["base"].metrics["c_index"].estimate,
        "base_mae_ratio": runs["base"].results["sets"]["test"]["mae"],
    }
    constant = float(np.median(train.t))
    late = predictions.t - constant
    baseline: dict[str, Any] = {
        "c_index": 0.5,
        "mae_ratio": float(np.where(predictions.e == 1, np.abs(late), np.clip(late, 0, None)).mean()),
        "km_ibs": flat["km_ibs"],
    }
    permuted = [
        r.results["sets"]["test"]["c_index"] for name, r in runs.items() if name.startswith("permuted")
    ]
    if permuted:
        baseline["permuted_c_index"] = float(np.mean(permuted))
        baseline["permuted_c_indices"] = permuted
    return metrics, baseline


def _oracle(run: FinishedRun, parts: DemoParts) -> dict[str, float]:
    from advmil.demo import oracle_risk

    p = run.predictions("test")
    return {"c_index": concordance_index(oracle_risk(parts.cohort, p.patients), p.e, p.days)}


def _comparison(a: FinishedRun, b: FinishedRun) -> list[dict[str, Any]]:
    """Compare AdvMIL with the plain backbone on the same test patients."""
    train = a.training_predictions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare_predictions(
            a.predictions("test"),
            b.predictions("test"),
            train.e,
            train.days,
            train_predictions_a=train,
            train_predictions_b=b.training_predictions(),
            n_resamples=500,
        )
    return table.to_dict("records")


def _pictures(
    runs: dict[str, FinishedRun], evaluations: dict[str, Evaluation], parts: DemoParts, output: Path
) -> dict[str, str]:
    run, found = runs["advmil"], evaluations["advmil"]
    predictions = run.predictions("test")
    drawn = {
        "scatter": (
            figures.draw_scatter(predictions),
            "Predicted and observed time of the test patients, with each patient's 90 % interval",
        ),
        "risk_groups": (
            figures.draw_risk_groups(predictions),
            "Kaplan-Meier curves of the test patients by predicted risk, with 95 % bands",
        ),
        "curves": (
            figures.draw_curves(predictions, found.grid),
            "Predicted survival of six test patients, from 30 samples each; the mark is the observed time",
        ),
        "brier": (figures.draw_brier(found), "Brier score over time; lower is better"),
        "calibration": (
            figures.draw_calibration(found.histogram, found.tests["d_calibration_p"]),
            "D-calibration: bars of equal height are calibrated",
        ),
    }
    pictures = {}
    for name, (figure, caption) in drawn.items():
        save_figure(figure, output / "figures" / f"{name}.png")
        pictures[f"{name}.png"] = caption
    if parts.slides:
        stitched = sorted((output / "demo" / "processed").glob("tiles-l2-*/masks/*.jpg"))
        from PIL import Image

        with Image.open(stitched[0]) as image:
            image.thumbnail((900, 900))
            image.save(output / "figures" / "tissue.png")
        pictures["tissue.png"] = f"Tissue of {stitched[0].stem} as found by the preparation"
        pictures |= _heatmap(run, parts, output)
    return pictures


def _heatmap(run: FinishedRun, parts: DemoParts, output: Path) -> dict[str, str]:
    """Draw the attention over the first slide beside the regions that were planted as tumour."""
    from advmil.heatmap import heatmap_of_slide

    slide = parts.slides[0]
    found = heatmap_of_slide(
        run.folder,
        slide,
        parts.cohort.features / f"{slide.stem}.pt",
        parts.cohort.coordinates / "patches" / f"{slide.stem}.h5",
        output / "heatmaps",
    )
    from PIL import Image

    with Image.open(found.picture) as image:
        image.thumbnail((900, 900))
        image.save(output / "figures" / "attention.png")
    return {
        "attention.png": f"Attention of the trained model over {slide.stem}; dark nuclei mark the planted tumour"
    }


def adversarial_words(bimodal: dict[str, dict[str, float]], comparison: list[dict[str, Any]]) -> list[str]:
    """Say what the adversarial part adds and what it does not, from the numbers alone."""
    rank = {row["metric"]: row for row in comparison}["c_index"]
    claim = "holds zero: no gain in ranking" if rank["low"] <= 0 <= rank["high"] else "excludes zero"
    ranking = (
        f"Ranking. On the main cohort the C-index of AdvMIL differs from that of the same backbone without it by "
        f"{rank['difference']:+.3f}; the 95 % interval from {rank['low']:+.3f} to {rank['high']:+.3f} {claim}."
    )
    adv, without, strong, base, cox = (bimodal[name] for name in BIMODAL_MODELS)
    spread = (
        "Distribution. In the bimodal cohort each patient's time is one of two values by chance, which no single "
        f"number describes. AdvMIL's 90 % intervals cover {adv['coverage']:.0%} of the events "
        f"({strong['coverage']:.0%} with the adversarial weight at 1, {without['coverage']:.0%} at 0), the Cox model's "
        f"{cox['coverage']:.0%}; the plain regressor has no interval."
    )
    crps = (
        f"CRPS in days, lower is better: AdvMIL {adv['crps_days']:.0f}, at weight 1 {strong['crps_days']:.0f}, at "
        f"weight 0 {without['crps_days']:.0f}, plain regressor {base['crps_days']:.0f}, Cox {cox['crps_days']:.0f}."
    )
    scores = {name: bimodal[name]["crps_days"] for name in BIMODAL_MODELS}
    best = BIMODAL_TITLES[min(scores, key=lambda name: scores[name])]
    gain = "better" if adv["crps_days"] < base["crps_days"] else "no better"
    effect = without["crps_days"] - adv["crps_days"]
    width = "wide enough" if adv["coverage"] >= 0.8 else "too narrow: they must not be read as 90 % intervals"
    verdict = (
        f"So in this run AdvMIL's samples score {gain} than the plain regressor's single time, {best} has the best "
        f"distribution, and AdvMIL's intervals are {width}. Turning the adversarial term off changes the CRPS by "
        f"{effect:+.0f} days, which tells how much of the spread is the noise alone."
    )
    return [ranking, spread, crps, verdict]


def write_demo_report(output: Path, content: dict[str, Any], pictures: dict[str, str]) -> Path:
    """Write ``report.html`` of the demonstration.

    Args:
        output: Folder of the demonstration.
        content: What ``results.json`` holds.
        pictures: File below ``figures/`` → caption.
    """
    metrics, baseline = content["metrics"], content["baseline"]
    report = Report(
        "AdvMIL demonstration", f"synthetic bags, seed {content['seed']}, {content['seconds']:.0f} s"
    )
    report.text(
        "A cohort with known truth: the share of tumour regions in a patient's slides sets the time to death. Some "
        "slides are drawn as pyramidal images and taken through the whole preparation; the others are feature bags of "
        "the same kind. Nothing here says how well the method works on patients."
    )
    report.cards(
        {
            "C-index": metrics["c_index"],
            "without AdvMIL": metrics["base_c_index"],
            "oracle": content["oracle"]["c_index"],
            "MAE / constant": metrics["mae_ratio"] / baseline["mae_ratio"],
            "IBS": metrics["ibs"],
            "90 % coverage": metrics["interval_coverage_90"],
        }
    )
    rows = [[name, value, baseline.get(name, ""), TARGETS.get(name, "")] for name, value in metrics.items()]
    rows += [
        [name, "", value, ""]
        for name, value in baseline.items()
        if name not in metrics and not isinstance(value, list)
    ]
    report.table(rows, headers=["metric", "AdvMIL", "naive baseline", "expected"], caption="test patients")
    for name, caption in pictures.items():
        report.figure(output / "figures" / name, caption)
    if "bimodal" in content:
        report.section("What the adversarial part adds, and what it does not")
        for line in adversarial_words(content["bimodal"], content["comparison"]):
            report.text(line)
        shown = ("c_index", "crps_days", "coverage", "interval_width_days", "ibs", "d_calibration_p")
        table = [[name, *(content["bimodal"][model].get(name) for model in BIMODAL_MODELS)] for name in shown]
        report.table(
            table,
            headers=["metric", *BIMODAL_TITLES.values()],
            caption="bimodal cohort: each true time multiplied by 1 or 0.4 at random",
        )
    report.section("AdvMIL against the plain backbone").table(
        pd.DataFrame(content["comparison"]),
        caption="a = AdvMIL, b = plain regressor; paired bootstrap over patients",
    )
    return report.write(output / "report.html")
