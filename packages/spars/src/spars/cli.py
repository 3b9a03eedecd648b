"""Command line: arguments → configuration → one call. The original's scripts come in by :mod:`spars.scripts`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from medshared.command_line import guarded
from medshared.leases import Shard

_SIZE = (48, 48, 32)  # voxels of a synthetic volume; spars.synthetic.SIZE without its imports


def build_parser(verb_name: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the ``spars`` command.

    Args:
        verb_name: The verb that will run: only its flags are built, the others get their names alone.
    """
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="spars", description="Tumour segmentation on CT by self-play, and the classifier that scores it."
    )
    parser.add_argument("--version", action="version", version=f"spars {version('spars')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (text, handler, add_flags, aliases) in _VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text, aliases=list(aliases))
        sub.set_defaults(handler_name=handler)
        if verb_name in (None, name, *aliases):
            add_flags(sub)
            sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/spars-demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--labels", choices=["mask", "image"], default="mask",
        help="what the classifier learns from: crops with voxel labels, or whole volumes with one label each",
    )  # fmt: skip


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--cases", type=int, nargs="+", default=[56], metavar="N",
        help="synthetic volumes: of the train, val and test part, or of all (default: 56 = 32 8 16)",
    )  # fmt: skip
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        default=list(_SIZE),
        metavar=("X", "Y", "Z"),
        help="their field of view in mm",
    )
    parser.add_argument(
        "--geometry", choices=["mixed", "plain"], default="mixed",
        help="mixed: several voxel sizes, flipped and tilted axes; plain: 1 mm, canonical axes",
    )  # fmt: skip


def _prepare(parser: argparse.ArgumentParser) -> None:
    from spars.flags import StorePairs, parse_pair

    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the data set")
    _add_data_options(parser)
    parser.add_argument(
        "--make-synthetic", action="store_true", help="write a synthetic data set there first"
    )
    parser.add_argument(
        "--shares", type=float, nargs=3, default=[0.6, 0.15, 0.25], metavar=("TRAIN", "VAL", "TEST"),
        help="of the patients (default: 0.6 0.15 0.25)",
    )  # fmt: skip
    parser.add_argument(
        "--folds", type=int, help="write K splits too, folds/fold<k>.json; each case tested once"
    )
    parser.add_argument(
        "--labels-from-voxels", action="store_true",
        help="write labels.csv, one label a case, from the voxel labels; without it no image-level label is derived",
    )  # fmt: skip
    parser.add_argument("--cache_dir", type=Path, help="fill this cache with int16 volumes")
    parser.add_argument(
        "--label_map", nargs="+", type=parse_pair, action=StorePairs, metavar="VALUE=CLASS",
        default=argparse.SUPPRESS, help="label value = 0 background, 1 liver, 2 tumour",
    )  # fmt: skip


def _make_synthetic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data_dir", type=Path, help="folder of the data set")
    _add_data_options(parser)


def _train_classifier(parser: argparse.ArgumentParser) -> None:
    from spars.flags import add_run_options

    add_run_options(parser, "classifier")


def _train(parser: argparse.ArgumentParser) -> None:
    from spars.flags import add_run_options

    add_run_options(parser, "game")


def _add_game_options(parser: argparse.ArgumentParser, output: str) -> None:
    from spars.flags import add_config_flags
    from spars.presets import PRESETS

    games = [name for name in PRESETS if PRESETS[name].stage == "game"]
    parser.add_argument("--config", type=Path, help="YAML file with the keys of a game; flags win over it")
    parser.add_argument(
        "--preset", choices=games, metavar="NAME", help=f"constants of a script: {', '.join(games)}"
    )
    parser.add_argument("--output", type=Path, default=Path(output), help="folder (default: %(default)s)")
    add_config_flags(parser, "game")


def _add_part(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", choices=["train", "val", "test"], default="test", help="of the split")


def _score_map(parser: argparse.ArgumentParser) -> None:
    _add_game_options(parser, "runs/score-maps")
    _add_part(parser)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--agent", type=Path, required=True,
        help="run directory of `spars train`, or its agent.pt; the keys beside it hold unless flags change them",
    )  # fmt: skip
    _add_game_options(parser, "runs/evaluation")
    _add_part(parser)


