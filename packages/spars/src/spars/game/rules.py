"""The rules of the window game in its three modes, as pure functions of arrays.

Positions are lowest corners of windows in voxels, int64 ``[..., 3]``; every function takes any number of games at
once. A move adds ``step`` voxels along one axis (`spars.lattice.MOVES`).

| rule | faithful | paper | standard |
|---|---|---|---|
| start | corner at G // 2 | centred | random on the lattice, both players alike |
| limits of the position | none; windows are clipped to [1, G − w − 1] | clipped to [0, G − w] | no move leaves it |
| equal scores | +1 for player 1 | −1 | 0 |
| the map adds | player 2's score at player 1's unclipped box | own scores at own boxes | the same, and counts |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spars.config import GameConfig, Mode
from spars.errors import DataError
from spars.lattice import MOVES, Lattice, Size

Positions = NDArray[np.int64]
Reward = Literal["sign", "margin", "novelty", "finds"]
N_ACTIONS = len(MOVES)


@dataclass(frozen=True)
class Rules:
    """What a game is played by.

    Attributes:
        mode: faithful, paper or standard: limits of positions, what the map adds, what the players see.
        grid: Size of the working grid in voxels.
        window: Size of the windows in voxels.
        step: Voxels of a move.
        start: Where both players begin: ``random`` on the lattice, ``centre`` (window centred), ``corner``
            (lowest corner at G // 2).
        tie: Reward of equal scores.
        reward: ``sign`` of the comparison, ``margin`` of the scores, ``novelty`` = margin in which a score counts
            only at the first visit of either player, or ``finds`` = what the player found first, so that players
            compete for windows; both at one new window share it.
        threshold: A score above it ends the game; ``None`` = scores do not.
        max_steps: Moves of a game before it is cut off; ``None`` = no limit.
        target_size: What windows are stretched to for the observations of faithful and paper.
        memory: Radius of the lattice neighbourhood whose scores a player recalls, 0 = none.
    """

    mode: Mode
    grid: Size
    window: Size
    step: int = 4
    start: Literal["random", "centre", "corner"] = "centre"
    tie: int = 0
    reward: Reward = "sign"
    threshold: float | None = None
    max_steps: int | None = None
    target_size: Size | None = None
    memory: int = 0

    def __post_init__(self) -> None:
        Lattice(self.grid, self.window, self.step)  # refuses a window that does not fit
        if self.memory and self.mode != "standard":
            raise DataError(
                f"memory needs the lattice of mode standard, found memory {self.memory} in {self.mode}"
            )

    @property
    def limit(self) -> Positions:
        """Largest corner of a window inside the grid, G − w."""
        return np.array(self.grid, np.int64) - np.array(self.window, np.int64)


def rules_of(config: GameConfig) -> Rules:
    """Return the rules that a configuration asks for."""
    keys = config.resolved()
    return Rules(
        mode=keys.mode,
        grid=keys.full_image_size,
        window=keys.window_size,
        step=keys.step_size,
        start=keys.start or "centre",
        tie=keys.tie or 0,
        reward=keys.reward or "sign",
        threshold=keys.termination_threshold if keys.termination else None,
        max_steps=keys.max_steps,
        target_size=None if keys.target_size in (None, "native") else keys.target_size,  # type: ignore[arg-type]
        memory=keys.memory or 0,
    )


def start_position(rules: Rules, rng: np.random.Generator | None = None) -> Positions:
    """Return where both players begin, int64 ``[3]``.

    Args:
        rules: the rules.
        rng: draws a ``random`` start.

    Raises:
        ValueError: when a random start is asked for without ``rng``.
    """
    if rules.start == "corner":
        corner = np.array(rules.grid, np.int64) // 2
        return corner if rules.mode == "faithful" else corner.clip(max=rules.limit)
    lattice = Lattice(rules.grid, rules.window, rules.step)
    if rules.start == "centre":
        return lattice.starts(lattice.centre)
    if rng is None:
        raise ValueError("a random start needs a random generator")
    return lattice.starts(rng.integers(0, lattice.shape))


def move(rules: Rules, position: Positions, action: NDArray[Any]) -> Positions:
    """Return the positions after the actions, by the limits of the mode.

    Args:
        rules: the rules.
        position: int64 ``[..., 3]``.
        action: whole numbers ``[...]`` in [0, 6).

    Raises:
        ValueError: naming an action that does not exist.
    """
    action = np.asarray(action)
    if not np.issubdtype(action.dtype, np.integer) or ((action < 0) | (action >= N_ACTIONS)).any():
        raise ValueError(f"actions must be whole numbers from 0 to {N_ACTIONS - 1}, found {action.tolist()}")
    target = position + MOVES[action] * rules.step
    if rules.mode == "faithful":
        return target
    if rules.mode == "paper":
        return target.clip(0, rules.limit)
    inside = ((target >= 0) & (target <= rules.limit)).all(axis=-1, keepdims=True)
    return np.where(inside, target, position)


def action_masks(rules: Rules, position: Positions) -> NDArray[np.bool_]:
    """Return which actions change the position, bool ``[..., 6]``; all of them where none does."""
    every = np.broadcast_to(np.arange(N_ACTIONS), (*position.shape[:-1], N_ACTIONS))
    moved = move(rules, position[..., None, :], every)
    changes = (moved != position[..., None, :]).any(axis=-1)
    return changes | ~changes.any(axis=-1, keepdims=True)


def shown_start(rules: Rules, position: Positions) -> Positions:
    """Return the lowest corner of the window that is cut out at a position.

    The original clips it to [1, G − w − 1], so that the first and the last layer of voxels are never seen.
    """
    return position.clip(1, rules.limit - 1) if rules.mode == "faithful" else position


def map_box(rules: Rules, position: Positions) -> tuple[Positions, Positions]:
    """Return the voxels ``[low, high)`` of the map that a score at a position is added to.

    The original slices the map with unclipped corners, so that a negative number counts from the far end: a box that
    begins below 0 is empty until it lies below as a whole, and then appears at the other side.

    Returns:
        low and high, int64 ``[..., 3]``; nothing is added where high ≤ low on an axis.
    """
    low, high = position, position + np.array(rules.window, np.int64)
    if rules.mode != "faithful":
        return low, high
    grid = np.array(rules.grid, np.int64)
    return tuple(np.where(end < 0, end + grid, end).clip(0, grid) for end in (low, high))  # type: ignore[return-value]


def rewards(
    rules: Rules,
    scores: NDArray[Any],
    first_visit: NDArray[np.bool_] | None = None,
    together: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return what the two players earn.

    Args:
        rules: the rules; equal scores give both players ``tie`` by ``sign``, in faithful mode ``tie`` and ``−tie``.
        scores: of the two players, ``[..., 2]``.
        first_visit: whether each player's window is new in this game, ``[..., 2]``; for ``novelty`` and ``finds``.
        together: whether both players are at one window, ``[...]``; for ``finds``.

    Returns:
        float64 ``[..., 2]``.
    """
    earned = np.asarray(scores, np.float64)
    if rules.reward in ("novelty", "finds"):
        if first_visit is None:
            raise ValueError(f"the reward {rules.reward} needs to know which windows are new")
        earned = earned * first_visit
    if rules.reward == "finds":
        if together is None:
            raise ValueError("the reward finds needs to know which players are at one window")
        return earned * np.where(np.asarray(together)[..., None], 0.5, 1.0)
    margin = earned[..., 0] - earned[..., 1]
    if rules.reward != "sign":
        return np.stack([margin, -margin], axis=-1)
    second = -rules.tie if rules.mode == "faithful" else rules.tie
    tied = margin == 0
    return np.stack(
        [np.where(tied, rules.tie, np.sign(margin)), np.where(tied, second, -np.sign(margin))], axis=-1
    ).astype(np.float64)


def is_over(rules: Rules, scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether a score of either player exceeds the threshold, bool ``[...]`` for scores ``[..., 2]``."""
    over = np.asarray(scores).max(axis=-1)
    return np.zeros(over.shape, np.bool_) if rules.threshold is None else over > rules.threshold


def wrap_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers as the original's buffer of bytes keeps them: truncated, then modulo 256.

    A cast of negative floats to bytes has no defined result in C; this is what it gives on x86.
    """
    return values.astype(np.int64).astype(np.uint8)  # between whole numbers the cast is modulo by definition


@dataclass(frozen=True)
class ReachableStarts(Lattice):
    """The starts that windows can have by the rules of faithful and paper, whose positions leave the lattice.

    Attributes:
        reachable: Starts along each axis, ascending.
    """

    reachable: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())

    @property
    def axes(self) -> tuple[Positions, Positions, Positions]:  # type: ignore[override]
        """Starts along each axis."""
        a, b, c = (np.array(axis, np.int64) for axis in self.reachable)
        return a, b, c


def window_lattice(rules: Rules) -> Lattice:
    """Return all windows that a game by these rules can show.

    Every ``step`` from the start. Faithful: clipped to [1, G − w − 1]. Paper: also every ``step`` from either border,
    since a move that is clipped leaves the lattice.
    """
    centred = Lattice(rules.grid, rules.window, rules.step)
    if rules.mode == "standard" and rules.start != "corner":
        return centred
    origin = start_position(rules) if rules.start == "corner" else centred.starts(centred.centre)
    axes = []
    for size, first, last in zip(rules.grid, origin.tolist(), rules.limit.tolist(), strict=True):
        if rules.mode == "faithful":
            found = np.arange(first % rules.step - rules.step, size + rules.step, rules.step).clip(
                1, last - 1
            )
        else:
            borders = {0, last % rules.step} if rules.mode == "paper" else set()
            every = np.arange(last + 1)
            found = every[np.isin(every % rules.step, sorted({first % rules.step} | borders))]
        axes.append(tuple(np.unique(found).tolist()))
    return ReachableStarts(rules.grid, rules.window, rules.step, (axes[0], axes[1], axes[2]))
