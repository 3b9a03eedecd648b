"""What a run shows a person: pictures and one page, made from the files of its folder at any time.

Known are the folders of a classifier's training, of a game in each of the three modes, of an evaluation and of
predictions. A training calls `try_report` at its end with what ``results.json`` will hold.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medshared.configuration import load_yaml_or_json
from medshared.files import read_json
from medshared.report import Report
from spars import figures, report_parts
from spars.errors import DataError
from spars.figures import save_figure
from spars.report_parts import read_rows

logger = logging.getLogger(__name__)

Kind = Literal["classifier", "self-play", "original", "evaluation", "prediction"]

_TITLES = {
    "classifier": "Window classifier",
    "self-play": "Self-play",
    "original": "Self-play on one volume",
    "evaluation": "Held-out patients",
    "prediction": "Segmented volumes",
}


def find_kind(folder: Path) -> Kind:
    """Return what a folder holds, by its files.

    Args:
        folder: Run directory.

    Raises:
        DataError: It is none that this package writes.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "summary.json" in there and "readings.json" in there:
        return "evaluation"
    if "predictions.csv" in there:
        return "prediction"
    if "config.yaml" in there:
        config = load_yaml_or_json(folder / "config.yaml")
        if "crop_size" in config:
            return "classifier"
        if "window_size" in config and "curve.csv" in there:
            return "self-play" if config.get("mode") == "standard" else "original"
    raise DataError(
        f"{folder}: expected the folder of a training, an evaluation or of predictions (config.yaml with metrics.csv "
        f"or curve.csv, summary.json, predictions.csv), found {', '.join(sorted(there)[:5]) or 'nothing'}"
    )


def write_report(folder: Path, results: Mapping[str, Any] | None = None) -> Path:
    """Draw the pictures of a run into ``figures/`` and write ``report.html``.

    Args:
        folder: Run directory.
        results: What ``results.json`` will hold, where it is not yet written; a folder without one is reported as
            unfinished.

    Returns:
        The page.

    Raises:
        DataError: The folder is no run of this package, or its files cannot be read.
    """
    folder = Path(folder)
    kind = find_kind(folder)
    try:
        return _write(folder, kind, results)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder}: a file is not as this package writes it ({type(error).__name__}: {error})"
        ) from error


def try_report(folder: Path, results: Mapping[str, Any] | None = None) -> Path | None:
    """Write the report of a run; a fault is logged, so that a page costs no training.

    Args:
        folder: Run directory.
        results: As for `write_report`.

    Returns:
        The page, or null where it could not be made.
    """
    try:
        return write_report(folder, results)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        logger.error("%s: no report: %s", folder, error)
        return None