def _baselines(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(agent=None)
    _add_game_options(parser, "runs/baselines")
    _add_part(parser)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _predict(parser: argparse.ArgumentParser) -> None:
    from spars.flags import add_config_flags

    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="volumes, folders of volumes, or of DICOM slices",
    )
    parser.add_argument(
        "--agent", type=Path, required=True, help="run directory of `spars train`, or its agent.pt"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/predictions"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--config", type=Path, help="YAML file with keys of a game; flags win over it")
    parser.add_argument(
        "--reading", type=Path, help="how maps are read (default: reading.json beside the agent)"
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only the I-th of N parts of the volumes: a job of an array",
    )
    parser.add_argument("--full", action="store_true", help="score all windows instead of searching")
    parser.add_argument("--largest_component", action="store_true", help="keep the largest lesion only")
    parser.add_argument("--min_volume_ml", type=float, default=0.0, help="drop lesions below it (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="threads that read and write volumes")
    parser.add_argument("--overwrite", action="store_true", help="segment again what is done")
    add_config_flags(parser, "game")


def _ablate(parser: argparse.ArgumentParser) -> None:
    from spars.presets import FAMILIES, PRESETS

    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--family", choices=list(FAMILIES), help="all scripts of an experiment")
    which.add_argument("--presets", nargs="+", choices=list(PRESETS), metavar="NAME", help="these scripts")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="run these of them alone, as a job of an array"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/ablation"), help="a folder for each script in it"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue stopped runs, leave finished ones alone"
    )
    parser.add_argument("--demo", action="store_true", help="make synthetic data and run on it, at demo size")
    parser.add_argument("--config", type=Path, help="YAML file with the sections classifier and game")
    parser.add_argument(
        "--classifier-keys", nargs="+", metavar="KEY=VALUE", help="keys of all classifiers, such as epochs=8"
    )
    parser.add_argument(
        "--game-keys", nargs="+", metavar="KEY=VALUE", help="keys of all games, such as iterations=50"
    )
    parser.add_argument("--mode", choices=["standard", "paper", "faithful"], default=argparse.SUPPRESS)
    parser.add_argument("--data_dir", type=Path, default=argparse.SUPPRESS, help="folder of the data set")
    parser.add_argument("--device", default=argparse.SUPPRESS, help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS)


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")


def _doctor(parser: argparse.ArgumentParser) -> None:
    del parser  # has no flags of its own


_AddFlags = Callable[[argparse.ArgumentParser], None]
_VERBS: dict[str, tuple[str, str, _AddFlags, tuple[str, ...]]] = {
    "demo": ("synthetic CT, classifier, agents, evaluation on held-out patients", "run_demo", _demo, ()),
    "prepare": ("check a data set, split its patients, fill the cache", "prepare", _prepare, ()),
    "train-classifier": (
        "train the classifier that scores windows",
        "train_classifier",
        _train_classifier,
        (),
    ),
    "train": ("train the players by self-play", "train", _train, ("play",)),
    "score-map": ("scores of all windows of each case → probability maps", "score_map", _score_map, ()),
    "evaluate": ("an agent and all baselines on held-out patients", "evaluate", _evaluate, ()),
    "baselines": ("the same without an agent", "evaluate", _baselines, ()),
    "predict": ("volumes → masks and probabilities in their own geometry", "predict", _predict, ()),
    "ablate": ("a family of the original's experiments → one table", "ablate", _ablate, ()),
    "make-synthetic": ("write a synthetic data set", "make_synthetic", _make_synthetic, ()),
    "report": ("write report.html of a run again from its files", "report", _report, ()),
    "doctor": ("what this machine and installation can do", "doctor", _doctor, ()),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``spars`` command and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    known = {*_VERBS, *(alias for *_, aliases in _VERBS.values() for alias in aliases)}
    verb = next((word for word in given if not word.startswith("-")), None)
    arguments = build_parser(verb if verb in known else None).parse_args(given)
    from spars import commands

    return guarded(getattr(commands, arguments.handler_name), arguments)


if __name__ == "__main__":
    sys.exit(main())
