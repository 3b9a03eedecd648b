"""What each verb of the command line does; one short function a verb."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmil.config import Config, Handler
from advmil.config_rules import check_config, dead_keys, with_task_format
from advmil.grid import GridRun, expand_grid, point_suffix
from medshared.command_line import RunInterruptedError
from medshared.configuration import apply_overrides, load_config, load_yaml_or_json
from medshared.processes import require_one_process, several_processes, started_processes

if TYPE_CHECKING:
    from medshared.process import StopSignal

logger = logging.getLogger(__name__)


def load_runs(arguments: argparse.Namespace) -> tuple[Handler, list[tuple[GridRun, Config]]]:
    """Read the configuration, lay the command line over it, expand the grid and check every run.

    Args:
        arguments: Of :func:`advmil.cli.add_run_options`.

    Raises:
        medshared.configuration.ConfigError: With every problem of the file.
        ValueError: A required flag is missing or unknown.
    """
    label = str(arguments.config) if arguments.config else "configuration"
    mapping: dict[str, Any] = load_yaml_or_json(arguments.config) if arguments.config else {}
    recorded = mapping.pop("handler", None)  # in the config.yaml of a run
    handler = _handler(arguments.handler or recorded)
    if arguments.demo:
        from advmil.demo import with_demo_data

        mapping = with_demo_data(mapping, handler, arguments.output or Path("runs/advmil-synthetic"))
    elif not arguments.config:
        raise ValueError("--config is missing; give a YAML file such as config/cfg_nlst.yaml, or --demo")
    mapping = apply_overrides(mapping | _flags(arguments), arguments.overrides)
    for key in dead_keys(set(mapping)):
        logger.warning("%s: key %r has no effect", label, key)
    runs = []
    for run in expand_grid(mapping, multi_run=arguments.multi_run, label=label):
        config = with_task_format(load_config(Config, run.config, label=label), handler)
        check_config(config, handler, label)
        runs.append((run, config))
    return handler, runs


def _handler(name: str | None) -> Handler:
    if name is None:
        raise ValueError("--handler is missing; give adv (AdvMIL) or base (baselines)")
    if name not in ("adv", "base"):
        raise ValueError(f"--handler {name}: expected adv (AdvMIL) or base (baselines)")
    return "adv" if name == "adv" else "base"


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration keys that flags set."""
    flags: dict[str, Any] = {}
    if arguments.faithful:
        flags["faithful"] = True
    for name in ("precision", "logger", "device"):
        if getattr(arguments, name, None):
            flags[name] = getattr(arguments, name)
    if arguments.output is not None:
        flags["save_path"] = str(arguments.output)
    return flags


@several_processes
def train(arguments: argparse.Namespace) -> int:
    """Train one run or a grid of runs, or run the test mode, as the configuration says."""
    from medshared.distributed import by_first, shared_object, stopped_together
    from medshared.process import StopSignal

    if arguments.demo:
        require_one_process("--demo")
    handler, runs = load_runs(arguments)
    if len(runs) > 1:
        require_one_process("a grid of runs", "start each of its runs on its own, as jobs of an array")
    if runs[0][1].test:
        require_one_process("the test mode")
    if started_processes().count > 1:
        from advmil.trainer import join_processes

        join_processes(runs[0][1].resolved(), arguments.device)
    folders = _run_folders([config for _, config in runs], arguments)
    if arguments.list:
        sys.stdout.write("".join(f"{folder}\n" for folder in folders))
        return 0
    if arguments.only is not None:
        runs, folders = _only(arguments.only, runs, folders)
    failed: list[str] = []
    with StopSignal() as stop:
        for (_, config), folder in zip(runs, folders, strict=True):
            if stopped_together(stop):
                raise RunInterruptedError(f"stopped by {stop.name} before {folder}; --resume continues")
            if arguments.resume and shared_object((folder / "results.json").is_file()):
                by_first(partial(_leave_alone, folder, config))
                continue
            try:
                _train_one(config, handler, folder, arguments, stop)
            except RunInterruptedError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                if len(runs) == 1:
                    raise
                logger.error("%s failed: %s", folder, error)
                failed.append(str(folder))
    if len(runs) > 1:
        from advmil.summary import write_summary

        pairs = zip(runs, folders, strict=True)
        done = [(run.point, folder) for (run, _), folder in pairs if (folder / "results.json").is_file()]
        if done:
            write_summary(arguments.output or Path(_common_path(runs)), done)
    if failed:
        logger.error("%d of %d runs failed: %s", len(failed), len(runs), ", ".join(failed))
        return 1
    return 0


