"""Held-out patients: every method on every volume, one table, and what the agent adds.

Written into the folder: ``metrics.csv`` (a row for each case, method and seed), ``summary.json`` (each method over
patients), ``comparisons.csv`` (the agent against each other method, paired by patient), ``readings.json`` (rule and
threshold that validation chose), ``pred/`` and ``prob/`` of the agent (or of the score map without one) in the files'
own geometry, and ``results.json`` last.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_json
from medshared.gpu import derive_seed
from medshared.metrics.segmentation import lesion_recall, overlap
from medshared.metrics.surfaces import hausdorff
from medshared.process import progress
from medshared.runs import RunDirectory, run_logging
from medshared.tables import write_table
from medshared.volumes import voxel_spacing, write_volume
from spars.agent import Agent, load_agent
from spars.boards import CaseBoard, load_boards, load_scorer
from spars.config import GameConfig
from spars.data.layout import Case, find_cases, named_case
from spars.data.splits import choose_cases
from spars.errors import DataError
from spars.evaluation_tables import compare, summarise, verdict
from spars.game.arena import Arena
from spars.game.arena_envs import random_mover
from spars.game.rules import rules_of
from spars.game.scorers import NetworkScorer
from spars.lattice import Lattice
from spars.methods import (
    Attempt,
    Method,
    agent_method,
    map_baselines,
    search_baselines,
    table_baselines,
    untrained_agent,
)
from spars.readout import Reading

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a case is compared with.

    Attributes:
        tumour: bool, in the frame of the comparison.
        spacing: Of its voxels, in millimetres.
        native: Whether the frame is the file's.
    """

    tumour: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    native: bool


