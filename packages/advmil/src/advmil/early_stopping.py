"""When to keep a checkpoint, when to stop, and the learning-rate schedule that watches the same value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

Mode = Literal["min", "max"]
SMALLEST_GAIN = 1e-6


class Decision(NamedTuple):
    """What follows from an epoch.

    Attributes:
        save: Keep this epoch's weights as the best.
        stop: End training.
    """

    save: bool
    stop: bool


@dataclass
class EarlyStopping:
    """Watches one value an epoch.

    Nothing happens in the first ``warmup`` epochs. The first later epoch is the best so far; after it, an epoch is
    better when it gains at least 1e-6, and any other counts towards ``patience``.

    Attributes:
        patience: Epochs without gain before stopping; None never stops.
        warmup: Epochs that are not looked at.
        start_epoch: No stop at or before this epoch (0-based).
        mode: ``min`` for losses, ``max`` for the concordance.
        best: Best value so far.
        best_epoch: Its epoch.
        counter: Epochs since then.
    """

    patience: int | None = 30
    warmup: int = 5
    start_epoch: int = 0
    mode: Mode = "min"
    best: float | None = None
    best_epoch: int | None = None
    counter: int = 0

    def update(self, epoch: int, value: float) -> Decision:
        """Look at an epoch.

        Args:
            epoch: 0-based.
            value: What is watched; NaN is never better.
        """
        if epoch < self.warmup:
            return Decision(False, False)
        if self._improves(value):
            self.best, self.best_epoch, self.counter = float(value), epoch, 0
            return Decision(True, False)
        self.counter += 1
        exhausted = self.patience is not None and self.counter >= self.patience
        return Decision(False, exhausted and epoch > self.start_epoch)

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return True  # even NaN: there is a checkpoint then
        if math.isnan(self.best):
            return not math.isnan(value)
        sign = 1 if self.mode == "min" else -1
        return sign * value <= sign * self.best - SMALLEST_GAIN

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"best": self.best, "best_epoch": self.best_epoch, "counter": self.counter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.best, self.best_epoch, self.counter = state["best"], state["best_epoch"], state["counter"]


def plateau_schedule(optimizer: Optimizer, mode: Mode = "min") -> ReduceLROnPlateau:
    """Return the schedule of G: the learning rate is halved after 10 epochs without a relative gain of 1e-4."""
    return ReduceLROnPlateau(optimizer, mode=mode, factor=0.5, patience=10, threshold=1e-4)
