"""What each verb of the command line does; one short function a verb."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from aespa.config import DATASETS, Config
from aespa.errors import DataError
from aespa.flags import config_mapping, warn_ignored
from medshared.configuration import load_config, load_yaml_or_json
from medshared.processes import several_processes

logger = logging.getLogger(__name__)


def read_config(arguments: argparse.Namespace, changes: dict[str, Any] | None = None) -> Config:
    """Read ``-config``, lay the flags over it, and check the result.

    Args:
        arguments: Of :func:`aespa.flags.add_run_options`.
        changes: Keys that win over both.

    Raises:
        medshared.configuration.ConfigError: With every problem.
    """
    mapping: dict[str, Any] = load_yaml_or_json(arguments.config) if arguments.config else {}
    label = str(arguments.config) if arguments.config else "command line"
    config = load_config(Config, mapping | config_mapping(arguments) | (changes or {}), label=label)
    if config.dataset is None:
        raise DataError(f"-dataset: needed, one of {', '.join(DATASETS)}")
    return config


@several_processes
def train(arguments: argparse.Namespace) -> int:
    """Train one run."""
    from aespa.original_files import run_folder
    from aespa.training import train_run

    warn_ignored(arguments)
    config = read_config(arguments, _demo_changes(arguments))
    folder: Path | None = arguments.output
    resume = arguments.resume is not None
    if resume:
        folder = arguments.resume if isinstance(arguments.resume, Path) else folder
        if folder is None:
            raise ValueError("-resume: give the directory of the run to continue, or -output")
        if (folder / "results.json").is_file():
            logger.info("%s: finished already", folder)
            return 0
    train_run(config, folder or run_folder(config.log_root, config.exp_name), resume=resume)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a checkpoint on the test split."""
    from aespa.evaluating import evaluate_run
    from aespa.original_files import run_folder

    warn_ignored(arguments)
    config = read_config(arguments, _demo_changes(arguments))
    folder = arguments.output or run_folder(config.log_root, f"{config.exp_name}_val")
    results = evaluate_run(config, folder, plain=arguments.plain)
    metrics = results["metrics"]
    logger.info(
        "Dice to the followed rater: round 0 %.4f, late rounds %.4f; %s",
        metrics["dice_r0"],
        metrics["dice_late"],
        folder,
    )
    return 0


def _demo_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.demo:
        return {}
    from aespa.demo import demo_run_changes

    return demo_run_changes(arguments)


def prepare(arguments: argparse.Namespace) -> int:
    """Cut volumes into slices, check a data set, or draw one."""
    return {"mbhseg": process_mbhseg, "check": check, "synthetic": synthetic}[arguments.kind](arguments)


def process_mbhseg(arguments: argparse.Namespace) -> int:
    """Cut volumes into slices."""
    from aespa.prepare.mbhseg import process_mbhseg as process

    return process(
        arguments.source,
        arguments.out,
        level=arguments.level,
        width=arguments.width,
        jobs=arguments.jobs,
        overwrite=arguments.overwrite,
        shard=arguments.shard,
    )


def check(arguments: argparse.Namespace) -> int:
    """Read every file of a data set and name all that are wrong."""
    from aespa.data.checking import check_data

    config = read_config(arguments)
    problems = check_data(config)
    errors = [problem for problem in problems if problem.severity == "error"]
    for problem in problems:
        level = logging.ERROR if problem.severity == "error" else logging.WARNING
        logger.log(level, "%s: %s", problem.item, problem.message)
    logger.info("%s: %d errors, %d warnings", config.data_path, len(errors), len(problems) - len(errors))
    return 1 if errors else 0


def synthetic(arguments: argparse.Namespace) -> int:
    """Draw a data set."""
    from aespa.synthetic import make_demo_data

    made = make_demo_data(
        arguments.output, arguments.dataset, arguments.n_train, arguments.n_test, arguments.seed
    )
    logger.info("%s", made)
    return 0


def experiments(arguments: argparse.Namespace) -> int:
    """List the original's experiments, or run some."""
    from aespa.experiments import run_experiments

    return run_experiments(
        arguments.names,
        data=arguments.data,
        sam_ckpt=arguments.sam_ckpt,
        log_root=arguments.log_root,
        device=arguments.device,
        only=arguments.only,
        dry_run=arguments.dry_run,
    )


def predict(arguments: argparse.Namespace) -> int:
    """Segment images and volumes."""
    from aespa.prediction import predict as run
    from aespa.prediction_options import options_from_arguments

    return run(options_from_arguments(arguments))


def serve(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from aespa.page.options import page_options
    from aespa.page.serving import serve as run

    return run(page_options(arguments))


def run_demo(arguments: argparse.Namespace) -> int:
    """Draw data, train, evaluate, report."""
    from aespa.demo import run_demo as run

    run(arguments.output, seed=arguments.seed, device=arguments.device)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write ``report.html`` of a run again from its files."""
    from aespa.reporting import write_report

    sys.stdout.write(f"{write_report(arguments.run)}\n")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this machine and installation can do."""
    from aespa.doctor import diagnose

    return diagnose()
