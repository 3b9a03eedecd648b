"""A thousand games side by side: an arena on tables, against one game at a time; one JSON line a workload.

Both sides look the same tables up, with the same moves, in this process on one core; their rewards must be equal. The
one game is `spars.game.duel.Duel`. ``with views`` adds what the learner sees. Times are processor seconds. ``--quick``
for fewer games.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from spars.game.arena import Arena
from spars.game.boards import Board
from spars.game.duel import Duel
from spars.game.rules import Rules
from spars.game.score_table import ScoreTable
from spars.lattice import Lattice

GRID, WINDOW = (48, 48, 32), (12, 12, 8)


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def bench(n_games: int, steps: int, one_by_one: int) -> None:
    """Time an arena, and some of its games alone."""
    rng = np.random.default_rng(0)
    rules = Rules("standard", GRID, WINDOW, reward="margin")
    lattice = Lattice(GRID, WINDOW)
    table = ScoreTable(lattice, rng.random(lattice.shape).astype(np.float32))
    board = Board("noise", rng.random(GRID).astype(np.float32), table)
    moves = rng.integers(0, 6, (steps, n_games, 2))
    arena = Arena([board], rules, n_games)
    arena.reset()
    rewards = np.empty((steps, n_games, 2))
    started = time.process_time()
    for i in range(steps):
        rewards[i] = arena.step(moves[i]).rewards
    arena_seconds = (time.process_time() - started) / (steps * n_games)
    duel, alone = Duel(rules, board), np.empty((steps, one_by_one, 2))
    started = time.process_time()
    for game in range(one_by_one):
        duel.reset()
        for i in range(steps):
            alone[i, game] = duel.step(moves[i, game]).rewards
    duel_seconds = (time.process_time() - started) / (steps * one_by_one)
    np.testing.assert_allclose(alone, rewards[:, :one_by_one], atol=1e-6)
    seen_at = time.process_time()
    for i in range(steps):
        arena.step(moves[i])
        arena.observe(0)
    views_seconds = (time.process_time() - seen_at) / (steps * n_games)
    line(
        "games on tables",
        games=n_games,
        steps=steps,
        equal_rewards=True,
        steps_per_second=1 / arena_seconds,
        steps_per_second_with_views=1 / views_seconds,
        steps_per_second_one_by_one=1 / duel_seconds,
        ratio=duel_seconds / arena_seconds,
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer games")
    quick = parser.parse_args().quick
    for n_games in (1000,) if quick else (64, 1000, 4000):
        bench(n_games, 64, 20)


if __name__ == "__main__":
    main()
