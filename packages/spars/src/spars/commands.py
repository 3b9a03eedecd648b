"""What each verb of the command line does; one short function a verb."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from medshared.configuration import load_yaml_or_json
from medshared.processes import require_one_process, several_processes
from spars.errors import DataError
from spars.flags import Stage, given_keys

logger = logging.getLogger(__name__)


def read_keys(arguments: argparse.Namespace, stage: Stage) -> tuple[dict[str, Any], str]:
    """Return the keys that ``--config``, ``--demo`` and the flags set, the later ones first in rank, and their source.

    Args:
        arguments: Of a parser with `spars.flags.add_config_flags`.
        stage: classifier or game.

    Raises:
        medshared.configuration.ConfigError: The file cannot be used.
    """
    file = getattr(arguments, "config", None)
    keys: dict[str, Any] = load_yaml_or_json(file) if file else {}
    given = given_keys(arguments, stage)
    preset = getattr(arguments, "preset", None)
    if preset is not None:
        warn_of_file(
            preset, stage, {key: value for key, value in keys.items() if key not in given}, str(file)
        )
    if getattr(arguments, "demo", False):
        keys |= _demo_keys(arguments, stage, str((keys | given).get("mode", "standard")))
        given.pop("data_dir", None)
    return keys | given, str(file) if file else "command line"


def warn_of_file(preset: str, stage: Stage, keys: dict[str, Any], file: str) -> None:
    """Say which constants of a script a configuration file replaces; one that lists every key replaces all.

    Args:
        preset: Of the script.
        stage: classifier or game.
        keys: Of the file.
        file: Its name.
    """
    from spars.presets import classifier_keys, game_keys

    mode = str(keys.get("mode", "standard"))
    mine = (classifier_keys if stage == "classifier" else game_keys)(preset, mode)
    for key, value in mine.items():
        found = keys.get(key, value)
        if (tuple(found) if isinstance(found, list) else found) != value:
            logger.warning("%s has %s: %s, which replaces %s of %s", file, key, found, value, preset)


def _demo_keys(arguments: argparse.Namespace, stage: Stage, mode: str) -> dict[str, Any]:
    """Draw the data of ``--demo``, train the game's classifier if none is given, and return the keys."""
    from spars import small_runs

    given = given_keys(arguments, stage)
    seed = given.get("seed", 0)
    keys: dict[str, Any] = {"data_dir": small_runs.demo_data(arguments.output, stage, seed)}
    if stage == "classifier":
        return keys | small_runs.demo_classifier_keys(mode)
    keys |= small_runs.demo_game_keys(mode, arguments.preset)
    if "classifier_weights" not in given:
        weights = small_runs.demo_weights(
            arguments.output, keys | given | {"data_dir": keys["data_dir"]}, mode, seed
        )
        keys["classifier_weights"] = weights
    return keys


@several_processes
def train_classifier(arguments: argparse.Namespace) -> int:
    """Train the classifier that scores windows."""
    from spars.experiments import classifier_config, run_classifier

    if arguments.demo:
        require_one_process("--demo")
    keys, label = read_keys(arguments, "classifier")
    config = classifier_config(arguments.preset, keys, label)
    run_classifier(config, arguments.output, preset=arguments.preset, resume=arguments.resume)
    return 0


@several_processes
def train(arguments: argparse.Namespace) -> int:
    """Train the players by self-play, and evaluate them if asked to."""
    require_one_process(
        "self-play (PPO)",
        "start one; seeds, presets and folds are divided by job arrays, each a run of its own",
    )
    from spars.experiments import game_config, run_game

    keys, label = read_keys(arguments, "game")
    config = game_config(arguments.preset, keys, label)
    run_game(config, arguments.output, resume=arguments.resume, evaluate=arguments.evaluate)
    return 0


def _agent_files(given: Path | None) -> tuple[Path | None, dict[str, Any]]:
    """Return the weight file of an agent, and the keys of the run that trained it where they lie beside it."""
    if given is None:
        return None, {}
    path = given / "agent.pt" if given.is_dir() else given
    beside = path.parent / "config.yaml"
    return path, load_yaml_or_json(beside) if beside.is_file() else {}


def evaluate(arguments: argparse.Namespace) -> int:
    """Score an agent and all baselines on held-out patients; ``baselines``: without an agent."""
    from spars.evaluation import evaluate as run
    from spars.experiments import game_config

    agent, beside = _agent_files(arguments.agent)
    keys, label = read_keys(arguments, "game")
    config = game_config(arguments.preset, beside | keys, label)
    found = run(config, arguments.output, agent=agent, part=arguments.part)
    logger.info("%s", found["verdict"])
    return 0


