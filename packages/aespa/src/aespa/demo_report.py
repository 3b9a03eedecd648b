"""The page of the demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aespa.demo import SHOWN_SAMPLES
from aespa.demo_results import Measured
from aespa.figures import draw_rounds, save_figure
from aespa.shown_images import draw_following, draw_proposals
from medshared.report import Report

_SHOWN = 2  # images


def write_demo_report(output: Path, content: Mapping[str, Any], measured: Measured) -> Path:
    """Write ``figures/*.png`` and ``report.html``.

    Args:
        output: Folder of the demonstration.
        content: What ``results.json`` holds.
        measured: Networks and what they gave.
    """
    figures = _draw(output / "figures", content, measured)
    metrics, baseline = content["metrics"], content["baseline"]
    report = Report("aespa: masks that follow a rater", subtitle=f"drawn images, seed {content['seed']}")
    report.text(
        "All images are drawn: a core, a rim and a satellite. One rater outlines the core, one the core and its rim, "
        "one the satellite too. The image shows all of it, so that only a click can tell whose mask is wanted. The "
        "networks start from random weights; every rater of every held-out image is followed once."
    )
    _add_following(report, metrics, baseline, figures)
    _add_proposing(report, metrics, figures)
    report.section("All numbers")
    report.table([{"metric": key, "value": value} for key, value in metrics.items()])
    report.table([{"baseline": key, "value": value} for key, value in baseline.items()])
    report.text(
        "The slices of MBHSeg's layout were cut from drawn volumes that no network was trained on. Means are over "
        "images; summary in results.json has 95 % intervals from resampling patients."
    )
    return report.write(output / "report.html")


def _add_following(
    report: Report, metrics: Mapping[str, float], baseline: Mapping[str, float], figures: Mapping[str, Path]
) -> None:
    report.section("Following a rater")
    report.cards(
        {
            "Dice, late rounds": (
                metrics["dice_follow_late"],
                f"majority mask: {baseline['majority_dice']:.3f}",
            ),
            "Dice, round 1": (
                metrics["dice_follow_round1"],
                f"round 0, nobody followed yet: {metrics['dice_per_rater_round0']:.3f}",
            ),
            "Dice with random clicks": (
                metrics["random_click_dice_late"],
                "late rounds: the gain must vanish",
            ),
            "plain SAM, same clicks": (
                baseline["plain_sam_dice_late"],
                f"its own clicks: {baseline['plain_sam_own_clicks_dice_late']:.3f}",
            ),
            "Dice to the neutral mask": (metrics["dice_neutral_round0"], "round 0, no click"),
        }
    )
    report.figure(figures["rounds"], "Mean Dice to the followed rater over the held-out images")
    report.figure(
        figures["following"],
        "Rounds of two images. Orange: the answer; blue outline: the rater who is followed; + and ×: clicks",
    )


def _add_proposing(report: Report, metrics: Mapping[str, float], figures: Mapping[str, Path]) -> None:
    report.section("Proposing")
    report.cards(
        {
            "GED of the samples": (
                metrics["spa_ged_samples"],
                f"their mean mask, repeated: {metrics['spa_ged_mean_mask']:.3f}; lower is better",
            ),
            "Dice, late rounds": (metrics["spa_dice_late"], "mean of all samples"),
            "Dice of the picked proposal": (metrics["spa_proposal_dice_late"], "late rounds"),
        }
    )
    report.figure(
        figures["proposals"],
        f"Proposals of SPA from {SHOWN_SAMPLES} samples, after a click that all agree on",
    )


def _draw(folder: Path, content: Mapping[str, Any], measured: Measured) -> dict[str, Path]:
    aespa, baseline = content["summary"]["AESPA"], content["baseline"]
    n = measured.configs["AESPA"].runs

    def curve(key: str) -> list[float]:
        return [aespa[f"{key}_r{i}"]["mean"] for i in range(n)]

    spa = [content["summary"]["SPA"][f"dice_r{i}"]["mean"] for i in range(n)]
    curves = {
        "AESPA": curve("dice"),
        "SPA": spa,
        "AESPA, random clicks": curve("random_click_dice"),
        "plain SAM, same clicks": curve("plain_sam_dice"),
        "plain SAM, its own clicks": curve("plain_sam_own_clicks_dice"),
    }
    shown = range(_SHOWN)
    figures = {
        "rounds": draw_rounds(curves, {"majority mask": baseline["majority_dice"]}),
        "following": draw_following(
            measured.networks["AESPA"], measured.test, measured.configs["AESPA"], shown
        ),
        "proposals": draw_proposals(measured.networks["SPA"], measured.test, measured.configs["SPA"], shown),
    }
    return {name: save_figure(folder / f"{name}.png", figure) for name, figure in figures.items()}
