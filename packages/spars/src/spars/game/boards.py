"""Boards: a volume, the scores of its windows, and the truth where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.game.rules import Rules, window_lattice
from spars.game.score_table import ScoreTable
from spars.game.scorers import Floats, Scorer
from spars.lattice import Size


class Scores(Protocol):
    """Scores of windows by their place in one volume."""

    def at(self, starts: NDArray[np.int64]) -> Floats:
        """Return the scores ``[n]`` of the windows with the lowest corners ``[n, 3]``."""
        ...


class DirectScores:
    """Runs the scorer for every window that is asked for, one at a time as the original does.

    Args:
        volume: ``[X, Y, Z]``.
        window: size in voxels.
        scorer: the scorer.
    """

    def __init__(self, volume: NDArray[Any], window: Size, scorer: Scorer) -> None:
        self.volume = volume
        self.window = window
        self.scorer = scorer

    def at(self, starts: NDArray[np.int64]) -> Floats:
        """Return the scores ``[n]`` of the windows with the lowest corners ``[n, 3]``.

        A window that the volume cuts off is scored as far as it goes.

        Raises:
            DataError: when nothing of a window lies in the volume.
        """
        return np.array([self.scorer(self._window(start)[None])[0] for start in starts])

    def _window(self, start: NDArray[np.int64]) -> NDArray[np.float32]:
        return cut_window(self.volume, start, self.window)


class ScoreMemo(DirectScores):
    """Runs the scorer once for every window that is asked for and remembers its score.

    The results are those of `DirectScores` bit by bit.

    Attributes:
        n_scored: Windows remembered.
    """

    def __init__(self, volume: NDArray[Any], window: Size, scorer: Scorer) -> None:
        super().__init__(volume, window, scorer)
        self._known: dict[tuple[int, ...], Any] = {}

    @property
    def n_scored(self) -> int:
        """Windows remembered."""
        return len(self._known)

    def at(self, starts: NDArray[np.int64]) -> Floats:
        """Return the scores ``[n]`` of the windows with the lowest corners ``[n, 3]``."""
        return np.array([self._one(start) for start in starts])

    def _one(self, start: NDArray[np.int64]) -> Any:
        key = tuple(start.tolist())
        if key not in self._known:
            self._known[key] = self.scorer(self._window(start)[None])[0]
        return self._known[key]


def cut_window(volume: NDArray[Any], start: NDArray[np.int64], window: Size) -> NDArray[np.float32]:
    """Return one window as float32, cut off where the volume ends.

    Raises:
        DataError: when nothing of it lies in the volume.
    """
    x, y, z = (int(each) for each in start)
    cut = volume[x : x + window[0], y : y + window[1], z : z + window[2]]
    if cut.size == 0:
        raise DataError(
            f"the window at voxel {[x, y, z]} holds no voxel of a volume of {list(volume.shape)}; "
            "the volume is smaller than the grid: resample it to full_image_size (modes standard and paper do)"
        )
    return cut.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Board:
    """What a game is played on.

    Attributes:
        name: Of the case.
        volume: ``[X, Y, Z]``; standard: [0, 1] on the grid; paper: HU on the grid; faithful: HU as stored.
        scores: Scores of the windows.
        target: Tumour voxels on the grid, bool, where they are known.
    """

    name: str
    volume: NDArray[Any]
    scores: Scores
    target: NDArray[np.bool_] | None = None


def make_board(
    name: str,
    volume: NDArray[Any],
    scorer: Scorer,
    rules: Rules,
    *,
    target: NDArray[Any] | None = None,
    table: Literal["full", "lazy", "off"] = "full",
    cache_dir: str | Path | None = None,
    batch: int = 256,
    progress: bool = False,
) -> Board:
    """Return a board whose scores come from a table, or from the scorer itself.

    Args:
        name: of the case.
        volume: as for `Board`.
        scorer: scores windows.
        rules: of the games to be played.
        target: tumour voxels on the grid, where they are known.
        table: ``full`` computes all scores now, ``lazy`` each once when it is needed, ``off`` anew every time.
        cache_dir: folder for the table's file.
        batch: windows cut out at once for a table.
        progress: show a progress bar.

    Raises:
        DataError: when the volume or the target does not have the grid's size where it must.
    """
    if rules.mode != "faithful" and volume.shape != rules.grid:
        raise DataError(f"{name}: the volume has {list(volume.shape)} voxels, the grid {list(rules.grid)}")
    if target is not None and target.shape != rules.grid:
        raise DataError(f"{name}: the target has {list(target.shape)} voxels, the grid {list(rules.grid)}")
    x, y, z = rules.grid
    within = volume[:x, :y, :z]  # the original indexes the volume as stored by coordinates of the grid
    if table == "off":
        scores: Scores = DirectScores(volume, rules.window, scorer)
    elif within.shape != rules.grid:  # windows may be cut off, each differently
        scores = ScoreMemo(volume, rules.window, scorer)
    else:
        scores = ScoreTable(
            window_lattice(rules),
            None,
            scorer,
            within,
            cache_dir=cache_dir,
            batch=1 if table == "lazy" else batch,
        )
        if table == "full":
            scores.full(progress)
    return Board(name, volume, scores, None if target is None else np.asarray(target, np.bool_))
