"""Command line: arguments → configuration → one call. The original's scripts come in by :mod:`aespa.scripts`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from aespa import __version__
from aespa.flags import add_evaluate_options, add_flag, add_shard_flag, add_train_options
from medshared.command_line import guarded


def build_parser(verb_name: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the ``aespa`` command.

    Args:
        verb_name: The verb that will run: only its flags are built, the others get their names alone. None builds
            all.
    """
    parser = argparse.ArgumentParser(
        prog="aespa", description="Interactive segmentation that follows a rater, on MedSAM."
    )
    parser.add_argument("--version", action="version", version=f"aespa {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (text, handler, add_flags) in _VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(handler_name=handler)
        if verb_name in (None, name):
            add_flags(sub)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add_flag(parser, "debug", action="store_true", help="show the traceback of an error")


def _demo(parser: argparse.ArgumentParser) -> None:
    add_flag(
        parser,
        "output",
        type=Path,
        default=Path("runs/aespa-demo"),
        help="folder, an earlier one is replaced",
    )
    add_flag(parser, "seed", type=int, default=0, help="of drawing and training")
    _add_common(parser)


def _prepare(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    volumes = kinds.add_parser(
        "mbhseg", help="cut volumes into slices (process_mbhseg.py)", allow_abbrev=False
    )
    add_volume_options(volumes)
    check = kinds.add_parser("check", help="read every file of a data set and name all that are wrong")
    from aespa.flags import add_run_options

    add_run_options(check)
    drawn = kinds.add_parser("synthetic", help="draw a data set in the layout of one of the four")
    drawn.add_argument("dataset", choices=["LIDC", "REFUGE", "MBHSeg", "folders"])
    add_flag(drawn, "output", type=Path, required=True, help="folder")
    add_flag(drawn, "n_train", type=int, default=64, help="images, or volumes of MBHSeg")
    add_flag(drawn, "n_test", type=int, default=16, help="images, or volumes of MBHSeg")
    add_flag(drawn, "seed", type=int, default=0, help="of drawing")
    add_flag(drawn, "debug", action="store_true", help="show the traceback of an error")


def add_volume_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``process_mbhseg.py``."""
    parser.add_argument(
        "-in",
        "--in",
        dest="source",
        type=Path,
        default=Path("data/MBHSeg"),
        help="{train,test}/<case>/*.nii.gz",
    )
    parser.add_argument(
        "-out",
        "--out",
        dest="out",
        type=Path,
        default=Path("data"),
        help="gets MBHSeg-Binary and MBHSeg-Multi",
    )
    add_flag(parser, "level", type=float, default=40.0, help="middle of the window in HU")
    add_flag(parser, "width", type=float, default=80.0, help="width of the window in HU")
    add_flag(parser, "jobs", type=int, default=1, help="cases at a time")
    add_flag(parser, "overwrite", action="store_true", help="also cases that are finished")
    add_shard_flag(parser)
    add_flag(parser, "debug", action="store_true", help="show the traceback of an error")


def add_prediction_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``predict.py``."""
    from aespa.prediction_options import add_predict_options

    add_predict_options(parser)
    _add_common(parser)


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``aespa_demo.py``."""
    from aespa.page.options import add_page_options

    add_page_options(parser)
    _add_common(parser)


def _experiments(parser: argparse.ArgumentParser) -> None:
    from aespa.experiments import NAMES

    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which (default: list them): all, {', '.join(NAMES)}"
    )
    add_flag(parser, "data", type=Path, default=Path("data"), help="folder of LIDC and MBHSeg-Binary")
    add_flag(
        parser, "sam_ckpt", type=Path, default=Path("checkpoint/medsam_vit_b.pth"), help="weights of MedSAM"
    )
    add_flag(parser, "log_root", type=Path, default=Path("logs_new"), help="folder of the runs")
    add_flag(parser, "only", type=int, metavar="I", help="the I-th of them alone, from 1: a job of an array")
    add_flag(parser, "dry_run", action="store_true", help="print the commands only")
    _add_common(parser)


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a training or an evaluation")
    add_flag(parser, "debug", action="store_true", help="show the traceback of an error")


def _doctor(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "debug", action="store_true", help="show the traceback of an error")


_VERBS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "demo": ("draw data, train, evaluate, write a page", "run_demo", _demo),
    "prepare": ("cut volumes into slices, check a data set, draw one", "prepare", _prepare),
    "train": ("train one network (same flags as train.py)", "train", add_train_options),
    "evaluate": ("measure a checkpoint (same flags as val.py)", "evaluate", add_evaluate_options),
    "experiments": ("the original's experiments; finished runs are left alone", "experiments", _experiments),
    "predict": ("images and volumes → masks, probabilities, entropy", "predict", add_prediction_flags),
    "serve": ("the page to click on (same flags as aespa_demo.py)", "serve", add_serve_options),
    "report": ("write report.html of a run again from its files", "report", _report),
    "doctor": ("what this machine and installation can do", "doctor", _doctor),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``aespa`` command and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in given if not word.startswith("-")), None)
    arguments = build_parser(verb or "").parse_args(given)
    from aespa import commands

    return guarded(getattr(commands, arguments.handler_name), arguments)


if __name__ == "__main__":
    sys.exit(main())
