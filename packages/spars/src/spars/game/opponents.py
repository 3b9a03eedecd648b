"""Opponents: whoever moves the second window of the single-player environment."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Opponent(Protocol):
    """Anything that says an action for an observation, such as a model of stable-baselines3."""

    def predict(self, observation: Any) -> Any:
        """Return an action, or a tuple that begins with one."""
        ...


class RandomOpponent:
    """Draws every action with the same probability.

    Args:
        rng: what it draws from; the environment gives its own generator at every reset.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self.rng = rng or np.random.default_rng(0)

    def predict(self, observation: Any) -> int:
        """Return an action."""
        return int(self.rng.integers(0, 6))


class FixedOpponent:
    """Always moves the same way: the original's first opponent, which goes up the last axis.

    Args:
        action: the move.
    """

    def __init__(self, action: int = 0) -> None:
        self.action = action

    def predict(self, observation: Any) -> int:
        """Return the action."""
        return self.action


def chosen_action(opponent: Opponent, observation: Any) -> int:
    """Return the action that an opponent chooses, whichever of the usual forms it gives it in.

    Raises:
        ValueError: when it gives something else than one number.
    """
    answer = opponent.predict(observation)
    action = np.asarray(answer[0] if isinstance(answer, tuple) else answer)
    if action.size != 1:
        raise ValueError(
            f"the opponent's predict must return one action, or (action, state), found {answer!r}"
        )
    return int(action.item())
