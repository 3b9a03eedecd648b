"""Who the learner plays against: copies of itself, frozen, and the record of how it fared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

Sampling = Literal["uniform", "latest-half", "prioritised"]
State = dict[str, Tensor]


@dataclass
class Member:
    """One frozen copy.

    Attributes:
        iteration: Of training, when it was frozen.
        wins: Games that the learner has won against it.
        draws: Games that ended even.
        losses: Games that the learner has lost.
    """

    iteration: int
    wins: int = 0
    draws: int = 0
    losses: int = 0

    @property
    def win_rate(self) -> float:
        """Share of games that the learner won, draws counting half; 0.5 before the first game."""
        games = self.wins + self.draws + self.losses
        return (self.wins + 0.5 * self.draws) / games if games else 0.5


class OpponentPool:
    """Frozen copies of the learner, oldest first; the oldest leaves when the pool is full.

    Sampling rules (fictitious self-play): ``uniform`` draws every copy alike; ``latest-half`` the latest in half of the
    rounds, else any; ``prioritised`` in proportion to (1 − the learner's win rate)², so that those it cannot beat come
    back (prioritised fictitious self-play).

    Args:
        size: Copies kept; 1 = the latest alone.
        sampling: Who plays next.
    """

    def __init__(self, size: int = 8, sampling: Sampling = "latest-half") -> None:
        self.size, self.sampling = size, sampling
        self.members: list[Member] = []
        self._states: list[State] = []

    def __len__(self) -> int:
        return len(self.members)

    def add(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Freeze a copy of a policy's weights."""
        self.members.append(Member(iteration))
        self._states.append({name: value.detach().cpu().clone() for name, value in state.items()})
        del self.members[: -self.size], self._states[: -self.size]

    def choose(self, rng: np.random.Generator) -> int:
        """Return the number of the copy that plays next.

        Raises:
            ValueError: The pool is empty.
        """
        n = len(self)
        if n == 0:
            raise ValueError("the pool of opponents is empty: add a copy first")
        if self.sampling == "latest-half" and rng.random() < 0.5:
            return n - 1
        if self.sampling == "prioritised":
            hard = np.array([(1 - member.win_rate) ** 2 for member in self.members])
            if hard.sum() > 0:
                return int(rng.choice(n, p=hard / hard.sum()))
        return int(rng.integers(n))

    def state_of(self, number: int) -> State:
        """Return the weights of a copy."""
        return self._states[number]

    def record(self, number: int, balances: list[float]) -> None:
        """Note finished games: what the learner earned beyond the opponent in each."""
        member = self.members[number]
        member.wins += sum(balance > 0 for balance in balances)
        member.losses += sum(balance < 0 for balance in balances)
        member.draws += sum(balance == 0 for balance in balances)

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each copy: iteration, wins, draws, losses, win rate."""
        return [asdict(member) | {"win_rate": member.win_rate} for member in self.members]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a continued run needs."""
        return {"members": [asdict(member) for member in self.members], "states": self._states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.members = [Member(**member) for member in state["members"]]
        self._states = list(state["states"])
