"""What an evaluation compares: the agent, searches at its budget, and ways that need no search.

Every method gives, for one volume, one or more probability maps on the grid. Searches give what they scored, and the
rule by which the map is read is chosen on validation volumes, for each search on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medshared.gpu import derive_seed
from spars.agent import Agent, AgentMeta, build_policy
from spars.boards import CaseBoard
from spars.cam import grad_cam, window_cam
from spars.config import GameConfig
from spars.data.grid import LIVER_LABEL
from spars.errors import DataError
from spars.exploration import (
    best_first,
    budget_of,
    greedy_climb,
    random_walk,
    search,
    search_settings,
    top_windows,
)
from spars.game.scorers import NetworkScorer
from spars.lattice import Lattice
from spars.readout import THRESHOLDS, Found, Reading, choose_reading, dice_curve, read_map

Maps = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Attempt:
    """One map of one volume by one method.

    Attributes:
        probability: float32 ``[grid]`` in [0, 1].
        windows: Windows that were scored for it; null = the method scores none.
        moves: Moves of each player, for games.
    """

    probability: NDArray[np.float32]
    windows: int | None = None
    moves: int | None = None


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        name: In tables.
        text: What it does, one line.
        searches: Of one volume → windows scored, bool ``[seeds, len(lattice)]``, and moves; null = no search.
        maps: Of one volume → maps; null = a search.
        threshold: Of the map, where validation does not choose it.
        needs_table: Whether it must know the scores of all windows, whatever it makes of them.
    """

    name: str
    text: str
    searches: Callable[[CaseBoard], tuple[NDArray[np.bool_], NDArray[np.int64] | None]] | None = None
    maps: Callable[[CaseBoard], Maps] | None = None
    threshold: float | None = None
    needs_table: bool = False

    def choose(self, lattice: Lattice, validation: Sequence[CaseBoard]) -> Reading:
        """Choose reading rule and threshold by the mean Dice on validation volumes.

        Args:
            lattice: The window positions.
            validation: Volumes with labels.
        """
        if self.threshold is not None:
            return Reading("visits", self.threshold)
        if self.maps is not None:
            if not validation:
                raise DataError(f"{self.name}: no validation volume with a label to choose a threshold on")
            curves = [
                dice_curve(probability, case.target())
                for case in validation
                for probability in self.maps(case)
            ]
            mean = np.mean(curves, axis=0)
            return Reading("visits", float(THRESHOLDS[mean.argmax()]), float(mean.max()))
        assert self.searches is not None  # noqa: S101 - one of the two is given
        found = [
            Found(case.scores(), seen, case.target())
            for case in validation
            for seen in self.searches(case)[0]
        ]
        return choose_reading(lattice, found)

    def attempts(self, case: CaseBoard, reading: Reading) -> list[Attempt]:
        """Return the method's maps of a volume, one for each seed."""
        if self.maps is not None:
            every = len(case.table.lattice) if self.needs_table else None
            return [Attempt(probability, every) for probability in self.maps(case)]
        assert self.searches is not None  # noqa: S101 - one of the two is given
        seen, moves = self.searches(case)
        scores, lattice = case.scores(), case.table.lattice
        return [
            Attempt(
                read_map(lattice, scores, each, reading.rule),
                each.size if self.needs_table else int(each.sum()),
                None if moves is None else int(moves[i]),
            )
            for i, each in enumerate(seen)
        ]


def agent_method(name: str, text: str, agent: Agent, config: GameConfig, seeds: int) -> Method:
    """Return the search by an agent.

    Args:
        name: In tables.
        text: What it is.
        agent: The agent.
        config: Resolved configuration.
        seeds: Repetitions.
    """
    settings = search_settings(config, agent.meta.lattice)

    def searches(case: CaseBoard) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
        seed = derive_seed(config.seed, "search", case.name)
        found = search(agent, case.grid.image, case.table.lookup, settings, n=seeds, seed=seed)
        return found.seen, found.moves

    return Method(name, text, searches)


