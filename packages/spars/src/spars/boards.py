"""Cases as boards of the standard game: on the grid, with the scores of their windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medshared.process import progress
from spars.config import GameConfig
from spars.data.cases import read_label
from spars.data.grid import GridCase, from_grid, load_grid_case
from spars.data.layout import Case
from spars.errors import DataError
from spars.game.boards import Board, make_board
from spars.game.rules import rules_of
from spars.game.score_table import ScoreTable
from spars.game.scorers import NetworkScorer
from spars.models.build import load_classifier


@dataclass(frozen=True, eq=False)
class CaseBoard:
    """One case, ready to be searched.

    Attributes:
        case: Where it came from.
        grid: The volume on the working grid, and the way back.
        board: The same with the scores of its windows.
    """

    case: Case
    grid: GridCase
    board: Board

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    @property
    def table(self) -> ScoreTable:
        """Scores of the windows."""
        assert isinstance(self.board.scores, ScoreTable)  # noqa: S101 - `load_board` makes one
        return self.board.scores

    def scores(self) -> NDArray[np.floating]:
        """Return the scores of all windows, ``[len(lattice)]``."""
        return self.table.full().reshape(-1)

    def target(self) -> NDArray[np.bool_]:
        """Return the tumour on the grid.

        Raises:
            DataError: The case has no label.
        """
        if self.board.target is None:
            raise DataError(f"{self.name}: has no voxel labels, which an evaluation needs")
        return self.board.target

    def source_labels(self, config: GameConfig) -> NDArray[np.uint8]:
        """Return the labels 0, 1, 2 as the file has them, in its voxels and axes."""
        return read_label(self.case, config.label_map).array.astype(np.uint8)

    def to_source(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a map of the grid in the voxels and axes of the file."""
        return from_grid(probability, self.grid, "linear")


def load_scorer(config: GameConfig) -> NetworkScorer:
    """Return the classifier that scores windows.

    Args:
        config: Resolved configuration.

    Raises:
        spars.errors.CheckpointError: The weights cannot be used for these windows.
    """
    path = Path(config.classifier_weights)
    target = config.target_size or "native"
    network, meta = load_classifier(path, window=config.window_size, target_size=target)
    known = meta.window is not None  # a file of the original does not say what it was trained on
    if known and meta.hu_window != config.hu_window:
        raise DataError(
            f"{path}: trained with hu_window {_window_text(meta.hu_window)}, this run has "
            f"{_window_text(config.hu_window)}; set the same"
        )
    from medshared.gpu import select_device

    return NetworkScorer(network, target, device=select_device(config.device), batch=config.table_batch)


def _window_text(window: tuple[float, float] | None) -> str:
    return "none (raw HU)" if window is None else f"{window[0]:g} {window[1]:g}"


def load_board(config: GameConfig, case: Case, scorer: NetworkScorer, *, lazy: bool = False) -> CaseBoard:
    """Read a case and score its windows.

    Args:
        config: Resolved configuration.
        case: From `spars.data.layout`.
        scorer: From `load_scorer`.
        lazy: Score windows as they are asked for.
    """
    grid = load_grid_case(case, config)
    board = make_board(
        case.name,
        grid.image,
        scorer,
        rules_of(config),
        target=grid.tumour,
        table="lazy" if lazy else "full",
        cache_dir=config.cache_dir,
    )
    return CaseBoard(case, grid, board)


def load_boards(
    config: GameConfig, cases: Sequence[Case], *, scorer: NetworkScorer | None = None
) -> list[CaseBoard]:
    """Read cases and score their windows, or read the scores from ``cache_dir``.

    Args:
        config: Resolved configuration of mode standard.
        cases: In this order.
        scorer: From `load_scorer`, when the caller has it.

    Raises:
        DataError: A volume cannot be used; the message names the file.
        spars.errors.CheckpointError: The classifier cannot be used.
    """
    scorer = scorer or load_scorer(config)
    lazy = config.table == "lazy"
    return [
        load_board(config, case, scorer, lazy=lazy) for case in progress(cases, description="scoring windows")
    ]
