"""Command line: arguments → configuration → one call. The original's scripts come in by :mod:`advmil.scripts`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from advmil import __version__
from medshared.command_line import guarded

AddVerb = Callable[[str, str, str], argparse.ArgumentParser]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``main.py`` and ``advmil train``."""
    parser.add_argument("--config", "-f", type=Path, help="YAML file; required unless --demo")
    parser.add_argument(
        "--handler",
        "-d",
        default=None,
        metavar="{adv,base}",
        help="adv = AdvMIL, base = baselines",
    )
    parser.add_argument(
        "--multi_run", action="store_true", help="one run for each combination of the keys that hold lists"
    )
    parser.add_argument(
        "--only", type=int, metavar="N", help="the N-th run of the grid alone, from 1: a job of an array"
    )
    parser.add_argument(
        "--list", action="store_true", help="write the folder of each run of the grid, a line each"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="replace one key"
    )
    parser.add_argument("--output", type=Path, help="output directory (default: the key save_path)")
    parser.add_argument(
        "--demo", action="store_true", help="make a synthetic cohort and run on it, at demo size"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue stopped runs, leave finished ones alone"
    )
    parser.add_argument("--faithful", action="store_true", help="the original's behaviour (see the README)")
    parser.add_argument("--precision", choices=["auto", "32", "bf16"])
    parser.add_argument("--logger", choices=["csv", "tensorboard", "wandb"])
    add_device(parser, default=None)


def add_device(parser: argparse.ArgumentParser, default: str | None = "auto") -> None:
    """Add ``--device`` and ``--debug``."""
    parser.add_argument("--device", default=default, help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the ``advmil`` command."""
    parser = argparse.ArgumentParser(
        prog="advmil",
        description="Adversarial multiple-instance survival analysis on whole-slide images.",
    )
    parser.add_argument("--version", action="version", version=f"advmil {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, handler: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(handler_name=handler)
        return sub

    _add_making(verb)
    _add_using(verb)
    _add_prediction(verb)
    return parser


def _add_making(verb: AddVerb) -> None:
    """Add what makes a run: demo, prepare, check, train."""
    demo = verb("demo", "make a synthetic cohort with slides, prepare, train, evaluate, report", "run_demo")
    demo.add_argument("--output", type=Path, default=Path("runs/advmil-demo"))
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--table", type=Path, metavar="CSV", help="a real table of slides, with synthetic bags")
    demo.add_argument("--splits", metavar="NPZ{}", help="its split files; {} stands for the fold")
    demo.add_argument("--fold", type=int, default=0, help="fold of --splits")
    add_device(demo)

    prepare = verb("prepare", "slides → tissue, patches, features, clusters, graphs", "prepare")
    from advmil.prepare.options import add_prepare_options

    add_prepare_options(prepare)
    add_device(prepare)

    check = verb("check", "do table, splits and feature files of a configuration fit together?", "check")
    check.add_argument("--config", "-f", type=Path, required=True)
    check.add_argument("--handler", "-d", choices=["adv", "base"], help="default: adv")
    check.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    check.add_argument("--debug", action="store_true")

    train = verb("train", "train AdvMIL or a baseline (same flags as main.py)", "train")
    add_run_options(train)

    doctor = verb("doctor", "what this machine and installation can do", "doctor")
    doctor.add_argument("--debug", action="store_true")


def _add_using(verb: AddVerb) -> None:
    """Add what looks at runs: evaluate, compare, report."""
    evaluate = verb("evaluate", "survival metrics of one run, or of the folds below a folder", "evaluate")
    evaluate.add_argument("runs", type=Path, nargs="+", help="run directories, or a folder that holds them")
    evaluate.add_argument("--set-name", default="test", help="train, validation or test")
    evaluate.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples by patient")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--output", type=Path, help="default: RUN/evaluation")
    evaluate.add_argument("--debug", action="store_true")

    compare = verb("compare", "two models on the same patients, fold by fold, with paired tests", "compare")
    compare.add_argument("a", type=Path, help="run directory, or a folder of folds")
    compare.add_argument("b", type=Path)
    compare.add_argument("--set-name", default="test")
    compare.add_argument("--resamples", type=int, default=1000)
    compare.add_argument("--seed", type=int, default=0)
    compare.add_argument("--output", type=Path, required=True)
    compare.add_argument("--debug", action="store_true")

    report = verb("report", "write report.html of a run again from its files", "report")
    report.add_argument("run", type=Path, help="run directory, or a folder of folds")
    report.add_argument("--debug", action="store_true")


def _add_prediction(verb: AddVerb) -> None:
    """Add what takes trained models to new data: predict, heatmap."""
    predict = verb("predict", "new slides or bags → risk, time, curve, attention", "predict")
    predict.add_argument("inputs", type=Path, nargs="+", help="feature files, slides, or folders of them")
    predict.add_argument(
        "--run", type=Path, nargs="+", required=True, help="run directory; several are averaged"
    )
    predict.add_argument(
        "--table", type=Path, help="CSV pathology_id, patient_id; else one slide is one patient"
    )
    predict.add_argument(
        "--coordinates", type=Path, help="folder of CLAM coordinate files, for features without"
    )
    predict.add_argument("--samples", type=int, default=200, help="noise draws a patient")
    predict.add_argument("--zero-noise", action="store_true", help="one deterministic prediction")
    predict.add_argument("--seed", type=int, default=0)
    predict.add_argument("--level", type=float, default=0.9, help="level of the intervals")
    predict.add_argument("--no-attention", action="store_true", help="write no attention tables")
    predict.add_argument(
        "--region-scores", action="store_true", help="add the discriminator's score of each region to them"
    )
    predict.add_argument("--output", type=Path, default=Path("predictions"))
    _add_slide_options(predict)
    add_device(predict)

    heatmap = verb("heatmap", "attention over a slide: PNG, QuPath GeoJSON, OME-TIFF", "heatmap")
    heatmap.add_argument("slides", type=Path, nargs="+", help="slide files, or folders of them")
    heatmap.add_argument(
        "--run", type=Path, nargs="+", required=True, help="run directory; of several, the mean"
    )
    heatmap.add_argument("--features", type=Path, required=True, help="folder of <slide>.pt or <slide>.h5")
    heatmap.add_argument(
        "--coordinates", type=Path, help="folder of CLAM coordinate files, where the features have none"
    )
    heatmap.add_argument("--spacing-um", type=float, help="µm per pixel of slides that do not say")
    heatmap.add_argument("--output", type=Path, default=Path("heatmaps"))
    add_device(heatmap)


def _add_slide_options(predict: argparse.ArgumentParser) -> None:
    """Add how slides among the inputs become features: what ``advmil prepare`` takes."""
    from advmil.prepare.options import add_encoder_options, add_tissue_options

    group = predict.add_argument_group("inputs that are slides", "as for the training data")
    group.add_argument(
        "--plain-patches",
        action="store_true",
        help="encode the patches themselves, for runs that were trained on ordinary patches",
    )
    add_tissue_options(group)
    add_encoder_options(group)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``advmil`` command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    from advmil import commands

    return guarded(getattr(commands, arguments.handler_name), arguments)


if __name__ == "__main__":
    sys.exit(main())