def untrained_agent(meta: AgentMeta, seed: int) -> Agent:
    """Return an agent with the weights that training begins with.

    Args:
        meta: What it is for.
        seed: Of the weights.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Agent(build_policy(meta), meta, seed=seed)


def search_baselines(config: GameConfig, lattice: Lattice) -> list[Method]:
    """Return the searches that need no agent, at the agent's budget.

    Args:
        config: Resolved configuration.
        lattice: The window positions.
    """
    budget, seeds = budget_of(lattice, config.budget), config.eval_seeds

    def drawn(kind: Literal["walk", "climb"]) -> Callable[[CaseBoard], tuple[NDArray[np.bool_], None]]:
        def searches(case: CaseBoard) -> tuple[NDArray[np.bool_], None]:
            rng = np.random.default_rng(derive_seed(config.seed, kind, case.name))
            if kind == "walk":
                return np.stack([random_walk(lattice, budget, rng) for _ in range(seeds)]), None
            lookup = case.table.lookup
            return np.stack([greedy_climb(lattice, lookup, budget, rng) for _ in range(seeds)]), None

        return searches

    share = f"{config.budget:.0%} of the windows"
    return [
        Method("random_walk", f"random moves from the centre until {share} are scored", drawn("walk")),
        Method(
            "greedy",
            "climb the scores from the centre, stop at the top",
            searches=lambda case: (greedy_climb(lattice, case.table.lookup, budget)[None], None),
        ),
        Method(
            "greedy_restarts",
            f"the same, again from random places until {share} are scored",
            drawn("climb"),
        ),
        Method(
            "best_first",
            f"always score the neighbours of the best window so far, {share}",
            searches=lambda case: (best_first(lattice, case.table.lookup, budget)[None], None),
        ),
    ]


def table_baselines(config: GameConfig, lattice: Lattice) -> list[Method]:
    """Return the methods that score every window.

    Args:
        config: Resolved configuration.
        lattice: The window positions.
    """
    budget = budget_of(lattice, config.budget)

    def everything(_: CaseBoard) -> tuple[NDArray[np.bool_], None]:
        return np.ones((1, len(lattice)), np.bool_), None

    def best(count: int) -> Callable[[CaseBoard], tuple[NDArray[np.bool_], None]]:
        return lambda case: (top_windows(case.scores(), count)[None], None)

    def best_box(case: CaseBoard) -> Maps:
        start = lattice.starts(lattice.unflat(np.array(case.scores().argmax())))
        box = np.zeros(lattice.grid, np.float32)
        box[tuple(slice(int(s), int(s) + w) for s, w in zip(start, lattice.window, strict=True))] = 1
        return [box]

    return [
        Method("score_map", "mean score of all windows over a voxel", searches=everything),
        Method("score_map_0.5", "the same, threshold 0.5", searches=everything, threshold=0.5),
        Method(
            "best_window",
            "the window with the highest score, as a box",
            maps=best_box,
            threshold=0.5,
            needs_table=True,
        ),
        Method(
            "top_windows",
            f"the best {budget} windows of the full table",
            searches=best(budget),
            needs_table=True,
        ),
    ]


def map_baselines(config: GameConfig, lattice: Lattice, scorer: NetworkScorer) -> list[Method]:
    """Return the methods that search nothing.

    Args:
        config: Resolved configuration.
        lattice: The window positions.
        scorer: Holds the classifier.
    """
    target = config.target_size or "native"

    def whole(case: CaseBoard) -> Maps:
        return [grad_cam(scorer.module, case.grid.image, target)]  # type: ignore[arg-type]

    def best(case: CaseBoard) -> Maps:
        flat = int(case.scores().argmax())
        return [window_cam(scorer.module, case.grid.image, lattice, flat, target)]  # type: ignore[arg-type]

    def liver(case: CaseBoard) -> Maps:
        label = case.grid.label
        assert label is not None  # noqa: S101 - cases of an evaluation have labels
        return [(label >= LIVER_LABEL).astype(np.float32)]

    return [
        Method("cam", "Grad-CAM of the classifier on the whole volume", maps=whole),
        Method(
            "cam_best_window", "Grad-CAM on the window with the highest score", maps=best, needs_table=True
        ),
        Method(
            "all_positive",
            "every voxel is tumour",
            maps=lambda _: [np.ones(lattice.grid, np.float32)],
            threshold=0.5,
        ),
        Method(
            "liver", "the whole liver of the label: what knowing the organ gives", maps=liver, threshold=0.5
        ),
    ]
