"""The original's experiments side by side: every script of a family into its own folder, then one table.

Scripts run one after the other; one that fails is recorded and the others go on. The table is made of every finished
run in the folder, so that the jobs of an array may each run one script into it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.command_line import RunInterruptedError
from medshared.files import read_json
from medshared.leases import acquire_lease
from medshared.report import Report
from medshared.tables import write_table
from spars.config import ClassifierConfig, GameConfig
from spars.errors import DataError
from spars.experiments import classifier_config, game_config, run_classifier, run_game
from spars.presets import PRESETS, Preset, faithful_validation_warning, find_preset

if TYPE_CHECKING:
    from medshared.process import StopSignal

logger = logging.getLogger(__name__)

TABLE = "ablation.csv"
_FAILURES = (OSError, ValueError, RuntimeError, KeyError, MemoryError)
_WAIT_SECONDS = 10.0  # between two looks at a classifier that another job trains
# Methods of an evaluation that the table shows.
_METHODS = ("agent", "score_map", "random_walk", "greedy_restarts", "cam", "all_positive")


@dataclass(frozen=True)
class Ablation:
    """What to run.

    Attributes:
        presets: Names of the scripts.
        output: Folder; each script has its own in it, under its name.
        classifier: Keys of every classifier; they win over the presets.
        game: Keys of every game; they win over the presets. Without ``classifier_weights`` the classifiers that the
            games need are trained too, into ``classifiers``.
        common: Keys of both stages, such as mode and data_dir; they win over all others.
        only: Run these of the presets alone; empty = all.
        demo: Draw synthetic data and run on it.
        resume: Go on with stopped runs, leave finished ones alone.
    """

    presets: tuple[str, ...]
    output: Path
    classifier: Mapping[str, Any] = field(default_factory=dict)
    game: Mapping[str, Any] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    demo: bool = False
    resume: bool = False


def run_ablation(ablation: Ablation) -> int:
    """Run the scripts, and write ``ablation.csv`` and ``report.html``.

    Args:
        ablation: What to run.

    Returns:
        Exit code: 1 when a script failed.

    Raises:
        RunInterruptedError: A signal stopped it; ``--resume`` continues.
        DataError: An unknown script.
    """
    from medshared.process import StopSignal

    for name in (*ablation.presets, *ablation.only):
        find_preset(name)
    outside = [name for name in ablation.only if name not in ablation.presets]
    if outside:
        raise DataError(f"--only {', '.join(outside)}: not among {', '.join(ablation.presets)}")
    failed: dict[str, str] = {}
    with StopSignal() as stop:
        for name in ablation.only or ablation.presets:
            if stop.requested:
                raise RunInterruptedError(f"stopped by {stop.name} before {name}; --resume continues")
            try:
                _run_one(ablation, find_preset(name), stop)
            except RunInterruptedError:
                raise
            except _FAILURES as error:
                logger.error("%s failed: %s", name, error)
                failed[name] = str(error)
    write_tables(ablation, failed)
    if failed:
        logger.error("%d of the scripts failed: %s", len(failed), ", ".join(failed))
    return 1 if failed else 0


def _run_one(ablation: Ablation, preset: Preset, stop: StopSignal) -> None:
    from spars import small_runs

    mode = _mode(ablation, preset)
    data: dict[str, Any] = {}
    if ablation.demo:
        stages = {PRESETS[name].stage for name in ablation.presets}
        stage = "classifier" if "classifier" in stages else "game"
        data["data_dir"] = small_runs.demo_data(ablation.output, stage, ablation.common.get("seed", 0))
    common = {**ablation.common, **data}
    folder = ablation.output / preset.name
    if preset.stage == "classifier":
        keys = small_runs.demo_classifier_keys(mode) if ablation.demo else {}
        config = classifier_config(preset.name, {**keys, **ablation.classifier, **common}, preset.name)
        run_classifier(config, folder, preset=preset.name, resume=ablation.resume, stop=stop)
        return
    keys = small_runs.demo_game_keys(mode, preset.name) if ablation.demo else {}
    config = game_config(preset.name, {**keys, **ablation.game, **common}, preset.name)
    if "classifier_weights" not in ablation.game:
        weights = _weights(ablation, preset, config, common, stop)
        config = config.model_copy(update={"classifier_weights": weights})
    run_game(config, folder, resume=ablation.resume, evaluate=True, stop=stop)


def _mode(ablation: Ablation, preset: Preset) -> str:
    mine = ablation.classifier if preset.stage == "classifier" else ablation.game
    return str({**mine, **ablation.common}.get("mode", "standard"))


def _weights(
    ablation: Ablation, preset: Preset, config: GameConfig, common: Mapping[str, Any], stop: StopSignal
) -> Path:
    """Train the classifier of a game unless it is there; games whose windows it can score share it."""
    from spars import small_runs

    native = config.resolved_value("target_size") == "native"
    size = "_".join(map(str, config.window_size)) if native else "stretched"
    keys: dict[str, Any] = small_runs.demo_classifier_keys(config.mode) if ablation.demo else {}
    keys |= {"full_image_size": config.full_image_size, "hu_window": config.hu_window}
    if native:
        keys["crop_size"] = config.window_size
    mine = classifier_config(
        "net_global", {**keys, **ablation.classifier, **common, "mode": config.mode}, preset.name
    )
    folder = ablation.output / "classifiers" / size
    logger.info("%s: the classifier of %s", folder, preset.name)
    _train_once(mine, folder, stop)
    return folder / mine.weights_out


def _train_once(config: ClassifierConfig, folder: Path, stop: StopSignal) -> None:
    """Train a classifier that several jobs need; while another one does, wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with acquire_lease(folder / ".training.lock") as lease:
            if lease is not None:
                # A finished one serves all games; one that was stopped is gone on with.
                run_classifier(config, folder, resume=True, stop=stop)
                return
        if stop.requested:
            raise RunInterruptedError(f"stopped by {stop.name} while another job trains {folder}")
        time.sleep(_WAIT_SECONDS)


