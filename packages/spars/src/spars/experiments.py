"""A script of the original from start to end: its preset, the user's keys, the run, and what it says at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.command_line import RunInterruptedError
from medshared.configuration import load_config
from medshared.files import read_json
from spars.config import ClassifierConfig, GameConfig
from spars.errors import DataError
from spars.presets import classifier_keys, faithful_validation_warning, find_preset, game_keys

if TYPE_CHECKING:
    from medshared.process import StopSignal

logger = logging.getLogger(__name__)

SPLIT_OF_RUN = "training_cases.json"  # the split that an experiment on the number of volumes uses


def classifier_config(
    preset: str | None, keys: Mapping[str, Any], label: str = "command line"
) -> ClassifierConfig:
    """Return the configuration of a classifier's run.

    Args:
        preset: Of `spars.presets`, or null.
        keys: What the user set; they win over the preset.
        label: Where problems are said to lie.

    Raises:
        medshared.configuration.ConfigError: With every problem.
    """
    mode = str(keys.get("mode", "standard"))
    base = {} if preset is None else classifier_keys(preset, mode)
    return load_config(ClassifierConfig, base | dict(keys), label=label)


def game_config(preset: str | None, keys: Mapping[str, Any], label: str = "command line") -> GameConfig:
    """Return the configuration of a game's run.

    Args:
        preset: Of `spars.presets`, or null.
        keys: What the user set; they win over the preset.
        label: Where problems are said to lie.

    Raises:
        medshared.configuration.ConfigError: With every problem.
    """
    mode = str(keys.get("mode", "standard"))
    base = {} if preset is None else game_keys(preset, mode)
    return load_config(GameConfig, base | dict(keys), label=label)


def run_classifier(
    config: ClassifierConfig,
    folder: Path,
    *,
    preset: str | None = None,
    resume: bool = False,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train a classifier; a finished run that is resumed is left alone.

    Args:
        config: Configuration.
        folder: Run directory.
        preset: Whose number of training volumes holds, where the patients are split.
        resume: Go on with the run in the folder.
        stop: A stop signal that the caller listens to.

    Returns:
        What ``results.json`` holds.

    Raises:
        RunInterruptedError: A signal stopped the run.
        DataError: A file cannot be used.
    """
    from medshared.distributed import by_first, is_first, shared_object
    from spars.sharing import join_processes

    join_processes(config)
    if resume and shared_object((folder / "results.json").is_file()):
        logger.info("%s: finished already", folder)
        return read_json(folder / "results.json")
    if preset is not None and config.mode == "faithful":
        warning = faithful_validation_warning(preset)
        if warning:
            logger.warning("%s", warning)
    if preset is not None:
        config = by_first(partial(with_n_train, config, folder, preset))
    from spars.classifier_training import train_classifier

    results = train_classifier(config, folder, resume=resume, stop=stop)
    if not is_first():
        return results
    logger.info("weights: %s", folder / config.weights_out)
    if config.resolved_value("target_size") == "native":
        size = " ".join(map(str, config.crop_size))
        logger.info("they score windows of %s voxels: play with --window_size %s", size, size)
    return results


def with_n_train(config: ClassifierConfig, folder: Path, preset: str) -> ClassifierConfig:
    """Return a configuration that trains on as many volumes as an experiment says, where the patients are split.

    Without a split the index ranges of the preset hold, and always in mode faithful. With one, the first ``n_train``
    cases of its training part train; validation and test part stay, so that no patient of theirs is seen.

    Args:
        config: Of the experiment.
        folder: Run directory; receives ``training_cases.json``.
        preset: The experiment.

    Raises:
        DataError: The split holds fewer training cases.
    """
    from dataclasses import replace

    from spars.data.layout import find_cases
    from spars.data.splits import PARTS, SPLITS_FILE, Splits, choose_cases, read_splits, write_splits

    n_train = find_preset(preset).n_train
    if n_train is None or config.mode == "faithful" or config.data_dir is None:
        return config
    path = config.splits or config.data_dir / SPLITS_FILE
    if config.splits is not None or path.is_file():
        splits = read_splits(path)
    else:
        cases = find_cases(config.data_dir)
        if not any(case.split for case in cases):
            return config
        parts = choose_cases(config, cases)
        train, val, test = (tuple(case.name for case in parts[part]) for part in PARTS)
        splits = Splits(train, val, test)
    if path == folder / SPLIT_OF_RUN:
        return config
    if len(splits.train) < n_train:
        raise DataError(
            f"{path}: its training part has {len(splits.train)} cases, {preset} trains on {n_train}; use a larger one"
        )
    target = write_splits(folder / SPLIT_OF_RUN, replace(splits, train=splits.train[:n_train]))
    logger.info("%s: the first %d training cases of %s", target, n_train, path)
    return config.model_copy(update={"splits": target})


def run_game(
    config: GameConfig,
    folder: Path,
    *,
    resume: bool = False,
    evaluate: bool = False,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train the players, and score them on the test part if asked to.

    Args:
        config: Configuration.
        folder: Run directory; the evaluation goes to ``evaluation`` in it.
        resume: Go on with the run in the folder.
        evaluate: In mode standard with ``protocol: split``, evaluate afterwards.
        stop: A stop signal that the caller listens to.

    Returns:
        What the run's ``results.json`` holds; with an evaluation its own under ``evaluation``.

    Raises:
        RunInterruptedError: A signal stopped the run.
        DataError: A file cannot be used.
    """
    from spars.training import train_game

    resolved = config.resolved()
    results = train_game(config, folder, resume=resume, stop=stop)
    if resolved.mode != "standard":
        if results["iterations"] < (resolved.iterations or 0):
            raise RunInterruptedError(
                f"stopped after iteration {results['iterations']} of {resolved.iterations}; --resume continues"
            )
        log_original_summary(folder, results)
        return results
    if not evaluate:
        return results
    if resolved.protocol != "split":
        logger.warning("protocol: per_image has no held-out patients; nothing is evaluated")
        return results
    return {**results, "evaluation": _evaluated(config, folder, resume=resume)}


def _evaluated(config: GameConfig, folder: Path, *, resume: bool) -> dict[str, Any]:
    from spars.evaluation import evaluate
    from spars.selfplay import AGENT_FILE

    home = folder / "evaluation"
    if resume and (home / "results.json").is_file():
        logger.info("%s: finished already", home)
        return read_json(home / "results.json")
    found = evaluate(config, home, agent=folder / AGENT_FILE)
    logger.info("%s", found["verdict"])
    return found


def log_original_summary(folder: Path, results: Mapping[str, Any]) -> None:
    """Say what the original prints at the end of a game.

    Args:
        folder: Run directory with ``map.npz``.
        results: Of the run; standard deviations are population ones over iterations, as the original's.
    """
    import numpy as np

    path = folder / "map.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as found:
            logger.info("Number of voxels with cancer: %d", int((found["map"] > found["threshold"]).sum()))
    for name, text in (("reward", "rewards"), ("dice", "dice score")):
        for key, said in (("mean", "Average of"), ("sd_population", "Standard deviation of")):
            value = results.get(f"{name}_{key}")
            logger.info("%s %s: %s", said, text, "undefined" if value is None else f"{value:.4f}")