def score_map(arguments: argparse.Namespace) -> int:
    """Write the score map of all windows of each case."""
    from spars.evaluation import score_maps
    from spars.experiments import game_config

    keys, label = read_keys(arguments, "game")
    score_maps(game_config(arguments.preset, keys, label), arguments.output, arguments.part)
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Segment volumes with a trained agent."""
    from spars.prediction import predict as run

    agent, beside = _agent_files(arguments.agent)
    assert agent is not None  # noqa: S101 - the flag is required
    keys, _ = read_keys(arguments, "game")
    weights = keys.pop("classifier_weights", None) or beside.get("classifier_weights")
    if weights is None:
        raise DataError(
            f"{agent}: no config.yaml beside it says what scored its windows; give --classifier_weights"
        )
    names = ("reading", "full", "largest_component", "min_volume_ml", "overwrite", "jobs", "shard")
    settings = {name: getattr(arguments, name) for name in names}
    output, weights = arguments.output, Path(weights)
    return run(arguments.images, output, agent=agent, classifier_weights=weights, **settings, **keys)


def ablate(arguments: argparse.Namespace) -> int:
    """Run a family of scripts, one after the other, into one table."""
    from spars.ablation import Ablation, run_ablation
    from spars.presets import FAMILIES

    names = tuple(arguments.presets or FAMILIES[arguments.family])
    file = load_yaml_or_json(arguments.config) if arguments.config else {}
    ablation = Ablation(
        presets=names,
        output=arguments.output,
        classifier=file.get("classifier", {}) | _override(arguments.classifier_keys),
        game=file.get("game", {}) | _override(arguments.game_keys),
        common={
            name: getattr(arguments, name)
            for name in ("mode", "data_dir", "device", "seed")
            if hasattr(arguments, name)
        },
        demo=arguments.demo,
        resume=arguments.resume,
        only=tuple(arguments.only or ()),
    )
    return run_ablation(ablation)


def _override(words: list[str] | None) -> dict[str, Any]:
    """Read ``key=value`` words, the value as in a YAML file."""
    from medshared.configuration import apply_overrides

    return apply_overrides({}, words or [])


def prepare(arguments: argparse.Namespace) -> int:
    """Check a data set, split its patients, and fill the cache."""
    from spars.preparation import Preparation, prepare_data

    if arguments.make_synthetic:
        make_synthetic(arguments)
    return prepare_data(
        Preparation(
            data_dir=arguments.data_dir,
            shares=tuple(arguments.shares),
            folds=arguments.folds,
            seed=arguments.seed,
            label_map=getattr(arguments, "label_map", None),
            cache_dir=arguments.cache_dir,
            labels_from_voxels=arguments.labels_from_voxels,
            overwrite=arguments.overwrite,
        )
    )


def _case_counts(cases: list[int]) -> tuple[int, int, int]:
    """Return the sizes of the three parts; of a total, four sevenths train, one validates, two test."""
    if len(cases) == 3 and min(cases) > 0:
        return cases[0], cases[1], cases[2]
    if len(cases) != 1 or cases[0] < 3:
        raise DataError(
            f"--cases takes a number from 3, or those of the train, val and test part, found {cases}"
        )
    n_val, n_test = max(1, round(cases[0] / 7)), max(1, round(cases[0] * 2 / 7))
    return cases[0] - n_val - n_test, n_val, n_test


def make_synthetic(arguments: argparse.Namespace) -> int:
    """Write the synthetic data set."""
    from spars.synthetic import write_synthetic

    folder = arguments.data_dir
    if (folder / "dataset.json").exists() and not arguments.overwrite:
        raise FileExistsError(f"{folder}: holds a data set already; --overwrite writes over it")
    n_train, n_val, n_test = _case_counts(arguments.cases)
    size = tuple(arguments.size)
    write_synthetic(
        folder, n_train, n_val, n_test, size=size, seed=arguments.seed, geometry=arguments.geometry
    )
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Make synthetic data, train classifier and agents, evaluate on held-out patients."""
    from spars.demo import run_demo as run

    run(arguments.output, seed=arguments.seed, labels=arguments.labels, device=arguments.device)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write ``report.html`` of a run again from its files."""
    from spars.reporting import write_report

    if not (arguments.run / "results.json").is_file():
        raise DataError(f"{arguments.run}: no results.json; give the directory of a finished run")
    logger.info("%s", write_report(arguments.run))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this machine and installation can do."""
    from spars.doctor import diagnose

    return diagnose()
