"""Speed and memory of the preparation; one JSON line a workload.

Both sides of a comparison run in this process, alternating, on the same inputs, and give the same results, which is
asserted. Comparisons are of processor seconds, since what else runs on the machine slows rounds down and speeds none up;
a slide's features are timed by the clock, in a process of their own. Run with ``nox -s bench``, or as a script; ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from advmil.prepare.big_to_small import small_coordinates
from advmil.prepare.graphs import build_graph

NEIGHBOURS = 8


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def processor_seconds(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run the sides in turn and return the processor seconds of each one's fastest round, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, run in sides.items():
            started = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - started)
    return {name: min(values) for name, values in seconds.items()}


def bench_big_to_small(repeats: int) -> None:
    """1,500 big patches: one broadcast, and the original's way, patch by small patch."""
    big = np.random.default_rng(0).integers(0, 100_000, (1500, 2))

    def nested() -> np.ndarray:
        found, step = [], 256 * 4
        for corner in big:
            for j in range(4):
                for i in range(4):
                    found.append(corner + np.array([i, j]) * step)
        return np.stack(found)

    def broadcast() -> np.ndarray:
        return small_coordinates(big, 256, 16.0)

    assert np.array_equal(nested(), broadcast()), "the coordinates differ"
    seconds = processor_seconds({"nested": nested, "broadcast": broadcast}, repeats)
    line(
        "big_to_small_1500",
        nested_ms=1e3 * seconds["nested"],
        broadcast_ms=1e3 * seconds["broadcast"],
        ratio=seconds["nested"] / seconds["broadcast"],
        target=100,
        equal=True,
    )


def _nearest_by_hnsw(points: np.ndarray) -> np.ndarray:
    """The original's search: an approximate index of its settings, asked for each node in turn."""
    import hnswlib  # type: ignore[import-not-found]

    index = hnswlib.Index(space="l2", dim=points.shape[1])
    index.init_index(max_elements=len(points), ef_construction=400, M=16)
    index.set_num_threads(1)
    index.add_items(points, np.arange(len(points)))
    index.set_ef(90)
    return np.stack([index.knn_query(point, k=NEIGHBOURS + 1)[0][0][1:] for point in points]).astype(np.int64)


def _nearest_by_scikit_learn(points: np.ndarray) -> np.ndarray:
    """An exact search by scikit-learn, asked for each node in turn as the original asks its index."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(points)
    rows = []
    for row, point in enumerate(points):
        found = index.kneighbors(point[None], return_distance=False)[0]
        rows.append([other for other in found.tolist() if other != row][:NEIGHBOURS])
    return np.asarray(rows)


def bench_graph(repeats: int, n: int, width: int) -> None:
    """Spatial and latent neighbours of one slide, against the original's node-by-node search."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    grid = np.stack([np.arange(n) % side, np.arange(n) // side], axis=1) * 1024
    coordinates = grid[np.sort(rng.permutation(n))]
    features = rng.standard_normal((n, width)).astype(np.float32)
    try:
        import hnswlib  # noqa: F401  # type: ignore[import-not-found]
    except ImportError:
        search, kind = (
            _nearest_by_scikit_learn,
            "scikit-learn, exact, node by node (hnswlib is not installed)",
        )
    else:
        search, kind = _nearest_by_hnsw, "HNSW, approximate, node by node"

    def ours() -> tuple[np.ndarray, np.ndarray]:
        graph = build_graph(features, coordinates)
        return graph["edge_index"][1].numpy(), graph["edge_latent"][1].numpy()

    def original() -> tuple[np.ndarray, np.ndarray]:
        return search(coordinates.astype(np.float32)).ravel(), search(features).ravel()

    def distances(points: np.ndarray, found: np.ndarray) -> np.ndarray:
        own = points.astype(np.float64)
        return np.square(own[found.reshape(n, NEIGHBOURS)] - own[:, None]).sum(axis=2)

    exact, compared = ours(), original()
    # Ties may fall either way there, so distances are compared; no neighbour may be farther than the true one.
    equal = []
    for points, mine, theirs in zip((coordinates, features), exact, compared, strict=True):
        own, other = distances(points, mine), np.sort(distances(points, theirs), axis=1)
        assert (own <= other * (1 + 1e-5)).all(), "a nearer neighbour was missed"
        equal.append(float(np.isclose(own, other, rtol=1e-5).mean()))
    if search is _nearest_by_scikit_learn:
        assert equal == [1.0, 1.0], "the distances differ"
    seconds = processor_seconds({"original": original, "ours": ours}, repeats)
    line(
        f"graph_{n}x{width}",
        against=kind,
        original_ms=1e3 * seconds["original"],
        ours_ms=1e3 * seconds["ours"],
        ratio=seconds["original"] / seconds["ours"],
        target=10,
        exact=True,
        equal_distances_spatial=equal[0],
        equal_distances_latent=equal[1],
    )


