"""Command line: arguments → configuration → one call. The original's scripts come in by :mod:`til_mtl.scripts`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from medshared.command_line import guarded
from til_mtl import __version__

AddVerb = Callable[[str, str, str], argparse.ArgumentParser]


def build_parser(verb_name: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the ``til-mtl`` command.

    Args:
        verb_name: The verb that will run: only its flags are built, the others get their names alone.
    """
    parser = argparse.ArgumentParser(
        prog="til-mtl",
        description="Tissue segmentation, lymphocyte detection and TIL scores on whole-slide images.",
    )
    parser.add_argument("--version", action="version", version=f"til-mtl {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (text, handler, add_flags) in _VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(handler_name=handler)
        if verb_name in (None, name):
            add_flags(sub)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/til-mtl-demo"))
    parser.add_argument("--seed", type=int, default=0)
    _add_device(parser)


def _prepare(parser: argparse.ArgumentParser) -> None:
    from til_mtl.prepare.options import add_prepare_options

    add_prepare_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _train(parser: argparse.ArgumentParser) -> None:
    from til_mtl.flags import add_run_options

    add_run_options(parser, None)


def _compare(parser: argparse.ArgumentParser) -> None:
    from medshared.config_flags import parse_bool
    from til_mtl.flags import add_config_flags

    parser.add_argument(
        "--folds", type=int, required=True, help="K: folders fold1 … foldK of the prepared data"
    )
    parser.add_argument("--only", type=int, nargs="+", help="train these folds alone, as a job of an array")
    parser.add_argument("--config", type=Path, help="YAML file with the keys of a run")
    parser.add_argument("--output", type=Path, default=Path("runs/til-mtl-compare"))
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples by patient")
    parser.add_argument(
        "--resume", action="store_true", help="continue stopped runs, leave finished ones alone"
    )
    parser.add_argument("--download", action="store_true", help="allow fetching ImageNet weights")
    parser.add_argument("--device", default=argparse.SUPPRESS, help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default=argparse.SUPPRESS, help="32, 16, bf16 or auto")
    parser.add_argument(
        "--faithful", nargs="?", const=True, type=parse_bool, default=argparse.SUPPRESS,
        help="the original's behaviour (see the README)",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_config_flags(parser, None)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    run = kinds.add_parser("run", help="score a run's checkpoint on the patches of a set again")
    run.add_argument("run", type=Path, help="run directory, or a checkpoint")
    run.add_argument("--data_dir", type=Path, help="patches (default: those of the run)")
    run.add_argument("--set-name", default="test", choices=["train", "val", "test"])
    run.add_argument("--output", type=Path, help="default: RUN/evaluation")
    _add_device(run)
    scores = kinds.add_parser("scores", help="TIL scores against visual ones (TIL_prediction/evaluate.py)")
    add_score_options(scores)
    regions = kinds.add_parser("l1", help="TIGER leaderboard 1 (TIL_prediction/evaluate_l1.py)")
    add_l1_options(regions)


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``TIL_prediction/evaluate.py``."""
    parser.add_argument("--pred", type=Path, required=True, help="til_scores.csv of predict.py")
    parser.add_argument("--truth", type=Path, required=True, help="CSV image-id,tils-score, or XML")
    parser.add_argument("--survival", type=Path, help="CSV image-id,time,event (months, 0/1)")
    parser.add_argument("--calibrate", choices=["none", "linear", "isotonic"], default="none")
    parser.add_argument("--cv", type=int, default=5, help="folds in which the calibration is fitted")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamples of the slides; 0 = no intervals"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder (default: that of --pred)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_l1_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``TIL_prediction/evaluate_l1.py``."""
    parser.add_argument("--pred", type=Path, required=True, help="folder of predicted masks and cells")
    parser.add_argument("--truth", type=Path, required=True, help="folder of ROI masks and tiger-coco.json")
    parser.add_argument("--mpp", type=float, default=0.5, help="µm per pixel of the ROIs")
    parser.add_argument("--radius-px", type=float, default=8.0, help="hit radius")
    parser.add_argument("--output", type=Path, help="folder (default: that of --pred)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _predict(parser: argparse.ArgumentParser) -> None:
    from til_mtl.slides.options import add_predict_options

    add_predict_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


_VERBS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "demo": ("make synthetic TIGER data, prepare, train all three networks, score slides", "run_demo", _demo),
    "prepare": ("the TIGER download → patch folders (same flags as prepare_tiger.py)", "prepare", _prepare),
    "train": ("train one network (same flags as the scripts, and --task)", "train", _train),
    "compare": (
        "multi-task against single-task on the same folds, one table with intervals",
        "compare",
        _compare,
    ),
    "evaluate": ("score a run, TIL scores, or TIGER leaderboard 1", "evaluate", _evaluate),
    "predict": ("slides → maps, cells, TIL scores (TIL_prediction/predict.py)", "predict", _predict),
    "report": ("write report.html of a run again from its files", "report", _report),
    "doctor": ("what this machine and installation can do", "doctor", _doctor),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``til-mtl`` command and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in given if not word.startswith("-")), None)
    arguments = build_parser(verb if verb in _VERBS else None).parse_args(given)
    from til_mtl import commands

    return guarded(getattr(commands, arguments.handler_name), arguments)


if __name__ == "__main__":
    sys.exit(main())
