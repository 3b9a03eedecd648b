"""The original's three tools under their names and positional arguments."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from advmil.cli import guarded
from advmil.data.tables import read_cohort
from advmil.errors import DataError
from advmil.prepare.batch import Task, run_batch, write_batch_report
from medshared.files import sha256_file
from medshared.leases import Shard

logger = logging.getLogger(__name__)

FEATURE_FOLDER = "feat-l1-RN50-B/pt_files"
COORDINATE_FOLDER = "tiles-l1-s256/patches"


def big_to_small_patching(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/big_to_small_patching.py``."""
    parser = argparse.ArgumentParser(
        description="Replace every big patch by the 4 x 4 small patches it covers."
    )
    parser.add_argument(
        "read_patch_dir", type=Path, metavar="READ_PATCH_DIR", help="of big patches (or its patches/)"
    )
    parser.add_argument("save_patch_dir", type=Path, metavar="SAVE_PATCH_DIR")
    parser.add_argument("--scale", type=int, default=4, help="ratio of the two pyramid levels")
    parser.add_argument(
        "--legacy_offsets",
        action="store_true",
        help="the original's overlapping patches (offsets in wrong units)",
    )
    parser.add_argument("--slide_dir", type=Path, help="slides, to check --scale against their true levels")
    _add_common(parser)
    return guarded(_big_to_small, parser.parse_args(argv))


def deepattnmisl_cluster(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/deepattnmisl_cluster.py``."""
    parser = argparse.ArgumentParser(
        description="K-means over the patches of each patient, for DeepAttnMISL."
    )
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("num_clusters", type=int, metavar="NUM_CLUSTERS")
    _add_places(parser)
    return guarded(_cluster, parser.parse_args(argv))


def patchgcn_graph_s2(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/patchgcn_graph_s2.py``."""
    parser = argparse.ArgumentParser(description="Graph of 8 nearest patches of each slide, for PatchGCN.")
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--coord_dir", type=Path, help=f"default: ROOT/DATASET/processed/{COORDINATE_FOLDER}")
    _add_places(parser)
    return guarded(_graph, parser.parse_args(argv))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", metavar="ID", help="only these slides or patients")
    parser.add_argument("--jobs", type=int, default=1, help="threads")
    parser.add_argument("--shard", type=Shard.parse, metavar="I/N", help="part I of N of the items")
    parser.add_argument("--again", action="store_true", help="make finished outputs anew")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path("/data"), help="holds DATASET/processed (default: /data)"
    )
    parser.add_argument("--feat_dir", type=Path, help=f"default: ROOT/DATASET/processed/{FEATURE_FOLDER}")
    parser.add_argument("--table", type=Path, help="default: ./table/<dataset>_path_full.csv")
    parser.add_argument("--save_dir", type=Path, help="default: below ROOT/DATASET/processed")
    _add_common(parser)


def _processed(arguments: argparse.Namespace) -> Path:
    return arguments.root / arguments.dataset / "processed"


def _table(arguments: argparse.Namespace) -> Path:
    return arguments.table or Path("table") / f"{arguments.dataset.lower()}_path_full.csv"


def _chosen(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise DataError(f"--only names {', '.join(unknown)}, which are not among the {len(names)} items")
    return [name for name in names if not only or name in only]


def _run(step: str, tasks: list[Task], folder: Path, arguments: argparse.Namespace) -> int:
    outcomes = run_batch(step, tasks, shard=arguments.shard, jobs=arguments.jobs, again=arguments.again)
    suffix = "" if arguments.shard is None else f"-{arguments.shard.index + 1}-of-{arguments.shard.count}"
    return write_batch_report(folder / f"{step}-report{suffix}.json", outcomes)


def _big_to_small(arguments: argparse.Namespace) -> int:
    from advmil.prepare.big_to_small import convert_file

    source: Path = arguments.read_patch_dir
    patches = source / "patches" if (source / "patches").is_dir() else source
    files = {path.stem: path for path in sorted(patches.glob("*.h5"))}
    if not files:
        raise DataError(
            f"{source}: no coordinate files (*.h5) here or in its patches/; run the patching first"
        )
    tasks = []
    for name in _chosen(list(files), arguments.only):
        output = arguments.save_patch_dir / "patches" / f"{name}.h5"
        inputs = {
            "source": sha256_file(files[name]),
            "scale": arguments.scale,
            "legacy_offsets": arguments.legacy_offsets,
        }

        def work(source_file: Path = files[name], target: Path = output) -> str:
            n = convert_file(
                source_file,
                target,
                scale=arguments.scale,
                legacy_offsets=arguments.legacy_offsets,
                slide_dir=arguments.slide_dir,
            )
            return f"{n} patches"

        tasks.append(Task(name, output, inputs, work))
    process_list = next(
        (
            f / "process_list_autogen.csv"
            for f in (source, source.parent)
            if (f / "process_list_autogen.csv").is_file()
        ),
        None,
    )
    code = _run("big_to_small", tasks, arguments.save_patch_dir, arguments)
    if process_list is None:
        logger.warning(
            "%s: no process_list_autogen.csv to copy; give the list to the feature step yourself", source
        )
    else:
        shutil.copyfile(process_list, arguments.save_patch_dir / process_list.name)
    return code


def _cluster(arguments: argparse.Namespace) -> int:
    from advmil.prepare.clusters import write_clusters

    cohort = read_cohort(_table(arguments))
    features = arguments.feat_dir or _processed(arguments) / FEATURE_FOLDER
    k = arguments.num_clusters
    folder = arguments.save_dir or _processed(arguments) / f"patch-l1-cluster{k}-ids"
    tasks = []
    for patient in _chosen(list(cohort.patients), arguments.only):
        slides = cohort.patients[patient].slides
        files = [features / f"{slide}.pt" for slide in slides]

        def work(files: list[Path] = files, output: Path = folder / f"{patient}.npy") -> str:
            missing = [path.name for path in files if not path.is_file()]
            if missing:
                raise DataError(f"{features}: feature files are missing: {', '.join(missing)}")
            return f"{write_clusters(files, output, k)} patches"

        inputs = {"features": {path.name: _size(path) for path in files}, "clusters": k}
        tasks.append(Task(patient, folder / f"{patient}.npy", inputs, work))
    return _run("clusters", tasks, folder, arguments)


def _graph(arguments: argparse.Namespace) -> int:
    from advmil.prepare.graphs import write_graph

    cohort = read_cohort(_table(arguments))
    features = arguments.feat_dir or _processed(arguments) / FEATURE_FOLDER
    coordinates = arguments.coord_dir or _processed(arguments) / COORDINATE_FOLDER
    folder = arguments.save_dir or _processed(arguments) / "wsigraph-l1-features"
    tasks = []
    for slide in _chosen(cohort.slides["pathology_id"].tolist(), arguments.only):
        pair = (features / f"{slide}.pt", coordinates / f"{slide}.h5")

        def work(pair: tuple[Path, Path] = pair, output: Path = folder / f"{slide}.pt") -> str:
            return f"{write_graph(*pair, output)} patches"

        inputs = {path.parent.name + "/" + path.name: _size(path) for path in pair}
        tasks.append(Task(slide, folder / f"{slide}.pt", inputs, work))
    return _run("graphs", tasks, folder, arguments)


def _size(path: Path) -> list[float] | None:
    """Return size and time of a file: enough to notice that it was made again."""
    if not path.is_file():
        return None
    state = path.stat()
    return [state.st_size, round(state.st_mtime, 3)]
