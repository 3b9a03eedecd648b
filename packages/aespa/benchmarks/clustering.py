"""Speed of responsibilities and K-means at low resolution against loops at full size; one JSON line a workload.

The plain sides are written out here: responsibilities of every pixel, image by image and component by component, and
scikit-learn's K-means of the enlarged maps, image by image, with the original's settings. With nearest neighbour the
enlarged maps hold every low resolution value equally often, so that both sides must agree: responsibilities to 1e-5,
clusters exactly (the samples lie in clear groups, so that every start leads to them). Both run in this process, in turn, on one thread. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from aespa.clustering import choose_cluster
from aespa.models.em import Mixture, responsibilities


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


def draw_samples(b: int, n: int, side: int) -> Tensor:
    """Draw probability maps ``[B, N, side, side]`` of discs around four radii."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    centre = rng.uniform(0.4, 0.6, (b, 1, 2, 1, 1)) + rng.normal(0, 0.004, (b, n, 2, 1, 1))
    radius = rng.choice([0.08, 0.18, 0.28, 0.38], (b, n, 1, 1)) + rng.normal(0, 0.004, (b, n, 1, 1))
    depth = radius - np.hypot(y - centre[:, :, 0], x - centre[:, :, 1])
    return torch.from_numpy(1 / (1 + np.exp(-20 * depth))).float()


def enlarged(maps: Tensor, side: int) -> Tensor:
    """Repeat pixels up to the size of the input."""
    factor = side // maps.shape[-1]
    return maps.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def plain_responsibilities(maps: Tensor, mixture: Mixture) -> Tensor:
    """Loop over images and components, as the original."""
    result = []
    for image, weights, means, variances in zip(maps, *mixture, strict=True):
        values = image.flatten()
        columns = []
        for k in range(len(weights)):
            density = torch.exp(-0.5 * (values - means[k]) ** 2 / variances[k])
            columns.append(weights[k] * density / math.sqrt(2 * math.pi * float(variances[k])))
        joint = torch.stack(columns, dim=1)
        result.append((joint / joint.sum(dim=1, keepdim=True)).mean(dim=0))
    return torch.stack(result)


def bench_responsibilities(b: int, side: int, k: int, repeats: int) -> None:
    """Time the responsibilities of one round."""
    generator = torch.Generator().manual_seed(0)
    low = draw_samples(b, 1, side // 4)[:, 0]
    full = enlarged(low, side)
    weights = torch.rand(b, k, generator=generator)
    mixture = Mixture(
        weights / weights.sum(dim=1, keepdim=True),
        torch.rand(b, k, generator=generator),
        0.01 + 0.05 * torch.rand(b, k, generator=generator),
    )
    ours = responsibilities(low.flatten(1), mixture)
    torch.testing.assert_close(ours, plain_responsibilities(full, mixture), atol=1e-5, rtol=0)
    seconds = fastest(
        {
            "ours": lambda: responsibilities(low.flatten(1), mixture),
            "plain": lambda: plain_responsibilities(full, mixture),
        },
        repeats,
    )
    line(
        "responsibilities",
        images=b,
        side=side,
        components=k,
        seconds=seconds["ours"],
        plain_seconds=seconds["plain"],
        speedup=seconds["plain"] / seconds["ours"],
        wanted=10,
        equal=True,
    )


def plain_choice(samples: np.ndarray, masks: np.ndarray, k: int) -> list[tuple]:
    """Cluster every image's full maps and take the cluster nearest to its mask."""
    choices = []
    for x, mask in zip(samples, masks, strict=True):
        found = KMeans(k, n_init=1, random_state=0).fit(x)
        nearest = ((found.cluster_centers_ - mask) ** 2).sum(axis=1).argmin()
        members = found.labels_ == nearest
        choices.append((members, x[members].mean(axis=0), x[~members].mean(axis=0)))
    return choices


def bench_kmeans(b: int, n: int, k: int, side: int, repeats: int) -> None:
    """Time the choice among the samples of one round."""
    low = draw_samples(b, n, side // 4)
    mask = (low[:, 0] > 0.5).float()
    full = enlarged(low, side).flatten(2).numpy()
    full_mask = enlarged(mask, side).flatten(1).numpy()

    def ours():
        return choose_cluster(low.flatten(2), mask.flatten(1), k)

    choice = ours()
    for i, (members, select, exclude) in enumerate(plain_choice(full, full_mask, k)):
        np.testing.assert_array_equal(choice.members[i], members)
        for mean, expected in ((choice.select, select), (choice.exclude, exclude)):
            at_full_size = enlarged(mean[i].view(side // 4, side // 4), side).flatten()
            np.testing.assert_allclose(at_full_size, expected, atol=1e-5)
    with threadpool_limits(1):
        seconds = fastest({"ours": ours, "plain": lambda: plain_choice(full, full_mask, k)}, repeats)
    line(
        "K-means and choice",
        images=b,
        samples=n,
        clusters=k,
        side=side,
        seconds=seconds["ours"],
        plain_seconds=seconds["plain"],
        speedup=seconds["plain"] / seconds["ours"],
        wanted=10,
        equal=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    b, side, repeats = (2, 64, 2) if quick else (8, 128, 7)
    bench_responsibilities(b, side, 16, repeats)
    bench_kmeans(b, 48, 4, side, repeats)


if __name__ == "__main__":
    main()