def bench_clusters(repeats: int, n: int, width: int) -> None:
    """K-means with the original's ten starts: how long it takes, so that its share of a cohort can be told."""
    from advmil.prepare.clusters import cluster_patches

    features = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
    seconds = processor_seconds({"ours": lambda: cluster_patches(features)}, repeats)
    line(f"clusters_{n}x{width}", seconds=seconds["ours"])


def write_slide(path: Path, edge: int) -> Path:
    """Write a slide full of textured tissue, strip by strip."""
    from medshared.slides import write_pyramid

    rng = np.random.default_rng(0)

    def rows(first: int, last: int) -> np.ndarray:
        cells = rng.integers(-30, 31, (-(-(last - first) // 8), -(-edge // 8), 3))
        texture = cells.repeat(8, 0).repeat(8, 1)[: last - first, :edge]
        return np.clip(np.array([190, 120, 170]) + texture, 0, 255).astype(np.uint8)

    return write_pyramid(path, rows, 0.25, size_px=(edge, edge))


def encode(folder: Path, encoder_name: str, edge: int, patch: int) -> None:
    """Encode one slide in this process, which is a fresh one, and print the result with its peak memory."""
    import torch

    from advmil.prepare.encoders import Encoder, load_encoder
    from advmil.prepare.features import FeatureSettings, encode_slide
    from medshared.bags import ClamAttributes, write_coordinates

    slide = folder / f"{edge}.svs"
    side = edge // (patch * 4)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * patch * 4
    level = (edge // 4, edge // 4)
    attributes = ClamAttributes(patch, 1, (4.0, 4.0), level, level, slide.stem, "")
    coordinates = write_coordinates(folder / f"{edge}-{patch}.h5", grid, attributes)
    if encoder_name == "synthetic":
        from advmil.synthetic_slides import SyntheticEncoder

        network = SyntheticEncoder(64).eval()
        encoder = Encoder("synthetic", network, 64, (0.0,) * 3, (1.0,) * 3, "random")
    else:
        encoder = load_encoder(encoder_name, source="random")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    times = encode_slide(slide, coordinates, folder / "features", encoder, FeatureSettings(), device)
    seconds = time.perf_counter() - started
    parts = {name: getattr(times, name) for name in ("opening", "reading", "network", "writing")}
    line(
        f"features_{encoder_name}_{patch}px",
        device=str(device),
        patches=times.patches,
        patches_per_s=times.patches / seconds,
        **{f"share_{name}": value / seconds for name, value in parts.items()},
        bottleneck=times.bottleneck,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        peak_mb_above_imports=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        target_peak_mb=1500,
    )


def bench_features(folder: Path, quick: bool) -> None:
    """Features of one slide from file to file, each encoder in a process of its own for its peak memory.

    ``reading`` is the time that the network waits for pixels; they are read and decoded ahead while it works.
    """
    for encoder, edge, patch in (
        ("synthetic", 8192 if quick else 20480, 64),
        ("resnet50_trunc", 4096 if quick else 16384, 256),
    ):
        write_slide(folder / f"{edge}.svs", edge)
        script = [sys.executable, __file__, "--encode", encoder, str(edge), str(patch), str(folder)]
        subprocess.run(script, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--encode", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.encode:
        encoder, edge, patch, folder = arguments.encode
        encode(Path(folder), encoder, int(edge), int(patch))
        return
    repeats = 2 if arguments.quick else 7
    bench_big_to_small(repeats)
    bench_graph(1 if arguments.quick else 3, 1600, 1024)
    bench_clusters(1, 800 if arguments.quick else 3360, 1024)
    with tempfile.TemporaryDirectory() as folder:
        bench_features(Path(folder), arguments.quick)


if __name__ == "__main__":
    main()
