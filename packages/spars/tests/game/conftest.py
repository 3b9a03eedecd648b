"""Small boards to play on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from spars.game.boards import Board, make_board
from spars.game.rules import Rules
from spars.game.scorers import StubScorer


@pytest.fixture(scope="session")
def boards_of() -> Callable[[Rules], list[Board]]:
    """Two boards of noise with a bright block, which is the target."""

    def build(rules: Rules) -> list[Board]:
        boards = []
        for seed, name in enumerate(("case_a", "case_b")):
            volume = np.random.default_rng(seed).uniform(0, 0.4, rules.grid).astype(np.float32)
            target = np.zeros(rules.grid, np.bool_)
            target[2:8, 3 : 9 + seed, 4:8] = True
            volume[target] = 0.9
            if rules.mode != "standard":
                volume = np.rint(volume * 400 - 100)
            a, b = (0.1, 0.4) if rules.mode == "standard" else (40, 60)
            boards.append(make_board(name, volume, StubScorer(a, b), rules, target=target))
        return boards

    return build