def _write(folder: Path, kind: Kind, results: Mapping[str, Any] | None) -> Path:
    finished = results is not None or (folder / "results.json").is_file()
    if results is None:
        results = read_json(folder / "results.json") if finished else {}
    config = load_yaml_or_json(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
    mode = config.get("mode")
    report = Report(_TITLES[kind], subtitle=folder.name + (f" · mode {mode}" if mode else ""))
    if not finished and kind != "prediction":
        report.warning("The run is not finished: what follows is where it stood.")
    parts = {
        "classifier": _add_classifier,
        "self-play": _add_self_play,
        "original": _add_original,
        "evaluation": report_parts.add_evaluation,
        "prediction": report_parts.add_predictions,
    }
    parts[kind](report, folder, results or {}, config)
    if config:
        report.config(config)
    if (folder / "environment.json").is_file():
        report.provenance(read_json(folder / "environment.json"))
    return report.write(folder / "report.html")


# ---------------------------------------------------------------------- training


def _add_classifier(
    report: Report, folder: Path, results: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    rows = read_rows(folder / "metrics.csv")
    metrics = results.get("metrics") or (rows[-1] if rows else {})
    report.section("Result")
    names = {
        "val_auc": "AUC of windows",
        "val_accuracy": "accuracy",
        "val_sensitivity": "sensitivity",
        "val_specificity": "specificity",
        "val_precision": "precision",
    }
    report.cards({name: (metrics[key], "validation") for key, name in names.items() if key in metrics})
    source = config.get("label_source", "mask")
    report.text(
        "Windows were labelled by the voxels of the tumour mask: supervision by region, not by image."
        if source == "mask"
        else "Only a label for each whole image was used; windows are instances of the image's bag."
    )
    figure = figures.draw_curves(rows, figures.CLASSIFIER_PANELS, "epoch")
    _add_figure(report, folder, "learning", figure, "Training and validation over the epochs")
    _add_facts(report, results, ("best_epoch", "epochs", "steps", "seconds", "weights"))
    cases = results.get("cases") or {}
    if cases:
        _add_rows(report, [{"part": part, "cases": names} for part, names in cases.items()], "Volumes")


def _add_self_play(report: Report, folder: Path, results: Mapping[str, Any], _: Mapping[str, Any]) -> None:
    rows = read_rows(folder / "curve.csv")
    opponents = read_rows(folder / "opponents.csv")
    last = rows[-1] if rows else {}
    report.section("Result")
    names = {
        "found_per_step": ("new scores per step", "the learner's finds, last iteration"),
        "mean_score1": ("mean window score", "learner, last iteration"),
        "win_rate": ("share of games won", "against the last opponent"),
    }
    report.cards({title: (last[key], note) for key, (title, note) in names.items() if key in last})
    report.text(
        "These numbers are of training volumes. What the agent is worth on volumes that it never saw, beside searches "
        "that need no agent, is in the report of an evaluation."
    )
    figure = figures.draw_curves(rows, figures.GAME_PANELS, "iteration")
    _add_figure(report, folder, "learning", figure, "Over the iterations; the thick line is a running mean")
    if opponents:
        caption = "The learner against the copies of itself that are left in the pool"
        _add_figure(report, folder, "opponents", figures.draw_win_rates(opponents), caption)
    if (folder / "reading.json").is_file():
        report.table(
            [read_json(folder / "reading.json")],
            "How the agent's maps are read, chosen on validation volumes",
        )
    _add_facts(report, results, ("iterations", "env_steps", "boards", "seconds"))


def _add_original(
    report: Report, folder: Path, results: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    rows = read_rows(folder / "curve.csv")
    report.section("Result")
    sd = {key: results.get(f"{key}_sd_population") for key in ("dice", "reward")}
    cards = {
        "Dice, last": (results.get("dice_last"), "of the map after the last iteration"),
        "Dice, mean": (results.get("dice_mean"), f"over iterations, sd {_text(sd['dice'])}"),
        "reward, mean": (results.get("reward_mean"), f"over iterations, sd {_text(sd['reward'])}"),
    }
    report.cards(cards)
    report.warning(
        f"Trained and measured on one and the same volume ({config.get('case')}). Mean and sd are over iterations of "
        "training, not over patients; only an evaluation on held-out patients says what the method is worth."
    )
    figure = figures.draw_curves(rows, figures.GAME_PANELS, "iteration")
    _add_figure(report, folder, "learning", figure, "Over the iterations; the thick line is a running mean")
    if (folder / "map.npz").is_file():
        report_parts.add_game_map(report, folder, config)
    _add_facts(report, results, ("iterations", "env_steps", "seconds"))


# ---------------------------------------------------------------------- blocks


def _add_figure(report: Report, folder: Path, name: str, figure: Any, caption: str) -> None:
    if figure is not None:
        report.figure(save_figure(folder / "figures" / f"{name}.png", figure), caption)


def _add_rows(report: Report, rows: Sequence[Mapping[str, Any]], caption: str) -> None:
    report.section(caption)
    report.table(list(rows))


def _add_facts(report: Report, results: Mapping[str, Any], keys: Sequence[str]) -> None:
    facts = {key: results[key] for key in keys if results.get(key) is not None}
    if facts:
        report.section("Effort")
        report.table([facts])


def _text(value: float | None) -> str:
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.3f}"
