"""The original's game under its own names, with its own order of work.

`CursorImageEnv` is one learner against an injected competitor on one volume: the image is indexed as it is stored,
positions are not limited, the map adds the competitor's score at the learner's place. `dice_score` compares a map with
a label of another frame. What each of them should do is in `spars.game`.
"""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from spars.errors import DataError
from spars.game.boards import Board, ScoreMemo, cut_window
from spars.game.duel import Duel
from spars.game.observations import observe
from spars.game.opponents import FixedOpponent, Opponent, chosen_action
from spars.game.rules import N_ACTIONS, Rules, shown_start, wrap_uint8
from spars.game.scorers import Scorer
from spars.lattice import Size
from spars.original.resize import stretch_nearest

log = logging.getLogger(__name__)

FULL_IMAGE_SIZE: Size = (256, 256, 180)
WINDOW_SIZE: Size = (48, 48, 24)


class CursorImageEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """The original's environment: both players begin with the lowest corner of their window at G // 2.

    Its first competitor moves up the last axis for ever. Nothing limits an episode but a score above the threshold; the
    training loop resets it at every iteration.

    Args:
        image: volume in HU as it is stored, ``[X, Y, Z]``; coordinates of the grid index it directly.
        label: 0 background, 1 liver, 2 tumour, any size; ``None`` where no Dice is asked for.
        scorer: scores windows in HU.
        full_image_size: the grid.
        window_size: the windows, in voxels.
        termination_threshold: a score above it ends an episode.
        target_size: what windows are stretched to for the learner; ``None`` = the grid, ``"native"`` = not at all, for
            policies that count the copies themselves.
        step_size: voxels of a move.

    Attributes:
        competitor: Whoever moves the second window.
        observation: What the learner sees, in HU and not wrapped.
    """

    def __init__(
        self,
        image: NDArray[Any],
        label: NDArray[Any] | None,
        scorer: Scorer,
        full_image_size: Size = FULL_IMAGE_SIZE,
        window_size: Size = WINDOW_SIZE,
        *,
        termination_threshold: float = 0.3,
        target_size: Size | str | None = None,
        step_size: int = 4,
    ) -> None:
        self.rules = Rules(
            mode="faithful",
            grid=full_image_size,
            window=window_size,
            step=step_size,
            start="corner",
            tie=1,
            threshold=termination_threshold,
            target_size=None if target_size == "native" else (target_size or full_image_size),  # type: ignore[arg-type]
        )
        self.image = image
        self.label = label
        self._target: NDArray[np.bool_] | None = None
        self.duel = Duel(self.rules, Board("image", image, ScoreMemo(image, window_size, scorer)))
        self.competitor: Opponent = FixedOpponent(0)
        self.action_space = spaces.Discrete(N_ACTIONS)
        self.observation_space = spaces.Box(0, 255, self.rules.target_size or window_size, np.uint8)

    def set_competitor(self, competitor: Opponent) -> None:
        """Let somebody else move the second window; the original passes the learner itself."""
        self.competitor = competitor

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Put both windows back and empty the map."""
        super().reset(seed=seed)
        self.duel.reset()
        self.observation = self.get_observation(self.duel.position[0])
        return wrap_uint8(self.observation), self.duel.info()

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Move the learner, ask the competitor on its old window, move it, score both, add to the map.

        Returns:
            Observation (bytes modulo 256), reward ±1, done, False, info.
        """
        answer = chosen_action(self.competitor, observe(self.duel, player=1))
        turn = self.duel.step((int(action), answer))
        self.observation = self.get_observation(self.duel.position[0])
        return (
            wrap_uint8(self.observation),
            float(turn.rewards[0]),
            turn.terminated,
            False,
            self.duel.info(0, turn),
        )

    def get_observation(self, position: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the window at a position, clipped to the grid and stretched, in HU."""
        window = cut_window(self.image, shown_start(self.rules, position), self.rules.window)
        return self.resize_image(window)

    def resize_image(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return a crop stretched by the nearest voxel to what the learner sees, float32."""
        return stretch_nearest(image, self.rules.target_size or self.rules.window)

    @property
    def accumulated_map(self) -> NDArray[np.float64]:
        """The map: competitor's scores summed at the learner's unclipped boxes, float64 ``[grid]``."""
        return self.duel.sum_map()

    def compute_final_dice_score(self, threshold: float = 0.5) -> float:
        """Return the Dice of ``map > threshold`` and the label's tumour, as the original computes it.

        Raises:
            DataError: without a label.
        """
        if self.label is None:
            raise DataError("the Dice needs a label volume, found none for this image")
        if self._target is None:  # the same in every iteration
            self._target = stretch_nearest(self.label == 2, self.rules.grid) > 0
        return dice_score(self.accumulated_map > threshold, self._target, self.rules.grid)


def dice_score(pred: NDArray[Any], target: NDArray[Any], full_image_size: Size = FULL_IMAGE_SIZE) -> float:
    """Return the original's Dice: the target is stretched to the grid, whatever frame it is in.

    Args:
        pred: mask on the grid; everything but 0 counts.
        target: mask of any size; everything but 0 counts.
        full_image_size: the grid.

    Returns:
        ``2·|A∩B| / (|A| + |B|)``; NaN when both are empty, where `medshared.metrics.segmentation.overlap` gives a
        chosen value.

    Raises:
        DataError: when ``pred`` is not on the grid.
    """
    predicted, resized = pred.astype(bool), stretch_nearest(target.astype(bool), full_image_size) > 0
    if predicted.shape != resized.shape:
        raise DataError(
            f"the prediction must have the grid's size {list(full_image_size)}, found {list(predicted.shape)}"
        )
    voxels = int(np.count_nonzero(predicted)) + int(np.count_nonzero(resized))
    if voxels == 0:
        log.warning("neither prediction nor target has a voxel: Dice is undefined (NaN)")
        return float("nan")
    return 2 * int(np.count_nonzero(predicted & resized)) / voxels
