"""Speed of the metrics over several raters against loops over images and pairs; one JSON line a workload.

The plain sides are written out here: every metric by its own loop over images and over the pairs of masks that it
needs; once on float tensors, as the original computes them, and once on NumPy booleans, whose sums are cheap. All
sides run in this process, in turn, on one thread, on the same masks, and give the same numbers. ``--quick`` for a fast
look.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medshared.metrics.raters import rater_scores

Masks = NDArray[np.bool_]
PairDice = Callable[..., float]


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def fastest(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run the sides in turn and return the processor seconds of each one's fastest round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: min(values) for name, values in seconds.items()}


def tensor_dice(a: torch.Tensor, b: torch.Tensor) -> float:
    """Dice of two masks as float tensors."""
    size = a.sum() + b.sum()
    return float(2 * (a * b).sum() / size) if size > 0 else 1.0


def array_dice(a: Masks, b: Masks) -> float:
    """Dice of two masks as booleans."""
    size = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / size if size else 1.0


def plain_scores(single, masks, neutral, g, dice: PairDice) -> dict[str, float]:
    """Compute the metrics of one image from its masks, each by its own loop."""
    m, r = len(masks), len(g)
    ged = (
        2 * np.mean([1 - dice(a, b) for a, b in itertools.product(masks, g)])
        - np.mean([1 - dice(a, b) for a, b in itertools.product(masks, masks)])
        - np.mean([1 - dice(a, b) for a, b in itertools.product(g, g)])
    )
    cost = np.array([[1 - dice(a, b) for b in g] for a in masks])
    rows, columns = linear_sum_assignment(cost)
    return {
        "ged": float(ged),
        "dice_max": float(np.mean([max(dice(masks[i], g[j]) for i in range(m)) for j in range(r)])),
        "dice_match": float((1 - cost[rows, columns]).sum() / r),
        "dice_personal_mean": float(np.mean([dice(single, each) for each in g])),
        "dice_neutral": dice(single, neutral),
    }


def tensor_side(p: torch.Tensor, g: torch.Tensor) -> list[dict[str, float]]:
    """Loop over images of float tensors."""
    results = []
    for each, raters in zip(p, g, strict=True):
        masks, share = (each > 0.5).float(), raters.mean(dim=0)
        scores = plain_scores((each[-1] > 0.5).float(), masks, (share > 0.5).float(), raters, tensor_dice)
        scores["dice_soft"] = float(2 * (each[-1] * share).sum() / (each[-1].sum() + share.sum()))
        results.append(scores)
    return results


def array_side(p: NDArray[np.float32], g: Masks) -> list[dict[str, float]]:
    """Loop over images of booleans."""
    results = []
    for each, raters in zip(p, g, strict=True):
        share = raters.mean(axis=0, dtype=np.float32)
        scores = plain_scores(each[-1] > 0.5, each > 0.5, share > 0.5, raters, array_dice)
        scores["dice_soft"] = float(2 * (each[-1] * share).sum() / (each[-1].sum() + share.sum()))
        results.append(scores)
    return results


def draw(b: int, r: int, m: int, side: int) -> tuple[NDArray[np.float32], Masks]:
    """Draw blobs that differ from rater to rater and from prediction to prediction."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    centre = rng.uniform(0.35, 0.65, (b, 1, 2, 1, 1)) + rng.normal(0, 0.03, (b, r + m, 2, 1, 1))
    radius = rng.uniform(0.1, 0.25, (b, r + m, 1, 1))
    depth = radius - np.hypot(y - centre[:, :, 0], x - centre[:, :, 1])
    probabilities = 1 / (1 + np.exp(-40 * depth[:, r:]))
    return probabilities.astype(np.float32), depth[:, :r] > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    b, r, m, side = (8, 4, 6, 64) if quick else (64, 4, 6, 128)
    p, g = draw(b, r, m, side)
    flat_p, flat_g = p.reshape(b, m, -1), g.reshape(b, r, -1)
    tensors = torch.from_numpy(flat_p), torch.from_numpy(flat_g).float()
    sides: dict[str, Callable] = {
        "ours": lambda: rater_scores(p, g),
        "tensors": lambda: tensor_side(*tensors),
        "arrays": lambda: array_side(flat_p, flat_g),
    }
    ours = rater_scores(p, g)
    for name in ("tensors", "arrays"):
        plain = sides[name]()
        for key in plain[0]:
            np.testing.assert_allclose(getattr(ours, key), [each[key] for each in plain], atol=1e-6)
    seconds = fastest(sides, 2 if quick else 7)
    sizes = {"images": b, "raters": r, "predictions": m, "side": side}
    for name, wanted in (("tensors", 20), ("arrays", None)):
        line(
            f"multi-rater metrics against loops over {name}",
            **sizes,
            seconds=seconds["ours"],
            plain_seconds=seconds[name],
            speedup=seconds[name] / seconds["ours"],
            wanted=wanted,
            equal=True,
        )


if __name__ == "__main__":
    main()
