"""Command line: arguments → configuration → one call. The original's scripts come in by :mod:`infection_mt.scripts`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infection_mt import __version__
from medshared.command_line import guarded

AddVerb = Callable[[str, str, str], argparse.ArgumentParser]


def add_run_options(parser: argparse.ArgumentParser, default_config: Path | None = None) -> None:
    """Add the flags that every training command takes; ``--config`` is required when it has no default."""
    parser.add_argument(
        "--config",
        type=Path,
        required=default_config is None,
        default=default_config,
        help="YAML or JSON configuration" + (f" (default: {default_config})" if default_config else ""),
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="replace one key"
    )
    parser.add_argument(
        "--output", type=Path, help="run directory (default: output_dir/experiment_name/run_id)"
    )
    parser.add_argument("--demo", action="store_true", help="make synthetic data and run on it, at demo size")
    parser.add_argument("--resume", action="store_true", help="continue a stopped run in the same directory")
    parser.add_argument("--faithful", action="store_true", help="the original's behaviour (see the README)")
    parser.add_argument("--precision", choices=["auto", "32", "bf16", "fp16"])
    parser.add_argument("--logger", choices=["csv", "tensorboard", "wandb"])
    parser.add_argument("--download", action="store_true", help="allow fetching ImageNet weights")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--debug``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the ``infection-mt`` command."""
    parser = argparse.ArgumentParser(
        prog="infection-mt",
        description="Infected/uninfected classification and time regression on time-lapse cell images.",
    )
    parser.add_argument("--version", action="version", version=f"infection-mt {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, handler: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(handler=handler)
        return sub

    _add_training(verb)
    _add_use(verb)
    _add_studies(verb)
    doctor = verb("doctor", "what this machine and installation can do", "doctor")
    doctor.add_argument("--debug", action="store_true")
    return parser


def _add_training(verb: AddVerb) -> None:
    """Add what makes a run: demo, prepare, train, search."""
    demo = verb("demo", "make synthetic data, train, evaluate, report", "run_demo")
    demo.add_argument("--output", type=Path, default=Path("runs/infection-mt-demo"))
    demo.add_argument("--seed", type=int, default=0)
    add_device(demo)

    prepare = verb("prepare", "check the data, audit overlaps, build the frame cache", "prepare")
    add_run_options(prepare)
    prepare.add_argument(
        "--duplicates", action="store_true", help="also look for stacks whose first frames look the same"
    )

    train = verb("train", "train one run, folds, seeds or all three tasks", "train")
    add_run_options(train)
    train.add_argument("--task", choices=["multitask", "classification", "regression", "all"])
    train.add_argument("--folds", type=int, metavar="K", help="k-fold cross-validation")
    train.add_argument("--fold", type=int, metavar="I", help="only fold I (1-based), as a job of an array")
    train.add_argument("--seeds", type=int, nargs="+", help="one run a seed, and their average")

    search = verb("search", "hyper-parameter search on the validation set", "search")
    add_run_options(search)
    search.add_argument("--space", type=Path, help="YAML: key → choices, or low and high")
    search.add_argument("--trials", type=int, default=20)
    search.add_argument("--sampler", choices=["tpe", "random", "grid"], default="tpe")


def _add_use(verb: AddVerb) -> None:
    """Add what uses one run: evaluate, predict, report, analyze, explain."""
    evaluate = verb("evaluate", "score a trained run, on its test set or on other data", "evaluate")
    evaluate.add_argument("run", type=Path, help="run directory")
    evaluate.add_argument("--manifest", type=Path, help="other data than the run's test set")
    evaluate.add_argument("--split", choices=["train", "val", "test"], default="test")
    evaluate.add_argument("--output", type=Path, help="default: RUN/evaluation")
    add_device(evaluate)

    predict = verb("predict", "predict new stacks: table, curves, plate picture", "predict")
    predict.add_argument("stacks", type=Path, nargs="+", help="TIFF stacks or folders of them")
    predict.add_argument(
        "--weights", type=Path, nargs="+", required=True, help="one checkpoint, or several to average"
    )
    predict.add_argument("--output", type=Path, default=Path("predictions"))
    predict.add_argument("--frames-per-hour", type=float, default=2.0)
    predict.add_argument("--stride", type=int, default=1, help="use every n-th page")
    predict.add_argument("--batch-size", type=int, default=32)
    predict.add_argument("--threshold", type=float, help="default: the checkpoint's own, else 0.5")
    predict.add_argument("--plate-layout", nargs="+", default=[], metavar="COND=WELL,WELL")
    predict.add_argument("--max-positions", type=int, default=0, help="of each well; 0 = all")
    predict.add_argument(
        "--clamp", type=float, nargs=2, metavar=("LOW", "HIGH"), help="limits of predicted hours"
    )
    predict.add_argument("--resume", action="store_true", help="reuse results of unchanged stacks")
    predict.add_argument(
        "--watch", type=float, metavar="SECONDS", help="look again for grown stacks until stopped"
    )
    add_device(predict)

    for name, text in (
        ("report", "write report.html of a run again from its files"),
        ("analyze", "curves, scatter and text summary of a run (analyze_multitask_results.py)"),
    ):
        sub = verb(name, text, name)
        sub.add_argument("run", type=Path, help="run directory")
        sub.add_argument("--output", type=Path, help="default: the run directory")
        sub.add_argument("--debug", action="store_true")

    explain = verb("explain", "Grad-CAM pictures for the class and the time output", "explain")
    explain.add_argument("run", type=Path, help="run directory")
    explain.add_argument("--split", choices=["train", "val", "test"], default="val")
    explain.add_argument("--num-samples", type=int, default=8)
    explain.add_argument("--seed", type=int, default=42)
    explain.add_argument("--output", type=Path, help="default: RUN/cam")
    explain.add_argument("--cmap", default="jet")
    add_device(explain)


def _add_studies(verb: AddVerb) -> None:
    """Add what looks at several runs, or closer at one: ensemble, compare, temporal, errors."""
    ensemble = verb("ensemble", "average finished runs that share a test set", "ensemble")
    ensemble.add_argument("runs", type=Path, nargs="+")
    ensemble.add_argument("--output", type=Path, required=True)
    ensemble.add_argument("--debug", action="store_true")

    compare = verb("compare", "two or more runs on the same frames, with paired intervals", "compare")
    compare.add_argument("runs", type=Path, nargs="+")
    compare.add_argument("--output", type=Path, required=True)
    compare.add_argument("--debug", action="store_true")

    temporal = verb(
        "temporal", "metrics in sliding windows of a run or its folds, from saved predictions", "temporal"
    )
    temporal.add_argument("run", type=Path, help="run directory, or one with fold_1, fold_2, …")
    for flag, hours in (
        ("--window-size", 6.0),
        ("--stride", 3.0),
        ("--start-hour", 0.0),
        ("--end-hour", 48.0),
    ):
        temporal.add_argument(flag, type=float, default=hours, help="hours")
    add_device(temporal)

    errors = verb(
        "errors", "where a run or its folds err: by time, class, confidence, field of view", "errors"
    )
    errors.add_argument("run", type=Path, help="run directory, or one with fold_1, fold_2, …")
    errors.add_argument("--output", type=Path, help="default: RUN/errors")
    errors.add_argument("--debug", action="store_true")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``infection-mt`` command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    from infection_mt import commands

    return guarded(getattr(commands, arguments.handler), arguments)


if __name__ == "__main__":
    sys.exit(main())