def _only(
    number: int, runs: list[tuple[GridRun, Config]], folders: list[Path]
) -> tuple[list[tuple[GridRun, Config]], list[Path]]:
    """Return one run of the grid and its folder."""
    if not 1 <= number <= len(runs):
        raise ValueError(f"--only {number}: the grid has the runs 1 to {len(runs)} (--list names them)")
    return runs[number - 1 : number], folders[number - 1 : number]


def _common_path(runs: list[tuple[GridRun, Config]]) -> str:
    """Return the ``save_path`` without the axes of the grid: where the summary goes."""
    run, config = runs[0]
    return config.save_path.removesuffix(point_suffix(run.point))


def _run_folders(configs: Sequence[Config], arguments: argparse.Namespace) -> list[Path]:
    """Return the folder of each run.

    Raises:
        ValueError: Two runs would write into one folder.
    """
    folders = [_run_folder(config, arguments) for config in configs]
    doubled = next((folder for folder in folders if folders.count(folder) > 1), None)
    if doubled is not None:
        raise ValueError(
            f"{folders.count(doubled)} runs of the grid would write into {doubled}; put {{}} for test_mask_ratio and "
            "data_split_seed into test_save_path, or give --output, below which every run has a name of its own"
        )
    return folders


def _run_folder(config: Config, arguments: argparse.Namespace) -> Path:
    if not config.test or arguments.output is not None:
        return Path(config.save_path)
    path = config.test_save_path or ""
    for value in (config.test_mask_ratio, config.data_split_seed):
        path = path.replace("{}", str(value), 1)
    return Path(path)


def _leave_alone(folder: Path, config: Config) -> None:
    """Leave a finished run as it is; only the page is written where the run was killed while drawing it."""
    logger.info("%s: already finished", folder)
    if not config.test and not (folder / "report.html").is_file():
        from advmil.reporting import write_run_report

        write_run_report(folder)


def _train_one(
    config: Config, handler: Handler, folder: Path, arguments: argparse.Namespace, stop: StopSignal
) -> None:
    if config.test:
        from advmil.test_mode import run_test_mode

        run_test_mode(config, folder, device=arguments.device, resume=arguments.resume)
        return
    from advmil.training import train_run

    train_run(config, handler, folder, device=arguments.device, resume=arguments.resume, stop=stop)


def check(arguments: argparse.Namespace) -> int:
    """Check that table, splits and feature files of a configuration fit together."""
    mapping = apply_overrides(load_yaml_or_json(arguments.config), arguments.overrides)
    recorded = mapping.pop("handler", None)  # in the config.yaml of a run
    handler = _handler(arguments.handler or recorded or "adv")
    from advmil.data_check import check_run_data

    problems: list[str] = []
    checked: set[tuple[str, ...]] = set()
    for run in expand_grid(mapping, multi_run=True, label=str(arguments.config)):
        config = with_task_format(load_config(Config, run.config, label=str(arguments.config)), handler)
        check_config(config, handler, str(arguments.config))
        found = check_run_data(config.resolved(), checked)
        problems += [line for line in found if line not in problems]
    for line in problems:
        logger.error(line)
    logger.info("%d problem%s", len(problems), "" if len(problems) == 1 else "s")
    return 1 if problems else 0


def prepare(arguments: argparse.Namespace) -> int:
    """Run the preparation of slides."""
    from advmil.prepare.pipeline import run_prepare

    return run_prepare(arguments)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demonstration."""
    from advmil.demo import run_demo as demo

    demo(
        arguments.output,
        seed=arguments.seed,
        device=arguments.device,
        table=arguments.table,
        splits=arguments.splits,
        fold=arguments.fold,
    )
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this machine and installation can do."""
    from advmil.doctor import diagnose

    return diagnose()


def evaluate(arguments: argparse.Namespace) -> int:
    """Score runs by the field's metrics."""
    from advmil.run_evaluation import evaluate_runs

    evaluate_runs(
        arguments.runs,
        set_name=arguments.set_name,
        resamples=arguments.resamples,
        seed=arguments.seed,
        output=arguments.output,
    )
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Compare two models on the same patients."""
    from advmil.run_evaluation import compare_runs

    compare_runs(
        arguments.a,
        arguments.b,
        set_name=arguments.set_name,
        resamples=arguments.resamples,
        seed=arguments.seed,
        output=arguments.output,
    )
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Predict new slides or bags."""
    from advmil.prediction import predict_new

    return predict_new(arguments)


def heatmap(arguments: argparse.Namespace) -> int:
    """Draw attention over slides."""
    from advmil.heatmap import draw_heatmaps

    return draw_heatmaps(arguments)


def report(arguments: argparse.Namespace) -> int:
    """Write ``report.html`` of a run again."""
    from advmil.reporting import write_run_report

    write_run_report(arguments.run)
    return 0
