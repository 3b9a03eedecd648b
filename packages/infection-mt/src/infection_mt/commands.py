"""What each verb of the command line does; one short function a verb."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infection_mt.config import Config
from medshared.configuration import load_config, load_yaml_or_json, merge_mappings
from medshared.files import read_json
from medshared.processes import require_one_process, several_processes, started_processes

if TYPE_CHECKING:
    from infection_mt.training import RunOptions

logger = logging.getLogger(__name__)

NO_EFFECT = {
    "training.checkpoint_dir": "checkpoints lie in the run directory",
}


def load_run_config(
    arguments: argparse.Namespace, extra: Mapping[str, Any] | None = None, *, used: Sequence[str] = ()
) -> Config:
    """Read the configuration and lay the command line over it.

    Args:
        arguments: Of :func:`infection_mt.cli.add_run_options`.
        extra: Further keys of the calling script, weakest: the file wins over them.
        used: Keys of :data:`NO_EFFECT` that the calling script does use.

    Raises:
        medshared.configuration.ConfigError: With every problem of the file.
    """
    mapping = merge_mappings(extra or {}, load_yaml_or_json(arguments.config))
    flags: dict[str, Any] = {}
    if arguments.faithful:
        flags["faithful"] = True
    if arguments.precision:
        flags["training"] = {"precision": arguments.precision}
    if arguments.logger:
        flags["logging"] = {"logger": arguments.logger}
    if getattr(arguments, "task", None) in ("multitask", "classification", "regression"):
        flags["task"] = {"type": arguments.task}
    mapping = merge_mappings(mapping, flags)
    if arguments.demo:
        from infection_mt.demo import with_demo_data

        mapping = with_demo_data(mapping, arguments.output or Path(mapping.get("output_dir", "outputs")))
    config = load_config(Config, mapping, arguments.overrides, label=str(arguments.config))
    for key, reason in NO_EFFECT.items():
        section, name = key.split(".")
        if key not in used and (mapping.get(section) or {}).get(name) is not None:
            logger.warning("%s has no effect: %s", key, reason)
    return config


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """Collect the flags that do not belong into a configuration."""
    from infection_mt.training import RunOptions

    return RunOptions(device=arguments.device, resume=arguments.resume, download=arguments.download)


def together(arguments: argparse.Namespace, load: Callable[[], Config]) -> tuple[Config, RunOptions]:
    """Let the processes of a run meet; process 0 reads the configuration first, which may make demonstration data.

    Args:
        arguments: Of :func:`infection_mt.cli.add_run_options`.
        load: Reads the configuration.
    """
    options = run_options(arguments)
    if started_processes().count == 1:
        return load(), options
    from medshared.distributed import first_goes_ahead, open_fabric
    from medshared.gpu import select_device

    open_fabric(select_device(options.device))
    with first_goes_ahead():
        return load(), options


def run_folder(arguments: argparse.Namespace, config: Config, suffix: str = "") -> Path:
    """Return the run directory: ``--output``, or ``output_dir/experiment_name/run_id``."""
    from medshared.distributed import shared_object

    if arguments.output is not None:
        return arguments.output
    run_id = config.run_id or datetime.now().strftime("%Y%m%d-%H%M%S")
    # Process 0's clock names the folder.
    return shared_object(config.output_dir / config.experiment_name / f"{run_id}{suffix}")


@several_processes
def train(arguments: argparse.Namespace) -> int:
    """Train one run, folds, seeds, or all three tasks."""
    return train_with_defaults(arguments, {})


def train_with_defaults(arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> int:
    """Train what the command line asks for.

    Args:
        arguments: Of :func:`infection_mt.cli.add_run_options` and of the verb or script.
        defaults: Keys of the calling script that the configuration file may replace.
    """
    config, options = together(arguments, lambda: load_run_config(arguments, defaults))
    folds = getattr(arguments, "folds", None)
    if folds is not None:
        config = config.model_copy(update={"cv": config.cv.model_copy(update={"num_folds": folds})})
    if arguments.resume and arguments.output is None and config.run_id is None:
        raise ValueError("--resume needs to know which run: give --output RUN, or set run_id")
    if config.cv.num_folds > 1:
        from infection_mt.crossval import cross_validate

        only = None if getattr(arguments, "fold", None) is None else arguments.fold - 1
        if only is not None and not 0 <= only < config.cv.num_folds:
            raise ValueError(f"--fold {arguments.fold}: expected 1 to {config.cv.num_folds}")
        cross_validate(
            config, run_folder(arguments, config, f"_{config.cv.num_folds}fold"), options, only=only
        )
        return 0
    if getattr(arguments, "seeds", None):
        require_one_process("--seeds", "make each seed a run of its own, then use infection-mt ensemble")
        from infection_mt.crossval import repeat_seeds

        repeat_seeds(config, run_folder(arguments, config), options, arguments.seeds)
        return 0
    if getattr(arguments, "task", None) == "all":
        require_one_process("--task all", "train each task on its own, then use infection-mt compare")
        from infection_mt.comparison import train_all_tasks

        train_all_tasks(config, run_folder(arguments, config), options)
        return 0
    from infection_mt.training import train_run

    folder = run_folder(arguments, config)
    train_run(config, folder, options)
    logger.info("results: %s", folder / "report.html")
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demonstration."""
    from infection_mt.demo import run_demo as demo

    demo(arguments.output, seed=arguments.seed, device=arguments.device)
    return 0


