"""Frames of a game: three orthogonal slices with both windows and the map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spars.game.duel import Duel

Frame = NDArray[np.uint8]

HU_SHOWN = (-100.0, 300.0)  # grey range where the volume is in HU
PLAYER_COLOURS = ((86, 180, 233), (230, 159, 0))  # sky blue and orange, told apart by the colour-blind
MAP_COLOUR = (213, 94, 0)
MAP_OPACITY = 0.6  # of the map's highest value
GAP_PX = 4


def render_frame(duel: Duel) -> Frame:
    """Return the slices through the middle of player 1's window, side by side.

    The slices fix the last, the second and the first axis in turn; the lower of the two axes left runs to the right,
    the other one upwards. One voxel is one pixel. Player 1 is blue, player 2 orange, the map red.

    Args:
        duel: the game as it stands.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    grid = duel.rules.grid
    low, high = (0.0, 1.0) if duel.rules.mode == "standard" else HU_SHOWN
    middle = np.clip(duel.shown[0] + np.array(duel.rules.window) // 2, 0, np.array(grid) - 1)
    total = duel.final_map()
    peak = float(total.max()) or 1.0
    panels = []
    for fixed in (2, 1, 0):
        place = int(middle[fixed])
        grey = np.clip((_slice(duel.board.volume, grid, fixed, place, low) - low) / (high - low), 0, 1)
        painted = np.repeat(grey[..., None] * 255, 3, axis=-1)
        opacity = (MAP_OPACITY * np.take(total, place, axis=fixed) / peak)[..., None]
        painted = (1 - opacity) * painted + opacity * np.array(MAP_COLOUR)
        for player in (1, 0):  # the learner on top
            _outline(
                painted, np.delete(duel.shown[player], fixed), np.delete(duel.rules.window, fixed), player
            )
        panels.append(np.flipud(painted.transpose(1, 0, 2)))
    return _side_by_side(panels)


def _slice(
    volume: NDArray[Any], grid: tuple[int, int, int], fixed: int, place: int, empty: float
) -> NDArray[np.float64]:
    """Cut a slice of the grid out of a volume that may be larger or smaller than the grid."""
    shape = tuple(np.delete(grid, fixed).tolist())
    out = np.full(shape, empty)
    if place < volume.shape[fixed]:
        found = np.take(volume, place, axis=fixed)[: shape[0], : shape[1]]
        out[: found.shape[0], : found.shape[1]] = found
    return out


def _outline(picture: NDArray[np.float64], start: NDArray[Any], window: NDArray[Any], player: int) -> None:
    x, y = (int(each) for each in start)
    last_x, last_y = x + int(window[0]) - 1, y + int(window[1]) - 1
    for place in ((slice(x, last_x + 1), [y, last_y]), ([x, last_x], slice(y, last_y + 1))):
        picture[place] = PLAYER_COLOURS[player]


def _side_by_side(panels: list[NDArray[np.float64]]) -> Frame:
    height = max(len(panel) for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + GAP_PX * (len(panels) - 1)
    frame = np.zeros((height, width, 3), np.uint8)
    left = 0
    for panel in panels:
        frame[: len(panel), left : left + panel.shape[1]] = np.rint(panel).astype(np.uint8)
        left += panel.shape[1] + GAP_PX
    return frame
