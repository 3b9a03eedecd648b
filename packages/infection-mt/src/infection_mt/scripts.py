"""Entry points of the original's scripts: the same names and flags over the same code as ``infection-mt``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from infection_mt.cli import add_run_options
from medshared.command_line import guarded
from medshared.processes import several_processes


def train_multitask(argv: Sequence[str] | None = None) -> int:
    """Run ``train_multitask.py``: one multi-task run."""
    parser = argparse.ArgumentParser(
        description="Train the multi-task model (infected/uninfected and hours)."
    )
    add_run_options(parser)
    parser.add_argument(
        "--num-folds", dest="folds", type=int, help="k-fold cross-validation instead of one run"
    )
    parser.add_argument("--fold", type=int, help="only this fold (1-based)")
    parser.add_argument("--eval-only", action="store_true", help="score the finished run in --output again")
    arguments = parser.parse_args(argv)
    if arguments.eval_only:
        return guarded(_rescore, arguments)
    return guarded(_train, arguments)


def train_multitask_cv(argv: Sequence[str] | None = None) -> int:
    """Run ``train_multitask_cv.py``: k folds."""
    return guarded(_train_folds, _fold_arguments("Train the multi-task model over k folds.", argv))


def train_regression_cv(argv: Sequence[str] | None = None) -> int:
    """Run ``train_regression_cv.py``: k folds of the time regressor alone."""
    return guarded(_train_regression, _fold_arguments("Train the time regressor over k folds.", argv))


def analyze_multitask_results(argv: Sequence[str] | None = None) -> int:
    """Run ``analyze_multitask_results.py``: curves, scatter and text summary of a run."""
    parser = argparse.ArgumentParser(description="Curves, scatter and text summary of a run.")
    parser.add_argument("--result-dir", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--output-dir", type=Path, help="where plots and summary go (default: the run directory)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return guarded(_analyze, parser.parse_args(argv))


def _fold_arguments(text: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text)
    add_run_options(parser)
    parser.add_argument("--num-folds", dest="folds", type=int, default=5)
    parser.add_argument("--output-dir", dest="output", type=Path, help="same as --output")
    parser.add_argument("--fold", type=int, help="only this fold (1-based), as a job of an array")
    return parser.parse_args(argv)


@several_processes
def _train(arguments: argparse.Namespace) -> int:
    from infection_mt import commands

    return commands.train(arguments)


def _rescore(arguments: argparse.Namespace) -> int:
    from infection_mt.rescoring import rescore

    if arguments.output is None:
        raise ValueError("--eval-only needs --output, the directory of the finished run")
    rescore(arguments.output, arguments.output / "evaluation", device=arguments.device)
    return 0


@several_processes
def _train_folds(arguments: argparse.Namespace) -> int:
    from infection_mt import commands

    # The k-fold scripts of the original always anneal, down over all epochs unless t_max says otherwise.
    return commands.train_with_defaults(
        arguments, {"experiment_name": "multitask_cv", "scheduler": {"eta_min": 1e-6}}
    )


@several_processes
def _train_regression(arguments: argparse.Namespace) -> int:
    from infection_mt import commands

    defaults = {
        "experiment_name": "regression_cv",
        "task": {"type": "regression"},
        "regression": {},
        "training": {"epochs": 30},
        "scheduler": {"eta_min": 1e-6},
    }
    return commands.train_with_defaults(arguments, defaults)


def _analyze(arguments: argparse.Namespace) -> int:
    from infection_mt.analysis.run_analysis import analyze_run

    analyze_run(arguments.result_dir, arguments.output_dir)
    return 0
