"""What each verb of the command line does; one short function a verb."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from medshared.command_line import RunInterruptedError
from medshared.configuration import load_config, load_yaml_or_json
from medshared.process import StopSignal
from medshared.processes import require_one_process, several_processes, started_processes
from til_mtl.config import Config
from til_mtl.errors import DataError
from til_mtl.flags import config_mapping, warn_ignored

logger = logging.getLogger(__name__)


def read_config(arguments: argparse.Namespace, changes: dict[str, Any] | None = None) -> Config:
    """Read ``--config``, lay the flags over it, and check the result.

    Args:
        arguments: Of :func:`til_mtl.flags.add_run_options`.
        changes: Keys that win over both.

    Raises:
        medshared.configuration.ConfigError: With every problem.
    """
    mapping: dict[str, Any] = load_yaml_or_json(arguments.config) if arguments.config else {}
    label = str(arguments.config) if arguments.config else "command line"
    asked = getattr(arguments, "task", None)
    if asked is not None and mapping.get("task", asked) != asked:
        logger.warning("%s has task: %s, but this trains %s", label, mapping["task"], asked)
    return load_config(Config, mapping | config_mapping(arguments) | (changes or {}), label=label)


@several_processes
def train(arguments: argparse.Namespace) -> int:
    """Train one run, or one for each fold; with ``--test`` score a checkpoint instead."""
    warn_ignored(arguments)
    changes: dict[str, Any] = {}
    if arguments.demo:
        from til_mtl.demo import demo_run_changes

        require_one_process("--demo")
        changes = demo_run_changes(arguments)
    config = read_config(arguments, changes)
    if arguments.test:
        require_one_process("--test")
        return _test(config, arguments)
    if arguments.ckpt_path is not None:
        raise ValueError(
            "--ckpt_path is the checkpoint of --test; --resume_from_checkpoint continues training"
        )
    if started_processes().count > 1:
        from til_mtl.trainer import make_fabric

        make_fabric(config.resolved())
    if arguments.folds:
        if len(arguments.folds) > 1:
            require_one_process("--folds", "train each fold as a run of its own")
        return _train_folds(config, arguments)
    _train_one(config, _folder(config, arguments), arguments, None)
    return 0


def _folder(config: Config, arguments: argparse.Namespace) -> Path:
    from medshared.distributed import shared_object
    from til_mtl.training import next_version

    if arguments.output is not None:
        return arguments.output
    if arguments.resume:
        raise ValueError("--resume needs --output, the directory of the run to continue")
    return shared_object(next_version(config.log_dir))


def _train_one(
    config: Config, folder: Path, arguments: argparse.Namespace, stop: StopSignal | None
) -> dict[str, Any]:
    from medshared.distributed import shared_object
    from til_mtl.trainer import RunOptions
    from til_mtl.training import train_run

    if arguments.resume and shared_object((folder / "results.json").is_file()):
        from medshared.files import read_json

        logger.info(
            "%s: finished already; --resume_from_checkpoint %s with another --output trains on",
            folder,
            folder / "checkpoints" / "last.pt",
        )
        return read_json(folder / "results.json")
    checkpoint = getattr(arguments, "resume_from_checkpoint", None)
    options = RunOptions(arguments.resume, checkpoint, arguments.download)
    return train_run(config, folder, options, stop=stop)


def _train_folds(config: Config, arguments: argparse.Namespace) -> int:
    from medshared.distributed import is_first, stopped_together
    from til_mtl.folds import fold_config, write_fold_summary

    root = _folder(config, arguments)
    failed, done = [], {}
    with StopSignal() as stop:
        for fold in arguments.folds:
            folder = root / f"fold{fold}"
            if stopped_together(stop):
                raise RunInterruptedError(f"stopped by {stop.name} before {folder}; --resume continues")
            try:
                done[fold] = _train_one(fold_config(config, fold), folder, arguments, stop)
            except RunInterruptedError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                logger.error("%s failed: %s", folder, error)
                failed.append(str(folder))
    if done and is_first():
        write_fold_summary(root, done)
    if failed:
        logger.error("%d of %d folds failed: %s", len(failed), len(arguments.folds), ", ".join(failed))
    return 1 if failed else 0


def _test(config: Config, arguments: argparse.Namespace) -> int:
    from til_mtl.rescoring import rescore

    if arguments.ckpt_path is None:
        raise ValueError("--test needs --ckpt_path, the checkpoint to score on the test split")
    output = arguments.output or arguments.ckpt_path.parent / "test"
    rescore(arguments.ckpt_path, output, config=config, set_name="test")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Train the three networks on the same folds and write one table with paired intervals."""
    from til_mtl.compare import Comparison, run_comparison

    comparison = Comparison(
        config=read_config(arguments),
        folds=arguments.folds,
        only=tuple(arguments.only or ()),
        output=arguments.output,
        resume=arguments.resume,
        download=arguments.download,
        resamples=arguments.resamples,
    )
    return run_comparison(comparison)