def evaluate(
    config: GameConfig,
    folder: Path,
    *,
    agent: Path | None,
    part: str = "test",
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score an agent and all baselines on held-out cases.

    Args:
        config: Configuration of mode standard; switches that are null are resolved here.
        folder: Run directory, created.
        agent: Weight file of an agent; null = the baselines alone.
        part: Of the split: ``train``, ``val`` or ``test``.
        command: The command line, for the record.

    Returns:
        What ``results.json`` holds.

    Raises:
        DataError: The data, the split or the weights cannot be used.
    """
    from spars.reporting import try_report

    config = config.resolved()
    if config.mode != "standard":
        raise DataError(f"an evaluation on held-out patients is mode standard, found mode {config.mode}")
    scorer = load_scorer(config)
    player = None if agent is None else load_agent(agent, temperature=config.temperature, seed=config.seed)
    _check_agent(player, config, agent)
    cases = find_cases(config.data_dir)
    parts = choose_cases(config, cases)
    if config.protocol == "per_image":  # the volume that the agent was trained on, by agreement
        others = [case for case in parts["val"] if case.name != config.case]
        parts = {**parts, "val": others, part: [named_case(cases, config.case)]}
    elif player is not None:
        _check_held_out(player, parts, part, agent)
    if part == "val":
        logger.warning("thresholds are chosen on the part val, which is reported: results are too good")
    chosen = {name: _labelled(parts[name], name) for name in ("val", part)}
    run = RunDirectory(folder).create(config.model_dump(mode="json"), command=command, seed=config.seed)
    with run_logging("spars", run.path / "log.txt"):
        boards = {name: load_boards(config, cases, scorer=scorer) for name, cases in chosen.items()}
        study = Study(config, boards["val"], boards[part], scorer, player)
        results = study.run(run.path)
        try_report(run.path, results)
        run.write_results(results)
    return results


def _check_agent(agent: Agent | None, config: GameConfig, path: Path | None) -> None:
    if agent is None:
        return
    for key, mine in (("window_size", agent.meta.window), ("full_image_size", agent.meta.grid)):
        if tuple(getattr(config, key)) != tuple(mine):
            raise DataError(
                f"{path}: was trained with {key} {mine}, this run has {getattr(config, key)}; set the same"
            )
    if agent.meta.step != config.step_size:
        raise DataError(
            f"{path}: was trained with step_size {agent.meta.step}, this run has {config.step_size}"
        )


def _check_held_out(agent: Agent, parts: Mapping[str, Sequence[Case]], part: str, path: Path | None) -> None:
    """Refuse an agent that was trained on volumes that thresholds are chosen on or that are reported."""
    for name in dict.fromkeys(("val", part)):
        shared = [case.name for case in parts[name] if case.name in agent.meta.cases]
        if shared and name == "train":
            logger.warning("%s: the agent was trained on volumes of part train: results are too good", path)
        elif shared:
            raise DataError(
                f"{path}: the agent was trained on {', '.join(shared[:3])} of part {name!r}; results would be too "
                "good: use the split that it was trained with, or protocol: per_image"
            )


def _labelled(cases: Sequence[Case], part: str) -> list[Case]:
    found = [case for case in cases if case.label is not None]
    if not found:
        raise DataError(
            f"the part {part!r} of the split has no case with voxel labels, which an evaluation needs"
        )
    return found


class Study:
    """All methods on all volumes.

    Args:
        config: Resolved configuration.
        validation: Volumes that thresholds are chosen on.
        test: Volumes that are reported.
        scorer: Holds the classifier.
        agent: Null = the baselines alone.
    """

    def __init__(
        self,
        config: GameConfig,
        validation: Sequence[CaseBoard],
        test: Sequence[CaseBoard],
        scorer: NetworkScorer,
        agent: Agent | None,
    ) -> None:
        self.config, self.validation, self.test, self.agent = config, validation, test, agent
        self.lattice = Lattice(config.full_image_size, config.window_size, config.step_size)
        self.methods: list[Method] = []
        if agent is not None:
            share = f"{config.budget:.0%} of the windows"
            blank = untrained_agent(agent.meta, config.seed)
            seeds = config.eval_seeds
            self.methods = [
                agent_method("agent", f"the trained agent, {share}", agent, config, seeds),
                agent_method("untrained_agent", "the same before training", blank, config, seeds),
            ]
        self.methods += search_baselines(config, self.lattice)
        self.methods += table_baselines(config, self.lattice)
        self.methods += map_baselines(config, self.lattice, scorer)
        self.readings: dict[str, Reading] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self, folder: Path) -> dict[str, Any]:
        """Do it all, and write everything but ``results.json``.

        Args:
            folder: Of the files.

        Returns:
            What ``results.json`` holds.
        """
        started = time.perf_counter()
        shown = "agent" if self.agent is not None else "score_map"
        truths = {case.name: self._truth(case) for case in self.test}
        for method in progress(self.methods, description="methods"):
            reading = method.choose(self.lattice, self.validation)
            if self.config.segmentation_threshold is not None and method.threshold is None:
                reading = Reading(reading.rule, self.config.segmentation_threshold)
            self.readings[method.name] = reading
            for case in self.test:
                begun = time.perf_counter()
                attempts = method.attempts(case, reading)
                seconds = (time.perf_counter() - begun) / len(attempts)
                for seed, attempt in enumerate(attempts):
                    self.rows.append(
                        {
                            **self._row(method, case, seed, attempt, truths[case.name]),
                            "seconds": seconds,
                        }
                    )
                if method.name == shown:
                    write_prediction(folder, case, attempts[0].probability, reading.threshold)
        write_table(folder / "metrics.csv", self.rows)
        write_json(
            folder / "readings.json", {name: asdict(reading) for name, reading in self.readings.items()}
        )
        summary = summarise(self.rows, self.config.seed)
        write_json(folder / "summary.json", summary)
        comparisons = [] if self.agent is None else compare(self.rows, "agent", self.config.seed)
        if comparisons:
            write_table(folder / "comparisons.csv", comparisons)
        return {
            "mode": self.config.mode,
            "cases": [case.name for case in self.test],
            "windows": len(self.lattice),
            "budget": self.config.budget,
            "methods": {method.name: method.text for method in self.methods},
            "summary": summary,
            "comparisons": comparisons,
            "verdict": verdict(summary, comparisons),
            "play": None if self.agent is None else self.play(),
            "seconds": time.perf_counter() - started,
        }

    def play(self) -> dict[str, float | None]:
        """Return the mean score of the windows that players are at, over games from equal starts.

        Both players are the agent, or both move at random; the starts are the same. The ratio is null where chance
        finds nothing.
        """
        assert self.agent is not None  # noqa: S101 - asked for with an agent only
        found: dict[str, float] = {}
        walk = derive_seed(self.config.seed, "play")  # not the stream that the starts come from
        for name in ("agent", "random_walk"):
            arena = Arena(
                [case.board for case in self.test],
                replace(rules_of(self.config), memory=self.agent.meta.memory),
                20 * len(self.test),
                self.config.seed,
                self.agent.meta.sight(),
            )
            arena.reset()
            self.agent.generator.manual_seed(self.config.seed)
            mover = self.agent if name == "agent" else random_mover(np.random.default_rng(walk))
            total, steps = 0.0, self.config.max_steps or 32
            for _ in range(steps):
                actions = np.stack([mover(arena.observe(player)) for player in range(2)], axis=1)
                total += float(arena.step(actions).scores.mean())
            found[name] = total / steps
        by_chance = found["random_walk"]
        return {**found, "ratio": found["agent"] / by_chance if by_chance > 0 else None}

    def _truth(self, case: CaseBoard) -> Truth:
        if self.config.eval_space == "grid":
            return Truth(case.target(), case.grid.spacing, native=False)
        tumour = case.source_labels(self.config) == 2
        spacing = voxel_spacing(case.grid.source.affine)
        return Truth(tumour, (spacing[0], spacing[1], spacing[2]), native=True)

    def _row(
        self, method: Method, case: CaseBoard, seed: int, attempt: Attempt, truth: Truth
    ) -> dict[str, Any]:
        reading = self.readings[method.name]
        probability = case.to_source(attempt.probability) if truth.native else attempt.probability
        return {
            "case": case.name,
            "method": method.name,
            "seed": seed,
            "mode": self.config.mode,
            **measure(probability > reading.threshold, truth, self.config.empty_value),
            "steps": attempt.moves,
            "terminated": False,
            "windows": attempt.windows,
            "windows_share": None if attempt.windows is None else attempt.windows / len(self.lattice),
        }


def measure(mask: NDArray[np.bool_], truth: Truth, empty_value: float = 1.0) -> dict[str, Any]:
    """Return the metrics of one segmentation; what is undefined is null.

    Args:
        mask: Segmentation, in the frame of the truth.
        truth: The tumour.
        empty_value: Dice when neither has a voxel.
    """
    found = overlap(mask, truth.tumour, empty_value)
    lesions = lesion_recall(mask, truth.tumour)
    ml = float(np.prod(truth.spacing)) / 1000
    return {
        "dice": found.dice,
        "precision": _defined(found.precision),
        "recall": _defined(found.recall),
        "hd95_mm": _defined(hausdorff(mask, truth.tumour, truth.spacing)),
        "tp": found.tp,
        "fp": found.fp,
        "fn": found.fn,
        "pred_ml": found.prediction_voxels * ml,
        "true_ml": found.truth_voxels * ml,
        "volume_error_ml": (found.prediction_voxels - found.truth_voxels) * ml,
        "lesions": lesions.n,
        "lesion_recall": _defined(lesions.recall),
    }


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_prediction(
    folder: Path, case: CaseBoard, probability: NDArray[np.float32], threshold: float
) -> None:
    """Write ``prob/<case>.nii.gz`` (float32) and ``pred/<case>.nii.gz`` (uint8) in the geometry of the file.

    Args:
        folder: Holds both folders.
        case: The case.
        probability: On the grid.
        threshold: Voxels above it are tumour.
    """
    native = case.to_source(probability)
    affine = case.grid.source.affine
    write_volume(folder / "prob" / f"{case.name}.nii.gz", native.astype(np.float32), affine)
    write_volume(folder / "pred" / f"{case.name}.nii.gz", (native > threshold).astype(np.uint8), affine)


def score_maps(config: GameConfig, folder: Path, part: str = "test") -> dict[str, Any]:
    """Write the full score map of every case: ``prob/<case>.nii.gz``.

    Args:
        config: Configuration of mode standard; switches that are null are resolved here.
        folder: Created.
        part: Of the split, or ``all``.

    Returns:
        Names of the cases, and the number of windows of each.
    """
    from spars.readout import read_map

    config = config.resolved()
    cases = find_cases(config.data_dir)
    chosen = cases if part == "all" else choose_cases(config, cases)[part]
    lattice = Lattice(config.full_image_size, config.window_size, config.step_size)
    everything = np.ones(len(lattice), np.bool_)
    scorer = load_scorer(config)
    for case in chosen:
        board = load_boards(config, [case], scorer=scorer)[0]
        probability = read_map(lattice, board.scores(), everything, "visits")
        path = folder / "prob" / f"{case.name}.nii.gz"
        write_volume(path, board.to_source(probability).astype(np.float32), board.grid.source.affine)
    results = {"cases": [case.name for case in chosen], "windows": len(lattice)}
    write_json(folder / "results.json", results)
    return results
