"""The original's three tools under their names and positional arguments."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmil.errors import DataError
from advmil.prepare.plan import PROCESS_LIST, find_slide
from advmil.prepare.steps import cluster_task, graph_task
from medshared.batch import Task, run_batch, write_batch_report
from medshared.command_line import guarded
from medshared.files import write_bytes
from medshared.leases import Shard, checksum

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
    parser.add_argument(
        "--coord_dir",
        type=Path,
        help="default: those stored with the features (h5_files beside the feature folder), else "
        f"ROOT/DATASET/processed/{COORDINATE_FOLDER}",
    )
    _add_places(parser)
    return guarded(_graph, parser.parse_args(argv))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", metavar="ID", help="only these slides or patients")
    parser.add_argument("--jobs", type=int, default=1, help="threads")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="part I of N of the items")
    parser.add_argument("--again", action="store_true", help="make finished outputs anew")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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
    """Return the table: the original's scripts look below the working directory, or from within ``tools/``."""
    if arguments.table:
        return arguments.table
    names = dict.fromkeys((arguments.dataset.lower(), arguments.dataset))
    tried = [
        folder / f"{name}_path_full.csv" for folder in (Path("table"), Path("../table")) for name in names
    ]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise DataError(f"no table of slides: tried {', '.join(map(str, tried))}; give it by --table")
    return found


def _chosen(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    wanted = set(only or names)
    unknown = sorted(wanted - set(names))
    if unknown:
        raise DataError(f"--only names {', '.join(unknown)}, which are not among the {len(names)} items")
    return [name for name in names if name in wanted]


def _run(step: str, tasks: list[Task], folder: Path, arguments: argparse.Namespace) -> int:
    outcomes = run_batch(step, tasks, shard=arguments.shard, jobs=arguments.jobs, again=arguments.again)
    suffix = "" if arguments.shard is None else f"-{arguments.shard.index + 1}-of-{arguments.shard.count}"
    return write_batch_report(folder / f"{step}-report{suffix}.json", outcomes, arguments.shard)


def _big_to_small(arguments: argparse.Namespace) -> int:
    source: Path = arguments.read_patch_dir
    patches = source / "patches" if (source / "patches").is_dir() else source
    target = arguments.save_patch_dir / "patches"
    files = {path.stem: path for path in sorted(patches.glob("*.h5"))}
    if not files:
        raise DataError(
            f"{source}: no coordinate files (*.h5) here or in its patches/; run the patching first"
        )
    if patches.resolve() == target.resolve():
        raise DataError(f"{target}: is where the big patches are read from; choose another SAVE_PATCH_DIR")
    names = _chosen(list(files), arguments.only)
    tasks = [_big_to_small_task(files[name], target / f"{name}.h5", arguments) for name in names]
    code = _run("big_to_small", tasks, arguments.save_patch_dir, arguments)
    lists = [folder / PROCESS_LIST for folder in (source, patches.parent)]
    process_list = next((path for path in lists if path.is_file()), None)
    if process_list is None:
        logger.warning("%s: no %s to copy; give the list to the feature step yourself", source, PROCESS_LIST)
    else:
        write_bytes(arguments.save_patch_dir / PROCESS_LIST, process_list.read_bytes())
    return code


def _big_to_small_task(source: Path, target: Path, arguments: argparse.Namespace) -> Task:
    def inputs() -> dict[str, Any]:
        return {
            "source": checksum(source),
            "scale": arguments.scale,
            "legacy_offsets": arguments.legacy_offsets,
        }

    def work() -> str:
        from advmil.prepare.big_to_small import convert_file

        slide = find_slide(arguments.slide_dir, source.stem) if arguments.slide_dir else None
        n = convert_file(
            source, target, scale=arguments.scale, legacy_offsets=arguments.legacy_offsets, slide=slide
        )
        return f"{n} patches"

    return Task(source.stem, target, inputs, work)


def _cluster(arguments: argparse.Namespace) -> int:
    from advmil.data.tables import read_cohort

    if arguments.num_clusters < 1:
        raise DataError(f"NUM_CLUSTERS {arguments.num_clusters}: expected at least 1")
    cohort = read_cohort(_table(arguments))
    features = arguments.feat_dir or _processed(arguments) / FEATURE_FOLDER
    k = arguments.num_clusters
    folder = arguments.save_dir or _processed(arguments) / f"patch-l1-cluster{k}-ids"
    patients = _chosen(list(cohort.patients), arguments.only)
    tasks = [cluster_task(each, cohort.patients[each].slides, features, folder, k) for each in patients]
    return _run("clusters", tasks, folder, arguments)


def _graph(arguments: argparse.Namespace) -> int:
    from advmil.data.tables import read_cohort

    cohort = read_cohort(_table(arguments))
    features: Path = arguments.feat_dir or _processed(arguments) / FEATURE_FOLDER
    folder = arguments.save_dir or _processed(arguments) / "wsigraph-l1-features"
    tasks = []
    for slide in _chosen(cohort.slides["pathology_id"].tolist(), arguments.only):
        # Features and coordinates of one file belong together even where patches could not be decoded.
        beside = features.parent / "h5_files" / f"{slide}.h5"
        coordinates = (arguments.coord_dir or _processed(arguments) / COORDINATE_FOLDER) / f"{slide}.h5"
        use_beside = arguments.coord_dir is None and beside.is_file()
        tasks.append(
            graph_task(slide, features / f"{slide}.pt", beside if use_beside else coordinates, folder)
        )
    return _run("graphs", tasks, folder, arguments)