def prepare(arguments: argparse.Namespace) -> int:
    """Turn the TIGER download into patch folders."""
    from til_mtl.prepare.options import options_from_arguments
    from til_mtl.prepare.tiger_patches import prepare_tiger

    return prepare_tiger(options_from_arguments(arguments))


def predict(arguments: argparse.Namespace) -> int:
    """Run slides through the networks and score them, or regions for leaderboard 1."""
    from til_mtl.slides.options import slide_options
    from til_mtl.slides.pipeline import run_slides
    from til_mtl.slides.regions import run_regions

    options = slide_options(arguments)
    return run_slides(options) if options.regions is None else run_regions(options)


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a run, a table of TIL scores, or regions."""
    handlers = {"run": evaluate_run, "scores": evaluate_score_table, "l1": evaluate_regions}
    return handlers[arguments.kind](arguments)


def evaluate_run(arguments: argparse.Namespace) -> int:
    """Score a run's checkpoint on the patches of a set again."""
    from til_mtl.rescoring import rescore

    is_run = arguments.run.is_dir()
    checkpoint = arguments.run / "checkpoints" / "best.pt" if is_run else arguments.run
    home = arguments.run if is_run else arguments.run.parent
    changes = {"device": arguments.device}
    if arguments.data_dir is not None:
        changes["data_dir"] = arguments.data_dir
    rescore(checkpoint, arguments.output or home / "evaluation", changes=changes, set_name=arguments.set_name)
    return 0


def evaluate_score_table(arguments: argparse.Namespace) -> int:
    """Compare predicted TIL scores with visual ones."""
    from til_mtl.score_evaluation import ScoreEvaluation, evaluate_scores

    evaluation = ScoreEvaluation(
        predictions=arguments.pred,
        truth=arguments.truth,
        survival=arguments.survival,
        calibrate=arguments.calibrate,
        folds=arguments.cv,
        resamples=arguments.bootstrap,
        seed=arguments.seed,
        output=arguments.output or arguments.pred.parent,
    )
    evaluate_scores(evaluation)
    return 0


def evaluate_regions(arguments: argparse.Namespace) -> int:
    """Score predicted regions by TIGER's leaderboard 1."""
    from til_mtl.leaderboard import evaluate_l1

    output = arguments.output or arguments.pred
    evaluate_l1(arguments.pred, arguments.truth, arguments.mpp, arguments.radius_px, output)
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Make synthetic data, prepare, train, score slides, report."""
    from til_mtl.demo import run_demo as run

    run(arguments.output, seed=arguments.seed, device=arguments.device)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write ``report.html`` of a run again from its files."""
    from til_mtl.reporting import rewrite_run_report

    if not (arguments.run / "results.json").is_file():
        raise DataError(f"{arguments.run}: no results.json; give the directory of a finished run")
    logger.info("%s", rewrite_run_report(arguments.run))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this machine and installation can do."""
    from til_mtl.doctor import diagnose

    return diagnose()
