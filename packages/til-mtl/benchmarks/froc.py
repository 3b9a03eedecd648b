"""Speed of the FROC curve and of the peak search; one JSON line a workload.

The plain sides are written out here: the curve by matching all regions anew, distances included, at every predicted
probability; the peaks by computing from every accepted point the distance to all points that are left. Both sides run
in this process, alternating, on the same data, and give the same numbers. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medshared.metrics.detection import Region, froc_curve
from til_mtl.peaks import find_peaks

RADIUS_PX, SIDE = 8.0, 256


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


def plain_matching(points: NDArray[np.float64], truth: NDArray[np.float64]) -> int:
    """Return how many annotated points find a prediction of their own; distances are computed here."""
    if len(points) == 0 or len(truth) == 0:
        return 0
    distance = np.sqrt(((truth[:, None] - points[None]) ** 2).sum(axis=2))
    distance[distance > RADIUS_PX] = np.inf
    found = 0
    for row in distance:
        nearest = int(row.argmin())
        if np.isfinite(row[nearest]):
            found += 1
            distance[:, nearest] = np.inf
    return found


def plain_curve(regions: list[Region], area: float) -> tuple[list[float], list[float]]:
    """Return sensitivities and false positives per area, threshold by threshold."""
    arrays = [tuple(np.asarray(each) for each in region) for region in regions]
    n_truth = sum(len(truth) for _, _, truth in arrays)
    thresholds = np.unique(np.concatenate([p for _, p, _ in arrays]))[::-1]
    sensitivity, rates = [], []
    for threshold in thresholds:
        tp = fp = 0
        for points, probabilities, truth in arrays:
            shown = points[probabilities >= threshold]
            found = plain_matching(shown, truth)
            tp, fp = tp + found, fp + len(shown) - found
        sensitivity.append(tp / n_truth)
        rates.append(fp / area)
    return sensitivity, rates


def draw_regions(n: int, predictions: int, cells: int) -> list[Region]:
    """Return regions of 256 px: two thirds of the predictions lie near a cell."""
    rng = np.random.default_rng(0)
    regions = []
    for _ in range(n):
        truth = rng.uniform(0, SIDE, (cells, 2))
        near = truth[rng.integers(0, cells, predictions * 2 // 3)]
        near = near + rng.normal(0, 3, near.shape)
        far = rng.uniform(0, SIDE, (predictions - len(near), 2))
        points = np.concatenate([near, far])
        regions.append(Region(points, rng.uniform(0.1, 1, predictions), truth))
    return regions


def bench_curve(n: int, predictions: int, cells: int, repeats: int) -> None:
    """Time the curve of an epoch."""
    regions = draw_regions(n, predictions, cells)
    area = n * (SIDE * 0.5e-3) ** 2
    curve, plain = froc_curve(regions, RADIUS_PX, area), plain_curve(regions, area)
    np.testing.assert_allclose(curve.sensitivities, plain[0], rtol=1e-12)
    np.testing.assert_allclose(curve.false_positives, plain[1], rtol=1e-12)
    seconds = fastest(
        {
            "ours": lambda: froc_curve(regions, RADIUS_PX, area),
            "plain": lambda: plain_curve(regions, area),
        },
        repeats,
    )
    line(
        "FROC of an epoch",
        regions=n,
        predictions=n * predictions,
        cells=n * cells,
        seconds=seconds["ours"],
        plain_seconds=seconds["plain"],
        speedup=seconds["plain"] / seconds["ours"],
        wanted=20,
        equal=True,
    )


def plain_peaks(probability: NDArray[np.float64], threshold: float, distance: float) -> NDArray[np.float64]:
    """Return peaks as the original finds them, ties in reading order."""
    rows, columns = np.nonzero(probability >= threshold)
    points = np.stack([columns, rows, probability[rows, columns]], axis=1)
    points = points[np.argsort(-points[:, 2], kind="stable")]
    kept = []
    while len(points):
        kept.append(points[0])
        points = points[np.sqrt(((points[:, :2] - points[0, :2]) ** 2).sum(axis=1)) > distance]
    return np.reshape(kept, (-1, 3))


def bench_peaks(repeats: int) -> None:
    """Time the peak search on a map of an untrained and of a trained network."""
    rng = np.random.default_rng(0)
    flat = 0.5 + 0.01 * rng.standard_normal((SIDE, SIDE))
    peaked = np.zeros((SIDE, SIDE))
    peaked[rng.integers(0, SIDE, 120), rng.integers(0, SIDE, 120)] = 1
    peaked = np.minimum(gaussian_filter(peaked, 3) * 50, 1) + 1e-9 * rng.random((SIDE, SIDE))
    for name, probability in (("near 0.5 everywhere", flat), ("peaked", peaked)):
        for distance in (12.0, 18.0):
            np.testing.assert_array_equal(
                find_peaks(probability, 0.1, distance), plain_peaks(probability, 0.1, distance)
            )
        seconds = fastest(
            {
                "ours": lambda p=probability: find_peaks(p, 0.1, 18.0),
                "plain": lambda p=probability: plain_peaks(p, 0.1, 18.0),
            },
            repeats,
        )
        line(
            f"peaks of a 256 px map, {name}",
            seconds=seconds["ours"],
            plain_seconds=seconds["plain"],
            speedup=seconds["plain"] / seconds["ours"],
            equal=True,
        )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller sets")
    quick = parser.parse_args().quick
    bench_curve(8 if quick else 24, 30, 20, 2 if quick else 3)
    if not quick:
        bench_curve(48, 40, 25, 1)
    bench_peaks(2 if quick else 5)


if __name__ == "__main__":
    main()