def prepare(arguments: argparse.Namespace) -> int:
    """Check the data and build the frame cache."""
    from infection_mt.data.audit import audit

    config = load_run_config(arguments)
    output = arguments.output or config.output_dir / "prepare"
    return audit(config, output, duplicates=arguments.duplicates)


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a trained run again, on its own test set or on other data."""
    from infection_mt.rescoring import rescore

    rescore(
        arguments.run,
        arguments.output or arguments.run / "evaluation",
        manifest=arguments.manifest,
        split=arguments.split,
        device=arguments.device,
    )
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Predict new stacks; exit code 1 when any of them failed."""
    from infection_mt.plate_report import write_plate_report
    from infection_mt.prediction import (
        PredictionSettings,
        find_stacks,
        load_ensemble,
        parse_layout,
        predict_stacks,
    )
    from medshared.gpu import select_device

    ensemble = load_ensemble(arguments.weights, select_device(arguments.device))
    settings = PredictionSettings(
        frames_per_hour=arguments.frames_per_hour,
        stride=arguments.stride,
        batch_size=arguments.batch_size,
        threshold=arguments.threshold,
        layout=parse_layout(arguments.plate_layout),
        max_positions=arguments.max_positions,
        clamp_range=tuple(arguments.clamp) if arguments.clamp else None,
    )
    again = arguments.resume
    while True:
        report = predict_stacks(
            find_stacks(arguments.stacks), ensemble, arguments.output, settings, resume=again
        )
        write_plate_report(arguments.output, report, settings)
        logger.info(
            "%d stacks predicted, %d unchanged, %d failed: %s",
            report.done,
            report.reused,
            len(report.failed),
            arguments.output / "report.html",
        )
        if arguments.watch is None:
            return 1 if report.failed else 0
        again = True
        time.sleep(arguments.watch)


def report(arguments: argparse.Namespace) -> int:
    """Write a run's report again."""
    from infection_mt.reporting import rewrite_report

    logger.info("%s", rewrite_report(arguments.run, arguments.output))
    return 0


def analyze(arguments: argparse.Namespace) -> int:
    """Write curves, scatter and summary of a run."""
    from infection_mt.analysis.run_analysis import analyze_run

    for path in analyze_run(arguments.run, arguments.output):
        logger.info("%s", path)
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """Write Grad-CAM pictures."""
    from infection_mt.cam_pictures import write_cam_pictures

    write_cam_pictures(
        arguments.run,
        arguments.output or arguments.run / "cam",
        split=arguments.split,
        num_samples=arguments.num_samples,
        seed=arguments.seed,
        colour_map=arguments.cmap,
        device=arguments.device,
    )
    return 0


def search(arguments: argparse.Namespace) -> int:
    """Search hyper-parameters on the validation set."""
    from infection_mt.search import read_space
    from infection_mt.search import search as run_search

    config = load_run_config(arguments)
    best = run_search(
        config,
        run_folder(arguments, config, "_search"),
        run_options(arguments),
        trials=arguments.trials,
        space=read_space(arguments.space),
        sampler=arguments.sampler,
    )
    logger.info("best trial %d: %s = %.4f with %s", *best.values())
    return 0


def ensemble(arguments: argparse.Namespace) -> int:
    """Average finished runs."""
    from infection_mt.ensemble import evaluate_ensemble

    config = Config.model_validate(read_json(arguments.runs[0] / "results.json")["config"])
    evaluate_ensemble(arguments.runs, arguments.output, config)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Compare runs frame by frame."""
    from infection_mt.comparison import compare_runs

    compare_runs(arguments.runs, arguments.output)
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this machine and installation can do."""
    from infection_mt.doctor import describe_machine

    for line in describe_machine():
        logger.info("%s", line)
    return 0


def temporal(arguments: argparse.Namespace) -> int:
    """Write the windows of a run, or of its folds and their means."""
    from infection_mt.studies.temporal import rewrite_windows

    return rewrite_windows(argparse.Namespace(**vars(arguments), result_dir=arguments.run))


def errors(arguments: argparse.Namespace) -> int:
    """Write every error study that the outputs of a run or its folds allow."""
    from infection_mt.studies.errors import all_errors

    all_errors(arguments.run, arguments.output or arguments.run / "errors")
    return 0
