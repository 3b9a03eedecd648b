"""What the players see, by mode.

* standard: a dict of the window in [0, 1], its position in [0, 1], and with ``memory`` the scores that the player
  recalls from the lattice around it;
* paper: the window stretched to ``target_size``, HU / 255;
* faithful: the stretched window in HU; player 1 sees it as bytes modulo 256 (what is left of it in the original's
  buffer), player 2 as floats. Whoever reads them divides by 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from spars.game.boards import cut_window
from spars.game.duel import Duel
from spars.game.rules import Rules, wrap_uint8
from spars.original.resize import stretch_nearest

Observation = dict[str, NDArray[Any]] | NDArray[Any]


def observation_space(rules: Rules, player: int = 0) -> spaces.Space[Any]:
    """Return the space of what a player sees.

    Args:
        rules: the rules.
        player: 0 or 1; they differ in faithful mode only.
    """
    if rules.mode == "standard":
        parts: dict[str, spaces.Space[Any]] = {
            "window": spaces.Box(0, 1, (1, *rules.window), np.float32),
            "position": spaces.Box(0, 1, (3,), np.float32),
        }
        if rules.memory:
            side = 2 * rules.memory + 1
            parts["memory"] = spaces.Box(0, 1, (2, side, side, side), np.float32)
        return spaces.Dict(parts)
    size = rules.target_size or rules.window
    if rules.mode == "faithful" and player == 0:
        return spaces.Box(0, 255, size, np.uint8)
    return spaces.Box(-np.inf, np.inf, size, np.float32)


def observe(duel: Duel, player: int = 0) -> Observation:
    """Return what a player sees now; the arrays belong to the caller.

    Raises:
        DataError: in faithful mode, when the window lies beyond a volume smaller than the grid.
    """
    rules = duel.rules
    start = duel.shown[player]
    window = cut_window(duel.board.volume, start, rules.window)
    if rules.mode != "standard":
        size = rules.target_size or rules.window
        stretched = window if window.shape == size else stretch_nearest(window, size)
        if rules.mode == "paper":
            return stretched / np.float32(255)
        return wrap_uint8(stretched) if player == 0 else stretched
    position = (start / np.maximum(rules.limit, 1)).astype(np.float32)
    seen: dict[str, NDArray[Any]] = {"window": window[None], "position": position}
    if rules.memory:
        index = np.array([np.searchsorted(a, s) for a, s in zip(duel.lattice.axes, start, strict=True)])
        seen["memory"] = recalled_around(
            duel.recalled[player, None], duel.seen[player, None], index[None], rules.memory
        )[0]
    return seen


def recalled_around(
    recalled: NDArray[np.float32], seen: NDArray[np.bool_], index: NDArray[np.int64], radius: int
) -> NDArray[np.float32]:
    """Return the scores and visits of the lattice around a place, for any number of games.

    Args:
        recalled: scores of the visited windows, 0 elsewhere, ``[n, *lattice.shape]``.
        seen: visited windows, same shape.
        index: lattice indices of the places, int64 ``[n, 3]``.
        radius: of the neighbourhood, r.

    Returns:
        float32 ``[n, 2, 2r+1, 2r+1, 2r+1]``: score, and 1 where visited. What lies beyond the lattice counts as
        visited with score 0: there is nothing to find.
    """
    n, shape = len(index), np.array(recalled.shape[1:])
    away = np.arange(-radius, radius + 1)
    offsets = np.stack(np.meshgrid(away, away, away, indexing="ij"), axis=-1)
    places = index[:, None, None, None] + offsets
    inside = ((places >= 0) & (places < shape)).all(axis=-1)
    games = np.arange(n)[:, None, None, None]
    x, y, z = np.moveaxis(places.clip(0, shape - 1), -1, 0)
    scores = np.where(inside, recalled[games, x, y, z], 0)
    visits = np.where(inside, seen[games, x, y, z], True)
    return np.stack([scores, visits], axis=1).astype(np.float32)
