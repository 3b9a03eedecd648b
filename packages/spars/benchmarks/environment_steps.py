"""Environment steps: running the classifier at every step, against a table of its scores; one JSON line a workload.

Both sides are the same environment with the same moves, in this process; their rewards must be equal.

* ``original network``: mode faithful, windows of 48×48×24 in 256×256×180. Direct: two windows stretched to the
  network's input and scored, and what both players see, stretched, at every step. Table: look-ups, and windows as they
  are, which is what the compact policy takes. On a CPU the whole table is not computed: its cost is the number of
  windows times the seconds of one score, with the plain and with the accelerated network. On a CUDA device
  (``--device cuda``) it is computed and compared with the device's rate on large matrix products.
* ``window network``: mode standard, windows of 12×12×8 in 48×48×32, the whole table.

Times are processor seconds on a CPU, wall seconds on a CUDA device. ``--quick`` for fewer steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spars.game.boards import Board, DirectScores
from spars.game.rules import Rules, window_lattice
from spars.game.score_table import ScoreTable
from spars.game.scorers import NetworkScorer
from spars.game.single_env import WindowGame
from spars.models.net import Net
from spars.models.window_net import WindowNet

WANTED = 1000.0
TABLE_STEPS = 4000
MULTIPLY_ADDS = 3119e6  # of one forward of the original's network


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


class Clock:
    """Processor seconds, or wall seconds where a GPU works."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def __call__(self) -> float:
        """Return the time now."""
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


class Script:
    """An opponent that repeats its moves."""

    def __init__(self, actions: Iterable[int]) -> None:
        self.actions = iter(actions)

    def predict(self, observation: Any) -> int:
        """Return the next move."""
        return next(self.actions)


def play(
    board: Board, rules: Rules, moves: NDArray[np.int64], repeats: int, clock: Clock
) -> tuple[list[float], list[float], float]:
    """Play the moves from the centre, again and again; return rewards, scores and the seconds of a step."""
    env = WindowGame([board], rules)
    rewards, scores, seconds = [], [], 0.0
    for _ in range(repeats):
        env.set_opponent(Script(moves[:, 1].tolist()))
        env.reset(seed=0)
        rewards, scores = [], []
        started = clock()
        for mine in moves[:, 0].tolist():
            _, reward, _, _, info = env.step(mine)
            rewards.append(reward)
            scores.append(info["score"])
        seconds += clock() - started
    return rewards, scores, seconds / (repeats * len(moves))


def compare(
    workload: str,
    direct: tuple[Board, Rules],
    table: tuple[Board, Rules],
    steps: int,
    clock: Clock,
    **facts: Any,
) -> None:
    """Play both sides, check that they are one game, and print the line."""
    moves = np.random.default_rng(0).integers(0, 6, (steps, 2))
    play(*table, moves, 1, clock)  # fills a lazy table, warms up
    rewards, scores, direct_seconds = play(*direct, moves, 1, clock)
    again, looked_up, table_seconds = play(*table, moves, max(1, TABLE_STEPS // steps), clock)
    assert rewards == again, "the table's game gave other rewards"
    difference = float(np.abs(np.subtract(scores, looked_up)).max())
    assert difference < 1e-5, f"scores differ by {difference}"
    saved = direct_seconds - table_seconds
    if (
        "seconds_per_score_plain_network" in facts
    ):  # both players' scores, without any view, against the whole step
        facts["ratio_of_scores_alone"] = 2 * facts["seconds_per_score_plain_network"] / table_seconds
    costs = {k: v for k, v in facts.items() if k.startswith("table_cost_seconds")}
    line(
        workload,
        windows=len(window_lattice(direct[1])),
        steps_compared=steps,
        equal_rewards=True,
        largest_score_difference=difference,
        direct_seconds_per_step=direct_seconds,
        table_seconds_per_step=table_seconds,
        direct_steps_per_second=1 / direct_seconds,
        table_steps_per_second=1 / table_seconds,
        ratio=direct_seconds / table_seconds,
        **facts,
        **{k.replace("table_cost_seconds", "break_even_steps"): v / saved for k, v in costs.items()},
    )


def bench_original(steps: int, device: str) -> None:
    """The original's network on the original's grid."""
    grid, window = (256, 256, 180), (48, 48, 24)
    clock = Clock(device)
    torch.manual_seed(0)
    net = Net().eval()
    volume = np.random.default_rng(0).normal(40, 100, grid).astype(np.int16)
    plain = NetworkScorer(net, grid, device=device, batch=64, fast=False)
    fast = NetworkScorer(net, grid, device=device, batch=64, fast=True)
    stretched = Rules("faithful", grid, window, start="corner", tie=1, target_size=grid)
    native = Rules("faithful", grid, window, start="corner", tie=1)
    lattice = window_lattice(native)
    table = ScoreTable(lattice, None, plain, volume, batch=1)
    facts: dict[str, Any] = {"device": device, "wanted": WANTED}
    if clock.cuda:
        table = ScoreTable(lattice, None, plain, volume, batch=1024)
        seconds = timed(lambda: table.full(), clock)
        flops = 2 * MULTIPLY_ADDS * len(lattice) / seconds
        peak = matrix_rate(clock)
        facts |= {
            "table_cost_seconds": seconds,
            "table_tflops": flops / 1e12,
            "matrix_product_tflops": peak / 1e12,
            "share_of_matrix_product": flops / peak,
        }
    else:
        starts = lattice.all_starts()[:: len(lattice) // 3][:2]
        for name, scorer in (("plain_network", plain), ("accelerated_network", fast)):
            scorer.score_starts(volume, starts[:1], window)
            one = timed(lambda s=scorer: s.score_starts(volume, starts, window), clock) / len(starts)
            facts |= {f"seconds_per_score_{name}": one, f"table_cost_seconds_{name}": one * len(lattice)}
        facts["table_cost"] = "estimated: windows × seconds per score"
    board = Board("noise", volume, DirectScores(volume, window, plain))
    compare(
        "original network", (board, stretched), (Board("noise", volume, table), native), steps, clock, **facts
    )


def timed(work: Any, clock: Clock) -> float:
    """Return the seconds that a call takes."""
    started = clock()
    work()
    return clock() - started


def matrix_rate(clock: Clock) -> float:
    """Return the device's operations per second on large float32 matrix products, as torch is set here."""
    a = torch.randn(8192, 8192, device="cuda")
    for _ in range(3):
        a @ a
    return 20 * 2 * 8192**3 / timed(lambda: [a @ a for _ in range(20)], clock)


def bench_window(steps: int) -> None:
    """The small network at the windows' own size, with the whole table."""
    grid, window = (48, 48, 32), (12, 12, 8)
    clock = Clock("cpu")
    torch.manual_seed(0)
    volume = np.random.default_rng(0).random(grid).astype(np.float32)
    scorer = NetworkScorer(WindowNet(window))
    rules = Rules("standard", grid, window, memory=2)
    direct = Board("noise", volume, DirectScores(volume, window, scorer))
    lattice = window_lattice(rules)
    table = ScoreTable(lattice, None, scorer, volume)
    seconds = timed(lambda: table.full(), clock)
    compare(
        "window network",
        (direct, rules),
        (Board("noise", volume, table), rules),
        steps,
        clock,
        device="cpu",
        table_cost_seconds=seconds,
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for the original's network")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    bench_window(200 if arguments.quick else 1000)
    bench_original(2 if arguments.quick else 6, arguments.device)


if __name__ == "__main__":
    main()
