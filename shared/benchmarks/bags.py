"""Reading and ordering of what survival on slides needs; one JSON line a workload.

Both sides of a comparison run in this process, alternating, on the same data, and give the same numbers.
``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from medshared.bags import read_features, write_clam_bag
from medshared.metrics.survival import concordance_counts


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def medians(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time the sides in turn and return the median seconds of each; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bench_reading(folder: Path, repeats: int, n: int, width: int) -> None:
    """A bag stored contiguously, and one with a chunk for every row."""
    features = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    coordinates = np.stack(np.divmod(np.arange(n), 100), axis=1) * 256
    h5_path, pt_path = write_clam_bag(folder, "slide", features, coordinates)
    rows_path = folder / "rows.h5"
    with h5py.File(rows_path, "w") as file:
        file.create_dataset("features", data=features, chunks=(1, width), maxshape=(None, width))

    def one_row_chunks() -> np.ndarray:
        with h5py.File(rows_path) as file:
            return file["features"][()]

    def mapped() -> np.ndarray:
        found = read_features(h5_path, check_finite=False, memory_map=True)
        found[:, 0].sum()  # touches every page: nothing is left on the disk
        return found

    sides: dict[str, Callable[[], object]] = {
        "one_row_chunks": one_row_chunks,
        "contiguous": lambda: read_features(h5_path, check_finite=False),
        "contiguous_checked": lambda: read_features(h5_path),
        "mapped": mapped,
        "pt": lambda: read_features(pt_path, check_finite=False),
    }
    for run in sides.values():
        assert np.array_equal(np.asarray(run()), features), "the features differ"
    seconds = medians(sides, repeats)
    line(
        f"read_bag_{n}x{width}",
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        ratio=seconds["one_row_chunks"] / seconds["contiguous"],
        ratio_checked=seconds["one_row_chunks"] / seconds["contiguous_checked"],
        ratio_mapped=seconds["one_row_chunks"] / seconds["mapped"],
        equal=True,
    )


def pairwise(risk: np.ndarray, event: np.ndarray, time_: np.ndarray) -> tuple[int, int, int]:
    """Look at every pair in a Python loop."""
    concordant = discordant = tied = 0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] and (time_[j] > time_[i] or (time_[j] == time_[i] and not event[j])):
                if abs(risk[i] - risk[j]) <= 1e-8:
                    tied += 1
                elif risk[i] > risk[j]:
                    concordant += 1
                else:
                    discordant += 1
    return concordant, discordant, tied


def bench_concordance(repeats: int, n: int, n_loop: int) -> None:
    """All patients at once, and a loop over the pairs of a hundredth of them."""
    rng = np.random.default_rng(0)
    risk = rng.normal(size=n).round(4)
    event, time_ = rng.random(n) < 0.6, rng.exponential(1000, n).round() + 1
    few = (risk[:n_loop], event[:n_loop], time_[:n_loop])
    assert pairwise(*few) == concordance_counts(*few)[:3], "the counts differ"
    seconds = medians(
        {"all": lambda: concordance_counts(risk, event, time_), "loop": lambda: pairwise(*few)}, repeats
    )
    line(
        f"concordance_{n}_patients",
        all_ms=1e3 * seconds["all"],
        **{f"loop_of_{n_loop}_ms": 1e3 * seconds["loop"]},
        ratio=seconds["loop"] / seconds["all"],
        equal=True,
    )


def main() -> None:
    """Run the workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    options = parser.parse_args()
    repeats = 2 if options.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        bench_reading(Path(folder), repeats, 1500 if options.quick else 15000, 1024)
    bench_concordance(repeats, 10_000 if options.quick else 100_000, 200 if options.quick else 1000)


if __name__ == "__main__":
    main()