def ablation_rows(ablation: Ablation, failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a row for each script: its status, its constants, and what it reached.

    Args:
        ablation: What was to be run.
        failed: Message by script.
    """
    rows = []
    for name in ablation.presets:
        preset, folder = PRESETS[name], ablation.output / name
        row: dict[str, Any] = {"preset": name, "status": "not run", "mode": _mode(ablation, preset)}
        row |= {
            "n_train": preset.n_train,
            "window_size": "×".join(map(str, preset.keys["window_size"])) if preset.stage == "game" else None,
            "termination_threshold": preset.keys.get("termination_threshold"),
        }
        if name in failed:
            row |= {"status": "failed", "message": failed[name].splitlines()[0]}
        elif (folder / "results.json").is_file():
            results = read_json(folder / "results.json")
            row |= {"status": "done", **(_found(preset, folder, results))}
        rows.append(row)
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _found(preset: Preset, folder: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a finished run."""
    if preset.stage == "classifier":
        numbers = {key: value for key, value in results["metrics"].items() if key.startswith("val_")}
        return {"n_val": _count(results["cases"]["val"]), "best_epoch": results["best_epoch"], **numbers}
    if "dice_last" in results:  # the original's summary: over iterations on one volume
        keys = ("dice_last", "dice_mean", "dice_sd_population", "reward_mean", "reward_sd_population")
        return {key: results[key] for key in keys}
    evaluation = folder / "evaluation" / "results.json"
    if not evaluation.is_file():
        return {}
    summary = read_json(evaluation)["summary"]
    found: dict[str, Any] = {}
    for method in _METHODS:
        if method in summary:
            entry = summary[method]
            found |= {f"{method}_dice": entry["dice_mean"], f"{method}_dice_sd": entry["dice_sd"]}
    return {"n_test": summary["score_map"]["n"], **found}


def _count(cases: Any) -> int:
    """Return how many cases a list of names, or a range in mode faithful, has."""
    if len(cases) == 2 and all(isinstance(each, int) for each in cases):
        return cases[1] - cases[0]
    return len(cases)


def write_tables(ablation: Ablation, failed: Mapping[str, str]) -> None:
    """Write ``ablation.csv`` and ``report.html`` of what is there.

    Args:
        ablation: What was to be run.
        failed: Message by script.
    """
    rows = ablation_rows(ablation, failed)
    write_table(ablation.output / TABLE, rows)
    done = sum(row["status"] == "done" for row in rows)
    report = Report("Experiments of the original", f"{done} of {len(rows)} scripts")
    report.section("Results").table(rows, "One row a script; empty = not measured there")
    modes = {row["mode"] for row in rows}
    warnings = {faithful_validation_warning(row["preset"]) for row in rows if row["mode"] == "faithful"}
    for text in sorted(text for text in warnings if text):
        report.warning(text)
    if modes - {"standard"} and any(PRESETS[row["preset"]].stage == "game" for row in rows):
        report.warning(
            "Modes paper and faithful train and measure on one and the same volume; their Dice is over training "
            "iterations and says nothing about other patients."
        )
    for name, message in failed.items():
        report.warning(f"{name}: {message}")
    report.write(ablation.output / "report.html")
    logger.info("%s: %d of %d scripts", ablation.output / TABLE, done, len(rows))
