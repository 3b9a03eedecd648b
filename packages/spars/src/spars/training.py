"""Stage B from start to end: volumes and weights in, a trained player out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medshared.command_line import RunInterruptedError
from medshared.files import read_json, write_json
from medshared.runs import StopSignal
from spars.agent import Agent
from spars.boards import CaseBoard, load_boards, load_scorer
from spars.config import GameConfig
from spars.data.grid import load_grid_case
from spars.data.layout import Case, find_cases, named_case
from spars.data.splits import choose_cases
from spars.errors import DataError
from spars.game.scorers import NetworkScorer
from spars.lattice import Lattice
from spars.methods import agent_method
from spars.readout import Reading
from spars.selfplay import train_agent

logger = logging.getLogger(__name__)

READING_FILE = "reading.json"
# Searches of each validation volume that choose how the agent's map is read.
_READING_SEEDS = 4


def train_game(
    config: GameConfig,
    folder: Path,
    *,
    resume: bool = False,
    command: Sequence[str] | None = None,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train the players of one configuration into ``folder`` and return what its ``results.json`` holds.

    Mode standard trains an agent on the training split, or on one volume with ``protocol: per_image``, and chooses on
    the validation split how its maps are read (``reading.json``). The modes paper and faithful train on the volume
    ``case`` as `spars.original.selfplay` says.

    Args:
        config: Configuration; switches that are null are resolved here.
        folder: Run directory, created.
        resume: Go on with the run that the folder holds.
        command: The command line, for the record.
        stop: A stop signal that the caller listens to already.

    Raises:
        medshared.command_line.RunInterruptedError: A signal stopped the run; it can be resumed.
        DataError: A file or the split cannot be used.
        spars.errors.CheckpointError: The classifier or a checkpoint cannot be used.
    """
    config = config.resolved()
    if resume and (folder / "results.json").is_file():
        logger.info("%s: finished already", folder)
        return read_json(folder / "results.json")
    cases = find_cases(config.data_dir)
    scorer = load_scorer(config)
    if config.mode != "standard":
        return _train_original(config, folder, scorer, cases, resume=resume, command=command, stop=stop)
    parts = {"train": [named_case(cases, config.case)], "val": []}
    if config.protocol == "split":
        parts = choose_cases(config, cases)
    chosen = parts["train"][: config.train_cases]
    if not chosen:
        raise DataError("the training part of the split is empty; `spars prepare` writes a split")
    boards = load_boards(config, chosen, scorer=scorer)
    validation = load_boards(config, parts["val"], scorer=scorer)
    labelled = [case for case in validation if case.case.label is not None]
    train_agent(
        config,
        [case.board for case in boards],
        folder,
        resume=resume,
        command=command,
        stop=stop,
        validation=[case.board for case in validation],
        finish=lambda agent: {"reading": asdict(choose_agent_reading(agent, config, labelled, folder))},
    )
    return read_json(folder / "results.json")


def choose_agent_reading(
    agent: Agent, config: GameConfig, validation: Sequence[CaseBoard], folder: Path
) -> Reading:
    """Choose by validation how the agent's maps are read, and write ``reading.json``.

    Args:
        agent: The agent.
        config: Resolved configuration.
        validation: Volumes with labels; without any, maps are read by rule smoothed, at threshold 0.5 by default.
        folder: Of the file.
    """
    threshold = config.segmentation_threshold
    lattice = Lattice(config.full_image_size, config.window_size, config.step_size)
    if validation:
        reading = agent_method("agent", "", agent, config, _READING_SEEDS).choose(lattice, validation)
    else:
        logger.warning("no validation case with labels: the threshold of the map cannot be chosen")
        reading = Reading("smoothed", 0.5)
    if threshold is not None:
        reading = Reading(reading.rule, threshold)
    write_json(folder / READING_FILE, asdict(reading))
    logger.info("maps are read by rule %s at threshold %.3f", reading.rule, reading.threshold)
    return reading


def load_reading(path: Path) -> Reading:
    """Read ``reading.json``.

    Args:
        path: The file.

    Raises:
        DataError: It is missing or not what it should be.
    """
    try:
        found = read_json(path)
        return Reading(found["rule"], float(found["threshold"]), found.get("dice"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be used as reading rule and threshold ({error}); `spars train` writes it beside agent.pt"
        ) from error


def _train_original(
    config: GameConfig,
    folder: Path,
    scorer: NetworkScorer,
    cases: list[Case],
    *,
    resume: bool,
    command: Sequence[str] | None,
    stop: StopSignal | None,
) -> dict[str, Any]:
    from spars.original.selfplay import train_faithful

    if config.policy not in (None, "mlp"):
        raise DataError(f"policy {config.policy} plays mode standard only; mode {config.mode} plays with mlp")
    if config.protocol == "split":
        raise DataError(
            f"protocol split is of mode standard; mode {config.mode} trains and plays on one case"
        )
    case = load_grid_case(named_case(cases, config.case), config)
    found = train_faithful(
        config, folder, case.image, case.label, scorer, resume=resume, command=command, stop=stop
    )
    if found["iterations"] < (config.iterations or 0):
        raise RunInterruptedError(f"stopped after iteration {found['iterations']}; --resume continues")
    return found
